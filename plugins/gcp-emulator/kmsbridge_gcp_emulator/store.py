"""The emulator's key rings, keys and versions, in memory."""

from __future__ import annotations

import datetime
import threading
from typing import Any, Final, TypeVar

from google.cloud.kms_v1.types import resources
from kmsbridge_gcp.naming import VERSIONS, key_of

from kmsbridge_gcp_emulator.material import MAKERS, PREFIX, Material, Symmetric, purpose_of
from kmsbridge_gcp_emulator.refusal import invalid, missing, precondition

# Typed as Any, because type checkers take the members of these enumerations for plain numbers.
State: Any = resources.CryptoKeyVersion.CryptoKeyVersionState
Algorithm: Any = resources.CryptoKeyVersion.CryptoKeyVersionAlgorithm
Purpose: Any = resources.CryptoKey.CryptoKeyPurpose
Level: Any = resources.ProtectionLevel

T = TypeVar("T")

DEFAULT_DELAY: Final = datetime.timedelta(days=30)
_LEVELS: Final = frozenset({Level.SOFTWARE, Level.HSM})


def now() -> datetime.datetime:
    """Return the current time in UTC."""
    return datetime.datetime.now(datetime.UTC)


class Store:
    """Key rings, keys and versions by their resource names. Hold `lock` to call a method that changes anything."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.rings: dict[str, resources.KeyRing] = {}
        self.keys: dict[str, resources.CryptoKey] = {}
        self.versions: dict[str, resources.CryptoKeyVersion] = {}
        self.material: dict[str, Material] = {}
        self._by_prefix: dict[bytes, str] = {}

    def ring(self, name: str) -> resources.KeyRing:
        """Return the key ring. Raises NOT_FOUND."""
        return _found(self.rings, "KeyRing", name)

    def key(self, name: str) -> resources.CryptoKey:
        """Return the key, with its primary version if its purpose has one. Raises NOT_FOUND."""
        key = _found(self.keys, "CryptoKey", name)
        if key.primary.name:
            key.primary = self.version(key.primary.name)
        return key

    def version(self, name: str) -> resources.CryptoKeyVersion:
        """Return the version, after destroying it if that is due. Raises NOT_FOUND."""
        version = _found(self.versions, "CryptoKeyVersion", name)
        if version.state == State.DESTROY_SCHEDULED and version.destroy_time <= now():
            self.destroy(version)
        return version

    def versions_of(self, key: str) -> list[resources.CryptoKeyVersion]:
        """Return the versions of a key, oldest first."""
        return [self.version(name) for name in self.versions if key_of(name) == key]

    def enabled(self, name: str) -> resources.CryptoKeyVersion:
        """Return the version if it is enabled. Raises FAILED_PRECONDITION otherwise."""
        version = self.version(name)
        if version.state != State.ENABLED:
            state = State(version.state).name
            text = f"{name} is not enabled, current state is: {state}."
            raise precondition(text, f"KEY_{state}", name)
        return version

    def sealed_by(self, ciphertext: bytes) -> str:
        """Return the name of the version that made a symmetric ciphertext; "" if none did."""
        return self._by_prefix.get(ciphertext[:PREFIX], "")

    def create_ring(self, name: str) -> resources.KeyRing:
        """Make a key ring and return it."""
        self.rings[name] = ring = resources.KeyRing(name=name, create_time=now())
        return ring

    def create_key(self, name: str, wanted: resources.CryptoKey, *, empty: bool) -> resources.CryptoKey:
        """Make a key like `wanted`, with a first version unless `empty`, and return it. Raises INVALID_ARGUMENT."""
        template: Any = wanted.version_template
        algorithm, level, purpose = template.algorithm, template.protection_level, Purpose(wanted.purpose)
        if purpose == Purpose.ENCRYPT_DECRYPT:
            algorithm = algorithm or Algorithm.GOOGLE_SYMMETRIC_ENCRYPTION
        level = level or Level.SOFTWARE
        if Algorithm(algorithm).name not in MAKERS or purpose_of(Algorithm(algorithm).name) != purpose.name:
            raise invalid("The algorithm is not one for the purpose of the key, or is not emulated.")
        if level not in _LEVELS:
            raise invalid("The protection level is not emulated.")
        key = resources.CryptoKey(wanted)
        key.name, key.create_time = name, now()
        key.version_template = resources.CryptoKeyVersionTemplate(algorithm=algorithm, protection_level=level)
        if not key.destroy_scheduled_duration:
            key.destroy_scheduled_duration = DEFAULT_DELAY
        self.keys[name] = key
        if not empty:
            version = self.create_version(name)
            if purpose == Purpose.ENCRYPT_DECRYPT:
                key.primary = version
        return key

    def create_version(self, key_name: str) -> resources.CryptoKeyVersion:
        """Make the key's next version, enabled, and return it."""
        template = self.keys[key_name].version_template
        name = f"{key_name}{VERSIONS}{len(self.versions_of(key_name)) + 1}"
        material = MAKERS[Algorithm(template.algorithm).name]()
        version = resources.CryptoKeyVersion(
            name=name,
            state=State.ENABLED,
            algorithm=template.algorithm,
            protection_level=template.protection_level,
            create_time=now(),
            generate_time=now(),
        )
        self.versions[name], self.material[name] = version, material
        if isinstance(material, Symmetric):
            self._by_prefix[material.prefix] = name
        return version

    def destroy(self, version: resources.CryptoKeyVersion) -> None:
        """Destroy the version: delete its key material for good."""
        version.state, version.destroy_event_time = State.DESTROYED, now()
        version.destroy_time = None
        self.material.pop(version.name, None)

    def forget(self, key_name: str) -> None:
        """Remove the key and all its versions, so that they are NOT_FOUND."""
        for version in self.versions_of(key_name):
            self.destroy(version)
            del self.versions[version.name]
        self._by_prefix = {prefix: name for prefix, name in self._by_prefix.items() if name in self.versions}
        del self.keys[key_name]


def _found(known: dict[str, T], kind: str, name: str) -> T:
    if name not in known:
        raise missing(kind, name)
    return known[name]
