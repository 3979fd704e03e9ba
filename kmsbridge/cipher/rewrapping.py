"""The core of rewrapping: it makes the same message for other keys, and leaves the body untouched."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Sequence
from typing import Final, NamedTuple

from kmsbridge import atomic, journal
from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import direct, files, many
from kmsbridge.cipher.aad import Aad, as_aad, one_each
from kmsbridge.cipher.arguments import Buffer, as_bytes, at_item
from kmsbridge.cipher.many import Value
from kmsbridge.cipher.session import Session
from kmsbridge.clock import Deadline, age
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import DataKey, EncryptionKeys, KeyCache, Pairs, data_key_context, usage_reporter
from kmsbridge.datakeys.batches import fetch_many
from kmsbridge.datakeys.decryption import DecryptionKeys, KnownKeys
from kmsbridge.datakeys.refusals import Refusals
from kmsbridge.datakeys.rewrapping import rewrapped_by_service
from kmsbridge.datakeys.unwrapping import check_recipients, worst, wrapped_by
from kmsbridge.driver import Capability
from kmsbridge.errors import KmsBridgeError, MessageError
from kmsbridge.keys import ManagedKey
from kmsbridge.message import cobblestone
from kmsbridge.secret import Secret
from kmsbridge.streams import write_all
from kmsbridge.threads import in_parallel

CURRENT_FOR: Final = 10.0
"""Seconds for which the keys' current versions are taken to be what they were."""

Versions = tuple[tuple[str, str], ...]
Recipients = tuple[wire.Recipient, ...]


class Source(NamedTuple):
    """A message to be rewrapped. `start` is the body's first 56 bytes, or what there is.

    `message` is all of it, empty for a file's.
    """

    header: wire.Header
    start: bytes
    context: EncryptionContext
    aad: bytes
    message: bytes = b""


