"""The emulator's key rings, keys and versions, in memory."""

from __future__ import annotations

import datetime
import threading
from typing import Any, Final, TypeVar

from google.cloud.kms_v1.types import resources
from kmsbridge_gcp.naming import VERSIONS, key_of

from kmsbridge_gcp_emulator.material import MAKERS, PREFIX, Material, Symmetric, purpose_of
from kmsbridge_gcp_emulator.refusal import invalid, missing, precondition

# Any: their members are plain numbers to a type checker, and enumerations in truth.
State: Any = resources.CryptoKeyVersion.CryptoKeyVersionState
Algorithm: Any = resources.CryptoKeyVersion.CryptoKeyVersionAlgorithm
Purpose: Any = resources.CryptoKey.CryptoKeyPurpose
Level: Any = resources.ProtectionLevel

T = TypeVar("T")

DEFAULT_DELAY: Final = datetime.timedelta(days=30)
_LEVELS: Final = frozenset({Level.SOFTWARE, Level.HSM})


def now() -> datetime.datetime:
    """The time, as Cloud KMS writes it."""
    return datetime.datetime.now(datetime.UTC)


class Store:
    """Everything by name. A method that changes anything is to be called under `lock`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.rings: dict[str, resources.KeyRing] = {}
        self.keys: dict[str, resources.CryptoKey] = {}
        self.versions: dict[str, resources.CryptoKeyVersion] = {}
        self.material: dict[str, Material] = {}
        self._by_prefix: dict[bytes, str] = {}

    def ring(self, name: str) -> resources.KeyRing:
        """The key ring. Raises NOT_FOUND."""
        return _found(self.rings, "KeyRing", name)

    def key(self, name: str) -> resources.CryptoKey:
        """The key, with its primary version where its purpose has one. Raises NOT_FOUND."""
        key = _found(self.keys, "CryptoKey", name)
        if key.primary.name:
            key.primary = self.version(key.primary.name)
        return key

    def version(self, name: str) -> resources.CryptoKeyVersion:
        """The version, destroyed if its time has come. Raises NOT_FOUND."""
        version = _found(self.versions, "CryptoKeyVersion", name)
        if version.state == State.DESTROY_SCHEDULED and version.destroy_time <= now():
            self.destroy(version)
        return version

    def versions_of(self, key: str) -> list[resources.CryptoKeyVersion]:
        """All, oldest first."""
        return [self.version(name) for name in self.versions if key_of(name) == key]

    def enabled(self, name: str) -> resources.CryptoKeyVersion:
        """The version, if it can be used. Raises FAILED_PRECONDITION."""
        version = self.version(name)
        if version.state != State.ENABLED:
            state = State(version.state).name
            text = f"{name} is not enabled, current state is: {state}."
            raise precondition(text, f"KEY_{state}", name)
        return version

    def sealed_by(self, ciphertext: bytes) -> str:
        """The name of the version that made a symmetric ciphertext; empty if none of ours did."""
        return self._by_prefix.get(ciphertext[:PREFIX], "")

    def create_ring(self, name: str) -> resources.KeyRing:
        """A new key ring."""
        self.rings[name] = ring = resources.KeyRing(name=name, create_time=now())
        return ring

    def create_key(self, name: str, asked: resources.CryptoKey, *, empty: bool) -> resources.CryptoKey:
        """A new key, with a first version unless `empty`."""
        template: Any = asked.version_template
        algorithm, level, purpose = template.algorithm, template.protection_level, Purpose(asked.purpose)
        if purpose == Purpose.ENCRYPT_DECRYPT:
            algorithm = algorithm or Algorithm.GOOGLE_SYMMETRIC_ENCRYPTION
        level = level or Level.SOFTWARE
        if Algorithm(algorithm).name not in MAKERS or purpose_of(Algorithm(algorithm).name) != purpose.name:
            raise invalid("The algorithm is not one for the purpose of the key, or is not emulated.")
        if level not in _LEVELS:
            raise invalid("The protection level is not emulated.")
        key = resources.CryptoKey(asked)
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
        """The key's next version, enabled."""
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
        """Drop the version's secret for good."""
        version.state, version.destroy_event_time = State.DESTROYED, now()
        version.destroy_time = None
        self.material.pop(version.name, None)

    def forget(self, key_name: str) -> None:
        """Drop the key and all its versions for good, as if it had never been."""
        for version in self.versions_of(key_name):
            self.destroy(version)
            del self.versions[version.name]
        self._by_prefix = {prefix: name for prefix, name in self._by_prefix.items() if name in self.versions}
        del self.keys[key_name]


def _found(known: dict[str, T], kind: str, name: str) -> T:
    if name not in known:
        raise missing(kind, name)
    return known[name]
