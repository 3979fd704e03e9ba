"""Every call to a driver goes through here: deadline, retries, error classes, checks of what comes back.

This is the one retry layer: drivers and their SDKs retry nothing.
"""

from kmsbridge.keys.managed import Answer, ManagedKey

__all__ = ["Answer", "ManagedKey"]
