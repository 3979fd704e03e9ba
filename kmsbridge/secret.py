"""Values that must not be shown: key material, tokens, passphrases."""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Bytes that do not show in a repr, an error, a pickle or a copy. `reveal()` is the only way in.

    Python cannot erase memory; this type keeps a secret from leaking through what is *printed or
    stored*, and promises nothing about what a core dump holds.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    @classmethod
    def of_text(cls, text: str) -> Secret:
        """A secret given as text, kept as UTF-8."""
        return cls(text.encode("utf-8", "surrogateescape"))

    def reveal(self) -> bytes:
        """The bytes themselves."""
        return self._value

    def reveal_text(self) -> str:
        """The bytes as text, for secrets that were given as text."""
        return self._value.decode("utf-8", "surrogateescape")

    def equals(self, other: Secret) -> bool:
        """Whether both hold the same bytes; takes the same time wherever they differ."""
        return hmac.compare_digest(self._value, other._value)

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied")
