"""Fixtures for tests of applications, which pytest finds where this package is installed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from kmsbridge import EnvelopeCipher
    from kmsbridge.testing.fakes.service import FakeKey

_numbers: Final = itertools.count(1)


@pytest.fixture
def kms_key(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKey]:
    """A new key of a key service in memory, `fake:NAME`, which counts calls and can be made to fail.

    `KMSBRIDGE_KEY` names it while the test runs, so that `from_config()` and `shared()` of the application use it.
    """
    # Imported here: pytest imports this module in every run, before coverage is measured.
    from kmsbridge.testing.fakes.fake import FakeDriver
    from kmsbridge.testing.fakes.service import FakeService
    from kmsbridge.testing.install import installed

    service = FakeService()
    # Another name for each test, since `shared()` keeps the cipher of a key URI.
    key = service.create(f"test-{next(_numbers)}")
    for name in ("KMSBRIDGE_CONFIG", "KMSBRIDGE_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KMSBRIDGE_KEY", f"fake:{key.name}")
    with installed(type("FakeDriver", (FakeDriver,), {"service": service})):
        yield key


@pytest.fixture
def kms_cipher(kms_key: FakeKey) -> Iterator[EnvelopeCipher]:
    """An `EnvelopeCipher` that encrypts to `kms_key` and decrypts with it."""
    from kmsbridge import EnvelopeCipher

    with EnvelopeCipher.from_uri(f"fake:{kms_key.name}") as cipher:
        yield cipher
