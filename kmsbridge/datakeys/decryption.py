"""Data keys to decrypt with."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Final, TypeVar

from kmsbridge.clock import Deadline
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.cache import NO_PAIRS, KeyCache, Pairs, context_key
from kmsbridge.datakeys.datakey import DataKey, data_key_context
from kmsbridge.datakeys.flight import SingleFlight, copied
from kmsbridge.datakeys.refusals import Refusals
from kmsbridge.datakeys.unwrapping import TRANSIENT, TRY_NEXT_KEY_AFTER, Match, Unwrapping, worst
from kmsbridge.datakeys.usage import usage_reporter
from kmsbridge.errors import (
    AuthenticationError,
    KmsBridgeError,
)
from kmsbridge.keys import ManagedKey
from kmsbridge.message import Header, Recipient
from kmsbridge.observer import Observer
from kmsbridge.policy import CallPolicy, DataKeyPolicy
from kmsbridge.secret import Secret

DATA_KEY_LENGTH: Final = 32

T = TypeVar("T")

KnownKeys = dict[Hashable, DataKey | KmsBridgeError]
"""Data keys by their name, and the errors of those that could not be unwrapped by the `failure_name`."""


class DecryptionKeys:
    """Finds the data keys of messages: in memory, or by having one of `keys` unwrap them.

    One body can stand behind many valid headers: with other recipients beside ours, other labels, other
    padding. So a data key is named by what cannot be varied: its key's id, the SHA-256 of the wrapped bytes,
    and the context. The exact bytes of a header are an alias, given once a body was decrypted by the data
    key, which saves parsing that header again.
    """

    def __init__(
        self, keys: Sequence[ManagedKey], policy: DataKeyPolicy, observer: Observer, calls: CallPolicy
    ) -> None:
        self.unwrapping = Unwrapping(keys)
        self.flights: SingleFlight[DataKey] = SingleFlight()
        self._seconds = calls.deadline
        self.shared = policy.max_messages > 1
        self._cache = KeyCache(
            policy,
            dropped=usage_reporter(observer, "decrypt"),
            longest=lambda: min(key.environment.longest() for key in keys),
        )
        self._use_alias = self._cache.use_alias
        self.refusals = Refusals()
        self._label_counts = {key.driver.scheme for key in keys if key.reads_version}

    def at_hand(self, header: bytes, pairs: Pairs, size: int) -> DataKey | None:
        """Return the data key that last decrypted a message with these header bytes, or None: no call, no
        parsing.

        Where it does not decrypt this message, another of the message's recipients may have wrapped one that
        does.
        """
        try:
            return self._use_alias((header, NO_PAIRS if pairs is None else context_key(pairs)), size)
        except (AttributeError, TypeError):
            return None  # no context at all, as `use_fitting` says in its error

    def use_fitting(
        self,
        header: Header,
        pairs: Pairs,
        size: int,
        use: Callable[[DataKey], T],
        *,
        packed: bytes = b"",
        known: KnownKeys | None = None,
    ) -> T:
        """Return `use(data key)` for the first of the message's data keys that fits: that raises no
        `AuthenticationError`.

        Recipients may hold different data keys: whoever can write to the storage can put together what others
        wrapped. So where one does not unwrap, or does not fit, the next is tried. If none fits, a refusal is
        raised before an outage, and either before a lack of authenticity; the others are in the error's
        notes.

        `packed` is the header's bytes, by which `at_hand` finds the data key from now on; `known` saves
        looking for keys again. Raise what `EncryptionContext.of` raises, `NoMatchingKey`,
        `AuthenticationError`, or a `KmsError`.
        """
        context = EncryptionContext.of(pairs)
        self._cache.check_open()
        failures: list[KmsBridgeError] = []
        for entry in self.candidates(header, context, size, failures, {} if known is None else known):
            try:
                result = use(entry)
            except AuthenticationError as error:
                if header.commitment:
                    raise  # it is the right data key, so no other can fit
                failures.append(error)
            else:
                if packed and self.shared:
                    self._give_alias(entry, header, packed, pairs)
                return result
        raise worst(failures)

    def use_fitting_at_hand(
        self, header: Header, pairs: Pairs, size: int, use: Callable[[DataKey], T], *, packed: bytes
    ) -> T | None:
        """Do the same with the data keys in memory alone. Return None where none of them fits."""
        context = EncryptionContext.of(pairs)
        self._cache.check_open()
        for entry in self._entries_at_hand(header, context, size, {}):
            if not entry.commits_to(header):
                continue
            with contextlib.suppress(AuthenticationError):
                result = use(entry)
                self._give_alias(entry, header, packed, pairs)
                return result
        return None

    def find(self, header: bytes, context: EncryptionContext) -> DataKey | None:
        """Return the data key that last decrypted a message with these header bytes; no message is counted."""
        return self._cache.find((header, context_key(context)))

    def take_many(self, entry: DataKey | None, sizes: Sequence[int]) -> int:
        """Count messages of these sizes; return how many of them the data key may decrypt, from the first on."""
        return self._cache.use_entry_many(entry, sizes)

    def fetch(self, header: Header, pairs: Pairs) -> bool:
        """Load a data key of this message, and return True. Raise what `use_fitting` does where there is
        none.
        """
        failures: list[KmsBridgeError] = []
        self._cache.check_open()
        if next(self.candidates(header, EncryptionContext.of(pairs), 0, failures, {}), None) is None:
            raise worst(failures)
        return True

    def data_key_to_rewrap(
        self,
        header: Header,
        context: EncryptionContext,
        fits: Callable[[DataKey], bool],
        deadline: Deadline,
        known: KnownKeys | None = None,
    ) -> DataKey:
        """Return the data key to rewrap: one that `fits` the body, or the one that all of our recipients
        hold.

        Raise `AuthenticationError` where they hold different ones, of which none fits: to keep the wrong one
        would make the message unreadable.
        """
        entries: list[DataKey] = []
        failures: list[KmsBridgeError] = []
        for entry in self.candidates(header, context, 0, failures, {} if known is None else known, deadline):
            if fits(entry):
                return entry
            entries.append(entry)
        passing = [error for error in failures if isinstance(error, TRANSIENT)]
        if not entries or (passing and len(entries) < len(header.recipients)):
            raise worst(failures)
        if any(not entry.is_same_as(entries[0]) for entry in entries):
            raise AuthenticationError(
                "the message's recipients hold different data keys",
                remedy="pass the aad it was encrypted with, which tells the right one",
            )
        return entries[0]

    def candidates(
        self,
        header: Header,
        context: EncryptionContext,
        size: int,
        failures: list[KmsBridgeError],
        known: KnownKeys,
        deadline: Deadline | None = None,
    ) -> Iterator[DataKey]:
        """Yield the message's data keys that its header commits to, if it does to any: those in memory, then the
        others in the order of `decrypt_with`.

        While there is another key to try, one gets a single attempt and its share of the time. Failures are
        added to `failures` and, by name, to `known`.
        """
        tried = set()
        for entry in self._entries_at_hand(header, context, size, known):
            tried.add(entry.key_id)
            if entry.commits_to(header):
                yield entry
            else:
                failures.append(AuthenticationError())
        deadline = deadline or self.deadline()
        matches, without_id = self.unwrapping.matches(header, deadline)
        failures += without_id
        left = [match for match in matches if match[1].key_id not in tried]
        for number, match in enumerate(left):
            others = len(left) - number - 1
            try:
                entry = self._get(match, context, size, deadline.share(others + 1), known, last=not others)
            except TRY_NEXT_KEY_AFTER as error:
                known[self.failure_name(match, context)] = error
                failures.append(error)
            else:
                self.unwrapping.probe_unhealthy(header, data_key_context(context), self._seconds)
                if entry.commits_to(header):
                    yield entry
                else:
                    failures.append(AuthenticationError())

    def keep(
        self, name: Hashable, unwrapped: bytes, recipient: Recipient, context: EncryptionContext
    ) -> DataKey:
        """Return what was unwrapped as a data key, which is kept under `name` where data keys are shared.

        Raise `AuthenticationError` where it is not 32 bytes long.
        """
        if len(unwrapped) != DATA_KEY_LENGTH:
            raise AuthenticationError  # whoever may wrap can put anything into a message
        entry = self._cache.new(Secret(unwrapped), recipient, context)
        return self._cache.put(name, entry) if self.shared else entry

    def is_at_hand(self, header: Header, context: EncryptionContext) -> bool:
        """Return whether a data key of this message is in memory."""
        return any(self._cache.peek(self.name(each, context)) is not None for each in header.recipients)

    def name(self, recipient: Recipient, context: EncryptionContext) -> Hashable:
        """Return the name of a recipient's wrapped data key in memory, which does not depend on the header
        around it.
        """
        scheme = recipient.key_id.partition(":")[0]
        label = recipient.key_version if scheme in self._label_counts else ""
        return recipient.key_id, label, hashlib.sha256(recipient.wrapped).digest(), context.canonical()

    def failure_name(self, match: Match, context: EncryptionContext) -> Hashable:
        """Return the name of a failure to unwrap: of the data key, and the key that could not. Another may, where
        several have had the id that the message names.
        """
        return match[0], self.name(match[1], context)

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

    def _give_alias(self, entry: DataKey, header: Header, packed: bytes, pairs: Pairs) -> None:
        self._cache.give_alias(entry, (packed, context_key(pairs)), len(packed), header.kind)

    # --- one message --------------------------------------------------------------------------------

    def _entries_at_hand(
        self, header: Header, context: EncryptionContext, size: int, known: KnownKeys
    ) -> Iterator[DataKey]:
        for recipient in header.recipients:
            name = self.name(recipient, context)
            entry = self._cache.use(name, size) or known.get(name)
            if isinstance(entry, DataKey):
                yield entry

    def _get(
        self,
        match: Match,
        context: EncryptionContext,
        size: int,
        deadline: Deadline,
        known: KnownKeys,
        *,
        last: bool,
    ) -> DataKey:
        name = self.name(match[1], context)
        failure = known.get(self.failure_name(match, context))
        if isinstance(failure, KmsBridgeError):
            raise copied(failure)

        def load() -> DataKey:
            return self._load(name, match, context, deadline, attempts=None if last else 1)

        if not self.shared:
            return load()
        entry = self._cache.use(name, size)
        while entry is None:
            entry = self._cache.use_entry(self.flights.run(name, load, deadline), size)
        return entry

    def _load(
        self,
        name: Hashable,
        match: Match,
        context: EncryptionContext,
        deadline: Deadline,
        attempts: int | None,
    ) -> DataKey:
        # One that another flight brought, after the caller had looked and before it led, will do.
        entry = self._cache.peek(name) if self.shared else None
        if entry is not None:
            return entry
        failure_name = self.failure_name(match, context)
        if self.refusals.holds(failure_name):
            raise AuthenticationError
        try:
            unwrapped = self.unwrapping.unwrap(match, data_key_context(context), deadline, attempts=attempts)
        except AuthenticationError:
            self.refusals.add(failure_name)
            raise
        return self.keep(name, unwrapped, match[1], context)
