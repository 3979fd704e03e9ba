"""Batches: one request for many items, and one each for those that it leaves unexplained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from kmsbridge.driver import ErrorKind
from kmsbridge_vault import answers, failures
from kmsbridge_vault.failures import VaultFailure

T = TypeVar("T")

_OUTAGES: Final = 2
"""Items that fail alone because of the server, with none that succeeds, before the others are not tried."""


def in_one_request(
    send: Callable[[], Sequence[Mapping[str, Any]]],
    read: Callable[[Mapping[str, Any]], T],
    alone: Callable[[int], T],
    count: int,
) -> list[T | ErrorKind]:
    """Return `read(item)` of each of the `count` results of `send`, or an `ErrorKind` for one that failed.

    If the server failed over the whole batch (status 5xx), which one item can cause, or over an item without a known
    text, `alone(number)` sends that item by itself. Raises `VaultFailure` if the batch fails otherwise, or the
    server fails over single items, too.
    """
    try:
        results = [answers.of_item(item, read) for item in send()]
    except VaultFailure as failure:
        if count == 1 or not failures.is_server_error(failure):
            raise
        whole = failure.again()
    else:
        return [
            _alone(number, alone) if each is None or each is ErrorKind.UNAVAILABLE else each
            for number, each in enumerate(results)
        ]
    single: list[T | ErrorKind] = []
    for number in range(count):
        single.append(_alone(number, alone))
        if single.count(ErrorKind.UNAVAILABLE) == len(single) >= _OUTAGES:
            raise whole
    return single


def _alone(number: int, alone: Callable[[int], T]) -> T | ErrorKind:
    try:
        return alone(number)
    except TimeoutError:
        return ErrorKind.TIMEOUT
    except VaultFailure as failure:
        return ErrorKind.INVALID_REQUEST if failure.code == failures.UNREADABLE else failure.kind
