"""Keeps payloads and credentials out of the AWS SDK's log records.

At level DEBUG botocore logs whole requests and answers, which contain data keys in base64 and session tokens. The
SDK therefore logs nothing during this driver's calls. Other calls of the SDK in the same program are logged as usual.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Final

_SDK: Final = ("botocore", "boto3", "urllib3")
_muted = threading.local()
_seen = 0


class _Mute(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(_muted, "depth", 0)


_MUTE: Final = _Mute()


@contextlib.contextmanager
def muted() -> Iterator[None]:
    """Drop all records of the SDK's loggers on this thread during the block."""
    _attach()
    _muted.depth = getattr(_muted, "depth", 0) + 1
    try:
        yield
    finally:
        _muted.depth -= 1


def _attach() -> None:
    """Add the filter to each logger of the SDK: a logger's filters do not apply to records of its children."""
    global _seen  # noqa: PLW0603 - the number of loggers at the last time: there is work only when it changes
    loggers = logging.root.manager.loggerDict
    if len(loggers) == _seen:
        return
    found = loggers.copy()
    for name, logger in found.items():
        if name.partition(".")[0] in _SDK and isinstance(logger, logging.Logger):
            logger.addFilter(_MUTE)
    _seen = len(found)  # last: other threads take it to mean that the filters are there
