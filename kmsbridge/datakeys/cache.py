"""Data keys at hand: bounded in number, age, messages and bytes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping

from kmsbridge import forks
from kmsbridge.context import EncryptionContext
from kmsbridge.errors import ClosedError
from kmsbridge.message import Header, Recipient
from kmsbridge.policy import DataKeyPolicy
from kmsbridge.secret import Secret

Pairs = Mapping[str, str] | None
"""An encryption context as a user gives it."""

_NO_PAIRS: frozenset[object] = frozenset()
_DOMAIN = b"kmsbridge/v1\x00"


def name_of(pairs: Pairs) -> Hashable:
    """What tells one context from another in a cache, cheap and whatever the order of the pairs.

    It checks nothing: pairs that no context may have are never in a cache, so they are not found
    there and get checked. Raises `TypeError` or `AttributeError` for what is no mapping of texts.
    """
    return _NO_PAIRS if pairs is None else frozenset(pairs.items())


class CachedKey:
    """A data key, the header that tells others of it, and what is left of its allowance.

    `recipient` is the one that wrapped it first, or that it was unwrapped by. `seal_context` is what a body's Cobblestone context begins with; the aad follows it.
    """

    __slots__ = (
        "_bytes_left",
        "_expires",
        "_messages_left",
        "context",
        "header",
        "key",
        "recipient",
        "seal_context",
        "used",
    )

    def __init__(
        self,
        key: Secret,
        header: Header,
        recipient: Recipient,
        context: EncryptionContext,
        policy: DataKeyPolicy,
        now: float,
    ) -> None:
        self.key = key
        self.header = header.encode()
        self.recipient = recipient
        self.context = context
        self.seal_context = seal_context(context)
        self.used = 0
        self._expires = now + policy.max_age
        self._messages_left = policy.max_messages
        self._bytes_left = policy.max_bytes

    def take(self, size: int, now: float) -> bool:
        """Count one message of `size` bytes; False where the allowance is used up.

        A message may end beyond `max_bytes`, else one larger than that could never be written.
        Called under the cache's lock.
        """
        # `lasts`, written out: this is done for every message.
        if self._messages_left <= 0 or self._bytes_left <= 0 or now >= self._expires:
            return False
        self._messages_left -= 1
        self._bytes_left -= size
        self.used += 1
        return True

    def lasts(self, now: float) -> bool:
        """Whether there is allowance left."""
        return self._messages_left > 0 and self._bytes_left > 0 and now < self._expires

    def spend(self, size: int) -> None:
        """Count `size` bytes more of a message that was counted. Called under the cache's lock."""
        self._bytes_left -= size


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
    """At most `policy.max_entries` data keys, the least recently used dropped first.

    The lock is held for the bookkeeping only, never across crypto or a call.
    """

    def __init__(
        self,
        policy: DataKeyPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        dropped: Callable[[CachedKey], None] = lambda _: None,
    ) -> None:
        self.policy = policy
        self._clock = clock
        self._dropped = dropped
        self._entries: OrderedDict[Hashable, CachedKey] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False
        forks.watch(self)

    def use(self, name: Hashable, size: int) -> CachedKey | None:
        """The key under `name`, one message of `size` bytes counted; None where there is none to use."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None or not entry.take(size, self._clock()):
                return None
            self._entries.move_to_end(name)
            return entry

    def peek(self, name: Hashable) -> CachedKey | None:
        """The key under `name` if it can be used, nothing counted."""
        with self._lock:
            entry = self._entries.get(name)
            return entry if entry is not None and entry.lasts(self._clock()) else None

    def put(
        self, name: Hashable, key: Secret, header: Header, recipient: Recipient, context: EncryptionContext
    ) -> CachedKey:
        """Keep a new data key under `name`."""
        entry = CachedKey(key, header, recipient, context, self.policy, self._clock())
        with self._lock:
            gone = [self._entries.pop(name)] if name in self._entries else []
            if not self._closed:
                self._entries[name] = entry
            if len(self._entries) > self.policy.max_entries:
                gone.append(self._entries.popitem(last=False)[1])
        for old in gone:
            self._dropped(old)
        return entry

    def count(self, entry: CachedKey, size: int) -> None:
        """Count the bytes of a message whose length was not known when it was begun."""
        with self._lock:
            entry.spend(size)

    def check_open(self) -> None:
        """Raises `ClosedError` after `close`."""
        if self._closed:
            raise ClosedError("the cipher is closed", remedy="open a new one")

    def close(self) -> None:
        """Drop every key, and keep none from now on."""
        with self._lock:
            self._closed = True
            entries = list(self._entries.values())
            self._entries.clear()
        with contextlib.ExitStack() as stack:  # each is told of, whatever becomes of the others
            for entry in entries:
                stack.callback(self._dropped, entry)

    def __len__(self) -> int:
        return len(self._entries)

    def after_fork(self) -> None:
        """A child starts with none of its parent's data keys."""
        self._lock = threading.Lock()
        self._entries = OrderedDict()
