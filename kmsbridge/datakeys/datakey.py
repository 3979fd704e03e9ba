"""A data key. Nothing outside this folder holds its bytes."""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final

from kmsbridge.context import EncryptionContext
from kmsbridge.errors import AuthenticationError
from kmsbridge.message import Header, Recipient, chunked, cobblestone
from kmsbridge.policy import DataKeyPolicy
from kmsbridge.secret import Secret

if TYPE_CHECKING:
    from kmsbridge.message.chunk_reader import ChunkReader, ReadAt

Buffer = bytes | bytearray | memoryview

_DOMAIN: Final = b"kmsbridge/v1\x00"


class DataKey:
    """A data key of one context, and what is left of the number, size and time of the messages it may serve.

    It encrypts and decrypts bodies itself, and lends its bytes to `kmsbridge.message` for the call.

    `header` is the one that an encryptor writes, and empty for a key that only decrypts. `key_id` and
    `key_version` are of the key that wrapped it first, or that it was unwrapped by.
    """

    __slots__ = (
        "_alias_weight",
        "_bound",
        "_bytes_left",
        "_expires",
        "_max_messages",
        "_numbers",
        "_taken",
        "_told",
        "alias",
        "context",
        "header",
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
        self.header = b"" if header is None else header.encode()
        self.key_id, self.key_version = recipient.key_id, recipient.key_version
        self.context = context
        self._bound = bound_bytes(context)
        self.name: Hashable = None
        self.alias: Hashable = None
        self.recently_used = False
        # Three copies of the context at most: its pairs, its canonical form, and a part of the name.
        self.weight = len(self.header) + 3 * len(self._bound) + len(self.key_id)
        self._alias_weight = 0
        self._expires = now + policy.max_age
        self._max_messages = policy.max_messages
        self._bytes_left = policy.max_bytes
        self._numbers = itertools.count()
        self._taken = self._told = 0

    def encrypt(self, plaintext: Buffer, aad: Buffer) -> bytes:
        """Return a whole message: the header, and the body that holds `plaintext` and is bound to `aad`."""
        return chunked.encrypt(self.secret.reveal(), self._bound + aad, plaintext, self.header)

    def decrypt(self, sealed: bytes | memoryview, aad: Buffer) -> bytes:
        """Return the plaintext of a body, all of it verified. Raise `AuthenticationError`."""
        return chunked.decrypt(self.secret.reveal(), self._bound + aad, sealed)

    def fits(self, start: bytes, aad: Buffer) -> bool:
        """Return whether the body that begins with `start`, its first 56 bytes or more, is of this data key
        and `aad`.
        """
        return cobblestone.commits(self.secret.reveal(), self._bound + aad, start)

    def body_encryptor(self, aad: Buffer) -> chunked.BodyEncryptor:
        """Return an object that encrypts a body as its plaintext arrives."""
        return chunked.BodyEncryptor(self.secret.reveal(), self._bound + aad)

    def body_decryptor(self, start: bytes, aad: Buffer) -> chunked.BodyDecryptor:
        """Return an object that decrypts a body as it arrives. Raise `AuthenticationError` where its `start`
        does not fit.
        """
        if not self.fits(start, aad):
            raise AuthenticationError
        return chunked.BodyDecryptor(self.secret.reveal(), self._bound + aad)

    def reader(self, read_at: ReadAt, size: int, aad: Buffer) -> ChunkReader:
        """Return an object that decrypts any part of a body of `size` bytes. Raise `AuthenticationError`
        where it does not fit.
        """
        from kmsbridge.message import chunk_reader

        return chunk_reader.ChunkReader(self.secret.reveal(), self._bound + aad, read_at, size)

    def is_same_as(self, other: DataKey) -> bool:
        """Return whether both have the same bytes."""
        return self.secret.equals(other.secret)

    def take(self, size: int, now: float) -> bool:
        """Count one message of `size` bytes. Return False where the allowance is used up.

        A message may end beyond `max_bytes`, else one larger than that could never be written.
        """
        # No lock: threads that met at one for every message would get less done together than one alone. A
        # number goes to one thread only; the sums are for bounds that need not be exact to the message.
        if now >= self._expires or self._bytes_left <= 0 or next(self._numbers) >= self._max_messages:
            return False
        self._bytes_left -= size
        self._taken += 1
        return True

    def set_alias(self, alias: Hashable, weight: int) -> int:
        """Set the alias, which takes `weight` bytes, or remove it. Return the difference to the data key's
        weight.
        """
        more = weight - self._alias_weight
        self.alias, self._alias_weight = alias, weight
        self.weight += more
        return more

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
