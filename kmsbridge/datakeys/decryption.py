"""Data keys to decrypt with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from kmsbridge.audit import AuditTrail
from kmsbridge.calls import Key, in_parallel
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.cache import CachedKey, KeyCache, Pairs, data_key_context, name_of
from kmsbridge.datakeys.flight import SingleFlight
from kmsbridge.datakeys.trail import told_call, told_of_messages
from kmsbridge.datakeys.unwrapping import ANOTHER_MAY_DO, Match, Unwrapping, wrapped_by
from kmsbridge.driver import Capability
from kmsbridge.errors import (
    AuthenticationError,
    ClosedError,
    KmsBridgeError,
    KmsError,
    KmsInvalidRequest,
    UnsupportedMessage,
)
from kmsbridge.message import Header, Kind, Recipient
from kmsbridge.policy import DataKeyPolicy
from kmsbridge.secret import Secret

DATA_KEY_LENGTH = 32
BATCH = 200
"""The most wrapped keys in one `unwrap_many`; a Vault request holds no more."""

Headers = Mapping[bytes, Header]
Outcomes = dict[bytes, CachedKey | KmsBridgeError]


class DecryptionKeys:
    """The data keys of messages seen before, and the way to those of others through `keys`."""

    def __init__(self, keys: Sequence[Key], policy: DataKeyPolicy, audit: AuditTrail) -> None:
        self.unwrapping = Unwrapping(keys, audit)
        self.flights: SingleFlight[CachedKey] = SingleFlight()
        self._audit = audit
        self._policy = policy
        self.shared = policy.max_messages > 1
        self._cache = KeyCache(policy, dropped=told_of_messages(audit, "decrypt"))

    def cached(self, header: bytes, pairs: Pairs, size: int) -> CachedKey | None:
        """The data key of a message with these header bytes, if it is at hand: no call, no parsing."""
        try:
            return self._cache.use((header, name_of(pairs)), size)
        except (AttributeError, TypeError):
            return None  # no context at all, as `get` says in its error

    def get(self, header: Header, pairs: Pairs, size: int) -> CachedKey:
        """The data key of a message with this header; unwraps it where it is not at hand.

        Raises what `EncryptionContext.of` raises, `NoMatchingKey`, `AuthenticationError`, or a
        `KmsError`.
        """
        context = EncryptionContext.of(pairs)
        self._cache.check_open()
        header = without_padding(header)
        if not self.shared:
            return self._fetch(header, context)
        name = (header.encode(), name_of(context))
        while (entry := self._cache.use(name, size)) is None:
            self._fetch(header, context)
        return entry

    def load(self, name: Hashable, header: Header, context: EncryptionContext) -> CachedKey:
        """Unwrap a data key and keep it. For whoever leads the flight for `name`.

        One that another flight brought, after the caller had looked and before it led, will do.
        """
        return self._cache.peek(name) or self._cache.put(name, *self._unwrap(header, context), context)

    def get_many(self, headers: Headers, pairs: Pairs) -> Outcomes:
        """By unpadded header bytes, the data keys that were not at hand, or why there is none.

        In the provider's batches where it has them, else each by a call, 16 at a time.
        """
        context = EncryptionContext.of(pairs)
        self._cache.check_open()
        names = name_of(context)
        missing = {
            name: header for name, header in headers.items() if self._cache.peek((name, names)) is None
        }
        outcomes = self._in_batches(missing, context)
        rest = [header for name, header in missing.items() if name not in outcomes]
        fetched = in_parallel(lambda header: self._outcome(header, context), rest)
        return outcomes | {header.encode(): each for header, each in zip(rest, fetched, strict=True)}

    def check_open(self) -> None:
        """Raises `ClosedError` after `close`."""
        self._cache.check_open()

    def close(self) -> None:
        """Drop every data key."""
        self._cache.close()

    def _fetch(self, header: Header, context: EncryptionContext) -> CachedKey:
        if not self.shared:
            return CachedKey(*self._unwrap(header, context), context, self._policy, 0.0)
        name = (header.encode(), name_of(context))
        return self.flights.run(name, lambda: self.load(name, header, context))

    def _outcome(self, header: Header, context: EncryptionContext) -> CachedKey | KmsBridgeError:
        try:
            return self._fetch(header, context)
        except ClosedError:
            raise
        except KmsBridgeError as error:
            return error

    def _unwrap(self, header: Header, context: EncryptionContext) -> tuple[Secret, Header, Recipient]:
        if header.kind is not Kind.INLINE:
            raise UnsupportedMessage(
                "the message's data key is in a key store", remedy="decrypt it with a version that has stores"
            )
        data_key, recipient = self.unwrapping.try_each(header, data_key_context(context))
        if len(data_key) != DATA_KEY_LENGTH:
            raise AuthenticationError  # whoever may wrap can put anything into a message
        return Secret(data_key), header, recipient

    # --- batches ----------------------------------------------------------------------------------

    def _in_batches(self, headers: Headers, context: EncryptionContext) -> Outcomes:
        """Those whose first key takes batches. What is missing in the result is to be tried otherwise."""
        first: dict[Key, list[tuple[Header, Recipient, bool]]] = {}
        for header in headers.values():
            match, alone = self._first_match(header)
            if match is not None and Capability.BATCH_UNWRAP in match[0].capabilities:
                first.setdefault(match[0], []).append((header, match[1], alone))
        outcomes: Outcomes = {}
        for key, items in first.items():
            for start in range(0, len(items), BATCH):
                outcomes |= self._load_batch(key, items[start : start + BATCH], context)
        return outcomes

    def _first_match(self, header: Header) -> tuple[Match | None, bool]:
        """The key that would be asked first, and whether there is no other."""
        try:
            matches, failures = self.unwrapping.matches(header)
        except KmsBridgeError:
            return None, True
        return matches[0] if matches else None, len(matches) == 1 and not failures

    def _load_batch(
        self, key: Key, batch: list[tuple[Header, Recipient, bool]], context: EncryptionContext
    ) -> Outcomes:
        bound = data_key_context(context)
        items = [(wrapped_by(recipient), bound) for _, recipient, _ in batch]
        results: Sequence[bytes | KmsBridgeError]
        try:
            with told_call(self._audit, "unwrap", key, bound):
                results = key.unwrap_many(items)
        except KmsInvalidRequest:
            return {}  # the batch itself may be what was wrong
        except KmsError as error:
            results = [error] * len(batch)
        except ANOTHER_MAY_DO:
            return {}
        kept = (
            (header, self._keep(result, header, recipient, context), alone)
            for (header, recipient, alone), result in zip(batch, results, strict=True)
        )
        return {
            header.encode(): outcome
            for header, outcome, alone in kept
            if alone or isinstance(outcome, CachedKey)
        }

    def _keep(
        self, result: bytes | KmsBridgeError, header: Header, recipient: Recipient, context: EncryptionContext
    ) -> CachedKey | KmsBridgeError:
        if isinstance(result, KmsBridgeError):
            return result
        if len(result) != DATA_KEY_LENGTH:
            return AuthenticationError()
        key = Secret(result)
        if not self.shared:
            return CachedKey(key, header, recipient, context, self._policy, 0.0)
        return self._cache.put((header.encode(), name_of(context)), key, header, recipient, context)


def without_padding(header: Header) -> Header:
    """The header as `encrypt` writes it; those of one data key are equal then."""
    return Header(header.kind, header.length - header.padding, header.recipients, header.data_key_id)
