"""The key service in memory, and messages for its key, for these tests."""

import pytest

from kmsbridge import EnvelopeCipher
from tests.support import cipher, encrypt, service

__all__ = ["cipher", "encrypt", "service"]


@pytest.fixture
def message(service, encrypt):
    """`x` in the context of tenant acme, with each format of body in turn, by somebody else; one wrap."""
    with EnvelopeCipher.from_uri("fake:app") as writer:
        return encrypt(writer, b"x", context={"tenant": "acme"})
