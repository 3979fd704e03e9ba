"""Data keys at hand: bounded in number, age, messages and bytes."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Final

from kmsbridge import forks
from kmsbridge.clock import age
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.sweeping import sweeper
from kmsbridge.errors import ClosedError
from kmsbridge.message import Header, Recipient
from kmsbridge.policy import DataKeyPolicy
from kmsbridge.secret import Secret

Pairs = Mapping[str, str] | None
"""An encryption context as a user gives it."""

MAX_WEIGHT: Final = 32 * 2**20
"""Bytes that the headers, contexts and names in one cache may take together."""

_NO_PAIRS: frozenset[object] = frozenset()
_DOMAIN = b"kmsbridge/v1\x00"


def name_of(pairs: Pairs) -> Hashable:
    """The name of a context in a cache: cheap, and the same whatever the order of the pairs.

    It checks nothing: pairs that no context may have are never in a cache, so they are not found
    there and get checked. Raises `TypeError` or `AttributeError` for what is no mapping of texts.
    """
    return _NO_PAIRS if pairs is None else frozenset(pairs.items())


class CachedKey:
    """A data key, and what is left of the number, size and time of the messages that it may serve.

    `header` is the one that an encryptor writes, and empty for a key that only decrypts. `key_id` and
    `key_version` are of the key that wrapped it first, or that it was unwrapped by. `seal_context` is what
    a body's Cobblestone context begins with; the aad follows it.
    """

    __slots__ = (
        "_alias_weight",
        "_bytes_left",
        "_expires",
        "_max_messages",
        "_numbers",
        "_taken",
        "_told",
        "alias",
        "context",
        "header",
        "key",
        "key_id",
        "key_version",
        "name",
        "recently_used",
        "seal_context",
        "weight",
    )

    def __init__(
        self,
        key: Secret,
        recipient: Recipient,
        context: EncryptionContext,
        policy: DataKeyPolicy,
        now: float,
        header: Header | None = None,
    ) -> None:
        self.key = key
        self.header = b"" if header is None else header.encode()
        self.key_id, self.key_version = recipient.key_id, recipient.key_version
        self.context = context
        self.seal_context = seal_context(context)
        self.name: Hashable = None
        self.alias: Hashable = None
        self.recently_used = False
        # Three copies of the context at most: its pairs, its canonical form, and a part of the name.
        self.weight = len(self.header) + 3 * len(self.seal_context) + len(self.key_id)
        self._alias_weight = 0
        self._expires = now + policy.max_age
        self._max_messages = policy.max_messages
        self._bytes_left = policy.max_bytes
        self._numbers = itertools.count()
        self._taken = self._told = 0

    def take(self, size: int, now: float) -> bool:
        """Count one message of `size` bytes; False where the allowance is used up.

        A message may end beyond `max_bytes`, else one larger than that could never be written.
        """
        # No lock: threads that met at one for every message would get less done together than one alone. A
        # number goes to one thread only; the sums are for bounds that need not be exact to the message.
        if now >= self._expires or self._bytes_left <= 0 or next(self._numbers) >= self._max_messages:
            return False
        self._bytes_left -= size
        self._taken += 1
        return True

    def set_alias(self, alias: Hashable, weight: int) -> int:
        """Have this alias of `weight` bytes, or none; gives the difference that it makes to its weight."""
        more = weight - self._alias_weight
        self.alias, self._alias_weight = alias, weight
        self.weight += more
        return more

    def lasts(self, now: float) -> bool:
        """Whether there is allowance left."""
        return self._taken < self._max_messages and self._bytes_left > 0 and now < self._expires

    def expires_in(self, now: float) -> float:
        """Seconds until it is too old; 0.0 or less when it is."""
        return self._expires - now

    def spend(self, size: int) -> None:
        """Count `size` bytes more of a message that was counted."""
        self._bytes_left -= size

    def take_used(self) -> int:
        """How many messages it has served since this was last asked."""
        used = self._taken - self._told
        self._told += used
        return used


def seal_context(context: EncryptionContext) -> bytes:
    """What binds a body to `context`; followed by the aad it is a body's Cobblestone context."""
    canonical = context.canonical()
    return b"".join((_DOMAIN, len(canonical).to_bytes(4, "big"), canonical))


def data_key_context(context: EncryptionContext) -> EncryptionContext:
    """What a wrapped data key is bound to at the key service.

    The reserved pair tells it from a direct payload: else a data key could be passed off as one, and
    be handed to the application as its plaintext.
    """
    return context.with_reserved(kmsbridge="dek")


