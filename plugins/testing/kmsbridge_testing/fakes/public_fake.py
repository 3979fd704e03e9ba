"""The `fake-public` driver: the fake service has a private key, and the driver wraps with its public key."""

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
    """An RSA key of the service, which unwraps what its public key wrapped.

    All keys with the same `number` have the same key pair, because generating one is slow.
    """

    def __init__(self, name: str, number: int = 1) -> None:
        self._private = _private_key(number)
        super().__init__(name)

    @property
    def public_pem(self) -> str:
        """The public key in PEM, for the driver's option `public_key`."""
        info = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._private.public_key().public_bytes(serialization.Encoding.PEM, info).decode()

    def open(self, ciphertext: bytes, context: bytes) -> bytes:
        """Return the plaintext of `ciphertext`. Raises `FakeError`."""
        try:
            return self._private.decrypt(ciphertext, _OAEP)
        except ValueError:
            raise FakeError(ErrorKind.NOT_AUTHENTIC) from None


class PublicKeyFakeDriver(UnboundFakeDriver):
    """The driver for `fake-public:NAME`, a `FakeKeyPair` in `FakeDriver.service`.

    Options: `public_key`, the pair's `public_pem`; and those of `FakeDriver`. Its capabilities and `max_plaintext`
    are set on each object.
    """

    scheme: ClassVar[str] = "fake-public"

    def __init__(self, name: str, caller: Caller, public_key: OaepPublicKey) -> None:
        super().__init__(name, caller)
        self._public_key = public_key
        self.capabilities = frozenset({Capability.LOCAL_WRAP, Capability.BATCH_UNWRAP})
        self.max_plaintext = public_key.max_plaintext

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """Return a driver, which can wrap without a call. Raises `ConfigError`."""
        name, caller = checked_name(uri), caller_of(options)
        return cls(name, caller, OaepPublicKey.of_pem(options.text("public_key", required=True)))

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt with the public key, without a call."""
        return WrappedKey(self.key_id, "", self._public_key.wrap(plaintext))

    def wrap_many(
        self, items: Sequence[tuple[bytes, EncryptionContext]], *, timeout: float
    ) -> list[WrappedKey | ErrorKind]:
        """Raise `NotImplementedError`: wraps take no call that a batch could save."""
        raise NotImplementedError

    def forgeries(self) -> Sequence[WrappedKey]:
        """Return random bytes of the length of a ciphertext."""
        return (WrappedKey(self.key_id, "", bytes(1) + os.urandom(255)),)

    def describe(self, *, timeout: float) -> KeyDescription:
        """Return the state, and what the role allows. A key pair has no versions."""
        return super().describe(timeout=timeout)._replace(version="", may_wrap=True)

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Raise `NotImplementedError`."""
        raise NotImplementedError

    def rotate(self, *, timeout: float) -> None:
        """Raise `NotImplementedError`: another pair would be another key."""
        raise NotImplementedError


@functools.cache
def _private_key(number: int) -> rsa.RSAPrivateKey:
    del number  # only tells the cached keys apart
    return rsa.generate_private_key(65537, 2048)
