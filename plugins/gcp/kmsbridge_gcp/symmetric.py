"""A key of purpose ENCRYPT_DECRYPT."""

from __future__ import annotations

from typing import Any, Final

from kmsbridge.context import EncryptionContext
from kmsbridge.driver import KeyDescription, KeyState
from kmsbridge.driverkit.deadline import left, within
from kmsbridge_gcp.answers import Call, key_state, permissions, verify
from kmsbridge_gcp.crc32c import crc32c
from kmsbridge_gcp.failures import corrupted, wrong_purpose
from kmsbridge_gcp.naming import VERSION, VERSIONS, key_of

_GET: Final = "cryptoKeys.get"
_WRAP, _UNWRAP = "cryptoKeyVersions.useToEncrypt", "cryptoKeyVersions.useToDecrypt"


class SymmetricKey:
    """A key that wraps by Encrypt and unwraps by Decrypt, with the context as additional authenticated data."""

    def __init__(self, name: str, call: Call) -> None:
        self._name, self._call = name, call

    def wrap(self, plaintext: bytes, context: EncryptionContext, timeout: float) -> tuple[str, bytes]:
        """Return the version's number and the ciphertext."""
        request = self._request("plaintext", plaintext, context)
        answer = self._call("encrypt", request, timeout)
        verify(answer, "plaintext", "additional_authenticated_data", received="ciphertext")
        return self._number(answer.name), answer.ciphertext

    def unwrap(self, _version: str, ciphertext: bytes, context: EncryptionContext, timeout: float) -> bytes:
        """Return the plaintext."""
        answer = self._call("decrypt", self._request("ciphertext", ciphertext, context), timeout)
        verify(answer, received="plaintext")
        plaintext: bytes = answer.plaintext
        return plaintext

    def describe(self, key_id: str, timeout: float) -> KeyDescription:
        """Return the state of the primary version, and what the caller may do."""
        with within(timeout):
            held = permissions(self._call, self._name, left(), _GET, _WRAP, _UNWRAP)
            may: Any = {"may_wrap": _WRAP in held, "may_unwrap": _UNWRAP in held}
            if held and _GET not in held:
                return KeyDescription(key_id, KeyState.UNKNOWN, **may)
            # Also without any permission: the refusal shows whether the caller is denied or the key does not exist.
            key = self._call("get_crypto_key", {"name": self._name}, left())
            if key.purpose.name != "ENCRYPT_DECRYPT":
                raise wrong_purpose(key.purpose.name)
            if not key.primary.name:
                return KeyDescription(
                    key_id, KeyState.DISABLED, rotation="no version is the primary one", **may
                )
            state, number = key_state(key.primary.state), self._number(key.primary.name)
            return KeyDescription(key_id, state, number, _rotation(key), **may)

    def rotate(self, timeout: float) -> None:
        """Make a new version and make it the primary one."""
        with within(timeout):
            made = self._call("create_crypto_key_version", {"parent": self._name}, left())
            request = {"name": self._name, "crypto_key_version_id": self._number(made.name)}
            self._call("update_crypto_key_primary_version", request, left())

    def _request(self, field: str, data: bytes, context: EncryptionContext) -> dict[str, Any]:
        aad = context.canonical()
        return {
            "name": self._name,
            field: data,
            f"{field}_crc32c": crc32c(data),
            "additional_authenticated_data": aad,
            "additional_authenticated_data_crc32c": crc32c(aad),
        }

    def _number(self, name: str) -> str:
        if not VERSION.fullmatch(name) or key_of(name) != self._name:
            raise corrupted("name")
        return name.partition(VERSIONS)[2]


def _rotation(key: Any) -> str:
    period = key.rotation_period
    return f"every {period.days} days" if period else "by hand"
