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
"""The value of a key's option `algorithm` for such a key."""

_HASH_LENGTH: Final = 32
_SIZES: Final = (2048, 3072, 4096)


class OaepPublicKey:
    """An RSA public key that wraps by RSAES-OAEP (RFC 8017, section 7.1).

    SHA-256 is the hash, also for MGF1, and the label is empty. `bits` is 2048, 3072 or 4096. It binds no context,
    so a driver that wraps with it does not declare `BINDS_CONTEXT`, and the library binds the context. Safe for
    threads.
    """

    def __init__(self, key: RSAPublicKey) -> None:
        self._key = key
        self.bits = key.key_size

    @classmethod
    def of_pem(cls, text: str, *, option: str = "public_key") -> OaepPublicKey:
        """Return the key in a PEM SubjectPublicKeyInfo.

        Raises `ConfigError`, naming `option`, if `text` is not an RSA public key of 2048, 3072 or 4096 bits.
        """
        from cryptography.hazmat.primitives import serialization

        return cls(_checked(lambda: serialization.load_pem_public_key(text.encode()), option))

    @classmethod
    def of_der(cls, data: bytes, *, option: str = "public_key") -> OaepPublicKey:
        """Return the key in a DER SubjectPublicKeyInfo, which key services answer with. Raises as `of_pem` does."""
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
        """SHA-256 of the DER SubjectPublicKeyInfo, in hex, for people to compare."""
        from cryptography.hazmat.primitives import serialization

        der = self._key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(der).hexdigest()

    def same_as(self, other: OaepPublicKey) -> bool:
        """Return whether both are the same key."""
        return hmac.compare_digest(self.fingerprint, other.fingerprint)

    def wrap(self, plaintext: bytes) -> bytes:
        """Encrypt at most `max_plaintext` bytes, which only the private key can decrypt."""
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
            f"{option} is not a public key",
            remedy="give it as PEM, beginning with -----BEGIN PUBLIC KEY-----",
        ) from None
    if not isinstance(key, RSAPublicKey) or key.key_size not in _SIZES:
        raise ConfigError(
            f"{option} is not an RSA key of 2048, 3072 or 4096 bits",
            remedy="give the public key of a key that the service made for RSA-OAEP with SHA-256",
        )
    return key
