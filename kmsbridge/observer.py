"""The interface for authors of metrics and audit sinks: an `Observer` is told of every call to a key
service.

The audit trail is one observer. Several can be given to a cipher, and each is told of everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from kmsbridge.driver import Operation
from kmsbridge.errors import KmsBridgeError, is_from_signal_handler

__all__ = ["NOBODY", "Call", "CallResult", "Event", "Observer", "Observers"]

WARN_EVERY: Final = 60.0
"""Seconds between two warnings about one observer that fails."""

_NO_CONTEXT: Final[Mapping[str, str]] = MappingProxyType({})


class Call(NamedTuple):
    """A call to a key service, retries included.

    `operation` is `resolve`, `wrap`, `unwrap`, `rewrap`, `describe` or `rotate`. `key_id` is the key's id;
    before that is known, a description of the key. `context` is what the service is given, with the library's
    own pair `kmsbridge`; empty for calls that use no key. `key_version` is what the wrapped key says of its
    version, and empty where nothing is unwrapped. `purpose` is `rewrap` where a data key is wrapped for
    rewrapping a message, and `verify` where the service is asked which version wrapped it; else empty. `batch` is how many items one request holds, and 0 where it holds no
    batch; `context` is that of all of them, or empty where they differ.
    """

    operation: Operation
    key_id: str
    context: Mapping[str, str] = _NO_CONTEXT
    key_version: str = ""
    purpose: str = ""
    batch: int = 0


class CallResult(NamedTuple):
    """How a call ended.

    `outcome` is `ok`, or the name of the error's class. `seconds` is the time from the first attempt to the
    end, pauses included. `attempts` counts what was sent: 0 where a call was refused before it was.
    `request_id` is the provider's, of the last attempt; empty where it gave none. `key_version` is the key's
    version where it is known. `key_id` is the key's id, which the call itself may have told; empty where it is not known.
    """

    outcome: str
    seconds: float
    attempts: int
    request_id: str
    key_version: str
    key_id: str = ""


class Event(NamedTuple):
    """Something else that is worth telling.

    `operation` is `refusal` where a message was refused: `outcome` names the error's class, and `context` is
    what the caller passed. It is `encrypt`, `decrypt` or `rewrap` where a data key was dropped, or a program
    ends: `messages` says for how many messages it was used since it was last told, and `context` and `key_id`
    are those of the data key.
    """

    operation: str
    outcome: str = "ok"
    key_id: str = ""
    key_version: str = ""
    context: Mapping[str, str] = _NO_CONTEXT
    messages: int = 0


class Observer:
    """Is told of calls and events. Every method does nothing until it is overridden.

    Methods are called on the thread that uses the cipher, by many threads at once, and the operation waits
    for them: they must be quick and safe to share. What they raise does not fail the operation, and is warned
    about once a minute; except a `KmsBridgeError`, such as `AuditError`, which does.
    """

    def call_started(self, call: Call) -> None:
        """A call is about to be made."""

    def call_finished(self, call: Call, result: CallResult) -> None:
        """The same object `call` has ended.

        Not called where an exception that the library did not cause, such as `KeyboardInterrupt`, broke the
        call off.
        """

    def event(self, event: Event) -> None:
        """Something else happened."""

    def close(self) -> None:
        """The cipher is closed. Nothing is told afterwards."""


NOBODY: Final = Observer()
"""An observer that does nothing."""


class Observers(Observer):
    """Tells several observers of everything, in their order, whatever becomes of the others."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self._warned: dict[int, float] = {}

    def call_started(self, call: Call) -> None:
        """Tell each. Raise the first `KmsBridgeError` that one raised."""
        self._tell(lambda observer: observer.call_started(call))

    def call_finished(self, call: Call, result: CallResult) -> None:
        """Tell each. Raise the first `KmsBridgeError` that one raised."""
        self._tell(lambda observer: observer.call_finished(call, result))

    def event(self, event: Event) -> None:
        """Tell each. Raise the first `KmsBridgeError` that one raised."""
        self._tell(lambda observer: observer.event(event))

    def close(self) -> None:
        """Close each. Raise the first `KmsBridgeError` that one raised."""
        self._tell(lambda observer: observer.close())

    def _tell(self, tell: Callable[[Observer], None]) -> None:
        failure: KmsBridgeError | None = None
        for observer in self._observers:
            try:
                tell(observer)
            except KmsBridgeError as error:
                failure = failure or error
            except Exception as error:  # an observer is the application's code, and may raise anything
                if is_from_signal_handler(error):
                    raise
                self._warn(observer, error)
        if failure is not None:
            raise failure

    def _warn(self, observer: Observer, error: Exception) -> None:
        now, name = time.monotonic(), type(observer).__qualname__
        if now - self._warned.get(id(observer), -WARN_EVERY) < WARN_EVERY:
            return
        self._warned[id(observer)] = now
        # Of the exception its type alone: its text may quote what the observer was told.
        import logging

        try:
            logging.getLogger("kmsbridge").warning(
                "the observer %s failed (%s)", name, type(error).__qualname__
            )
        except Exception as second:  # a logging handler of the application's
            if is_from_signal_handler(second):
                raise
