"""Actions that tests ask of the emulator and that Cloud KMS does not have: faults, states, roles, the log."""

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
    """The actions, called by name."""

    def __init__(self, service: Controlled) -> None:
        self._service, self._store = service, service.store

    def perform(self, action: str, arguments: dict[str, Any]) -> Any:
        """Perform an action and return its result. Raises `Refusal`."""
        if action not in _ACTIONS:
            raise invalid(f"{action} is not an action of the emulator")
        with self._store.lock:
            return getattr(self, action)(**arguments)

    def create_key(self, name: str, algorithm: str, protection_level: str) -> None:
        """Make a key with one version, and its key ring if there is none."""
        if algorithm not in MAKERS or protection_level not in Level.__members__:
            raise invalid("the algorithm or protection level is not emulated")
        ring, _, short = named(KEY, name).partition("/cryptoKeys/")
        if name in self._store.keys:
            raise invalid(f"there is already a key {short} in {ring}")
        if ring not in self._store.rings:
            self._store.create_ring(ring)
        wanted = resources.CryptoKey(
            purpose=Purpose[purpose_of(algorithm)],
            version_template={
                "algorithm": Algorithm[algorithm],
                "protection_level": Level[protection_level],
            },
        )
        self._store.create_key(name, wanted, empty=False)

    def set_state(self, name: str, state: str) -> None:
        """Set the state of a version, or of all versions of a key. DESTROYED deletes the key material at once."""
        if state not in State.__members__:
            raise invalid(f"{state} is not a state of a version")
        versions = self._store.versions_of(name) if KEY.fullmatch(name) else [self._store.version(name)]
        for version in versions:
            if state == "DESTROYED":
                self._store.destroy(version)
                continue
            if state == "DESTROY_SCHEDULED":
                version.destroy_time = now() + DEFAULT_DELAY
            version.state = State[state]

    def delete_key(self, name: str) -> None:
        """Remove the key, its versions and its policy."""
        self._store.key(name)
        self._store.forget(name)
        self._service.iam.forget(name)

    def fault(self, **fault: Any) -> None:
        """Add a fault, with the fields of `Fault`."""
        self._service.faults.add(Fault(**fault))

    def heal(self, resource: str) -> None:
        """End the faults of `resource` and of what is below it; all if it is empty."""
        self._service.faults.heal(resource)

    def grant(self, principal: str, role: str, resource: str) -> None:
        """Grant a role on a resource."""
        self._service.iam.grant(principal, role, resource)

    def revoke(self, principal: str) -> None:
        """Refuse the principal's credentials from now on."""
        self._service.iam.revoke(principal)

    def requests(self, resource: str, method: str) -> int:
        """Return the number of calls of `method` (any if empty) on `resource` and what is below it."""
        return self._service.requests(resource, method)

    def log(self, resource: str) -> list[dict[str, str]]:
        """Return the latest calls on `resource` and what is below it, oldest first."""
        return self._service.log(resource)
