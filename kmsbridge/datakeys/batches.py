"""Loads the data keys of many messages at once, in the provider's batches where it has them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from kmsbridge.clock import Deadline
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.datakey import DataKey, data_key_context
from kmsbridge.datakeys.decryption import DecryptionKeys, KnownKeys
from kmsbridge.datakeys.unwrapping import TRY_NEXT_KEY_AFTER, Match, wrapped_by
from kmsbridge.driver import Capability
from kmsbridge.errors import AuthenticationError, ClosedError, KmsBridgeError, KmsError, KmsInvalidRequest
from kmsbridge.keys import ManagedKey
from kmsbridge.message import Header
from kmsbridge.threads import in_parallel

Wanted = tuple[Header, EncryptionContext]
"""A message's header, and the context that the caller gives for it."""
Item = tuple[Match, EncryptionContext]
"""One data key to unwrap, and the key to do so."""


def fetch_many(keys: DecryptionKeys, wanted: Iterable[Wanted]) -> KnownKeys:
    """Load the data keys of these messages that are not in memory. Return them, and the errors of those that
    failed.

    They are unwrapped in the provider's batches where it has them, else each by a call, 16 at a time.
    """
    keys.check_open()
    missing = [each for each in wanted if not keys.is_at_hand(*each)]
    known = _in_batches(keys, missing)
    rest = [each for each in missing if not _has_key(keys, each, known)]
    in_parallel(lambda each: _fetch_first(keys, each, known), rest)
    return known


def _has_key(keys: DecryptionKeys, wanted: Wanted, known: KnownKeys) -> bool:
    header, context = wanted
    names = (keys.name(recipient, context) for recipient in header.recipients)
    return any(isinstance(known.get(name), DataKey) for name in names)


def _fetch_first(keys: DecryptionKeys, wanted: Wanted, known: KnownKeys) -> None:
    """Load one data key of the message, and add what was learned to `known`."""
    header, context = wanted
    failures: list[KmsBridgeError] = []
    try:
        entry = next(keys.candidates(header, context, 0, failures, known), None)
        if entry is not None:
            (recipient,) = (each for each in header.recipients if each.key_id == entry.key_id)
            known[keys.name(recipient, context)] = entry
    except ClosedError:
        raise
    except KmsBridgeError:
        return  # `use_fitting` will tell


def _in_batches(keys: DecryptionKeys, wanted: Sequence[Wanted]) -> KnownKeys:
    """Load, in batches, the data keys of those messages whose first key unwraps batches."""
    first: dict[ManagedKey, dict[Hashable, Item]] = {}
    known: KnownKeys = {}
    deadline = keys.deadline()
    for header, context in wanted:
        match = _first_match(keys, header, deadline)
        if match is None or Capability.BATCH_UNWRAP not in match[0].capabilities:
            continue
        failure_name = keys.failure_name(match, context)
        if keys.refusals.holds(failure_name):
            known[failure_name] = AuthenticationError()
        else:
            first.setdefault(match[0], {})[failure_name] = match, context
    for key, items in first.items():
        names = list(items)
        for start in range(0, len(names), key.batch_limit):
            batch = {name: items[name] for name in names[start : start + key.batch_limit]}
            known |= _load_batch(keys, key, batch)
    return known


def _first_match(keys: DecryptionKeys, header: Header, deadline: Deadline) -> Match | None:
    """Return the key that would be asked first, and its recipient; None where there is none."""
    if not header.has_recipients_data_key:
        return None
    try:
        matches, _ = keys.unwrapping.matches(header, deadline)
    except KmsBridgeError:
        return None
    return matches[0] if matches else None


def _load_batch(keys: DecryptionKeys, key: ManagedKey, batch: dict[Hashable, Item]) -> KnownKeys:
    items = [(wrapped_by(match), data_key_context(context)) for match, context in batch.values()]
    results: Sequence[bytes | KmsBridgeError]
    try:
        results = key.unwrap_many(items)
    except KmsInvalidRequest:
        return {}  # the batch itself may be what was wrong
    except KmsError as error:
        results = [error] * len(batch)
    except TRY_NEXT_KEY_AFTER:
        return {}
    known: KnownKeys = {}
    for item, result in zip(batch.values(), results, strict=True):
        _keep(keys, item, result, known)
    return known


def _keep(keys: DecryptionKeys, item: Item, result: bytes | KmsBridgeError, known: KnownKeys) -> None:
    """Add to `known` what became of an item."""
    match, context = item
    failure_name = keys.failure_name(match, context)
    if isinstance(result, KmsBridgeError):
        if isinstance(result, AuthenticationError):
            keys.refusals.add(failure_name)
        known[failure_name] = result
        return
    name = keys.name(match[1], context)
    try:
        known[name] = keys.keep(name, result, match[1], context)
    except AuthenticationError as error:
        known[failure_name] = error
