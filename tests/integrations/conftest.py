"""The key service in memory, for these tests."""

from tests.support import cipher, service

__all__ = ["cipher", "service"]
