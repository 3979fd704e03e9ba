"""A data key. Nothing outside this folder holds its bytes."""

from __future__ import annotations

import contextlib
import hmac
import itertools
from collections.abc import Hashable, Sequence
from os import urandom
from typing import TYPE_CHECKING, Final

from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.payload import PayloadReader
from kmsbridge.errors import AuthenticationError
from kmsbridge.message import (
    COMPACT_KINDS,
    Header,
    Kind,
    Recipient,
    chunked,
    cobblestone,
    compact,
    inline,
    xaes,
)
from kmsbridge.policy import DataKeyPolicy
from kmsbridge.secret import Secret

if TYPE_CHECKING:
    from kmsbridge.message.chunk_reader import ChunkReader, ReadAt

    BodyDecryptor = chunked.BodyDecryptor | compact.BodyDecryptor
    Chunks = ChunkReader | PayloadReader

Buffer = bytes | bytearray | memoryview

MAX_PREFIXES: Final = 64
"""The ciphers of compact bodies that are kept. Each writer needs one, and a new one after 2^24 messages."""

_DOMAIN: Final = b"kmsbridge/v1\x00"
_PREFIX: Final = compact.PREFIX
_KIND_AT: Final = 5
"""The place of the byte with the kind in a message."""


class DataKey:
    """A data key of one context, and what is left of the number, size and time of the messages it may serve.

    It encrypts and decrypts bodies itself, and lends its bytes to `kmsbridge.message` for the call.

    `key_id` and `key_version` are of the key that wrapped it first, or that it was unwrapped by.
    """

    __slots__ = (
        "_bound",
        "_bytes_left",
        "_ciphers",
        "_compact",
        "_expires",
        "_forgotten",
        "_header",
        "_max_messages",
        "_numbers",
        "_packed",
        "_pause",
        "_taken",
        "_told",
        "_writer",
        "aliases",
        "context",
        "key_id",
        "key_version",
        "name",
        "recently_used",
        "secret",
        "weight",
    )

    def __init__(
        self,
        secret: Secret,
        recipient: Recipient,
        context: EncryptionContext,
        policy: DataKeyPolicy,
        now: float,
        header: Header | None = None,
    ) -> None:
        self.secret = secret
        self._header, self._packed = header, b""
        self.key_id, self.key_version = recipient.key_id, recipient.key_version
        self.context = context
        self._bound = bound_bytes(context)
        self.name: Hashable = None
        self.aliases: dict[Hashable, tuple[Hashable, int]] = {}
        self.recently_used = False
        self._compact: tuple[Secret, bytes] | None = None
        self._ciphers: dict[bytes, compact.BodyCipher] = {}
        self._writer: tuple[bytes, compact.BodyCipher] | None = None
        self._forgotten = 0
        # Two headers of about one length, and three copies of the context at most: its pairs, its canonical form,
        # and a part of the name.
        self.weight = (2 * header.length if header else 0) + 3 * len(self._bound) + len(self.key_id)
        self._expires = now + policy.max_age
        self._max_messages = policy.max_messages
        self._bytes_left = policy.max_bytes
        self._numbers = itertools.count()
        self._taken = self._told = 0
        self._pause = min(compact.PER_PREFIX, policy.max_messages)

    def encrypt(self, plaintext: Buffer, aad: Buffer) -> bytes:
        """Return a whole message: the header, and the body that holds `plaintext` and is bound to `aad`.

        The body is compact up to 65,536 bytes of plaintext, and chunked above.
        """
        if len(plaintext) > compact.MAX_PAYLOAD:
            return chunked.encrypt(self.secret.reveal(), self._bound + aad, plaintext, self.header)
        start, cipher = self._writer or self._new_writer()
        return compact.encrypt(cipher, start, plaintext, aad)

    def encrypt_many(self, plaintexts: Sequence[Buffer], aads: Sequence[Buffer]) -> list[bytes]:
        """Return a message for each plaintext, as `encrypt` does; there is one aad for each."""
        if any(len(plaintext) > compact.MAX_PAYLOAD for plaintext in plaintexts):
            return [self.encrypt(plaintext, aad) for plaintext, aad in zip(plaintexts, aads, strict=True)]
        start, cipher = self._writer or self._new_writer()
        return compact.encrypt_many(cipher, start, plaintexts, aads)

    def decrypt_many(
        self, messages: Sequence[bytes], start: int, aads: Sequence[Buffer]
    ) -> list[bytes | None]:
        """Return the plaintexts of the bodies that begin at `start` of these messages, which have one header; None
        for one that is not authentic.
        """
        if messages[0][_KIND_AT] in COMPACT_KINDS:
            plaintexts = compact.decrypt_many(self._ciphers, messages, start, aads)
        else:
            plaintexts = [None] * len(messages)
        for number, plaintext in enumerate(plaintexts):
            if plaintext is None:
                with contextlib.suppress(AuthenticationError):
                    plaintexts[number] = self.decrypt(messages[number], start, aads[number])
        return plaintexts

    def decrypt(self, message: bytes, start: int, aad: Buffer) -> bytes:
        """Return the plaintext of the body that begins at `start` of a message, all of it verified.

        Raise `AuthenticationError`. Whether the header commits to this data key is asked of `commits_to` before.
        """
        if message[_KIND_AT] in COMPACT_KINDS:
            cipher = self._ciphers.get(message[start : start + _PREFIX])
            if cipher is not None:
                return compact.decrypt(cipher, message, start, aad)
            return self._decrypt_first(message, start, aad)
        return chunked.decrypt(self.secret.reveal(), self._bound + aad, memoryview(message)[start:])

    def commits_to(self, header: Header) -> bool:
        """Return whether the header's commitment is to this data key and context, or it has none."""
        return not header.commitment or hmac.compare_digest(self.commitment, header.commitment)

    @property
    def header(self) -> bytes:
        """The header that an encryptor writes before a chunked body; empty for a data key that only decrypts."""
        if not self._packed and self._header is not None:
            self._packed = self._header.encode()
        return self._packed

    @property
    def commitment(self) -> bytes:
        """The commitment to this data key and context, 32 bytes, which stands in the headers of compact bodies."""
        return self._for_compact()[1]

    def fits(self, header: Header, start: bytes, aad: Buffer) -> bool:
        """Return whether the message that begins with `header` is of this data key.

        That of a chunked body is also of this `aad`; `start` is its first 56 bytes or more.
        """
        if header.commitment:
            return self.commits_to(header)
        return cobblestone.commits(self.secret.reveal(), self._bound + aad, start)

    def body_encryptor(self, aad: Buffer) -> chunked.BodyEncryptor:
        """Return an object that encrypts a chunked body as its plaintext arrives."""
        return chunked.BodyEncryptor(self.secret.reveal(), self._bound + aad)

    def body_decryptor(self, header: Header, start: bytes, aad: Buffer) -> BodyDecryptor:
        """Return an object that decrypts a body as it arrives. Raise `AuthenticationError` where its `start`
        does not fit.
        """
        if not self.fits(header, start, aad):
            raise AuthenticationError
        if header.kind in COMPACT_KINDS:
            packed = header.encode()
            return compact.BodyDecryptor(lambda body: self.decrypt(packed + body, len(packed), aad))
        return chunked.BodyDecryptor(self.secret.reveal(), self._bound + aad)

    def reader(self, header: Header, read_at: ReadAt, size: int, aad: Buffer) -> Chunks:
        """Return an object that decrypts any part of a body of `size` bytes. Raise `AuthenticationError`
        where it does not fit.
        """
        if header.kind in COMPACT_KINDS:
            packed = header.encode()
            return PayloadReader(self.decrypt(packed + read_at(0, size), len(packed), aad))
        from kmsbridge.message import chunk_reader

        return chunk_reader.ChunkReader(self.secret.reveal(), self._bound + aad, read_at, size)

    def forget_writer(self) -> None:
        """Have the next message begin with a new prefix of nonces: a forked child must not use its parent's."""
        self._forgotten += 1  # first, so that `_new_writer` cannot miss it
        self._writer = None

    def _goes_on(self, number: int) -> bool:
        """Return whether message `number` may be encrypted, from 0 on; it begins a new prefix of nonces."""
        if number >= self._max_messages:
            return False
        self.forget_writer()
        self._pause = min(number + compact.PER_PREFIX, self._max_messages)
        return True

    def _decrypt_first(self, message: bytes, start: int, aad: Buffer) -> bytes:
        """Return the plaintext of a compact body, the first with its prefix, and keep the prefix's cipher."""
        prefix = message[start : start + compact.PREFIX]
        if len(prefix) < compact.PREFIX:
            raise AuthenticationError
        cipher = self._compact_cipher(prefix)
        plaintext = compact.decrypt(cipher, message, start, aad)
        # Only now: anybody can make up prefixes, but only who has the data key can make a tag.
        if len(self._ciphers) >= MAX_PREFIXES:
            for oldest in list(self._ciphers)[: MAX_PREFIXES // 4]:
                self._ciphers.pop(oldest, None)
        self._ciphers[prefix] = cipher
        return plaintext

    def _new_writer(self) -> tuple[bytes, compact.BodyCipher]:
        """Draw a prefix for the nonces of the next messages. Return what they begin with, and their cipher."""
        recipients = () if self._header is None else self._header.recipients
        header = inline(recipients, kind=Kind.INLINE_COMPACT, commitment=self.commitment)
        forgotten, prefix = self._forgotten, urandom(compact.PREFIX)
        self._writer = writer = header.encode() + prefix, self._compact_cipher(prefix)
        if (
            self._forgotten != forgotten
        ):  # by another thread, or by a fork in a signal handler, since it was drawn
            self._writer = None
        return writer

    def _compact_cipher(self, prefix: bytes) -> compact.BodyCipher:
        return xaes.derive(self._for_compact()[0].reveal(), prefix)

    def _for_compact(self) -> tuple[Secret, bytes]:
        """Return the key that the ciphers of compact bodies are derived from, and the commitment."""
        if self._compact is None:
            key, commitment = compact.derive(self.secret.reveal(), self.context.canonical())
            self._compact = Secret(key), commitment
        return self._compact

    def is_same_as(self, other: DataKey) -> bool:
        """Return whether both have the same bytes."""
        return self.secret.equals(other.secret)

    def take(self, size: int, now: float) -> bool:
        """Count one message of `size` bytes. Return False where the allowance is used up.

        A message may end beyond `max_bytes`, else one larger than that could never be written.
        """
        # No lock: threads that met at one for every message would get less done together than one alone. A
        # number goes to one thread only; the sums are for bounds that need not be exact to the message.
        if now >= self._expires or self._bytes_left <= 0:
            return False
        number = next(self._numbers)
        if number >= self._pause and not self._goes_on(number):
            return False
        self._bytes_left -= size
        self._taken += 1
        return True

    def take_many(self, sizes: Sequence[int], now: float) -> int:
        """Count messages of these sizes in bytes; return how many of them may be served, from the first on."""
        size = sum(sizes)
        if len(sizes) == 1 or now >= self._expires or size >= self._bytes_left:
            return int(self.take(sizes[0], now))
        numbers = list(itertools.islice(self._numbers, len(sizes)))
        if numbers[-1] >= self._pause:
            # All have the prefix that the first one begins, because they are encrypted together.
            numbers = [number for number in numbers if number < self._max_messages]
            if numbers:
                self._goes_on(numbers[0])
        self._bytes_left -= sum(sizes[: len(numbers)])
        self._taken += len(numbers)
        return len(numbers)

    def lasts(self, now: float) -> bool:
        """Return whether any allowance is left."""
        return self._taken < self._max_messages and self._bytes_left > 0 and now < self._expires

    def expires_in(self, now: float) -> float:
        """Return the seconds until it is too old; 0.0 or less when it is."""
        return self._expires - now

    def spend(self, size: int) -> None:
        """Count `size` bytes more of a message that was counted."""
        self._bytes_left -= size

    def take_used(self) -> int:
        """Return how many messages it has served since the last call of this method."""
        used = self._taken - self._told
        self._told += used
        return used


def bound_bytes(context: EncryptionContext) -> bytes:
    """Return the bytes that bind a body to `context`: with the aad behind them they are its Cobblestone
    context.
    """
    canonical = context.canonical()
    return b"".join((_DOMAIN, len(canonical).to_bytes(4, "big"), canonical))


def data_key_context(context: EncryptionContext) -> EncryptionContext:
    """Return the context that a data key is wrapped in at the key service: the caller's, with a reserved pair.

    The reserved pair tells it from a direct payload: else a data key could be passed off as one, and
    be handed to the application as its plaintext.
    """
    return context.with_reserved(kmsbridge="dek")
