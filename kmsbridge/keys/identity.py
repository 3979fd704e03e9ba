"""Which key it is, and which version of it."""

from __future__ import annotations

from typing import Any

from kmsbridge.driver import KeyDriver, WrappedKey
from kmsbridge.errors import ConfigError
from kmsbridge.keys.validation import utf8_length
from kmsbridge.message import MAX_KEY_ID


class KeyIdentity:
    """A key's name in the configuration, its driver's scheme, and its id, once that is known.

    `key_id` is empty until then. As text it is the id, or a description of the key.
    """

    __slots__ = ("key_id", "name", "scheme")

    def __init__(self, name: str, scheme: str) -> None:
        self.name, self.scheme = name, scheme
        self.key_id = ""

    def check(self, key_id: Any) -> str:
        """Return the id that the driver told. Raise `ConfigError` for one that does not fit into a
        message.
        """
        if (
            not isinstance(key_id, str)
            or not key_id.startswith(f"{self.scheme}:")
            or not len(self.scheme) + 1 < utf8_length(key_id) <= MAX_KEY_ID
        ):
            raise ConfigError(
                f"the {self.scheme} driver's key id is not 'scheme:name' of at most {MAX_KEY_ID} bytes",
                remedy="shorten the key's name, or report it to the driver's author",
            )
        return key_id

    def __str__(self) -> str:
        return self.key_id or f"{self.scheme} key {self.name!r}"


def version_of(driver: KeyDriver, wrapped: WrappedKey) -> str:
    """Return the version that wrapped it: from its bytes where they tell, else what it is labelled with."""
    version = driver.version_of(wrapped.ciphertext)
    return wrapped.version if version is None else version
