"""Real key services on this machine, for the tests and for trying things out.

A server is a class with a `name`, constructed with a folder for its data. `start()` starts it on a free port of the
loopback interface, waits until it is ready, and returns what a client must know as a dict of texts. `close()` ends it.
"""
