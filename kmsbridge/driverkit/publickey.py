"""Wrapping with a public key, for drivers whose key service holds the private one (`LOCAL_WRAP`)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kmsbridge.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

ALGORITHM: Final = "RSA-OAEP-SHA-256"
"""How the option `algorithm` of a key names it."""

_HASH_LENGTH: Final = 32
_SIZES: Final = (2048, 3072, 4096)


class OaepPublicKey:
    """RSAES-OAEP with SHA-256 for the hash and for MGF1, and an empty label (RFC 8017, section 7.1).

    It binds no context: a driver that uses it does without `BINDS_CONTEXT`, and the library binds one.
    `bits` is 2048, 3072 or 4096. Safe for threads.
    """

    def __init__(self, key: RSAPublicKey) -> None:
        self._key = key
        self.bits = key.key_size

    @classmethod
    def of_pem(cls, text: str, *, option: str = "public_key") -> OaepPublicKey:
        """From a PEM SubjectPublicKeyInfo; raises `ConfigError`, which names `option`, for what is none."""
        from cryptography.hazmat.primitives import serialization

        return cls(_checked(lambda: serialization.load_pem_public_key(text.encode()), option))

    @classmethod
    def of_der(cls, data: bytes, *, option: str = "public_key") -> OaepPublicKey:
        """From a DER SubjectPublicKeyInfo, as a key service answers; otherwise as `of_pem`."""
        from cryptography.hazmat.primitives import serialization

        return cls(_checked(lambda: serialization.load_der_public_key(data), option))

    @property
    def max_plaintext(self) -> int:
        """The largest payload of one wrap, in bytes: 190, 318 or 446."""
        return self.bits // 8 - 2 * _HASH_LENGTH - 2

    @property
    def length(self) -> int:
        """The length of a wrapped payload, in bytes."""
        return self.bits // 8

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the DER SubjectPublicKeyInfo, in hex: what people compare."""
        from cryptography.hazmat.primitives import serialization

        der = self._key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(der).hexdigest()

    def same_as(self, other: OaepPublicKey) -> bool:
        """Whether both are one key."""
        return hmac.compare_digest(self.fingerprint, other.fingerprint)

    def wrap(self, plaintext: bytes) -> bytes:
        """`plaintext`, of at most `max_plaintext` bytes, for the holder of the private key alone."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        sha256 = hashes.SHA256()
        return self._key.encrypt(plaintext, padding.OAEP(padding.MGF1(sha256), sha256, None))


def _checked(load: Callable[[], object], option: str) -> RSAPublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    try:
        key = load()
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(
            f"{option} is no public key", remedy="give it as PEM, beginning with -----BEGIN PUBLIC KEY-----"
        ) from None
    if not isinstance(key, RSAPublicKey) or key.key_size not in _SIZES:
        raise ConfigError(
            f"{option} is not an RSA key of 2048, 3072 or 4096 bits",
            remedy="use a key that the service made for RSA-OAEP with SHA-256",
        )
    return key
