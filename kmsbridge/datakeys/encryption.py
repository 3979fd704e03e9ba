"""Data keys to encrypt with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from functools import partial

from kmsbridge import message
from kmsbridge.clock import Deadline
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import wrapping
from kmsbridge.datakeys.cache import KeyCache, Pairs, context_key
from kmsbridge.datakeys.datakey import DataKey, data_key_context
from kmsbridge.datakeys.flight import SingleFlight
from kmsbridge.datakeys.usage import usage_reporter
from kmsbridge.datakeys.wrapping import Recipients
from kmsbridge.driver import Capability
from kmsbridge.errors import KmsBridgeError
from kmsbridge.keys import ManagedKey
from kmsbridge.message import cobblestone
from kmsbridge.observer import Observer
from kmsbridge.policy import CallPolicy, DataKeyPolicy
from kmsbridge.secret import Secret
from kmsbridge.threads import in_parallel


class EncryptionKeys:
    """Keeps a data key for each context, wrapped by every one of `keys`, which serves many messages."""

    def __init__(
        self, keys: Sequence[ManagedKey], policy: DataKeyPolicy, observer: Observer, calls: CallPolicy
    ) -> None:
        self.keys = tuple(keys)
        self.flights: SingleFlight[DataKey] = SingleFlight()
        self._seconds = calls.deadline
        self.shared = policy.max_messages > 1
        self._cache = KeyCache(policy, dropped=usage_reporter(observer, "encrypt"))

    def cached(self, pairs: Pairs, size: int) -> DataKey | None:
        """Return the data key for one more message of `size` bytes if it is in memory, else None: no call, no
        waiting.
        """
        try:
            return self._cache.use(context_key(pairs), size)
        except (AttributeError, TypeError):
            return None  # no context at all, as `get` says in its error

    def get(self, pairs: Pairs, size: int) -> DataKey:
        """Return the data key for one more message of `size` bytes; make one and have it wrapped where there
        is none.

        Raise what `EncryptionContext.of` raises, and a `KmsError` where any key could not wrap: a message
        never has fewer recipients than are configured.
        """
        context = EncryptionContext.of(pairs)
        self._cache.check_open()
        deadline = self.deadline()
        if not self.shared:
            return self._make(context, deadline)
        name = context_key(context)
        entry = self._cache.use(name, size)
        while entry is None:
            loaded = self.flights.run(name, partial(self._load, name, context, deadline), deadline)
            entry = self._cache.use_entry(loaded, size)
        return entry

    def get_each(self, contexts: Sequence[EncryptionContext]) -> list[DataKey | KmsBridgeError]:
        """Return a data key for each of these different contexts, or why there is none; no message is counted.

        Those that are missing are made in the provider's batches where it has them, else 16 at a time.
        """
        self._cache.check_open()
        deadline = self.deadline()
        names = [context_key(each) for each in contexts]
        found: dict[Hashable, DataKey | KmsBridgeError] = {}
        missing: dict[Hashable, EncryptionContext] = {}
        for name, context in zip(names, contexts, strict=True):
            entry = self._cache.peek(name)
            if entry is None:
                missing[name] = context
            else:
                found[name] = entry
        found.update(zip(missing, self._load_each(missing, deadline), strict=True))
        return [found[name] for name in names]

    def make_each(self, contexts: Sequence[EncryptionContext]) -> list[DataKey | KmsBridgeError]:
        """Return a new data key for each context, which is not kept, with one message counted."""
        self._cache.check_open()
        return self._make_each(contexts, self.deadline())

    def take_many(self, entry: DataKey | None, sizes: Sequence[int]) -> int:
        """Count messages of these sizes; return how many of them the data key may encrypt, from the first on."""
        return self._cache.use_entry_many(entry, sizes)

    def load(self, name: Hashable, context: EncryptionContext) -> DataKey:
        """Make a data key, have it wrapped, and keep it. For whoever leads the flight for `name`."""
        return self._load(name, context, self.deadline())

    def take(self, entry: DataKey, size: int) -> DataKey | None:
        """Count one message of `size` bytes, and return `entry`; None where its allowance is used up."""
        return self._cache.use_entry(entry, size)

    def wrap(
        self, secret: Secret, bound: EncryptionContext, deadline: Deadline, purpose: str = ""
    ) -> Recipients:
        """Return a recipient for every key, which has wrapped `secret`; all of them do so at the same time.

        `bound` is the context with its reserved pairs.
        """
        return wrapping.wrap(self.keys, (secret, bound), deadline, purpose)

    def rewrap(self, data_keys: Sequence[DataKey], deadline: Deadline) -> list[Recipients | KmsBridgeError]:
        """Return new recipients for messages of each data key, or why there are none: every key has wrapped it."""
        items = [(each.secret, data_key_context(each.context)) for each in data_keys]
        return wrapping.wrap_each(self.keys, items, deadline, "rewrap")

    def count(self, entry: DataKey, size: int) -> None:
        """Count the bytes of a stream, which are known at its end only."""
        entry.spend(size)

    def check_direct(self) -> None:
        """Raise `ConfigError` where there are several keys, before any is called for a direct message."""
        message.check_direct(len(self.keys))

    def deadline(self) -> Deadline:
        """Return the end of the time of an operation that begins now."""
        return Deadline(self._seconds)

    def check_open(self) -> None:
        """Raises `ClosedError` after `close`."""
        self._cache.check_open()

    @property
    def cache(self) -> KeyCache:
        """The data keys in memory."""
        return self._cache

    def report(self) -> None:
        """Tell the observer how many messages each data key has served since it was last told."""
        self._cache.report()

    def close(self) -> None:
        """Drop every data key."""
        self._cache.close()

    def _load_each(
        self, missing: Mapping[Hashable, EncryptionContext], deadline: Deadline
    ) -> list[DataKey | KmsBridgeError]:
        if len(missing) > 1 and any(Capability.BATCH_WRAP in key.capabilities for key in self.keys):
            made = self._make_each(list(missing.values()), deadline)
            return [
                self._cache.put(name, each) if isinstance(each, DataKey) else each
                for name, each in zip(missing, made, strict=True)
            ]

        def load(item: tuple[Hashable, EncryptionContext]) -> DataKey | KmsBridgeError:
            name, context = item
            try:
                return self.flights.run(name, partial(self._load, name, context, deadline), deadline)
            except KmsBridgeError as error:
                return error

        return in_parallel(load, list(missing.items()), deadline)

    def _load(self, name: Hashable, context: EncryptionContext, deadline: Deadline) -> DataKey:
        # One that another flight brought, after the caller had looked and before it led, will do.
        return self._cache.peek(name) or self._cache.put(name, self._make(context, deadline))

    def _make(self, context: EncryptionContext, deadline: Deadline) -> DataKey:
        secret = _new_secret()
        return self._entry(secret, self.wrap(secret, data_key_context(context), deadline), context)

    def _make_each(
        self, contexts: Sequence[EncryptionContext], deadline: Deadline
    ) -> list[DataKey | KmsBridgeError]:
        secrets = [_new_secret() for _ in contexts]
        items = [(secret, data_key_context(each)) for secret, each in zip(secrets, contexts, strict=True)]
        return [
            found if isinstance(found, KmsBridgeError) else self._entry(secret, found, context)
            for found, secret, context in zip(
                wrapping.wrap_each(self.keys, items, deadline), secrets, contexts, strict=True
            )
        ]

    def _entry(self, secret: Secret, recipients: Recipients, context: EncryptionContext) -> DataKey:
        return self._cache.new(secret, recipients[0], context, message.inline(recipients))


def _new_secret() -> Secret:
    return Secret(cobblestone.new_key())
