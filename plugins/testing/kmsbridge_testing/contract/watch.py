"""What a call does with Python's own sockets, from the interpreter's audit events."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable
from typing import Any

_watched: contextvars.ContextVar[list[str] | None] = contextvars.ContextVar("watched", default=None)
_hooked = False


def network_events_of(call: Callable[[], object]) -> list[str]:
    """What of the network `call` touches, here and on the library's threads: each event's name and where it leads.

    Threads that a driver starts itself, other processes and clients written in C are not seen.
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
