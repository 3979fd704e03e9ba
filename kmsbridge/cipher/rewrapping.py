"""The core of rewrapping: it makes the same message for other keys, and leaves the body untouched."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Final

from kmsbridge import atomic, journal
from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import direct, files
from kmsbridge.cipher.aad import Aad, as_aad
from kmsbridge.cipher.arguments import Buffer, as_bytes
from kmsbridge.cipher.session import Session
from kmsbridge.clock import Deadline, age
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import EncryptionKeys, KeyCache, Pairs, data_key_context, usage_reporter
from kmsbridge.datakeys.decryption import DecryptionKeys
from kmsbridge.datakeys.refusals import Refusals
from kmsbridge.datakeys.rewrapping import rewrapped_by_service
from kmsbridge.driver import Capability
from kmsbridge.keys import ManagedKey
from kmsbridge.message import cobblestone
from kmsbridge.secret import Secret
from kmsbridge.streams import write_all
from kmsbridge.threads import in_parallel

CURRENT_FOR: Final = 10.0
"""Seconds for which the keys' current versions are taken to be what they were."""

Versions = tuple[tuple[str, str], ...]
Recipients = tuple[wire.Recipient, ...]


class Rewrapping:
    """Rewraps to the keys of `encryption` what those of `decryption` unwrap; both are of one session.

    What each method raises stands at `EnvelopeCipher`. All of them block while a key service is called.
    """

    def __init__(self, session: Session, encryption: EncryptionKeys, decryption: DecryptionKeys) -> None:
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
        start = data[header.length : header.length + cobblestone.OVERHEAD]
        new = _new_header(header, self._new_recipients(header, start, context, aad))
        return new.encode() + data[header.length :]

    def rewrap_file(self, path: PathLike, context: Pairs, aad: Aad) -> None:
        """Rewrap the message in a file in place: only its header is written, where it has the room."""
        path = os.path.realpath(path)  # once: it must not lead elsewhere in the middle
        with journal.locked(path) as file:
            old = journal.header_of(path, file)
            file.seek(old.length)
            start = journal.read_exactly(file, cobblestone.OVERHEAD)
            recipients = self._new_recipients(old, start, context, aad)
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
        them.
        """
        self._encryption.check_open()
        header = wire.parse_header(as_bytes(message, "message", "kmsbridge.message.dearmor"))
        current = dict(self._current_versions(self._encryption.deadline()))
        return current != {
            each.key_id: each.key_version if current.get(each.key_id) else "" for each in header.recipients
        }

    def report(self) -> None:
        """Tell the audit trail how many messages each new header has served since it was last told."""
        self._headers.report()

    def close(self) -> None:
        """Report, and drop every header that was kept; may be repeated."""
        self._headers.close()

    def _new_recipients(self, header: wire.Header, start: bytes, pairs: Pairs, aad: Aad) -> Recipients:
        """Return the recipients to take the place of the header's, in front of a body that begins with `start`."""
        aad = as_aad(aad)
        self._encryption.check_open()
        self._decryption.check_open()
        if header.is_direct:
            return self._new_direct_recipient(header, pairs, aad)
        deadline = self._decryption.deadline()
        context = EncryptionContext.of(pairs)
        new = self._rewrapped_by_service(header, context, deadline)
        if new is not None:
            return new
        data_key = self._decryption.data_key_to_rewrap(
            header, context, lambda key: key.fits(header, start, aad), deadline
        )
        # By the data key that this body wants, not by the header: it may have led to another before.
        known = self._known_recipients(data_key.name, deadline)
        if known is not None:
            return known
        return self._keep(data_key.name, self._encryption.rewrap(data_key, deadline), context, deadline)

    def _new_direct_recipient(self, header: wire.Header, pairs: Pairs, aad: bytes) -> Recipients:
        self._encryption.check_direct()
        bound, deadline = direct.bound_context(pairs, aad), self._decryption.deadline()
        new = self._by_service(header, bound, deadline)
        if new is not None:
            return new
        payload = Secret(self._decryption.unwrapping.payload(header, bound, deadline))
        return self._encryption.wrap(payload, bound, deadline, "rewrap")

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


def _new_header(old: wire.Header, recipients: Recipients, *, padded: bool = False) -> wire.Header:
    """Return a header with these recipients, which is for the same body as `old`."""
    return wire.inline(recipients, kind=old.kind, commitment=old.commitment, padded=padded)


def _current_version(key: ManagedKey, deadline: Deadline) -> tuple[str, str]:
    known = Capability.REPORTS_VERSION in key.capabilities
    return key.identify(deadline=deadline), key.describe(deadline=deadline).version if known else ""
