"""A key of purpose ASYMMETRIC_DECRYPT: anyone with the public key can wrap, and only Cloud KMS can unwrap."""

from __future__ import annotations

import re
from typing import Any, Final

from kmsbridge.context import EncryptionContext
from kmsbridge.driver import DriverError, ErrorKind, KeyDescription, KeyState
from kmsbridge.driverkit.deadline import left, within
from kmsbridge.driverkit.publickey import OaepPublicKey
from kmsbridge_gcp.answers import Call, key_state, permissions, verify
from kmsbridge_gcp.crc32c import crc32c
from kmsbridge_gcp.failures import corrupted, wrong_purpose
from kmsbridge_gcp.naming import NUMBER, VERSIONS
from kmsbridge_gcp.settings import Asymmetric

_ALGORITHM: Final = re.compile(r"RSA_DECRYPT_OAEP_(2048|3072|4096)_SHA256")
_GET: Final = "cryptoKeyVersions.get"
_VIEW, _UNWRAP = "cryptoKeyVersions.viewPublicKey", "cryptoKeyVersions.useToDecrypt"
_ROTATION: Final = "by hand: a new version has a public key of its own"


class AsymmetricKey:
    """A key that wraps with the public key of one version, and unwraps with the version that a message names."""

    def __init__(self, name: str, settings: Asymmetric, call: Call) -> None:
        self._name, self._settings, self._call = name, settings, call
        self._public_key = settings.public_key

    def wrap(self, plaintext: bytes, _context: EncryptionContext, timeout: float) -> tuple[str, bytes]:
        """Return the version's number and the ciphertext. Fetches the public key once if none is configured."""
        if self._public_key is None:
            self._public_key = self._fetched(timeout)
        return self._settings.version, self._public_key.wrap(plaintext)

    def unwrap(self, version: str, ciphertext: bytes, _context: EncryptionContext, timeout: float) -> bytes:
        """Return the plaintext."""
        if not NUMBER.fullmatch(version):
            raise DriverError(
                ErrorKind.KEY_NOT_FOUND,
                remedy="check where the message comes from: it names a version of the key that cannot exist",
            )
        request = {
            "name": self._version(version),
            "ciphertext": ciphertext,
            "ciphertext_crc32c": crc32c(ciphertext),
        }
        answer = self._call("asymmetric_decrypt", request, timeout)
        verify(answer, "ciphertext", received="plaintext")
        plaintext: bytes = answer.plaintext
        return plaintext

    def describe(self, key_id: str, timeout: float) -> KeyDescription:
        """Return the state of the version that wraps, and what the caller may do."""
        with within(timeout):
            held = permissions(self._call, self._name, left(), _GET, _VIEW, _UNWRAP)
            number, pinned = self._settings.version, self._settings.public_key is not None
            may: Any = {"may_wrap": pinned or _VIEW in held, "may_unwrap": _UNWRAP in held}
            if held and _GET not in held:
                return KeyDescription(key_id, KeyState.UNKNOWN, number, _ROTATION, **may)
            version = self._call("get_crypto_key_version", {"name": self._version(number)}, left())
            _check_algorithm(version.algorithm)
            return KeyDescription(key_id, key_state(version.state), number, _ROTATION, **may)

    def _fetched(self, timeout: float) -> OaepPublicKey:
        name = self._version(self._settings.version)
        answer = self._call("get_public_key", {"name": name}, timeout)
        if answer.name != name:
            raise corrupted("name")
        verify(answer, received="pem")
        _check_algorithm(answer.algorithm)
        return OaepPublicKey.of_pem(answer.pem, option="the public key that Cloud KMS gave")

    def _version(self, number: str) -> str:
        return f"{self._name}{VERSIONS}{number}"


def _check_algorithm(algorithm: Any) -> None:
    if not _ALGORITHM.fullmatch(algorithm.name):
        raise wrong_purpose(algorithm.name)
