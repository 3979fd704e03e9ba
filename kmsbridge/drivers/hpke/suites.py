"""The HPKE suites, and the keys of each: made from a seed, and loaded from their bytes.

Both wrap with HKDF-SHA256 and AES-256-GCM. They differ in the KEM: MLKEM768_X25519 (X-Wing), which also resists
quantum computers, or DHKEM(X25519, HKDF-SHA256). A seed has 32 bytes. That of X25519 is the private key itself; that
of the hybrid is expanded by SHAKE-256 to 96 bytes: the ML-KEM seed of 64, then the private key of X25519.
"""

from __future__ import annotations

import hashlib
import struct
from abc import ABC, abstractmethod
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from kmsbridge.driver import Secret
from kmsbridge.errors import AuthenticationError

SEED_BYTES: Final = 32

_KDF, _AEAD = 0x0001, 0x0002  # HKDF-SHA256 and AES-256-GCM
_IDS: Final = struct.Struct(">HHH")

_PRIME: Final = 2**255 - 19
# The points of small order, with which every private key gives the same shared secret.
_LOW_ORDER: Final = frozenset({
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    _PRIME - 1,
})  # fmt: skip
_X25519: Final = 32
_MLKEM768: Final = 1184
_MLKEM_SEED: Final = 64


class Suite(ABC):
    """One HPKE suite. `enc` is the length in bytes of the encapsulated key that a ciphertext begins with."""

    name: str
    kem: int
    enc: int
    public_bytes: int
    post_quantum: bool

    def __init__(self, kem: hpke.KEM) -> None:
        self._suite = hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)

    @property
    def ids(self) -> bytes:
        """The ids of KEM, KDF and AEAD, 6 bytes."""
        return _IDS.pack(self.kem, _KDF, _AEAD)

    @abstractmethod
    def load_public(self, data: bytes) -> Any:
        """Return the public key with these bytes. Raises `ValueError` for one that is not canonical or not safe."""

    @abstractmethod
    def load_private(self, seed: Secret) -> tuple[Any, bytes]:
        """Return the private key that a seed makes, and the bytes of its public key."""

    def encrypt(self, plaintext: bytes, public_key: Any, info: bytes) -> bytes:
        """Return HPKE's enc and ciphertext."""
        return self._suite.encrypt(plaintext, public_key, info)

    def decrypt(self, ciphertext: bytes, private_key: Any, info: bytes) -> bytes:
        """Return the plaintext. Raises `AuthenticationError` for another key or info, and for changed bytes."""
        try:
            return self._suite.decrypt(ciphertext, private_key, info)
        except InvalidTag:
            pass
        raise AuthenticationError

    def __repr__(self) -> str:
        return f"Suite({self.name})"


class X25519Suite(Suite):
    """DHKEM(X25519, HKDF-SHA256): small, and not safe from quantum computers."""

    name = "x25519"
    kem = 0x0020
    enc = _X25519
    public_bytes = _X25519
    post_quantum = False

    def __init__(self) -> None:
        super().__init__(hpke.KEM.X25519)

    def load_public(self, data: bytes) -> X25519PublicKey:
        return _x25519_public(data)

    def load_private(self, seed: Secret) -> tuple[X25519PrivateKey, bytes]:
        key = X25519PrivateKey.from_private_bytes(seed.reveal())
        return key, key.public_key().public_bytes_raw()


class HybridSuite(Suite):
    """MLKEM768_X25519: secure as long as either ML-KEM-768 or X25519 is."""

    name = "mlkem768-x25519"
    kem = 0x647A
    enc = 1120
    public_bytes = _MLKEM768 + _X25519
    post_quantum = True

    def __init__(self) -> None:
        super().__init__(hpke.KEM.MLKEM768_X25519)

    def load_public(self, data: bytes) -> hpke.MLKEM768X25519PublicKey:
        lattice = MLKEM768PublicKey.from_public_bytes(data[:_MLKEM768])  # checks the range of its numbers
        return hpke.MLKEM768X25519PublicKey(lattice, _x25519_public(data[_MLKEM768:]))

    def load_private(self, seed: Secret) -> tuple[hpke.MLKEM768X25519PrivateKey, bytes]:
        expanded = Secret(hashlib.shake_256(seed.reveal()).digest(_MLKEM_SEED + _X25519))
        lattice_seed = Secret(expanded.reveal()[:_MLKEM_SEED])
        curve_key = Secret(expanded.reveal()[_MLKEM_SEED:])
        lattice = MLKEM768PrivateKey.from_seed_bytes(lattice_seed.reveal())
        curve = X25519PrivateKey.from_private_bytes(curve_key.reveal())
        public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
        return hpke.MLKEM768X25519PrivateKey(lattice, curve), public


X25519: Final = X25519Suite()
HYBRID: Final = HybridSuite()
SUITES: Final[dict[str, Suite]] = {suite.name: suite for suite in (HYBRID, X25519)}
"""The suites by name; the first is the default for new keys."""
BY_IDS: Final[dict[bytes, Suite]] = {suite.ids: suite for suite in SUITES.values()}


def _x25519_public(data: bytes) -> X25519PublicKey:
    number = int.from_bytes(data, "little")
    if number >= _PRIME or number in _LOW_ORDER:
        raise ValueError("not a canonical public key of full order")
    return X25519PublicKey.from_public_bytes(data)
