"""Wraps data keys, or the payloads of direct messages, by every key that is encrypted to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from kmsbridge.clock import Deadline
from kmsbridge.context import EncryptionContext
from kmsbridge.driver import Capability, WrappedKey
from kmsbridge.errors import KmsBridgeError, KmsInvalidRequest
from kmsbridge.keys import ManagedKey
from kmsbridge.message import Recipient
from kmsbridge.secret import Secret
from kmsbridge.threads import in_parallel

Item = tuple[Secret, EncryptionContext]
"""A data key or payload to wrap, and the context to bind it to, with its reserved pairs."""
Recipients = tuple[Recipient, ...]


def wrap(keys: Sequence[ManagedKey], item: Item, deadline: Deadline, purpose: str = "") -> Recipients:
    """Return a recipient for every key; all of them wrap at the same time.

    Raise the `KmsBridgeError` of the first that could not: a message never has fewer recipients than are configured.
    """
    return tuple(in_parallel(lambda key: _wrap_one(key, deadline, purpose, item), keys, deadline))


def wrap_each(
    keys: Sequence[ManagedKey], items: Sequence[Item], deadline: Deadline, purpose: str = ""
) -> list[Recipients | KmsBridgeError]:
    """Return for each item what `wrap` would return or raise.

    Keys whose service wraps batches do so; the others are called for one item at a time, 16 at once.
    """
    columns = in_parallel(lambda key: _wrap_column(key, items, deadline, purpose), keys, deadline)
    return [_row(row) for row in zip(*columns, strict=True)]


def _row(row: Sequence[Recipient | KmsBridgeError]) -> Recipients | KmsBridgeError:
    recipients = tuple(each for each in row if isinstance(each, Recipient))
    if len(recipients) == len(row):
        return recipients
    return next(each for each in row if isinstance(each, KmsBridgeError))


def _wrap_column(
    key: ManagedKey, items: Sequence[Item], deadline: Deadline, purpose: str
) -> list[Recipient | KmsBridgeError]:
    if Capability.BATCH_WRAP not in key.capabilities or len(items) == 1:
        return in_parallel(partial(_try_one, key, deadline, purpose), items, deadline)
    column: list[Recipient | KmsBridgeError] = []
    for start in range(0, len(items), key.batch_limit):
        column += _wrap_batch(key, items[start : start + key.batch_limit], deadline, purpose)
    return column


def _wrap_batch(
    key: ManagedKey, items: Sequence[Item], deadline: Deadline, purpose: str
) -> list[Recipient | KmsBridgeError]:
    batch = [(secret.reveal(), bound) for secret, bound in items]
    try:
        results = key.wrap_many(batch, purpose=purpose, deadline=deadline)
    except KmsInvalidRequest:  # the batch itself may be what was wrong
        return in_parallel(partial(_try_one, key, deadline, purpose), items, deadline)
    except KmsBridgeError as error:
        return [error] * len(items)
    return [each if isinstance(each, KmsBridgeError) else _recipient(each) for each in results]


def _try_one(key: ManagedKey, deadline: Deadline, purpose: str, item: Item) -> Recipient | KmsBridgeError:
    try:
        return _wrap_one(key, deadline, purpose, item)
    except KmsBridgeError as error:
        return error


def _wrap_one(key: ManagedKey, deadline: Deadline, purpose: str, item: Item) -> Recipient:
    secret, bound = item
    return _recipient(key.wrap(secret.reveal(), bound, purpose=purpose, deadline=deadline))


def _recipient(wrapped: WrappedKey) -> Recipient:
    return Recipient(wrapped.key_id, wrapped.version, wrapped.ciphertext)
