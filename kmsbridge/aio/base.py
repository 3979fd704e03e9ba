"""The base class of the ciphers for asyncio: closing, and the guard around their methods."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, cast

from kmsbridge.cipher.base import Cipher, context_of
from kmsbridge.datakeys import Pairs
from kmsbridge.errors import forget_locals

if TYPE_CHECKING:
    from kmsbridge.cipher.health import Health

P = ParamSpec("P")
T = TypeVar("T")
MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def guarded(method: MethodT) -> MethodT:
    """Have an error that leaves a public coroutine method recorded, where it is a refusal, and show no local
    variables.

    The same as `kmsbridge.cipher.base.guarded`, for a method that must be awaited within the guard.
    """

    @functools.wraps(method)
    async def guard(self: AsyncCipher, *args: Any, **kwargs: Any) -> Any:
        try:
            try:
                return await method(self, *args, **kwargs)
            except BaseException as error:
                self._session.failed(error, context_of(error, kwargs))
                raise
        except BaseException as error:
            del args, kwargs
            forget_locals(error)
            raise

    return cast("MethodT", guard)


def discreet(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Clear the local variables in every exception that leaves a coroutine function, as `errors.discreet`."""

    @functools.wraps(function)
    async def guard(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            try:
                return await function(*args, **kwargs)
            except BaseException as error:
                forget_locals(error)
                raise
        except BaseException as error:
            del args, kwargs
            forget_locals(error)
            raise

    return guard


class AsyncCipher(Cipher):
    """Checking and closing, for the classes that are for asyncio. One object may serve several event loops."""

    @guarded
    async def check(self, *, probe: bool = False, context: Pairs = None) -> Health:
        """Return how the keys and caches do, as the `check` of the classes that are not for asyncio.

        With `probe` it is done on a thread. Raises `ClosedError`, and `AuditError`.
        """
        if not probe:
            return self._health(probe=False, context=context)
        return await asyncio.to_thread(self._health, probe=True, context=context)

    async def close(self) -> None:
        """Drop every data key and connection; may be repeated. Any other use afterwards raises
        `ClosedError`.
        """
        await asyncio.to_thread(self._closes.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"aio.{super().__repr__()}"
