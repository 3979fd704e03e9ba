"""The objects that hold an encrypted column's value, in a mapped object and in a statement's parameters."""

from __future__ import annotations

from typing import Any, Final

from kmsbridge.integrations.sqlalchemy.codecs import Codec
from kmsbridge.integrations.sqlalchemy.errors import EncryptedColumnError

Place = tuple[Any, ...]
"""The place that a message is bound to: the values of its row's primary key, then those of its context's columns."""

_UNKNOWN: Final = object()


class Plaintext:
    """A value that is not encrypted, or not yet. The column's type does not bind it.

    It cannot be pickled, and its repr does not show it.
    """

    __slots__ = ("_codec", "_value", "payload")

    def __init__(self, payload: bytes, codec: Codec[Any]) -> None:
        self.payload = payload
        self._codec = codec
        self._value: Any = _UNKNOWN

    @property
    def value(self) -> Any:
        """The value that the payload is read as."""
        if self._value is _UNKNOWN:
            self._value = self._codec.decode(self.payload)
        return self._value

    def __repr__(self) -> str:
        return "<Plaintext: not shown>"

    def __copy__(self) -> Plaintext:
        return self

    def __deepcopy__(self, memo: Any) -> Plaintext:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise EncryptedColumnError(
            "an object with a value that is not encrypted yet cannot be pickled",
            remedy="flush its session first",
        )


class Ciphertext:
    """A message, as the database holds it, and the place that it is bound to, where that is known.

    `opened` is its plaintext once it was decrypted, or where this process encrypted it. It belongs to this object
    and not to the row, so that a row that is loaded again is decrypted again. It is not pickled.
    """

    __slots__ = ("message", "opened", "place")

    def __init__(self, message: bytes, place: Place | None = None, opened: Plaintext | None = None) -> None:
        self.message = message
        self.place = place
        self.opened = opened

    def __bytes__(self) -> bytes:
        return self.message

    def __eq__(self, other: object) -> bool:
        return type(other) is Ciphertext and other.message == self.message

    def __hash__(self) -> int:
        return hash(self.message)

    def __repr__(self) -> str:
        return f"<Ciphertext of {len(self.message)} bytes>"

    def __copy__(self) -> Ciphertext:
        return self

    def __deepcopy__(self, memo: Any) -> Ciphertext:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Ciphertext, (self.message, self.place)
