"""Records what a call does with Python's sockets, from the interpreter's audit events."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from typing import Any

_watched: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("watched", default=None)
_hooked = False


def network_events_of(call: Callable[[], object]) -> list[str]:
    """Return the network events of `call` on this thread and the library's: each event's name and address.

    It does not see threads that a driver starts itself, other processes, or clients written in C.
    """
    global _hooked  # noqa: PLW0603 - a hook cannot be removed, so there is only ever one
    if not _hooked:
        sys.addaudithook(_record)
        _hooked = True
    events: list[str] = []
    token = _watched.set(events)
    try:
        call()
        return list(events)
    finally:
        _watched.reset(token)


def _record(event: str, arguments: Any) -> None:
    events = _watched.get()
    if events is not None and event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        events.append(f"{event} {arguments[1]!r}")
