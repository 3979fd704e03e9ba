"""The methods of Cloud KMS that use keys: encrypting, decrypting, signing; and random bytes."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final, TypeVar

from google.cloud.kms_v1.types import resources, service
from kmsbridge_gcp.crc32c import crc32c
from kmsbridge_gcp.naming import KEY, LOCATION, VERSION, key_of

from kmsbridge_gcp_emulator.managing import named
from kmsbridge_gcp_emulator.material import Decrypting, Material, Signing, Symmetric
from kmsbridge_gcp_emulator.refusal import invalid, precondition
from kmsbridge_gcp_emulator.store import Algorithm, Level, Purpose, Store

M = TypeVar("M", bound=Material)

SOFTWARE_LIMIT: Final = 64 * 1024
HSM_LIMIT: Final = 8 * 1024
_LEAST, _MOST = 8, 1024


def encrypt(store: Store, request: service.EncryptRequest) -> service.EncryptResponse:
    """Encrypt with the named version, or with the named key's primary version."""
    name = request.name
    if not VERSION.fullmatch(name):
        key = store.key(named(KEY, name))
        _purpose(key, Purpose.ENCRYPT_DECRYPT)
        name = key.primary.name
        if not name:
            raise precondition(f"{key.name} has no primary version.")
    _purpose(store.key(key_of(name)), Purpose.ENCRYPT_DECRYPT)
    version = store.enabled(name)
    plaintext, aad = request.plaintext, request.additional_authenticated_data
    _fits(version, plaintext, aad)
    checked = [_checked(request, field) for field in ("plaintext", "additional_authenticated_data")]
    ciphertext = _material(store, name, Symmetric).seal(plaintext, aad)
    return service.EncryptResponse(
        name=name,
        ciphertext=ciphertext,
        ciphertext_crc32c=crc32c(ciphertext),
        verified_plaintext_crc32c=checked[0],
        verified_additional_authenticated_data_crc32c=checked[1],
        protection_level=version.protection_level,
    )


def decrypt(store: Store, request: service.DecryptRequest) -> service.DecryptResponse:
    """Decrypt with the version of the named key that made the ciphertext."""
    key = store.key(named(KEY, request.name))
    _purpose(key, Purpose.ENCRYPT_DECRYPT)
    for field in ("ciphertext", "additional_authenticated_data"):
        _checked(request, field)
    name = store.sealed_by(request.ciphertext)
    if key_of(name) != key.name:
        raise invalid("Decryption failed: verify that 'name' refers to the correct CryptoKey.")
    version = store.enabled(name)
    opened = _material(store, name, Symmetric).open(request.ciphertext, request.additional_authenticated_data)
    return service.DecryptResponse(
        plaintext=opened,
        plaintext_crc32c=crc32c(opened),
        used_primary=name == key.primary.name,
        protection_level=version.protection_level,
    )


def get_public_key(store: Store, request: service.GetPublicKeyRequest) -> resources.PublicKey:
    """Return the public key of a version."""
    version = store.enabled(named(VERSION, request.name))
    key = store.key(key_of(version.name))
    _purpose(key, Purpose.ASYMMETRIC_DECRYPT, Purpose.ASYMMETRIC_SIGN)
    material = store.material[version.name]
    assert isinstance(material, (Decrypting, Signing))
    pem = material.pem()
    return resources.PublicKey(
        pem=pem,
        pem_crc32c=crc32c(pem.encode()),
        algorithm=version.algorithm,
        name=version.name,
        protection_level=version.protection_level,
    )


def asymmetric_decrypt(
    store: Store, request: service.AsymmetricDecryptRequest
) -> service.AsymmetricDecryptResponse:
    """Decrypt with the private key of the named version."""
    version = store.version(named(VERSION, request.name))
    _purpose(store.key(key_of(version.name)), Purpose.ASYMMETRIC_DECRYPT)
    store.enabled(version.name)
    checked = _checked(request, "ciphertext")
    opened = _material(store, version.name, Decrypting).open(request.ciphertext)
    return service.AsymmetricDecryptResponse(
        plaintext=opened,
        plaintext_crc32c=crc32c(opened),
        verified_ciphertext_crc32c=checked,
        protection_level=version.protection_level,
    )


