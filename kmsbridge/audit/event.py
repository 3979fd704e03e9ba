"""The events of the audit trail: names, numbers and times, never a key or a payload."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class AuditEvent(NamedTuple):
    """One use of a key.

    `operation` is wrap, unwrap, rewrap, rotate or resolve for a call to a key service; encrypt or decrypt for the
    number of messages that a cached data key served; refusal for a refused message; or, in a file only, recover.
    `outcome` is `ok` or the name of the error's class. `source` is `call` for a call, `cache` for a number of
    messages, and empty for a refusal; `messages` is that number. `request_id` is the provider's own. `time` is in
    seconds since 1970. The trail sets `time` and `profile` where they are empty.
    """

    operation: str
    outcome: str = "ok"
    key_id: str = ""
    key_version: str = ""
    context: Mapping[str, str] = MappingProxyType({})
    profile: str = ""
    request_id: str = ""
    source: str = "call"
    messages: int = 0
    attempts: int = 0
    time: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, with the time as RFC 3339 text in UTC with microseconds."""
        return {
            "time": timestamp(self.time),
            "operation": self.operation,
            "outcome": self.outcome,
            "key_id": self.key_id,
            "key_version": self.key_version,
            "context": dict(self.context),
            "profile": self.profile,
            "request_id": self.request_id,
            "source": self.source,
            "messages": self.messages,
            "attempts": self.attempts,
        }

    def as_line(self) -> str:
        """Return the event on one line for people: operation, outcome, and every other field that is not empty."""
        known = {name: value for name, value in self.as_dict().items() if value}
        rest = " ".join(f"{name}={_plain(value)}" for name, value in known.items() if name not in _FIRST)
        return f"{_plain(self.operation)} {_plain(self.outcome)} {rest}"


_FIRST = frozenset(("time", "operation", "outcome"))


def timestamp(seconds: float) -> str:
    """Return a time, in seconds since 1970, as RFC 3339 text in UTC with microseconds."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _plain(value: object) -> str:
    # JSON's escapes keep a newline in a context from starting a line of its own in the log.
    if isinstance(value, str) and value.isascii() and value.isprintable() and not set(value) & set(' "=\\'):
        return value
    return json.dumps(value)
