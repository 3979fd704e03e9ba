"""What a call does with Python's own sockets, from the interpreter's audit events."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

_watched = threading.local()
_hooked = False


def network_events_of(call: Callable[[], object]) -> list[str]:
    """What of the network `call` touches on this thread: each event's name and where it leads.

    Other threads, other processes and clients written in C are not seen.
    """
    global _hooked  # noqa: PLW0603 - a hook cannot be removed, so there is only ever one
    if not _hooked:
        sys.addaudithook(_record)
        _hooked = True
    _watched.events = []
    try:
        call()
        return list(_watched.events)
    finally:
        _watched.events = None


def _record(event: str, arguments: Any) -> None:
    events = getattr(_watched, "events", None)
    if events is not None and event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        events.append(f"{event} {arguments[1]!r}")
