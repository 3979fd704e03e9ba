"""Data keys at hand: bounded in number, age, messages and bytes."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Final

from kmsbridge import forks
from kmsbridge.clock import age
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.datakey import DataKey
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


def context_key(pairs: Pairs) -> Hashable:
    """The name of a context in a cache: cheap, and the same whatever the order of the pairs.

    It checks nothing: pairs that no context may have are never in a cache, so they are not found
    there and get checked. Raises `TypeError` or `AttributeError` for what is no mapping of texts.
    """
    return _NO_PAIRS if pairs is None else frozenset(pairs.items())


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
        dropped: Callable[[DataKey], None] = lambda _: None,
    ) -> None:
        self.policy = policy
        self._clock = clock
        self._dropped = dropped
        self._entries: OrderedDict[Hashable, DataKey] = OrderedDict()
        self._aliases: dict[Hashable, DataKey] = {}
        self._weight = 0
        # Re-entrant, like every lock here: a signal handler or a finalizer may come while it is held.
        self._lock = threading.RLock()
        self._closed = False
        forks.watch(self)

    def use(self, name: Hashable, size: int) -> DataKey | None:
        """The key under `name`, one message of `size` bytes counted; None where there is none to use."""
        # As `use_alias`, both written out: a call more is some percent of a small message's time.
        entry = self._entries.get(name)
        if entry is None or not entry.take(size, self._clock()):
            return None
        entry.recently_used = True
        return entry

    def use_alias(self, alias: Hashable, size: int) -> DataKey | None:
        """Return the key of this alias, one message of `size` bytes counted; None where there is none to use."""
        entry = self._aliases.get(alias)
        if entry is None or not entry.take(size, self._clock()):
            return None
        entry.recently_used = True
        return entry

    def use_entry(self, entry: DataKey | None, size: int) -> DataKey | None:
        """`entry`, one message of `size` bytes counted; None where there is none, or its allowance is used up."""
        return entry if entry is not None and entry.take(size, self._clock()) else None

    def peek(self, name: Hashable) -> DataKey | None:
        """The key under `name` if it can be used, nothing counted."""
        entry = self._entries.get(name)
        return entry if entry is not None and entry.lasts(self._clock()) else None

    def new(
        self, secret: Secret, recipient: Recipient, context: EncryptionContext, header: Header | None = None
    ) -> DataKey:
        """A data key with the whole allowance of the policy, not kept here."""
        return DataKey(secret, recipient, context, self.policy, self._clock(), header)

    def put(self, name: Hashable, entry: DataKey) -> DataKey:
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

    def give_alias(self, entry: DataKey, alias: Hashable, weight: int) -> None:
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

    def _shrink(self, newest: DataKey) -> list[DataKey]:
        """Make room, beside `newest`. What was used again since its last turn gets another turn."""
        gone = []
        while len(self._entries) > 1 and self._is_too_much():
            name, oldest = next(iter(self._entries.items()))
            if oldest.recently_used or oldest is newest:
                oldest.recently_used = False
                with contextlib.suppress(KeyError):  # a signal handler removed it just now
                    self._entries.move_to_end(name)
            elif self._remove(oldest):
                gone.append(oldest)
        return gone

    def _is_too_much(self) -> bool:
        return len(self._entries) > self.policy.max_entries or self._weight > MAX_WEIGHT

    def _remove(self, entry: DataKey) -> bool:
        """Whether it was there until now."""
        if self._entries.get(entry.name) is not entry:
            return False
        # Not `del`: a signal handler may have removed it between the look and this.
        self._entries.pop(entry.name, None)
        self._drop_alias(entry)
        self._weight -= entry.weight
        return True

    def _drop_alias(self, entry: DataKey) -> None:
        self._aliases.pop(entry.alias, None)
        self._weight += entry.set_alias(None, 0)

    def _forget_all(self) -> None:
        self._entries, self._aliases, self._weight = OrderedDict(), {}, 0
