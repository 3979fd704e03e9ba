"""Drivers without an entry point, for tests: installed for a while, and counted."""

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
    """Let key URIs of these drivers' schemes find them, as if they had entry points.

    They come before drivers that are really installed under the same scheme. Ends must be nested.
    """
    with registry.replaced(*drivers):
        yield


@contextlib.contextmanager
def counted(driver: type[KeyDriver]) -> Iterator[Counter[str]]:
    """The calls by operation that drivers opened meanwhile for this one's scheme are asked to make."""
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
