"""The methods of Cloud KMS that make, read and change key rings, keys and versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import grpc
from google.cloud.kms_v1.types import resources, service
from kmsbridge_gcp.naming import ID, KEY, KEY_RING, LOCATION, VERSION, VERSIONS, key_of

from kmsbridge_gcp_emulator.refusal import Refusal, invalid, precondition
from kmsbridge_gcp_emulator.store import Purpose, State, Store, now

T = TypeVar("T")
_PAGE: Final = 100
_CHANGED: Final = frozenset({State.ENABLED, State.DISABLED})


def named(grammar: re.Pattern[str], name: str) -> str:
    """Return `name` if it matches `grammar`. Raises INVALID_ARGUMENT otherwise."""
    if not grammar.fullmatch(name):
        raise invalid(f"Resource name [{name[:200]}] must match the pattern of its kind.")
    return name


def list_key_rings(store: Store, request: service.ListKeyRingsRequest) -> service.ListKeyRingsResponse:
    """Return the key rings of a location."""
    parent = named(LOCATION, request.parent)
    found = [ring for name, ring in store.rings.items() if name.startswith(f"{parent}/")]
    page, after = _page(found, request)
    return service.ListKeyRingsResponse(key_rings=page, next_page_token=after, total_size=len(found))


def get_key_ring(store: Store, request: service.GetKeyRingRequest) -> resources.KeyRing:
    """Return a key ring."""
    return store.ring(named(KEY_RING, request.name))


def create_key_ring(store: Store, request: service.CreateKeyRingRequest) -> resources.KeyRing:
    """Make a key ring in a location."""
    name = f"{named(LOCATION, request.parent)}/keyRings/{named(ID, request.key_ring_id)}"
    _new(store.rings, "KeyRing", name)
    return store.create_ring(name)


def list_keys(store: Store, request: service.ListCryptoKeysRequest) -> service.ListCryptoKeysResponse:
    """Return the keys of a key ring."""
    parent = named(KEY_RING, request.parent)
    store.ring(parent)
    found = [store.key(name) for name in store.keys if name.startswith(f"{parent}/")]
    page, after = _page(found, request)
    return service.ListCryptoKeysResponse(crypto_keys=page, next_page_token=after, total_size=len(found))


def get_key(store: Store, request: service.GetCryptoKeyRequest) -> resources.CryptoKey:
    """Return a key with its primary version."""
    return store.key(named(KEY, request.name))


def create_key(store: Store, request: service.CreateCryptoKeyRequest) -> resources.CryptoKey:
    """Make a key in a key ring, with a first version unless the request leaves it out."""
    parent = named(KEY_RING, request.parent)
    name = f"{parent}/cryptoKeys/{named(ID, request.crypto_key_id)}"
    store.ring(parent)
    _new(store.keys, "CryptoKey", name)
    if Purpose(request.crypto_key.purpose) == Purpose.CRYPTO_KEY_PURPOSE_UNSPECIFIED:
        raise invalid("The purpose of the key must be set.")
    return store.create_key(name, request.crypto_key, empty=request.skip_initial_version_creation)


def list_versions(
    store: Store, request: service.ListCryptoKeyVersionsRequest
) -> service.ListCryptoKeyVersionsResponse:
    """Return the versions of a key."""
    parent = named(KEY, request.parent)
    store.key(parent)
    found = store.versions_of(parent)
    page, after = _page(found, request)
    return service.ListCryptoKeyVersionsResponse(
        crypto_key_versions=page, next_page_token=after, total_size=len(found)
    )


def get_version(store: Store, request: service.GetCryptoKeyVersionRequest) -> resources.CryptoKeyVersion:
    """Return a version."""
    return store.version(named(VERSION, request.name))


def create_version(
    store: Store, request: service.CreateCryptoKeyVersionRequest
) -> resources.CryptoKeyVersion:
    """Make a new version. It does not become the primary one."""
    parent = named(KEY, request.parent)
    store.key(parent)
    return store.create_version(parent)


def update_primary(
    store: Store, request: service.UpdateCryptoKeyPrimaryVersionRequest
) -> resources.CryptoKey:
    """Make another version the primary one, which Encrypt uses."""
    key = store.key(named(KEY, request.name))
    if key.purpose != Purpose.ENCRYPT_DECRYPT:
        raise precondition(f"{key.name} has no primary version: its purpose is {Purpose(key.purpose).name}.")
    key.primary = store.enabled(named(VERSION, f"{key.name}{VERSIONS}{request.crypto_key_version_id}"))
    return key


def update_version(
    store: Store, request: service.UpdateCryptoKeyVersionRequest
) -> resources.CryptoKeyVersion:
    """Enable or disable a version."""
    version = store.version(named(VERSION, request.crypto_key_version.name))
    wanted = request.crypto_key_version.state
    if list(request.update_mask.paths) != ["state"] or wanted not in _CHANGED:
        raise invalid("Only the state can be updated, to ENABLED or DISABLED.")
    if version.state not in _CHANGED:
        raise _wrong_state(version)
    version.state = wanted
    return version


def destroy_version(
    store: Store, request: service.DestroyCryptoKeyVersionRequest
) -> resources.CryptoKeyVersion:
    """Schedule a version's destruction, after the key's delay."""
    version = store.version(named(VERSION, request.name))
    if version.state not in _CHANGED:
        raise _wrong_state(version)
    version.destroy_time = now() + store.key(key_of(version.name)).destroy_scheduled_duration
    version.state = State.DESTROY_SCHEDULED
    return version


def restore_version(
    store: Store, request: service.RestoreCryptoKeyVersionRequest
) -> resources.CryptoKeyVersion:
    """Cancel a version's scheduled destruction, which leaves it disabled."""
    version = store.version(named(VERSION, request.name))
    if version.state != State.DESTROY_SCHEDULED:
        raise _wrong_state(version)
    version.state, version.destroy_time = State.DISABLED, None
    return version


