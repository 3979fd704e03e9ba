"""What a test tells the emulator besides what Cloud KMS itself can be told."""

from __future__ import annotations

from typing import Any, Final, Protocol

from google.cloud.kms_v1.types import resources
from kmsbridge_gcp.naming import KEY

from kmsbridge_gcp_emulator.faults import Fault, Faults
from kmsbridge_gcp_emulator.iam import Iam
from kmsbridge_gcp_emulator.managing import named
from kmsbridge_gcp_emulator.material import MAKERS, purpose_of
from kmsbridge_gcp_emulator.refusal import invalid
from kmsbridge_gcp_emulator.store import DEFAULT_DELAY, Algorithm, Level, Purpose, State, Store, now

_ACTIONS: Final = frozenset(
    {"create_key", "set_state", "delete_key", "fault", "heal", "grant", "revoke", "requests", "log"}
)


class Controlled(Protocol):
    """The parts of an emulator that the actions work on."""

    store: Store
    iam: Iam
    faults: Faults

    def requests(self, resource: str, method: str) -> int: ...
    def log(self, resource: str) -> list[dict[str, str]]: ...


class Control:
    """The actions, each by its name with its arguments."""

    def __init__(self, service: Controlled) -> None:
        self._service, self._store = service, service.store

    def perform(self, action: str, arguments: dict[str, Any]) -> Any:
        """Do it, and give what it gives."""
        if action not in _ACTIONS:
            raise invalid(f"{action} is no action")
        with self._store.lock:
            return getattr(self, action)(**arguments)

    def create_key(self, name: str, algorithm: str, protection_level: str) -> None:
        """A key with one version, and its key ring where there is none."""
        if algorithm not in MAKERS or protection_level not in Level.__members__:
            raise invalid("the algorithm or protection level is not emulated")
        ring, _, short = named(KEY, name).partition("/cryptoKeys/")
        if name in self._store.keys:
            raise invalid(f"there is a key {short} in {ring} already")
        if ring not in self._store.rings:
            self._store.create_ring(ring)
        asked = resources.CryptoKey(
            purpose=Purpose[purpose_of(algorithm)],
            version_template={
                "algorithm": Algorithm[algorithm],
                "protection_level": Level[protection_level],
            },
        )
        self._store.create_key(name, asked, empty=False)

    def set_state(self, name: str, state: str) -> None:
        """Of a version, or of all versions of a key; DESTROYED drops the secret at once."""
        if state not in State.__members__:
            raise invalid(f"{state} is no state")
        versions = self._store.versions_of(name) if KEY.fullmatch(name) else [self._store.version(name)]
        for version in versions:
            if state == "DESTROYED":
                self._store.destroy(version)
                continue
            if state == "DESTROY_SCHEDULED":
                version.destroy_time = now() + DEFAULT_DELAY
            version.state = State[state]

    def delete_key(self, name: str) -> None:
        """Forget the key, as if it had never been."""
        self._store.key(name)
        self._store.forget(name)
        self._service.iam.forget(name)

    def fault(self, **fault: Any) -> None:
        """Have something go wrong."""
        self._service.faults.add(Fault(**fault))

    def heal(self, resource: str) -> None:
        """End what goes wrong."""
        self._service.faults.heal(resource)

    def grant(self, principal: str, role: str, resource: str) -> None:
        """Give a role."""
        self._service.iam.grant(principal, role, resource)

    def revoke(self, principal: str) -> None:
        """Have the credentials expire."""
        self._service.iam.revoke(principal)

    def requests(self, resource: str, method: str) -> int:
        """How many there were."""
        return self._service.requests(resource, method)

    def log(self, resource: str) -> list[dict[str, str]]:
        """The latest."""
        return self._service.log(resource)
