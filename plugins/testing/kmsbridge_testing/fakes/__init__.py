"""Fakes with a network or a key pair, and the harnesses of all fakes: what the suite itself is tested with."""
