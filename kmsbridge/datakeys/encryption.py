"""Data keys to encrypt with."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from kmsbridge import body, message
from kmsbridge.audit import AuditTrail
from kmsbridge.calls import Key, in_parallel
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.cache import CachedKey, KeyCache, Pairs, data_key_context, name_of
from kmsbridge.datakeys.flight import SingleFlight
from kmsbridge.datakeys.trail import told_call, told_of_messages
from kmsbridge.policy import DataKeyPolicy
from kmsbridge.secret import Secret


class EncryptionKeys:
    """For each context one data key, wrapped by every one of `keys`, serving many messages."""

    def __init__(self, keys: Sequence[Key], policy: DataKeyPolicy, audit: AuditTrail) -> None:
        self.keys = tuple(keys)
        self.flights: SingleFlight[CachedKey] = SingleFlight()
        self._audit = audit
        self._policy = policy
        self.shared = policy.max_messages > 1
        self._cache = KeyCache(policy, dropped=told_of_messages(audit, "encrypt"))

    def cached(self, pairs: Pairs, size: int) -> CachedKey | None:
        """The data key for one more message of `size` bytes, if it is at hand: no call, no waiting."""
        try:
            return self._cache.use(name_of(pairs), size)
        except (AttributeError, TypeError):
            return None  # no context at all, as `get` says in its error

    def get(self, pairs: Pairs, size: int) -> CachedKey:
        """The data key for one more message of `size` bytes; makes and wraps one where there is none.

        Raises what `EncryptionContext.of` raises, and a `KmsError` where any key could not wrap:
        a message never has fewer recipients than are configured.
        """
        context = EncryptionContext.of(pairs)
        self._cache.check_open()
        if not self.shared:
            return CachedKey(*self._make(context), context, self._policy, 0.0)
        name = name_of(context)
        while (entry := self._cache.use(name, size)) is None:
            self.flights.run(name, lambda: self.load(name, context))
        return entry

    def load(self, name: Hashable, context: EncryptionContext) -> CachedKey:
        """Make a data key, have it wrapped, and keep it. For whoever leads the flight for `name`.

        One that another flight brought, after the caller had looked and before it led, will do.
        """
        return self._cache.peek(name) or self._cache.put(name, *self._make(context), context)

    def wrap(
        self,
        secret: Secret,
        bound: EncryptionContext,
        kind: message.Kind = message.Kind.INLINE,
        operation: str = "wrap",
    ) -> message.Header:
        """A header, without padding, in which every key has wrapped `secret`: the slowest counts.

        `bound` is the context with its reserved pairs.
        """
        recipients = in_parallel(lambda key: self._wrap_by(key, secret, bound, operation), self.keys)
        return message.inline(tuple(recipients), kind=kind)

    def _wrap_by(
        self, key: Key, secret: Secret, bound: EncryptionContext, operation: str
    ) -> message.Recipient:
        with told_call(self._audit, operation, key, bound) as told:
            wrapped = key.wrap(secret.reveal(), bound)
            told.version = wrapped.version
        return message.Recipient(wrapped.key_id, wrapped.version, wrapped.ciphertext)

    def _make(self, context: EncryptionContext) -> tuple[Secret, message.Header, message.Recipient]:
        secret = Secret(body.new_key())
        header = self.wrap(secret, data_key_context(context))
        return secret, header, header.recipients[0]

    def count(self, entry: CachedKey, size: int) -> None:
        """Count the bytes of a stream, which are known at its end only."""
        self._cache.count(entry, size)

    def check_open(self) -> None:
        """Raises `ClosedError` after `close`."""
        self._cache.check_open()

    def close(self) -> None:
        """Drop every data key."""
        self._cache.close()
