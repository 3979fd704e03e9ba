"""Data keys kept in memory: bounded in number, age, messages and bytes."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
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

NO_PAIRS: Final[frozenset[object]] = frozenset()
"""The `context_key` of no context."""


def context_key(pairs: Pairs) -> Hashable:
    """Return the key under which a context's data key is kept: the same whatever the order of the pairs.

    Nothing is checked, because this is done for every message. Pairs that are not allowed in a context are
    never in a cache, so they are not found, and are checked then. Raise `TypeError` or `AttributeError` for
    what is not a mapping of texts.
    """
    return NO_PAIRS if pairs is None else frozenset(pairs.items())


class KeyCache:
    """A cache of at most `policy.max_entries` data keys, whose descriptions take at most `MAX_WEIGHT` bytes.

    The least recently used are dropped first, and each when it is too old. A data key has one name, and may
    have an alias for each kind of message, under which it is found more cheaply. The lock is held to change the
    cache, not to look something up, and never during encryption or a call.
    """

    def __init__(
        self,
        policy: DataKeyPolicy,
        *,
        clock: Callable[[], float] = age,
        dropped: Callable[[DataKey], None] = lambda _: None,
        longest: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self.policy = policy
        self._clock = clock
        self._dropped = dropped
        self._longest = longest
        self._entries: OrderedDict[Hashable, DataKey] = OrderedDict()
        self._aliases: dict[Hashable, DataKey] = {}
        self._weight = 0
        # Re-entrant, like every lock here: a signal handler or a finalizer may come while it is held.
        self._lock = threading.RLock()
        self._closed = False
        forks.watch(self)

    def use(self, name: Hashable, size: int) -> DataKey | None:
        """Return the data key of this name and count one message of `size` bytes; None where there is none
        that may be used.
        """
        # As `use_alias`, both written out: a call more is some percent of a small message's time.
        entry = self._entries.get(name)
        if entry is None or not entry.take(size, self._clock()):
            return None
        entry.recently_used = True
        return entry

    def use_alias(self, alias: Hashable, size: int) -> DataKey | None:
        """Return the data key of this alias and count one message of `size` bytes; None where there is none
        that may be used.
        """
        entry = self._aliases.get(alias)
        if entry is None or not entry.take(size, self._clock()):
            return None
        entry.recently_used = True
        return entry

    def use_entry(self, entry: DataKey | None, size: int) -> DataKey | None:
        """Return `entry` and count one message of `size` bytes; None where it is None or its allowance is
        used up.
        """
        return entry if entry is not None and entry.take(size, self._clock()) else None

    def use_entry_many(self, entry: DataKey | None, sizes: Sequence[int]) -> int:
        """Count messages of these sizes in bytes; return how many of them `entry` may serve, from the first on."""
        return 0 if entry is None else entry.take_many(sizes, self._clock())

    def find(self, alias: Hashable) -> DataKey | None:
        """Return the data key of this alias, without counting a message."""
        return self._aliases.get(alias)

    def peek(self, name: Hashable) -> DataKey | None:
        """Return the data key of this name if it may be used, without counting a message."""
        entry = self._entries.get(name)
        return entry if entry is not None and entry.lasts(self._clock()) else None

    def new(
        self, secret: Secret, recipient: Recipient, context: EncryptionContext, header: Header | None = None
    ) -> DataKey:
        """Return a new data key with the whole allowance of the policy. It is not kept yet.

        It lasts `longest()` seconds at most, if that is shorter.
        """
        policy, most = self.policy, self._longest()
        if most < policy.max_age:
            policy = policy._replace(max_age=most)
        return DataKey(secret, recipient, context, policy, self._clock(), header)

    def put(self, name: Hashable, entry: DataKey) -> DataKey:
        """Keep a new data key under `name`, and return it."""
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

    def give_alias(self, entry: DataKey, alias: Hashable, weight: int, kind: Hashable) -> None:
        """Let `entry` be found by `alias`, which takes `weight` bytes, in place of the alias it had for this kind."""
        with self._lock:
            if self._aliases.get(alias) is entry or self._entries.get(entry.name) is not entry:
                return
            self._drop_alias(entry, kind)
            self._aliases[alias] = entry
            entry.aliases[kind] = alias, weight
            self._add_weight(entry, weight)
            gone = self._shrink(entry)
        for old in gone:
            self._dropped(old)

    def check_open(self) -> None:
        """Raises `ClosedError` after `close`."""
        if self._closed:
            raise ClosedError("the cipher is closed", remedy="open a new one")

    def sweep(self) -> float | None:
        """Drop the data keys that are too old. Return the seconds until the next one is; None where none is
        left.
        """
        now = self._clock()
        with self._lock:
            entries = list(self._entries.values())
            gone = [entry for entry in entries if entry.expires_in(now) <= 0 and self._remove(entry)]
            left = min((entry.expires_in(now) for entry in self._entries.values()), default=None)
        for entry in gone:
            self._dropped(entry)
        return left

    def report(self) -> None:
        """Call `dropped` for every data key, so that its use is reported, and keep it."""
        with contextlib.ExitStack() as stack:  # each is told of, whatever becomes of the others
            for entry in list(self._entries.values()):
                stack.callback(self._dropped, entry)

    def close(self) -> None:
        """Drop every data key, and keep none from now on."""
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

    def oldest(self) -> float:
        """Return the age in seconds of the oldest data key; 0.0 where there is none."""
        now, max_age = self._clock(), self.policy.max_age
        left = min((entry.expires_in(now) for entry in list(self._entries.values())), default=max_age)
        return max(0.0, max_age - left)

    def after_fork(self) -> None:
        """Drop every data key: a forked child starts with none of its parent's."""
        self._lock = threading.RLock()
        for entry in self._entries.values():  # also for the code that holds one while it forks
            entry.forget_writer()
        self._forget_all()

    def _shrink(self, newest: DataKey) -> list[DataKey]:
        """Drop what is too much, but not `newest`; return it. An entry that was used since it was last looked
        at is spared once.
        """
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
        """Remove `entry`. Return whether it was there."""
        if self._entries.get(entry.name) is not entry:
            return False
        # Not `del`: a signal handler may have removed it between the look and this.
        self._entries.pop(entry.name, None)
        for kind in list(entry.aliases):
            self._drop_alias(entry, kind)
        self._weight -= entry.weight
        return True

    def _drop_alias(self, entry: DataKey, kind: Hashable) -> None:
        alias, weight = entry.aliases.pop(kind, (None, 0))
        self._aliases.pop(alias, None)
        self._add_weight(entry, -weight)

    def _add_weight(self, entry: DataKey, weight: int) -> None:
        entry.weight += weight
        self._weight += weight

    def _forget_all(self) -> None:
        self._entries, self._aliases, self._weight = OrderedDict(), {}, 0
