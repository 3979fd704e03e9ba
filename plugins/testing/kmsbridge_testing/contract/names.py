"""Group 9: `open` refuses names that could address something other than a key."""

from __future__ import annotations

from typing import Final

import pytest

from kmsbridge.errors import ConfigError
from kmsbridge_testing.contract.base import Cases, driver_of, needs, refused
from kmsbridge_testing.harness import Harness

HOSTILE: Final = {
    "two dots": "..",
    "parent": "../other",
    "parent amid": "a/../b",
    "slash": "a/b",
    "two slashes": "a//b",
    "slash at the start": "/a",
    "escaped slash": "a%2fb",
    "escaped slash in capitals": "a%2Fb",
    "escaped dots": "%2e%2e",
    "escaped parent": "%2e%2e%2fother",
    "slash escaped twice": "a%252fb",
    "backslash": "a\\b",
    "newline": "a\nb",
    "escaped newline": "a%0ab",
    "escaped carriage return": "a%0d%0aX-Header: b",
    "NUL": "a\0b",
    "escaped NUL": "a%00b",
    "space": "a b",
    "not UTF-8": "a%ff",
    "1025 bytes": "n" * 1025,
    "1025 bytes in 513 characters": "é" * 512 + "n",
}


class NameCases(Cases):
    """Cases for names that a provider's client might put into a path or a header."""

    @needs("named")
    @pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
    def test_hostile_name_is_refused(self, harness: Harness, name: str) -> None:
        """`ConfigError` at open, before anything is sent."""
        error = refused(lambda: driver_of(harness.named(name)).close(), ConfigError)
        assert isinstance(error, ConfigError)
        assert error.remedy
        assert not any(sign in str(error) for sign in "\n\r\0")
