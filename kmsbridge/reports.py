"""What a driver reports of a call while it makes it, on the thread of the call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

Report = Callable[[Any], None]

_request = threading.local()


def report_request_id(request_id: str) -> None:
    """Report the provider's id of the current request, which the audit trail records.

    A driver calls this during a call, on the same thread.
    """
    _request.id = request_id


def take_request_id() -> str:
    """Return the id reported on this thread since the last call, or "", and forget it."""
    request_id: str = getattr(_request, "id", "")
    _request.id = ""
    return request_id


def report_call(call: Any) -> None:
    """Report a call with another key, a `kmsbridge.driver.OtherCall`, which observers such as the audit trail are told of.

    A driver calls this during a call of its own, on the same thread.
    """
    report: Report | None = getattr(_request, "report", None)
    if report is not None:
        report(call)


def report_calls_to(report: Report | None) -> Report | None:
    """Have `report_call` on this thread pass its calls to `report`; return what it passed them to before."""
    before: Report | None = getattr(_request, "report", None)
    _request.report = report
    return before
