"""The plaintext that `decrypt_secret` returns: a value that is not shown, stored or compared by accident."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from kmsbridge.errors import ClosedError, discreet
from kmsbridge.secret import Secret

T = TypeVar("T")


class SecretValue(Secret):
    """A decrypted value that shows in no repr, format, log, JSON, pickle or copy.

    `reveal()` and `reveal_text()` return it; `use()` and `use_text()` lend it to a function. Two are equal
    where they hold the same bytes, compared in constant time; one never equals `str` or `bytes`, and it has no
    hash. Use it with `with`, or call `close()`, to let go of the plaintext, which is overwritten if nothing else holds
    it. Copies of it that were made on the way stay in memory.
    """

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def reveal(self) -> bytes:
        """Return the bytes. Raises `ClosedError` after `close()`."""
        try:
            return super().reveal()
        except AttributeError:
            raise ClosedError(
                "the secret value was closed", remedy="decrypt the message again for each use"
            ) from None

    @discreet
    def reveal_text(self) -> str:
        """Return the bytes decoded as UTF-8. Raises `ValueError` where they are not, and `ClosedError`."""
        try:
            return self.reveal().decode()
        except UnicodeDecodeError:
            # The error that Python makes holds the bytes.
            raise ValueError("the secret value is not text: use reveal for bytes") from None

    @discreet
    def use(self, function: Callable[[bytes], T]) -> T:
        """Return `function(plaintext)`, where the plaintext is bytes.

        What `function` raises comes out unchanged, but for the local variables of the frames that it ran in:
        they are cleared, so that an error reporter finds no plaintext there. Raises `ClosedError`.
        """
        return function(self.reveal())

    @discreet
    def use_text(self, function: Callable[[str], T]) -> T:
        """Return `function(plaintext)`, as `use` does, where the plaintext is text.

        Raises `ValueError` where it is not UTF-8.
        """
        return function(self.reveal_text())

    def equals(self, other: Secret) -> bool:
        """Return whether both hold the same bytes, in a time that does not depend on where they differ."""
        return hmac.compare_digest(self.reveal(), other.reveal())

    def close(self) -> None:
        """Let go of the plaintext; may be repeated. What `reveal` returned before is not affected."""
        with contextlib.suppress(AttributeError):
            self.__del__()
            del self._held, self.__del__

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __eq__(self, other: object) -> bool:
        return self.equals(other) if isinstance(other, SecretValue) else NotImplemented

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> dict[str, Any]:
        # Plain data, so that the class works in pydantic's models and nothing here imports it.
        return {"type": "is-instance", "cls": cls, "serialization": {"type": "to-string"}}
