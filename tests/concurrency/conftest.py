"""The key service in memory, and a key file, for these tests."""

import pytest

from kmsbridge.drivers.local.keyfile import KeyFile
from tests.support import cipher, encrypt, service

__all__ = ["cipher", "encrypt", "service"]


@pytest.fixture
def key_file(tmp_path):
    """The URI of a local key."""
    tmp_path.chmod(0o700)
    KeyFile.create(tmp_path / "keys.json", "app")
    return f"local:{tmp_path}/keys.json#app"
