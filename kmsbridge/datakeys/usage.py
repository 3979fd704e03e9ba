"""Tells an observer how many messages each data key has served."""

from __future__ import annotations

from collections.abc import Callable

from kmsbridge.datakeys.datakey import DataKey
from kmsbridge.observer import Event, Observer


def usage_reporter(observer: Observer, operation: str) -> Callable[[DataKey], None]:
    """Return a function that tells `observer` what a data key has served since it was last told of it.

    `operation` is what the data key was used for: `encrypt`, `decrypt` or `rewrap`.
    """

    def report(data_key: DataKey) -> None:
        if messages := data_key.take_used():
            observer.event(
                Event(
                    operation=operation,
                    key_id=data_key.key_id,
                    key_version=data_key.key_version,
                    context=data_key.context,
                    messages=messages,
                )
            )

    return report