class Rewrapping:
    """Rewraps to the keys of `encryption` what those of `decryption` unwrap; both are of one session.

    What each method raises stands at `EnvelopeCipher`. All of them block while a key service is called.
    """

    def __init__(self, session: Session, encryption: EncryptionKeys, decryption: DecryptionKeys) -> None:
        self._environment = session.profile.environment
        self._encryption = encryption
        self._decryption = decryption
        self._headers = KeyCache(
            session.profile.data_keys, dropped=usage_reporter(session.observer, "rewrap")
        )
        self._not_by_service = Refusals()
        self._versions: Versions = ()
        self._versions_until = 0.0

    def rewrap(self, message: Buffer, context: Pairs, aad: Aad) -> bytes:
        """Return the same message for the keys of `encrypt_to` in their current versions."""
        data = as_bytes(message, "message", "kmsbridge.message.dearmor")
        header = wire.parse(data)
        source = Source(header, _start_of_body(data, header), EncryptionContext.of(context), as_aad(aad))
        return _with_recipients(data, header, self._recipients_for(source))

    def rewrap_many(
        self,
        messages: Iterable[Value],
        context: Pairs,
        contexts: Sequence[Pairs] | None,
        aads: Sequence[Aad] | None,
    ) -> list[bytes | str | None]:
        """Return the same messages, in order, as `rewrap` does: text for text, None for None."""
        values, whole = many.messages_of(messages)
        every_aad = one_each(aads, len(values))
        present = [place for place, message in enumerate(whole) if message is not None]
        groups = many.groups_of(present, len(values), context, contexts)
        context_at = {place: group.context for group in groups for place in group.places}
        sources = [
            _source(whole[place] or b"", context_at[place], every_aad[place], place) for place in present
        ]
        results: list[bytes | str | None] = [None] * len(values)
        for place, source, new in zip(present, sources, self._recipients_for_each(sources), strict=True):
            if isinstance(new, KmsBridgeError):
                raise at_item(new, place)
            message = _with_recipients(source.message, source.header, new)
            results[place] = wire.armor(message) if isinstance(values[place], str) else message
        return results

    def rewrap_file(self, path: PathLike, context: Pairs, aad: Aad) -> None:
        """Rewrap the message in a file in place: only its header is written, where it has the room."""
        path = os.path.realpath(path)  # once: it must not lead elsewhere in the middle
        with journal.locked(path) as file:
            old = journal.header_of(path, file)
            file.seek(old.length)
            start = journal.read_exactly(file, cobblestone.OVERHEAD)
            recipients = self._recipients_for(Source(old, start, EncryptionContext.of(context), as_aad(aad)))
            bare = _new_header(old, recipients)
            if bare.length <= old.length and old.layout.padded:
                journal.replace_header(path, file, old, bare._replace(length=old.length))
                return
            mode = os.fstat(file.fileno()).st_mode & 0o777
            with atomic.replacing(path, mode=mode) as copy:
                write_all(copy, _new_header(old, recipients, padded=old.layout.padded).encode())
                file.seek(old.length)
                files.copy_rest(file, copy)
            journal.remove_saved_header(path)

    def needs_rewrap(self, message: Buffer) -> bool:
        """Return whether `message` is for other keys than those of `encrypt_to`, or for other versions of
        them, or names another version than its wrapped key is of; or may be one without the environment of this
        host, while those are accepted.
        """
        self._encryption.check_open()
        header = wire.parse_header(as_bytes(message, "message", "kmsbridge.message.dearmor"))
        check_recipients(header)
        current = dict(self._current_versions(self._encryption.deadline()))
        if self._environment.accepts_unmarked() or current.keys() != {r.key_id for r in header.recipients}:
            return True
        drivers = {key.key_id: key.driver for key in self._encryption.keys}
        versions = {
            each.key_id: {each.key_version, drivers[each.key_id].version_of(each.wrapped) or each.key_version}
            for each in header.recipients
        }
        return any(told != {current[key_id]} for key_id, told in versions.items() if current[key_id])

    def is_outdated(self, message: Buffer, context: Pairs, aad: Aad) -> bool:
        """Ask the services of the keys in `decrypt_with`, and return whether one tells that another than its current
        version wrapped the message's data key.
        """
        self._decryption.check_open()
        header = wire.parse_header(as_bytes(message, "message", "kmsbridge.message.dearmor"))
        pairs = EncryptionContext.of(context)
        bound = direct.bound_context(pairs, as_aad(aad)) if header.is_direct else data_key_context(pairs)
        deadline = self._decryption.deadline()
        matches, failures = self._decryption.unwrapping.matches(header, deadline)
        if failures:
            raise worst(failures)
        answers = in_parallel(
            lambda match: match[0].is_current(wrapped_by(match), bound, deadline=deadline),
            matches,
            deadline,
        )
        return False in answers

    def report(self) -> None:
        """Tell the audit trail how many messages each new header has served since it was last told."""
        self._headers.report()

    def close(self) -> None:
        """Report, and drop every header that was kept; may be repeated."""
        self._headers.close()

    def _recipients_for(self, source: Source) -> Recipients:
        """Return the recipients to take the place of the source's."""
        (new,) = self._recipients_for_each([source])
        if isinstance(new, KmsBridgeError):
            raise new
        return new

    def _recipients_for_each(self, sources: Sequence[Source]) -> list[Recipients | KmsBridgeError]:
        """Return the recipients to take the place of each source's, or why there are none.

        Each distinct data key is rewrapped once: by the services where they can, 16 at a time, else by unwrapping
        and wrapping, in the provider's batches where it has them.
        """
        self._encryption.check_open()
        self._decryption.check_open()
        deadline = self._decryption.deadline()
        results = in_parallel(
            lambda source: self._try_services(source, deadline), _distinct(sources), deadline
        )
        by_service = dict(zip(map(_identity, _distinct(sources)), results, strict=True))
        left = [source for source in sources if by_service[_identity(source)] is None]
        unwrapped = iter(self._wrapped_again(left, deadline))
        return [by_service[_identity(source)] or next(unwrapped) for source in sources]

    def _try_services(self, source: Source, deadline: Deadline) -> Recipients | KmsBridgeError | None:
        """Return the recipients as services rewrap them, None where they cannot. A direct message's are never None."""
        try:
            if source.header.is_direct:
                return self._new_direct_recipient(source, deadline)
            return self._rewrapped_by_service(source.header, source.context, deadline)
        except KmsBridgeError as error:
            return error

    def _new_direct_recipient(self, source: Source, deadline: Deadline) -> Recipients:
        self._encryption.check_direct()
        bound = direct.bound_context(source.context, source.aad)
        new = self._by_service(source.header, bound, deadline)
        if new is not None:
            return new
        payload = Secret(self._decryption.unwrapping.payload(source.header, bound, deadline))
        return self._encryption.wrap(payload, bound, deadline, "rewrap")

    def _wrapped_again(
        self, sources: Sequence[Source], deadline: Deadline
    ) -> list[Recipients | KmsBridgeError]:
        """Return recipients for the data keys of these sources, which are unwrapped and wrapped again."""
        wanted = [(source.header, source.context) for source in _distinct(sources)]
        known = fetch_many(self._decryption, wanted) if len(wanted) > 1 else {}
        data_keys = [self._data_key(source, deadline, known) for source in sources]
        # By the data key that each body wants, not by the header: it may have led to another before.
        new: dict[Hashable, Recipients | KmsBridgeError] = {}
        missing: dict[Hashable, DataKey] = {}
        for each in data_keys:
            if isinstance(each, DataKey) and id(each) not in missing and id(each) not in new:
                kept = self._known_recipients(each.name, deadline)
                if kept is None:
                    missing[id(each)] = each
                else:
                    new[id(each)] = kept
        made = self._encryption.rewrap(list(missing.values()), deadline)
        for (name, data_key), recipients in zip(missing.items(), made, strict=True):
            new[name] = recipients
            if not isinstance(recipients, KmsBridgeError):
                self._keep(data_key.name, recipients, data_key.context, deadline)
        return [new[id(each)] if isinstance(each, DataKey) else each for each in data_keys]

    def _data_key(self, source: Source, deadline: Deadline, known: KnownKeys) -> DataKey | KmsBridgeError:
        header, start, context, aad, _ = source
        try:
            return self._decryption.data_key_to_rewrap(
                header, context, lambda key: key.fits(header, start, aad), deadline, known
            )
        except KmsBridgeError as error:
            return error

    # --- by the key service itself ------------------------------------------------------------------

    def _rewrapped_by_service(
        self, header: wire.Header, context: EncryptionContext, deadline: Deadline
    ) -> Recipients | None:
        """Do as `_by_service` for messages with a data key: one call for all that have the same recipients of
        ours.
        """
        if not self._services_rewrap():
            return None
        matches, _ = self._decryption.unwrapping.matches(header, deadline)
        name = frozenset(self._decryption.name(recipient, context) for _, recipient in matches)
        known = self._known_recipients(name, deadline)
        if known is not None or self._not_by_service.holds(name):
            return known
        new = self._by_service(header, data_key_context(context), deadline)
        if new is None:
            self._not_by_service.add(name)
            return None
        return self._keep(name, new, context, deadline)

    def _by_service(
        self, header: wire.Header, bound: EncryptionContext, deadline: Deadline
    ) -> Recipients | None:
        """Return the recipients as the keys' services rewrap them, None where they cannot or may not."""
        if not self._services_rewrap():
            return None
        matches, _ = self._decryption.unwrapping.matches(header, deadline)
        return rewrapped_by_service(bound, self._encryption.keys, matches, deadline)

    def _services_rewrap(self) -> bool:
        return any(Capability.SERVER_REWRAP in key.capabilities for key in self._encryption.keys)

    # --- recipients for other messages of the same data key -------------------------------------------

    def _known_recipients(self, name: Hashable, deadline: Deadline) -> Recipients | None:
        """Return the recipients that were kept under `name` and are of the keys' current versions, or None."""
        known = self._headers.use((name, self._current_versions(deadline)), 0)
        return None if known is None else wire.parse_header(known.header).recipients

    def _keep(
        self, name: Hashable, new: Recipients, context: EncryptionContext, deadline: Deadline
    ) -> Recipients:
        """Keep `new` for other messages under `name`, None where data keys are not shared; return it."""
        if name is not None:
            # Of the data key itself nothing is wanted any more.
            entry = self._headers.new(Secret(b""), new[0], context, wire.inline(new))
            self._headers.put((name, self._current_versions(deadline)), entry)
        return new

    def _current_versions(self, deadline: Deadline) -> Versions:
        now = age()
        if not self._versions or now >= self._versions_until:
            self._versions = tuple(
                in_parallel(lambda key: _current_version(key, deadline), self._encryption.keys, deadline)
            )
            self._versions_until = now + CURRENT_FOR
        return self._versions


