"""What encryptors and decryptors for asyncio have in common: opening and closing."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

from kmsbridge import cipher
from kmsbridge.atomic import PathLike
from kmsbridge.errors import discreet, forget_locals

INLINE: Final = 2**20
"""Payloads up to this many bytes are sealed and opened on the event loop: less than a millisecond."""

SyncT = TypeVar("SyncT", cipher.Encryptor, cipher.Decryptor, cipher.EnvelopeCipher)
MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def entry_point(method: MethodT) -> MethodT:
    """Have an error that leaves a public coroutine method audited, where it is a refusal, and show no local variables.

    The same as `kmsbridge.cipher.opened.entry_point`, for a method that must be awaited within the guard.
    """

    @functools.wraps(method)
    async def guarded(self: Opened[Any], *args: Any, **kwargs: Any) -> Any:
        try:
            try:
                return await method(self, *args, **kwargs)
            except BaseException as error:
                self._sync._failed(error, kwargs.get("context"))
                raise
        except BaseException as error:
            del args, kwargs
            forget_locals(error)
            raise

    return cast("MethodT", guarded)


class Opened(Generic[SyncT]):
    """Opening and closing. One object may serve several event loops."""

    _kind: type[Any]
    _sync: SyncT

    def __init__(self, sync: SyncT) -> None:
        self._sync = sync

    @classmethod
    @discreet
    def from_config(
        cls, path: PathLike | None = None, *, profile: str | None = None, env: Mapping[str, str] | None = None
    ) -> Self:
        """As the synchronous one; it touches no network."""
        return cls(cls._kind.from_config(path, profile=profile, env=env))

    @classmethod
    @discreet
    def from_uri(cls, uri: str, *, decrypt_uris: Sequence[str] = (), **options: Any) -> Self:
        """As the synchronous one; it touches no network."""
        return cls(cls._kind.from_uri(uri, decrypt_uris=decrypt_uris, **options))

    async def close(self) -> None:
        """Drop every data key and connection; may be repeated."""
        await asyncio.to_thread(self._sync.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"aio.{self._sync!r}"
