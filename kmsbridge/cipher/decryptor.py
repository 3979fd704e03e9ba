"""Decrypting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import BinaryIO, Literal, overload

from kmsbridge import body
from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import direct, files, many, reading
from kmsbridge.cipher.arguments import Buffer, as_bytes, bytes_to_text, check_bytes, check_text
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.opened import Opened
from kmsbridge.config import Profile
from kmsbridge.datakeys import Pairs
from kmsbridge.datakeys.decryption import DecryptionKeys
from kmsbridge.errors import KmsBridgeError, RoleError, forget_locals


class Decryptor(Opened):
    """Decrypts, and has no way to encrypt: for the hosts that work on the data."""

    _decryption: DecryptionKeys

    def _open_role(self, profile: Profile) -> None:
        if not profile.decrypt_with:
            raise RoleError(
                f"profile {profile.name!r} has no decrypt_with",
                remedy="use another profile, or add decrypt_with",
            )
        keys = self._open_keys(profile.decrypt_with)
        self._decryption = DecryptionKeys(keys, profile.data_keys, self._audit)
        super()._open_role(profile)

    def decrypt(self, message: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """The plaintext of `message`, once all of it is verified.

        Raises `MessageError` for what is no message, `AuthenticationError` for a wrong context, a
        wrong aad or changed bytes, `NoMatchingKey` where the message is for other keys, `KmsError`
        where a key service could not or would not unwrap, `TypeError` for what is not bytes-like.
        """
        try:
            if type(message) is not bytes:
                message = as_bytes(message, "message", "decrypt_text")
            if type(aad) is not bytes:
                check_bytes(aad, "aad")
            start = int.from_bytes(message[6:8], "big")
            entry = self._decryption.cached(message[:start], context, len(message))
            if entry is None or len(message) - start < wire.MIN_BODY:
                return self._decrypt_new(message, context, aad)
            return body.open_sealed(entry.key.reveal(), entry.seal_context + aad, memoryview(message)[start:])
        except BaseException as error:
            self._failed(error, context)
            del message, aad
            raise

    def decrypt_text(self, text: str, *, context: Pairs = None, aad: Buffer = b"") -> str:
        """The text in an armored message; white space around it is ignored.

        Raises what `decrypt` raises; a payload that is not UTF-8 was not made by `encrypt_text` and is
        a `ValueError`.
        """
        try:
            message = wire.dearmor(check_text(text))
            return bytes_to_text(self.decrypt(message, context=context, aad=aad))
        except BaseException as error:
            forget_locals(error)
            del aad
            raise

    @overload
    def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = ...,
        aads: Sequence[Buffer] | None = ...,
        errors: Literal["raise"] = ...,
    ) -> list[bytes]: ...

    @overload
    def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = ...,
        aads: Sequence[Buffer] | None = ...,
        errors: Literal["raise", "return"],
    ) -> list[bytes | KmsBridgeError]: ...

    def decrypt_many(
        self,
        messages: Iterable[Buffer],
        *,
        context: Pairs = None,
        aads: Sequence[Buffer] | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> list[bytes] | list[bytes | KmsBridgeError]:
        """The plaintext of each message, in order; every distinct wrapped key is unwrapped once.

        In the provider's batches where it has them, else at most 16 at a time. All messages are of one
        context; `aads` has one for each. `errors="raise"` raises the first error in the messages' order;
        `errors="return"` puts each error in the place of its message and loses none of the others.
        """
        if errors not in ("raise", "return"):
            raise ValueError('errors must be "raise" or "return"')
        try:
            results: list[bytes | KmsBridgeError] = []
            for result in many.decrypt(self._decryption, list(messages), context, aads):
                if isinstance(result, KmsBridgeError):
                    if errors == "raise":
                        raise result
                    self._failed(result, context)
                results.append(result)
            return results
        except BaseException as error:
            results = []
            self._failed(error, context)
            raise

    def decrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """Decrypt the file `source` into `target`, in constant memory, with permissions 0600.

        `target` appears whole, once all of it is verified, or not at all. Raises what `decrypt` raises.
        """
        try:
            aad = as_bytes(aad, "aad")
            ticker = files.Ticker(progress, self._decryption.check_open)
            files.decrypt_file(lambda header: self._opener(header, context, aad), source, target, ticker)
        except BaseException as error:
            self._failed(error, context)
            raise

    def decrypt_stream(
        self,
        reader: BinaryIO,
        writer: BinaryIO,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """Decrypt a message from `reader` into `writer` as it comes.

        Only verified chunks are written, but until this returns their end may be missing: use what was
        written only then. Raises what `decrypt` raises.
        """
        try:
            aad = as_bytes(aad, "aad")
            header, start = files.read_start(reader)
            opener = self._opener(header, context, aad)
            ticker = files.Ticker(progress, self._decryption.check_open)
            files.open_stream(opener, reader, writer, ticker, start)
        except BaseException as error:
            self._failed(error, context)
            raise

    def open(
        self, source: PathLike | BinaryIO, *, context: Pairs = None, aad: Buffer = b""
    ) -> reading.MessageReader:
        """A seekable, read-only binary file of the plaintext in `source`, a path or a seekable file.

        Only the chunks that a read touches are read and decrypted, each verified. A file that was
        passed in is left open. Raises what `decrypt` raises.
        """
        try:
            aad = as_bytes(aad, "aad")
            return reading.open_message(
                source,
                lambda header, read_at, size: self._chunks(header, context, aad, read_at, size),
                self._decryption.check_open,
            )
        except BaseException as error:
            self._failed(error, context)
            raise

    def _close_role(self) -> None:
        if hasattr(self, "_decryption"):
            self._decryption.close()
        super()._close_role()

    def _decrypt_new(self, message: bytes, context: Pairs, aad: Buffer) -> bytes:
        header = wire.parse(message)
        if header.kind is wire.Kind.DIRECT:
            return direct.decrypt(self._decryption, header, context, aad)
        entry = self._decryption.get(header, context, len(message))
        sealed = memoryview(message)[header.length :]
        return body.open_sealed(entry.key.reveal(), entry.seal_context + aad, sealed)

    def _opener(self, header: wire.Header, context: Pairs, aad: bytes) -> files.StreamOpener:
        if header.kind is wire.Kind.DIRECT:
            return direct.DirectOpener(direct.decrypt(self._decryption, header, context, aad))
        entry = self._decryption.get(header, context, 0)
        return body.Opener(entry.key.reveal(), entry.seal_context + aad)

    def _chunks(
        self, header: wire.Header, context: Pairs, aad: bytes, read_at: body.ReadAt, size: int
    ) -> reading.Chunks:
        if header.kind is wire.Kind.DIRECT:
            return direct.DirectChunks(direct.decrypt(self._decryption, header, context, aad))
        entry = self._decryption.get(header, context, 0)
        return body.ChunkReader(entry.key.reveal(), entry.seal_context + aad, read_at, size)