class KeyCache:
    """At most `policy.max_entries` data keys, and `MAX_WEIGHT` bytes of what describes them.

    Those not used lately are dropped first, and each when it is too old. A data key has one name, and may
    have one alias: something that is cheaper to look it up by. The lock is held to change the cache only,
    not to look something up, and never across crypto or a call.
    """

    def __init__(
        self,
        policy: DataKeyPolicy,
        *,
        clock: Callable[[], float] = age,
        dropped: Callable[[CachedKey], None] = lambda _: None,
    ) -> None:
        self.policy = policy
        self._clock = clock
        self._dropped = dropped
        self._entries: OrderedDict[Hashable, CachedKey] = OrderedDict()
        self._aliases: dict[Hashable, CachedKey] = {}
        self._weight = 0
        # Re-entrant, like every lock here: a signal handler or a finalizer may come while it is held.
        self._lock = threading.RLock()
        self._closed = False
        forks.watch(self)

    def use(self, name: Hashable, size: int) -> CachedKey | None:
        """The key under `name`, one message of `size` bytes counted; None where there is none to use."""
        entry = self._entries.get(name)
        if entry is None or not entry.take(size, self._clock()):
            return None
        entry.recently_used = True
        return entry

    def use_alias(self, alias: Hashable, size: int) -> CachedKey | None:
        """The same by a key's alias."""
        entry = self._aliases.get(alias)
        if entry is None or not entry.take(size, self._clock()):
            return None
        entry.recently_used = True
        return entry

    def use_entry(self, entry: CachedKey | None, size: int) -> CachedKey | None:
        """`entry`, one message of `size` bytes counted; None where there is none, or its allowance is used up."""
        return entry if entry is not None and entry.take(size, self._clock()) else None

    def peek(self, name: Hashable) -> CachedKey | None:
        """The key under `name` if it can be used, nothing counted."""
        entry = self._entries.get(name)
        return entry if entry is not None and entry.lasts(self._clock()) else None

    def new(
        self, key: Secret, recipient: Recipient, context: EncryptionContext, header: Header | None = None
    ) -> CachedKey:
        """A data key with the whole allowance of the policy, not kept here."""
        return CachedKey(key, recipient, context, self.policy, self._clock(), header)

    def put(self, name: Hashable, entry: CachedKey) -> CachedKey:
        """Keep a new data key under `name`."""
        entry.name = name
        with self._lock:
            gone = [old for old in (self._entries.get(name),) if old is not None and self._remove(old)]
            if not self._closed:
                self._entries[name] = entry
                self._weight += entry.weight
            gone += self._shrink(entry)
        if not self._closed:
            sweeper.keep_swept(self, self.policy.max_age)
        for old in gone:
            self._dropped(old)
        return entry

    def give_alias(self, entry: CachedKey, alias: Hashable, weight: int) -> None:
        """Have `entry` found by `alias` of `weight` bytes as well, instead of by any that it had."""
        with self._lock:
            if entry.alias == alias or self._entries.get(entry.name) is not entry:
                return
            self._drop_alias(entry)
            self._aliases[alias] = entry
            self._weight += entry.set_alias(alias, weight)
            gone = self._shrink(entry)
        for old in gone:
            self._dropped(old)

    def check_open(self) -> None:
        """Raises `ClosedError` after `close`."""
        if self._closed:
            raise ClosedError("the cipher is closed", remedy="open a new one")

    def sweep(self) -> float | None:
        """Drop the keys that are too old; gives the seconds until the next will be, None where there is none."""
        now = self._clock()
        with self._lock:
            entries = list(self._entries.values())
            gone = [entry for entry in entries if entry.expires_in(now) <= 0 and self._remove(entry)]
            left = min((entry.expires_in(now) for entry in self._entries.values()), default=None)
        for entry in gone:
            self._dropped(entry)
        return left

    def report(self) -> None:
        """Tell `dropped` of every key as if it were, so that what it has served is told; they stay."""
        with contextlib.ExitStack() as stack:  # each is told of, whatever becomes of the others
            for entry in list(self._entries.values()):
                stack.callback(self._dropped, entry)

    def close(self) -> None:
        """Drop every key, and keep none from now on."""
        with self._lock:
            self._closed = True
            entries = list(self._entries.values())
            self._forget_all()
        sweeper.look_again()
        with contextlib.ExitStack() as stack:  # each is told of, whatever becomes of the others
            for entry in entries:
                stack.callback(self._dropped, entry)

    def __len__(self) -> int:
        return len(self._entries)

    def after_fork(self) -> None:
        """A child starts with none of its parent's data keys."""
        self._lock = threading.RLock()
        self._forget_all()

    def _shrink(self, newest: CachedKey) -> list[CachedKey]:
        """Make room, beside `newest`. What was used again since its last turn gets another turn."""
        gone = []
        while len(self._entries) > 1 and self._is_too_much():
            name, oldest = next(iter(self._entries.items()))
            if oldest.recently_used or oldest is newest:
                oldest.recently_used = False
                self._entries.move_to_end(name)
            elif self._remove(oldest):
                gone.append(oldest)
        return gone

    def _is_too_much(self) -> bool:
        return len(self._entries) > self.policy.max_entries or self._weight > MAX_WEIGHT

    def _remove(self, entry: CachedKey) -> bool:
        """Whether it was there until now."""
        if self._entries.get(entry.name) is not entry:
            return False
        del self._entries[entry.name]
        self._drop_alias(entry)
        self._weight -= entry.weight
        return True

    def _drop_alias(self, entry: CachedKey) -> None:
        self._aliases.pop(entry.alias, None)
        self._weight += entry.set_alias(None, 0)

    def _forget_all(self) -> None:
        self._entries, self._aliases, self._weight = OrderedDict(), {}, 0
