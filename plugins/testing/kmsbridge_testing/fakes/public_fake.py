"""The `fake-public` driver: the fake service holds a private key, and the driver wraps with the public one."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import ClassVar, Self

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from kmsbridge.driver import (
    Capability,
    EncryptionContext,
    ErrorKind,
    KeyDescription,
    KeyURI,
    Options,
    WrappedKey,
)
from kmsbridge.driverkit.publickey import OaepPublicKey
from kmsbridge.testing.fakes.fake import UnboundFakeDriver, caller_of, checked_name
from kmsbridge.testing.fakes.service import Caller, FakeError, FakeKey

_OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


class FakeKeyPair(FakeKey):
    """An RSA key of the service: it unwraps what its public key wrapped. Pairs of one `number` are one pair."""

    def __init__(self, name: str, number: int = 1) -> None:
        self._private = _private_key(number)
        super().__init__(name)

    @property
    def public_pem(self) -> str:
        """What is pinned."""
        info = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._private.public_key().public_bytes(serialization.Encoding.PEM, info).decode()

    def open(self, ciphertext: bytes, context: bytes) -> bytes:
        """Unwrap. Raises `FakeError`."""
        try:
            return self._private.decrypt(ciphertext, _OAEP)
        except ValueError:
            raise FakeError(ErrorKind.NOT_AUTHENTIC) from None


class PublicKeyFakeDriver(UnboundFakeDriver):
    """`fake-public:NAME`, a `FakeKeyPair` of `FakeDriver.service`; the option `public_key` is its PEM.

    Options besides: as for `FakeDriver`. What it can do is known when the public key is: by object.
    """

    scheme: ClassVar[str] = "fake-public"

    def __init__(self, name: str, caller: Caller, public_key: OaepPublicKey) -> None:
        super().__init__(name, caller)
        self._public_key = public_key
        self.capabilities = frozenset({Capability.LOCAL_WRAP, Capability.BATCH_UNWRAP})
        self.max_plaintext = public_key.max_plaintext

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """A driver that can wrap at once."""
        name, caller = checked_name(uri), caller_of(options)
        return cls(name, caller, OaepPublicKey.of_pem(options.text("public_key", required=True)))

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt with the public key, here."""
        return WrappedKey(self.key_id, "", self._public_key.wrap(plaintext))

    def wrap_many(
        self, items: Sequence[tuple[bytes, EncryptionContext]], *, timeout: float
    ) -> list[WrappedKey | ErrorKind]:
        """There is no call to save."""
        raise NotImplementedError

    def forgeries(self) -> Sequence[WrappedKey]:
        """As long as what an RSA key of 2048 bits wraps."""
        return (WrappedKey(self.key_id, "", bytes(1) + os.urandom(255)),)

    def describe(self, *, timeout: float) -> KeyDescription:
        """The state, and what the role allows; a pair has no versions."""
        return super().describe(timeout=timeout)._replace(version="", may_wrap=True)

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Not by this service."""
        raise NotImplementedError

    def rotate(self, *, timeout: float) -> None:
        """Another pair would be another key."""
        raise NotImplementedError


@functools.cache
def _private_key(number: int) -> rsa.RSAPrivateKey:
    # Made once each for a process: it takes longer than everything else that a test does with it.
    del number
    return rsa.generate_private_key(65537, 2048)
