"""Both roles in one object, and what needs both: rewrapping."""

from __future__ import annotations

import os
from collections.abc import Hashable

from kmsbridge import atomic, journal
from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import direct, files
from kmsbridge.cipher.arguments import Buffer, as_aad, as_bytes
from kmsbridge.cipher.decryptor import Decryptor
from kmsbridge.cipher.encryptor import Encryptor
from kmsbridge.cipher.opened import entry_point
from kmsbridge.clock import Deadline, age
from kmsbridge.config import Profile
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import KeyCache, Pairs, data_key_context, usage_reporter
from kmsbridge.datakeys.refusals import Refusals
from kmsbridge.datakeys.rewrapping import rewrapped_by_service
from kmsbridge.driver import Capability
from kmsbridge.keys import ManagedKey
from kmsbridge.message import cobblestone
from kmsbridge.secret import Secret
from kmsbridge.streams import write_all
from kmsbridge.threads import in_parallel

CURRENT_FOR = 10.0
"""Seconds for which the keys' current versions are taken to be what they were."""

Versions = tuple[tuple[str, str], ...]


class EnvelopeCipher(Encryptor, Decryptor):
    """Encrypts and decrypts, and rewraps: for the hosts that do both, and for moving between keys."""

    def _open_role(self, profile: Profile) -> None:
        super()._open_role(profile)
        self._rewraps = KeyCache(profile.data_keys, dropped=usage_reporter(self._observer, "rewrap"))
        self._not_by_service = Refusals()
        self._versions: Versions = ()
        self._versions_until = 0.0

    @entry_point
    def rewrap(self, message: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """The same message for the keys of `encrypt_to` in their current versions; the body is untouched.

        The context is needed because the key service binds it. The aad is needed for direct messages; with
        others of several recipients it tells which data key is the body's. Without it, recipients that hold
        different data keys are refused, and each that this profile decrypts with is asked for its own.
        Messages of one data key are rewrapped by one call. Raises what `decrypt` and `encrypt` raise.
        """
        data = as_bytes(message, "message", "kmsbridge.message.dearmor")
        header = wire.parse(data)
        start = data[header.length : header.length + cobblestone.OVERHEAD]
        return self._new_header(header, start, context, aad).encode() + data[header.length :]

    @entry_point
    def rewrap_file(self, path: PathLike, *, context: Pairs = None, aad: Buffer = b"") -> None:
        """The same for a file, in place: only its header is written, where it has the room.

        A crash at any point leaves the file readable, by the old keys or by the new.
        """
        path = os.path.realpath(path)  # once: it must not lead elsewhere in the middle
        with journal.locked(path) as file:
            old = journal.header_of(path, file)
            file.seek(old.length)
            bare = self._new_header(old, journal.read_exactly(file, cobblestone.OVERHEAD), context, aad)
            if bare.length <= old.length and old.layout.padded:
                new = wire.Header(bare.kind, old.length, bare.recipients)
                journal.replace_header(path, file, old, new)
                return
            mode = os.fstat(file.fileno()).st_mode & 0o777
            padded = wire.inline(bare.recipients, kind=bare.kind, padded=old.layout.padded)
            with atomic.replacing(path, mode=mode) as copy:
                write_all(copy, padded.encode())
                file.seek(old.length)
                files.copy_rest(file, copy)
            journal.forget(path)

    @entry_point
    def needs_rewrap(self, message: Buffer) -> bool:
        """Whether `message` is for other keys than those of `encrypt_to`, or for older versions of them.

        Only the header is looked at, so the start of a long message will do. The keys' versions are
        asked for every ten seconds at most.
        """
        self._encryption.check_open()
        header = wire.parse_header(as_bytes(message, "message", "kmsbridge.message.dearmor"))
        current = dict(self._current_versions(self._encryption.deadline()))
        return current != {
            each.key_id: each.key_version if current.get(each.key_id) else "" for each in header.recipients
        }

    def _report(self) -> None:
        self._rewraps.report()
        super()._report()

    def _close_role(self) -> None:
        if hasattr(self, "_rewraps"):
            self._rewraps.close()
        super()._close_role()

    def _new_header(self, header: wire.Header, start: bytes, pairs: Pairs, aad: Buffer) -> wire.Header:
        """The header to take the place of `header`, in front of a body that begins with `start`."""
        aad = as_aad(aad)
        if header.is_direct:
            return self._new_direct(header, pairs, aad)
        keys, deadline = self._decryption, self._decryption.deadline()
        keys.check_open()
        context = EncryptionContext.of(pairs)
        new = self._rewrapped_by_service(header, context, deadline)
        if new is not None:
            return new
        data_key = keys.agreed(header, context, lambda key: key.fits(start, aad), deadline)
        # By the data key that this body wants, not by the header: it may have led to another before.
        known = self._known_rewrap(data_key.name, deadline)
        if known is not None:
            return known
        return self._keep_rewrap(
            data_key.name, self._encryption.rewrap(data_key, deadline), context, deadline
        )

    def _rewrapped_by_service(
        self, header: wire.Header, context: EncryptionContext, deadline: Deadline
    ) -> wire.Header | None:
        """As `_by_service`, for messages with a data key: one call for all that have the same recipients of ours."""
        if not self._services_rewrap():
            return None
        matches, _ = self._decryption.unwrapping.matches(header, deadline)
        name = frozenset(self._decryption.name(recipient, context) for _, recipient in matches)
        known = self._known_rewrap(name, deadline)
        if known is not None or self._not_by_service.holds(name):
            return known
        new = self._by_service(header, data_key_context(context), deadline)
        if new is None:
            self._not_by_service.add(name)
            return None
        return self._keep_rewrap(name, new, context, deadline)

    def _known_rewrap(self, name: Hashable, deadline: Deadline) -> wire.Header | None:
        """Return the header that was kept under `name` and is for the keys' current versions, or None."""
        known = self._rewraps.use((name, self._current_versions(deadline)), 0)
        return None if known is None else wire.parse_header(known.header)

    def _keep_rewrap(
        self, name: Hashable, new: wire.Header, context: EncryptionContext, deadline: Deadline
    ) -> wire.Header:
        """Keep `new` for other messages under `name`, None where data keys are not shared; return it."""
        if name is not None:
            # Of the data key itself nothing is wanted any more.
            entry = self._rewraps.new(Secret(b""), new.recipients[0], context, new)
            self._rewraps.put((name, self._current_versions(deadline)), entry)
        return new

    def _new_direct(self, header: wire.Header, pairs: Pairs, aad: bytes) -> wire.Header:
        self._encryption.check_direct()
        bound, deadline = direct.bound_context(pairs, aad), self._decryption.deadline()
        new = self._by_service(header, bound, deadline)
        if new is not None:
            return new
        payload = Secret(self._decryption.unwrapping.payload(header, bound, deadline))
        return self._encryption.wrap(payload, bound, deadline, wire.Kind.DIRECT, "rewrap")

    def _by_service(
        self, header: wire.Header, bound: EncryptionContext, deadline: Deadline
    ) -> wire.Header | None:
        if not self._services_rewrap():
            return None
        matches, _ = self._decryption.unwrapping.matches(header, deadline)
        return rewrapped_by_service(header.kind, bound, self._encryption.keys, matches, deadline)

    def _services_rewrap(self) -> bool:
        return any(Capability.SERVER_REWRAP in key.capabilities for key in self._encryption.keys)

    def _current_versions(self, deadline: Deadline) -> Versions:
        now = age()
        if not self._versions or now >= self._versions_until:
            self._versions = tuple(
                in_parallel(lambda key: _current_version(key, deadline), self._encryption.keys, deadline)
            )
            self._versions_until = now + CURRENT_FOR
        return self._versions


def _current_version(key: ManagedKey, deadline: Deadline) -> tuple[str, str]:
    known = Capability.REPORTS_VERSION in key.capabilities
    return key.identify(deadline=deadline), key.describe(deadline=deadline).version if known else ""