METHODS: Final[dict[str, tuple[Callable[[Store, Any], Any], str]]] = {
    "ListKeyRings": (list_key_rings, "cloudkms.keyRings.list"),
    "GetKeyRing": (get_key_ring, "cloudkms.keyRings.get"),
    "CreateKeyRing": (create_key_ring, "cloudkms.keyRings.create"),
    "ListCryptoKeys": (list_keys, "cloudkms.cryptoKeys.list"),
    "GetCryptoKey": (get_key, "cloudkms.cryptoKeys.get"),
    "CreateCryptoKey": (create_key, "cloudkms.cryptoKeys.create"),
    "ListCryptoKeyVersions": (list_versions, "cloudkms.cryptoKeyVersions.list"),
    "GetCryptoKeyVersion": (get_version, "cloudkms.cryptoKeyVersions.get"),
    "CreateCryptoKeyVersion": (create_version, "cloudkms.cryptoKeyVersions.create"),
    "UpdateCryptoKeyPrimaryVersion": (update_primary, "cloudkms.cryptoKeys.update"),
    "UpdateCryptoKeyVersion": (update_version, "cloudkms.cryptoKeyVersions.update"),
    "DestroyCryptoKeyVersion": (destroy_version, "cloudkms.cryptoKeyVersions.destroy"),
    "RestoreCryptoKeyVersion": (restore_version, "cloudkms.cryptoKeyVersions.restore"),
}
"""By a method's name, the function that answers it and the permission that it requires."""


def _new(known: dict[str, Any], kind: str, name: str) -> None:
    if name in known:
        raise Refusal(grpc.StatusCode.ALREADY_EXISTS, f"{kind} {name} already exists.")


def _page(found: Sequence[T], request: Any) -> tuple[list[T], str]:
    if request.page_token and not request.page_token.isdecimal():
        raise invalid("The page token is not valid.")
    start, size = int(request.page_token or 0), request.page_size or _PAGE
    end = start + min(size, 10 * _PAGE)
    return list(found[start:end]), str(end) if end < len(found) else ""


def _wrong_state(version: resources.CryptoKeyVersion) -> Refusal:
    state = State(version.state).name
    return precondition(f"{version.name} is in state {state}, which does not allow this.", "", version.name)
