"""The key material of versions, and the operations with it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmsbridge_gcp_emulator.refusal import invalid

_MARK: Final = b"\x0a\x24\x00"
_ID, _NONCE = 16, 12
PREFIX: Final = len(_MARK) + _ID
"""The length of the prefix of a symmetric ciphertext, which identifies the version that made it."""

Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512


class Symmetric:
    """An AES-256-GCM key. Its ciphertexts begin with a fixed mark and the version's random id."""

    def __init__(self) -> None:
        self.prefix = _MARK + secrets.token_bytes(_ID)
        self._aead = AESGCM(secrets.token_bytes(32))

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Return the ciphertext of `plaintext`, bound to `aad`."""
        nonce = secrets.token_bytes(_NONCE)
        return self.prefix + nonce + self._aead.encrypt(nonce, plaintext, self.prefix + aad)

    def open(self, ciphertext: bytes, aad: bytes) -> bytes:
        """Return the plaintext of a ciphertext with this key's prefix. Raises INVALID_ARGUMENT."""
        nonce, sealed = ciphertext[PREFIX:][:_NONCE], ciphertext[PREFIX + _NONCE :]
        try:
            return self._aead.decrypt(nonce, sealed, self.prefix + aad)
        except (InvalidTag, ValueError):
            raise invalid("Decryption failed: the ciphertext is invalid.") from None


class Decrypting:
    """An RSA key for OAEP with an empty label; `digest` is also the hash of MGF1."""

    def __init__(self, bits: int, digest: Hash) -> None:
        self._key, self._hash = rsa.generate_private_key(65537, bits), digest

    def pem(self) -> str:
        """Return the public key in PEM."""
        return _pem(self._key)

    def open(self, ciphertext: bytes) -> bytes:
        """Return the plaintext of `ciphertext`. Raises INVALID_ARGUMENT."""
        try:
            return self._key.decrypt(ciphertext, padding.OAEP(padding.MGF1(self._hash), self._hash, None))
        except ValueError:
            raise invalid("Decryption failed: the ciphertext is invalid.") from None


class Signing:
    """A key for RSA-PSS, RSA-PKCS1 or ECDSA signatures of digests that the caller computed."""

    def __init__(self, make: Callable[[], Any], digest: Hash, scheme: Callable[[Hash], Any] | None) -> None:
        self._key, self.hash, self._scheme = make(), digest, scheme

    def pem(self) -> str:
        """Return the public key in PEM."""
        return _pem(self._key)

    def sign(self, digest: bytes) -> bytes:
        """Return the signature of `digest`. Raises INVALID_ARGUMENT if its length is wrong."""
        if len(digest) != self.hash.digest_size:
            raise invalid("The digest does not have the length that the algorithm of the key needs.")
        prehashed = utils.Prehashed(self.hash)
        if self._scheme is None:
            signature: bytes = self._key.sign(digest, ec.ECDSA(prehashed))
        else:
            signature = self._key.sign(digest, self._scheme(self.hash), prehashed)
        return signature


class Keyed:
    """A MAC key. It has no operations; it exists so that its use for another purpose is refused."""


Material = Symmetric | Decrypting | Signing | Keyed


def _pem(key: Any) -> str:
    encoded: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded.decode()


def _rsa(bits: int) -> Callable[[], Any]:
    return lambda: rsa.generate_private_key(65537, bits)


def _pss(digest: Hash) -> padding.PSS:
    return padding.PSS(padding.MGF1(digest), digest.digest_size)


def _pkcs1(_digest: Hash) -> padding.PKCS1v15:
    return padding.PKCS1v15()


def _makers() -> dict[str, Callable[[], Material]]:
    sha256, sha384, sha512 = hashes.SHA256(), hashes.SHA384(), hashes.SHA512()
    makers: dict[str, Callable[[], Material]] = {
        "GOOGLE_SYMMETRIC_ENCRYPTION": Symmetric,
        "HMAC_SHA256": Keyed,
        "RSA_DECRYPT_OAEP_4096_SHA512": lambda: Decrypting(4096, sha512),
        "EC_SIGN_P256_SHA256": lambda: Signing(lambda: ec.generate_private_key(ec.SECP256R1()), sha256, None),
        "EC_SIGN_P384_SHA384": lambda: Signing(lambda: ec.generate_private_key(ec.SECP384R1()), sha384, None),
    }
    for bits in (2048, 3072, 4096):
        makers[f"RSA_DECRYPT_OAEP_{bits}_SHA256"] = lambda bits=bits: Decrypting(bits, sha256)  # type: ignore[misc]
        makers[f"RSA_SIGN_PSS_{bits}_SHA256"] = lambda bits=bits: Signing(_rsa(bits), sha256, _pss)  # type: ignore[misc]
        makers[f"RSA_SIGN_PKCS1_{bits}_SHA256"] = lambda bits=bits: Signing(_rsa(bits), sha256, _pkcs1)  # type: ignore[misc]
    return makers


MAKERS: Final = _makers()
"""By the name of an algorithm, a function that makes a version's key material."""

PURPOSES: Final = {"RSA_DECRYPT": "ASYMMETRIC_DECRYPT", "HMAC_": "MAC", "GOOGLE_": "ENCRYPT_DECRYPT"}


def purpose_of(algorithm: str) -> str:
    """Return the purpose of a key of this algorithm."""
    found = (purpose for prefix, purpose in PURPOSES.items() if algorithm.startswith(prefix))
    return next(found, "ASYMMETRIC_SIGN")
