"""Real key services on this machine, for the tests and for trying things out.

A server is a class with a `name`, made with a folder of its own. `start()` begins it on a free port of the
loopback interface and returns, once it is ready, what a client must know, all as text; `close()` ends it.
"""