def asymmetric_sign(store: Store, request: service.AsymmetricSignRequest) -> service.AsymmetricSignResponse:
    """Sign a digest with the named version."""
    version = store.version(named(VERSION, request.name))
    _purpose(store.key(key_of(version.name)), Purpose.ASYMMETRIC_SIGN)
    store.enabled(version.name)
    material = _material(store, version.name, Signing)
    digest: bytes = getattr(request.digest, material.hash.name)
    checked = "digest_crc32c" in request
    if checked and request.digest_crc32c != crc32c(digest):
        raise _mismatch("digest")
    signature = material.sign(digest)
    return service.AsymmetricSignResponse(
        name=version.name,
        signature=signature,
        signature_crc32c=crc32c(signature),
        verified_digest_crc32c=checked,
        protection_level=version.protection_level,
    )


def generate_random_bytes(
    _store: Store, request: service.GenerateRandomBytesRequest
) -> service.GenerateRandomBytesResponse:
    """Return 8 to 1024 random bytes; the protection level must be HSM."""
    named(LOCATION, request.location)
    if request.protection_level != Level.HSM:
        raise invalid("The protection level must be HSM.")
    if not _LEAST <= request.length_bytes <= _MOST:
        raise invalid(f"The length must be between {_LEAST} and {_MOST} bytes.")
    data = secrets.token_bytes(request.length_bytes)
    return service.GenerateRandomBytesResponse(data=data, data_crc32c=crc32c(data))


METHODS: Final[dict[str, tuple[Callable[[Store, Any], Any], str]]] = {
    "Encrypt": (encrypt, "cloudkms.cryptoKeyVersions.useToEncrypt"),
    "Decrypt": (decrypt, "cloudkms.cryptoKeyVersions.useToDecrypt"),
    "GetPublicKey": (get_public_key, "cloudkms.cryptoKeyVersions.viewPublicKey"),
    "AsymmetricDecrypt": (asymmetric_decrypt, "cloudkms.cryptoKeyVersions.useToDecrypt"),
    "AsymmetricSign": (asymmetric_sign, "cloudkms.cryptoKeyVersions.useToSign"),
    "GenerateRandomBytes": (generate_random_bytes, "cloudkms.locations.generateRandomBytes"),
}
"""By a method's name, the function that answers it and the permission that it requires."""


def _purpose(key: resources.CryptoKey, *purposes: Any) -> None:
    if key.purpose not in purposes:
        algorithm = Algorithm(key.version_template.algorithm).name
        raise precondition(
            f"{key.name} cannot be used for this: its purpose is {Purpose(key.purpose).name} ({algorithm})."
        )


def _material(store: Store, name: str, kind: type[M]) -> M:
    material = store.material[name]
    assert isinstance(material, kind)
    return material


def _fits(version: resources.CryptoKeyVersion, plaintext: bytes, aad: bytes) -> None:
    if version.protection_level == Level.HSM:
        if len(plaintext) + len(aad) > HSM_LIMIT:
            raise invalid(f"Plaintext and additional authenticated data exceed {HSM_LIMIT} bytes together.")
    elif len(plaintext) > SOFTWARE_LIMIT:
        raise invalid(f"The plaintext exceeds {SOFTWARE_LIMIT} bytes.")
    elif len(aad) > SOFTWARE_LIMIT:
        raise invalid(f"The additional authenticated data exceed {SOFTWARE_LIMIT} bytes.")


def _checked(request: Any, field: str) -> bool:
    """Return whether the request contains a checksum of `field`. Raises INVALID_ARGUMENT if it is wrong."""
    if f"{field}_crc32c" not in request:
        return False
    if getattr(request, f"{field}_crc32c") != crc32c(getattr(request, field)):
        raise _mismatch(field)
    return True


def _mismatch(field: str) -> Exception:
    return invalid(f"The checksum in field {field}_crc32c did not match the data in field {field}.")
