"""The key service in memory, for these tests."""

from tests.support import cipher, encrypt, service

__all__ = ["cipher", "encrypt", "service"]
