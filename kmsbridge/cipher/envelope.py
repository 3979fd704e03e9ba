"""Both roles in one object, and what needs both: rewrapping."""

from __future__ import annotations

import os
import time

from kmsbridge import atomic, journal
from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.calls import Key, in_parallel
from kmsbridge.cipher import direct, files
from kmsbridge.cipher.arguments import Buffer, as_bytes
from kmsbridge.cipher.decryptor import Decryptor
from kmsbridge.cipher.encryptor import Encryptor
from kmsbridge.config import Profile
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import KeyCache, Pairs, data_key_context, name_of, told_of_messages
from kmsbridge.datakeys.decryption import without_padding
from kmsbridge.datakeys.rewrapping import rewrapped_by_service
from kmsbridge.driver import Capability
from kmsbridge.secret import Secret
from kmsbridge.streams import write_all

CURRENT_FOR = 10.0
"""Seconds for which the keys' current versions are taken to be what they were."""

Versions = tuple[tuple[str, str], ...]


class EnvelopeCipher(Encryptor, Decryptor):
    """Encrypts and decrypts, and rewraps: for the hosts that do both, and for moving between keys."""

    def _open_role(self, profile: Profile) -> None:
        super()._open_role(profile)
        self._rewraps = KeyCache(profile.data_keys, dropped=told_of_messages(self._audit, "rewrap"))
        self._versions: Versions = ()
        self._versions_until = 0.0

    def rewrap(self, message: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """The same message for the keys of `encrypt_to` in their current versions; the body is untouched.

        The context is needed because the key service binds it; the aad only for direct messages.
        Messages of one data key are rewrapped by one call. Raises what `decrypt` and `encrypt` raise.
        """
        try:
            data = as_bytes(message, "message", "kmsbridge.message.dearmor")
            header = wire.parse(data)
            return self._new_header(header, context, aad).encode() + data[header.length :]
        except BaseException as error:
            self._failed(error, context)
            raise

    def rewrap_file(self, path: PathLike, *, context: Pairs = None, aad: Buffer = b"") -> None:
        """The same for a file, in place: only its header is written, where it has the room.

        A crash at any point leaves the file readable, by the old keys or by the new.
        """
        try:
            path = os.path.realpath(path)  # once: it must not lead elsewhere in the middle
            with journal.locked(path) as file:
                old = journal.header_of(path, file)
                bare = self._new_header(old, context, aad)
                if bare.length <= old.length and old.kind is wire.Kind.INLINE:
                    new = wire.Header(bare.kind, old.length, bare.recipients)
                    journal.replace_header(path, file, old, new)
                    return
                mode = os.fstat(file.fileno()).st_mode & 0o777
                padded = wire.inline(bare.recipients, kind=bare.kind, padded=old.kind is wire.Kind.INLINE)
                with atomic.replacing(path, mode=mode) as copy:
                    write_all(copy, padded.encode())
                    file.seek(old.length)
                    files.copy_rest(file, copy)
                journal.forget(path)
        except BaseException as error:
            self._failed(error, context)
            raise

    def needs_rewrap(self, message: Buffer) -> bool:
        """Whether `message` is for other keys than those of `encrypt_to`, or for older versions of them.

        Only the header is looked at, so the start of a long message will do. The keys' versions are
        asked for every ten seconds at most.
        """
        self._encryption.check_open()
        header = wire.parse_header(as_bytes(message, "message", "kmsbridge.message.dearmor"))
        current = dict(self._current_versions())
        return current != {
            each.key_id: each.key_version if current.get(each.key_id) else "" for each in header.recipients
        }

    def _close_role(self) -> None:
        if hasattr(self, "_rewraps"):
            self._rewraps.close()
        super()._close_role()

    def _new_header(self, header: wire.Header, pairs: Pairs, aad: Buffer) -> wire.Header:
        if header.kind is wire.Kind.DIRECT:
            bound = direct.bound_context(pairs, aad)
            new = self._by_service(header, bound)
            if new is not None:
                return new
            payload, _ = self._decryption.unwrapping.try_each(header, bound)
            return self._encryption.wrap(Secret(payload), bound, wire.Kind.DIRECT, "rewrap")
        context = EncryptionContext.of(pairs)
        old = without_padding(header)
        # The versions are part of the name: what was rewrapped before a rotation is not current after it.
        name = (old.encode(), name_of(context), self._current_versions())
        known = self._rewraps.use(name, 0)
        if known is not None:
            return wire.parse_header(known.header)
        bound = data_key_context(context)
        new = self._by_service(old, bound)
        if new is None:
            secret = self._decryption.get(old, context, 0).key
            new = self._encryption.wrap(secret, bound, operation="rewrap")
        # Of the data key itself nothing is wanted any more.
        self._rewraps.put(name, Secret(b""), new, new.recipients[0], context)
        return new

    def _by_service(self, header: wire.Header, bound: EncryptionContext) -> wire.Header | None:
        if not any(Capability.SERVER_REWRAP in key.capabilities for key in self._encryption.keys):
            return None
        matches, _ = self._decryption.unwrapping.matches(header)
        return rewrapped_by_service(header, bound, self._encryption.keys, matches, self._audit)

    def _current_versions(self) -> Versions:
        now = time.monotonic()
        if not self._versions or now >= self._versions_until:
            self._versions = tuple(in_parallel(_current_version, self._encryption.keys))
            self._versions_until = now + CURRENT_FOR
        return self._versions


def _current_version(key: Key) -> tuple[str, str]:
    version = key.describe().version if Capability.REPORTS_VERSION in key.capabilities else ""
    return key.key_id, version
