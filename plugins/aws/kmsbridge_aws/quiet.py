"""Keeps payloads and credentials out of the AWS SDK's log records.

At DEBUG botocore logs each request and answer whole: data keys in base64, session tokens. What it does on
this driver's behalf is therefore not logged at all; the user's own calls of the SDK are, as ever.
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
    """Drop what the SDK's loggers are given on this thread meanwhile."""
    _attach()
    _muted.depth = getattr(_muted, "depth", 0) + 1
    try:
        yield
    finally:
        _muted.depth -= 1


def _attach() -> None:
    """Filters of a logger do not hold for those beneath it: each logger of the SDK needs its own."""
    global _seen  # noqa: PLW0603 - how many loggers there were: only then is there something to do
    loggers = logging.root.manager.loggerDict
    if len(loggers) == _seen:
        return
    found = loggers.copy()
    for name, logger in found.items():
        if name.partition(".")[0] in _SDK and isinstance(logger, logging.Logger):
            logger.addFilter(_MUTE)
    _seen = len(found)  # last: another thread that sees it relies on the filters
