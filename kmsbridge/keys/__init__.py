"""A configured key: its driver, behind the rules that hold for every driver.

This is the one retry layer: drivers and their SDKs retry nothing.
"""

from kmsbridge.keys.managed import ManagedKey

__all__ = ["ManagedKey"]
