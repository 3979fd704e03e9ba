"""Permissions: the predefined roles of Cloud KMS, granted on projects, key rings and keys."""

from __future__ import annotations

import threading
from typing import Final

from google.iam.v1 import policy_pb2  # type: ignore[import-untyped]

from kmsbridge_gcp_emulator.refusal import denied, invalid, unauthenticated

OWNER: Final = "owner"
"""The principal of a call without credentials, which may do everything."""

_USE: Final = "cloudkms.cryptoKeyVersions.useTo"
_VIEW: Final = frozenset(
    f"cloudkms.{kind}.{verb}"
    for kind in ("keyRings", "cryptoKeys", "cryptoKeyVersions")
    for verb in ("get", "list")
)
_MANAGE: Final = frozenset(
    {
        *(f"cloudkms.keyRings.{verb}" for verb in ("create", "getIamPolicy", "setIamPolicy")),
        *(f"cloudkms.cryptoKeys.{verb}" for verb in ("create", "update", "getIamPolicy", "setIamPolicy")),
        *(f"cloudkms.cryptoKeyVersions.{verb}" for verb in ("create", "update", "destroy", "restore")),
    }
)
_OPERATE: Final = frozenset(
    {
        *(f"{_USE}{use}" for use in ("Encrypt", "Decrypt", "Sign", "Verify")),
        "cloudkms.cryptoKeyVersions.viewPublicKey",
        "cloudkms.locations.generateRandomBytes",
    }
)
ROLES: Final[dict[str, frozenset[str]]] = {
    "roles/cloudkms.cryptoKeyEncrypter": frozenset({f"{_USE}Encrypt"}),
    "roles/cloudkms.cryptoKeyDecrypter": frozenset({f"{_USE}Decrypt"}),
    "roles/cloudkms.cryptoKeyEncrypterDecrypter": frozenset({f"{_USE}Encrypt", f"{_USE}Decrypt"}),
    "roles/cloudkms.publicKeyViewer": frozenset({"cloudkms.cryptoKeyVersions.viewPublicKey"}),
    "roles/cloudkms.signer": frozenset({f"{_USE}Sign"}),
    "roles/cloudkms.cryptoOperator": _OPERATE,
    "roles/cloudkms.viewer": _VIEW,
    "roles/cloudkms.admin": _VIEW | _MANAGE,
    "roles/owner": _VIEW | _MANAGE | _OPERATE,
}


class Iam:
    """The policies of resources, and the principals whose credentials are refused."""

    def __init__(self) -> None:
        self._policies: dict[str, policy_pb2.Policy] = {}
        self._revoked: set[str] = set()
        self._lock = threading.Lock()

    def policy(self, resource: str) -> policy_pb2.Policy:
        """Return the resource's own policy; an empty one if none was set."""
        policy = policy_pb2.Policy()
        policy.CopyFrom(self._policies.get(resource, policy))
        policy.etag = policy.etag or b"\0"
        return policy

    def set_policy(self, resource: str, policy: policy_pb2.Policy) -> policy_pb2.Policy:
        """Replace the resource's own policy and return it. If the policy has an etag, it must be the current one."""
        unknown = [binding.role for binding in policy.bindings if binding.role not in ROLES]
        if unknown:
            raise invalid(f"Role {unknown[0]} is not supported for this resource.")
        with self._lock:
            before = self.policy(resource)
            if policy.etag and policy.etag != before.etag:
                raise invalid(
                    "There were concurrent policy changes. Please retry the whole read-modify-write."
                )
            kept = policy_pb2.Policy()
            kept.CopyFrom(policy)
            kept.etag = (int.from_bytes(before.etag) + 1).to_bytes(4)
            self._policies[resource] = kept
        return self.policy(resource)

    def grant(self, principal: str, role: str, resource: str) -> None:
        """Add one binding to the resource's policy."""
        policy = self.policy(resource)
        policy.bindings.add(role=role, members=[f"user:{principal}"])
        self.set_policy(resource, policy)

    def forget(self, resource: str) -> None:
        """Remove the policy of a deleted resource."""
        self._policies.pop(resource, None)

    def revoke(self, principal: str) -> None:
        """Refuse the principal's credentials from now on, as if they had expired."""
        self._revoked.add(principal)

    def authenticate(self, principal: str) -> None:
        """Raise UNAUTHENTICATED for a revoked principal."""
        if principal in self._revoked:
            raise unauthenticated()

    def check(self, principal: str, permission: str, resource: str) -> None:
        """Raise PERMISSION_DENIED unless `may` returns True."""
        if not self.may(principal, permission, resource):
            raise denied(permission, resource)

    def may(self, principal: str, permission: str, resource: str) -> bool:
        """Return whether the policy of `resource`, or of a resource above it, gives the permission."""
        if principal == OWNER:
            return True
        parts = resource.split("/")
        ancestry = ["/".join(parts[:length]) for length in range(2, len(parts) + 1, 2)]
        with self._lock:
            policies = [self._policies[name] for name in ancestry if name in self._policies]
        return any(
            permission in ROLES[binding.role] and _names(binding.members, principal)
            for policy in policies
            for binding in policy.bindings
        )


def _names(members: object, principal: str) -> bool:
    return any(
        member in ("allUsers", "allAuthenticatedUsers") or member.partition(":")[2] == principal
        for member in members  # type: ignore[attr-defined]
    )