def _start_of_body(message: bytes, header: wire.Header) -> bytes:
    return message[header.length : header.length + cobblestone.OVERHEAD]


def _source(message: bytes | MessageError, context: EncryptionContext, aad: bytes, place: int) -> Source:
    """Return one of many messages as a source. Raises its `MessageError`, which has its place."""
    try:
        if isinstance(message, MessageError):
            raise message
        header = wire.parse(message)
    except MessageError as error:
        raise at_item(error, place) from None
    return Source(header, _start_of_body(message, header), context, aad, message)


def _identity(source: Source) -> Hashable:
    """Return what sources have in common that are rewrapped in the same way."""
    header, context = source.header, source.context.canonical()
    return (header.recipients, context, source.aad) if header.is_direct else (header.recipients, context)


def _distinct(sources: Sequence[Source]) -> list[Source]:
    return list({_identity(source): source for source in sources}.values())


def _with_recipients(message: bytes, header: wire.Header, recipients: Recipients) -> bytes:
    return _new_header(header, recipients).encode() + message[header.length :]


def _new_header(old: wire.Header, recipients: Recipients, *, padded: bool = False) -> wire.Header:
    """Return a header with these recipients, which is for the same body as `old`."""
    return wire.inline(recipients, kind=old.kind, commitment=old.commitment, padded=padded)


def _current_version(key: ManagedKey, deadline: Deadline) -> tuple[str, str]:
    known = Capability.REPORTS_VERSION in key.capabilities
    return key.identify(deadline=deadline), key.describe(deadline=deadline).version if known else ""
