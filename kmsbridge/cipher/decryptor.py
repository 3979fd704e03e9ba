"""Decrypting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import BinaryIO, Literal, overload

from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import direct, files, many, opening, reading
from kmsbridge.cipher.arguments import (
    MAX_AAD,
    Buffer,
    as_aad,
    as_bytes,
    at_item,
    bytes_to_text,
    check_aad,
    check_text,
)
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.opened import Opened, entry_point
from kmsbridge.config import Profile
from kmsbridge.datakeys import Pairs
from kmsbridge.datakeys.decryption import DecryptionKeys
from kmsbridge.errors import KmsBridgeError, RoleError, forget_locals
from kmsbridge.message import chunk_reader


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
        self._decryption = DecryptionKeys(keys, profile.data_keys, self._observer, profile.calls)
        super()._open_role(profile)

    def decrypt(self, message: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """The plaintext of `message`, once all of it is verified.

        Raises `MessageError` for what is no message, `AuthenticationError` for a wrong context, a
        wrong aad or changed bytes, `NoMatchingKey` where the message is for other keys, `KmsError`
        where a key service could not or would not unwrap, `TypeError` for what is not bytes-like.
        """
        # `entry_point`, written out: one call more is a twentieth of a small message's time.
        try:
            try:
                return self._decrypt(message, context, aad)
            except BaseException as error:
                self._failed(error, context)
                raise
        except BaseException as error:
            del message, aad
            forget_locals(error)
            raise

    @entry_point
    def decrypt_text(self, text: str, *, context: Pairs = None, aad: Buffer = b"") -> str:
        """The text in an armored message; white space around it is ignored.

        Raises what `decrypt` raises; a payload that is not UTF-8 was not made by `encrypt_text` and is
        a `ValueError`.
        """
        return bytes_to_text(self._decrypt(wire.dearmor(check_text(text)), context, aad))

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

    @entry_point
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
        `errors="return"` puts each error in the place of its message and loses none of the others. Each error
        has its message's place in `index`.
        """
        if errors not in ("raise", "return"):
            raise ValueError('errors must be "raise" or "return"')
        results: list[bytes | KmsBridgeError] = []
        for result in many.decrypt(self._decryption, list(messages), context, aads):
            if isinstance(result, KmsBridgeError):
                at_item(result, len(results))
                if errors == "raise":
                    raise result
                self._failed(result, context)
            results.append(result)
        return results

    @entry_point
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
        aad = as_aad(aad)
        ticker = files.Ticker(progress, self._decryption.check_open)
        files.decrypt_file(
            lambda header, start: self._body_decryptor(header, start, context, aad), source, target, ticker
        )

    @entry_point
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
        aad = as_aad(aad)
        header, start = files.read_start(reader)
        decryptor = self._body_decryptor(header, start, context, aad)
        ticker = files.Ticker(progress, self._decryption.check_open)
        files.decrypt_stream(decryptor, reader, writer, ticker, start)

    @entry_point
    def open(
        self, source: PathLike | BinaryIO, *, context: Pairs = None, aad: Buffer = b""
    ) -> reading.MessageReader:
        """A seekable, read-only binary file of the plaintext in `source`, a path or a seekable file.

        Only the chunks that a read touches are read and decrypted, each verified. A file that was
        passed in is left open. Raises what `decrypt` raises.
        """
        aad = as_aad(aad)
        return reading.open_message(
            source,
            lambda header, read_at, size: self._chunks(header, context, aad, read_at, size),
            self._decryption.check_open,
        )

    def _report(self) -> None:
        self._decryption.report()
        super()._report()

    def _close_role(self) -> None:
        if hasattr(self, "_decryption"):
            self._decryption.close()
        super()._close_role()

    def _decrypt(self, message: Buffer, context: Pairs, aad: Buffer) -> bytes:
        if type(message) is not bytes:
            message = as_bytes(message, "message", "decrypt_text")
        if type(aad) is not bytes or len(aad) > MAX_AAD:
            check_aad(aad)
        keys = self._decryption
        plaintext = opening.decrypt_by_alias(keys, message, context, aad)
        return opening.decrypt_anew(keys, message, context, aad) if plaintext is None else plaintext

    def _body_decryptor(
        self, header: wire.Header, start: bytes, context: Pairs, aad: bytes
    ) -> files.StreamDecryptor:
        if header.is_direct:
            return direct.DirectDecryptor(direct.decrypt(self._decryption, header, context, aad))
        return self._decryption.opened(header, context, 0, lambda key: key.body_decryptor(start, aad))

    def _chunks(
        self, header: wire.Header, context: Pairs, aad: bytes, read_at: chunk_reader.ReadAt, size: int
    ) -> reading.Chunks:
        if header.is_direct:
            return direct.DirectChunks(direct.decrypt(self._decryption, header, context, aad))
        return self._decryption.opened(header, context, 0, lambda key: key.reader(read_at, size, aad))
