"""The `local` driver: keys in a file on this machine, for development, tests and machines without a key service."""

from kmsbridge.drivers.local.driver import LocalDriver

__all__ = ["LocalDriver"]
