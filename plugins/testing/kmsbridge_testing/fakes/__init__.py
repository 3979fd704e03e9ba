"""Fake drivers with a network or a key pair, and the harnesses of all fakes. They test the suite itself."""
