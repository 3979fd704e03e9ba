"""The request ids, and the calls with other keys, that a driver reports during a call, on the thread of the call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, NamedTuple

from kmsbridge.context import EncryptionContext
from kmsbridge.drivererrors import ErrorKind

Operation = Literal["resolve", "wrap", "unwrap", "rewrap", "describe", "rotate"]
"""The method of a driver that was called. `wrap_many` counts as "wrap", `unwrap_many` as "unwrap", and `is_current` as
"rewrap".
"""


class OtherCall(NamedTuple):
    """A call with another key, which a driver made because its own call needed it.

    `key_id` is the other key's, `context` what its service was given, and `key_version` empty where it is not known.
    `kind` is None for a call that succeeded. `request_id` is the provider's, and may be empty. `seconds` is how long
    the call took.
    """

    operation: Operation
    key_id: str
    context: EncryptionContext
    key_version: str
    kind: ErrorKind | None
    request_id: str
    seconds: float


Report = Callable[[OtherCall], None]

_reports = threading.local()


def report_request_id(request_id: str) -> None:
    """Report the provider's id of the current request, which the audit trail records.

    A driver calls this during a call, on the same thread.
    """
    _reports.request_id = request_id


def take_request_id() -> str:
    """Return the id reported on this thread since the last call, or "", and forget it."""
    request_id: str = getattr(_reports, "request_id", "")
    _reports.request_id = ""
    return request_id


def report_call(call: OtherCall) -> None:
    """Report a call with another key, which observers such as the audit trail are then told of.

    A driver calls this during a call of its own, on the same thread.
    """
    receiver: Report | None = getattr(_reports, "receiver", None)
    if receiver is not None:
        receiver(call)


def report_calls_to(receiver: Report | None) -> Report | None:
    """Have `report_call` on this thread call `receiver`, or nothing if that is None. Return the previous receiver."""
    before: Report | None = getattr(_reports, "receiver", None)
    _reports.receiver = receiver
    return before
