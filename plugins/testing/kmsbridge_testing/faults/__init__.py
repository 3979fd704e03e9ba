"""Faults of the network: a proxy that breaks connections, and certificates that are not valid."""
