"""Values that must not be shown: key material, tokens, passphrases."""

from __future__ import annotations

import hmac
from typing import NoReturn, Self


class Secret:
    """Bytes that do not show in a repr or an error and cannot be pickled or copied.

    `reveal()` and `reveal_text()` return the value. Python cannot erase memory: this type keeps a secret out of
    what is *printed or stored*, and promises nothing about what a core dump holds.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Return a secret with the UTF-8 bytes of `text`."""
        return cls(text.encode("utf-8", "surrogateescape"))

    def reveal(self) -> bytes:
        """Return the bytes."""
        return self._value

    def reveal_text(self) -> str:
        """Return the bytes decoded as UTF-8, for secrets made by `of_text`."""
        return self._value.decode("utf-8", "surrogateescape")

    def equals(self, other: Secret) -> bool:
        """Return whether both hold the same bytes. The time taken does not depend on where they differ."""
        return hmac.compare_digest(self._value, other._value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied")

    # Else Python's own would return the slots to whoever asks, as serializers do.
    __getstate__ = __reduce__
