"""Data keys to decrypt with."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

from kmsbridge.audit import AuditTrail
from kmsbridge.calls import Key
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.cache import CachedKey, KeyCache, Pairs, data_key_context, name_of
from kmsbridge.datakeys.flight import SingleFlight
from kmsbridge.datakeys.trail import told_call, told_of_messages
from kmsbridge.driver import Capability, WrappedKey
from kmsbridge.errors import (
    AuthenticationError,
    ConfigError,
    KmsBridgeError,
    KmsError,
    LimitExceeded,
    NoMatchingKey,
    UnsupportedMessage,
)
from kmsbridge.message import Header, Kind, Recipient
from kmsbridge.policy import DataKeyPolicy
from kmsbridge.secret import Secret

DATA_KEY_LENGTH = 32
BATCH = 200
"""The most wrapped keys in one `unwrap_many`; a Vault request holds no more."""
ANOTHER_MAY_DO = (KmsError, AuthenticationError, ConfigError, LimitExceeded)
"""Failures of one key, or of one batch, after which the next way is tried."""


class DecryptionKeys:
    """The data keys of messages seen before, and the way to those of others through `keys`.

    `keys` are tried in their order, and no other key is ever contacted, whatever a message names.
    """

    def __init__(self, keys: Sequence[Key], policy: DataKeyPolicy, audit: AuditTrail) -> None:
        self.keys = tuple(keys)
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
            return CachedKey(*self._unwrap(header, context), context, self._policy, 0.0)
        name = (header.encode(), name_of(context))
        while (entry := self._cache.use(name, size)) is None:
            self.flights.run(name, lambda: self.load(name, header, context))
        return entry

    def load(self, name: Hashable, header: Header, context: EncryptionContext) -> CachedKey:
        """Unwrap a data key and keep it. For whoever leads the flight for `name`.

        One that another flight brought, after the caller had looked and before it led, will do.
        """
        return self._cache.peek(name) or self._cache.put(name, *self._unwrap(header, context), context)

    def get_many(self, headers: Mapping[bytes, Header], pairs: Pairs) -> dict[bytes, CachedKey]:
        """The data keys, by unpadded header bytes, that were not at hand and come in the provider's batches.

        What is missing in the result is at hand, or could not be had this way: `get` has it, or says why not.
        """
        context = EncryptionContext.of(pairs)
        found: dict[bytes, CachedKey] = {}
        missing = {
            name: header
            for name, header in headers.items()
            if self._cache.peek((name, name_of(context))) is None
        }
        for key in self.keys:
            # The keys are tried in their order: each header is for the first of them that it names.
            mine = _named(missing, _id_of(key))
            missing = {name: header for name, header in missing.items() if name not in mine}
            if Capability.BATCH_UNWRAP in key.capabilities:
                for batch in _batches(list(mine.values())):
                    found |= self._load_batch(key, batch, context)
        return found

    def unwrap(self, recipient: Recipient, key: Key, bound: EncryptionContext, operation: str) -> bytes:
        """What `recipient` wrapped, by `key`; `bound` is the context with its reserved pairs."""
        wrapped = WrappedKey(recipient.key_id, recipient.key_version, recipient.wrapped)
        with told_call(self._audit, operation, key, bound) as told:
            told.version = recipient.key_version
            return key.unwrap(wrapped, bound)

    def try_each(self, header: Header, bound: EncryptionContext) -> tuple[bytes, Recipient]:
        """What the recipients wrapped, by the first of our keys that can unwrap it.

        A key that fails is no reason not to try the next; if all fail, the first failure of a service
        is raised before one of authenticity, since it may be the cause of the other.
        """
        matches, failures = self._matches(header)
        for key, recipient in matches:
            try:
                return self.unwrap(recipient, key, bound, "unwrap"), recipient
            except ANOTHER_MAY_DO as error:
                failures.append(error)
        failures.sort(key=lambda error: isinstance(error, AuthenticationError))
        for other in failures[1:]:
            failures[0].add_note(f"also: {other}")
        raise failures[0]

    def close(self) -> None:
        """Drop every data key."""
        self._cache.close()

    def _unwrap(self, header: Header, context: EncryptionContext) -> tuple[Secret, Header, Recipient]:
        if header.kind is not Kind.INLINE:
            raise UnsupportedMessage(
                "the message's data key is in a key store", remedy="decrypt it with a version that has stores"
            )
        data_key, recipient = self.try_each(header, data_key_context(context))
        if len(data_key) != DATA_KEY_LENGTH:
            raise AuthenticationError  # whoever may wrap can put anything into a message
        return Secret(data_key), header, recipient

    def _load_batch(
        self, key: Key, batch: list[tuple[Header, Recipient]], context: EncryptionContext
    ) -> dict[bytes, CachedKey]:
        bound = data_key_context(context)
        items = [(WrappedKey(r.key_id, r.key_version, r.wrapped), bound) for _, r in batch]
        try:
            with told_call(self._audit, "unwrap", key, bound):
                results = key.unwrap_many(items)
        except ANOTHER_MAY_DO:
            return {}
        return {
            header.encode(): self._keep(Secret(result), header, recipient, context)
            for (header, recipient), result in zip(batch, results, strict=True)
            if isinstance(result, bytes) and len(result) == DATA_KEY_LENGTH
        }

    def _keep(
        self, key: Secret, header: Header, recipient: Recipient, context: EncryptionContext
    ) -> CachedKey:
        if not self.shared:
            return CachedKey(key, header, recipient, context, self._policy, 0.0)
        return self._cache.put((header.encode(), name_of(context)), key, header, recipient, context)

    def _matches(self, header: Header) -> tuple[list[tuple[Key, Recipient]], list[KmsBridgeError]]:
        """Our keys that the message is for; and why others could not even tell their id."""
        by_id = {recipient.key_id: recipient for recipient in header.recipients}
        matches: list[tuple[Key, Recipient]] = []
        failures: list[KmsBridgeError] = []
        for key in self.keys:
            try:
                if key.key_id in by_id:
                    matches.append((key, by_id[key.key_id]))
            except KmsError as error:
                failures.append(error)
        if not matches and not failures:
            raise NoMatchingKey(
                # A message's key ids are a stranger's text: repr shows what is not printable.
                f"the message is for {', '.join(map(repr, by_id))}, and this profile decrypts with "
                f"{', '.join(repr(key.key_id) for key in self.keys)}",
                remedy="add one of the message's keys to decrypt_with",
            )
        return matches, failures


def _id_of(key: Key) -> str | None:
    try:
        return key.key_id
    except KmsError:
        return None


def _named(headers: Mapping[bytes, Header], key_id: str | None) -> dict[bytes, tuple[Header, Recipient]]:
    return {
        name: (header, recipient)
        for name, header in headers.items()
        for recipient in header.recipients
        if recipient.key_id == key_id
    }


def _batches(items: list[tuple[Header, Recipient]]) -> Iterator[list[tuple[Header, Recipient]]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def without_padding(header: Header) -> Header:
    """The header as `encrypt` writes it; those of one data key are equal then."""
    return Header(header.kind, header.length - header.padding, header.recipients, header.data_key_id)
