"""Context managers that make drivers available to tests, and count their calls."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from kmsbridge import registry
from kmsbridge.driver import EncryptionContext, ErrorKind, KeyDescription, KeyDriver, WrappedKey


@contextlib.contextmanager
def installed(*drivers: type[KeyDriver]) -> Iterator[None]:
    """Have key URIs of these drivers' schemes use these drivers, as if they had entry points.

    They take precedence over drivers that are registered or installed for the same scheme. Blocks must be
    properly nested: one that begins inside another also ends inside it.
    """
    with registry.replaced(*drivers):
        yield


@contextlib.contextmanager
def counted(driver: type[KeyDriver]) -> Iterator[Counter[str]]:
    """Count the calls of drivers that are opened in the block for the scheme of `driver`.

    Gives a `Counter` by method: wrap, wrap_many, unwrap, unwrap_many and describe.
    """
    calls: Counter[str] = Counter()
    lock = threading.Lock()

    def count(operation: str) -> None:
        with lock:
            calls[operation] += 1

    class Counted(driver):  # type: ignore[valid-type, misc]
        def wrap(self, plaintext: bytes, context: EncryptionContext, **how: Any) -> WrappedKey:
            count("wrap")
            return super().wrap(plaintext, context, **how)  # type: ignore[no-any-return]

        def wrap_many(
            self, items: Sequence[tuple[bytes, EncryptionContext]], **how: Any
        ) -> list[WrappedKey | ErrorKind]:
            count("wrap_many")
            return super().wrap_many(items, **how)  # type: ignore[no-any-return]

        def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, **how: Any) -> bytes:
            count("unwrap")
            return super().unwrap(wrapped, context, **how)  # type: ignore[no-any-return]

        def unwrap_many(
            self, items: Sequence[tuple[WrappedKey, EncryptionContext]], **how: Any
        ) -> list[bytes | ErrorKind]:
            count("unwrap_many")
            return super().unwrap_many(items, **how)  # type: ignore[no-any-return]

        def describe(self, **how: Any) -> KeyDescription:
            count("describe")
            return super().describe(**how)  # type: ignore[no-any-return]

    with installed(Counted):
        yield calls
