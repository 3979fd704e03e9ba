"""Integrations with other packages, each in a module of its own; nothing else of the library imports these."""
