"""The service google.iam.v1.IAMPolicy for key rings and keys."""

from __future__ import annotations

from google.iam.v1 import iam_policy_pb2, policy_pb2  # type: ignore[import-untyped]
from kmsbridge_gcp.naming import KEY, KEY_RING

from kmsbridge_gcp_emulator.iam import Iam
from kmsbridge_gcp_emulator.refusal import invalid
from kmsbridge_gcp_emulator.store import Store


class Policies:
    """The methods of the service, each called for a principal."""

    def __init__(self, store: Store, iam: Iam) -> None:
        self._store, self._iam = store, iam

    def set(self, principal: str, request: iam_policy_pb2.SetIamPolicyRequest) -> policy_pb2.Policy:
        """Replace a resource's policy."""
        self._iam.check(principal, self._permission(request.resource, "set"), request.resource)
        self._exists(request.resource)
        return self._iam.set_policy(request.resource, request.policy)

    def get(self, principal: str, request: iam_policy_pb2.GetIamPolicyRequest) -> policy_pb2.Policy:
        """Return a resource's own policy."""
        self._iam.check(principal, self._permission(request.resource, "get"), request.resource)
        self._exists(request.resource)
        return self._iam.policy(request.resource)

    def test(
        self, principal: str, request: iam_policy_pb2.TestIamPermissionsRequest
    ) -> iam_policy_pb2.TestIamPermissionsResponse:
        """Return those of the requested permissions that the caller has; none if the resource does not exist."""
        self._permission(request.resource, "get")
        held: list[str] = []
        if request.resource in self._store.keys or request.resource in self._store.rings:
            held = [name for name in request.permissions if self._iam.may(principal, name, request.resource)]
        return iam_policy_pb2.TestIamPermissionsResponse(permissions=held)

    def _permission(self, resource: str, verb: str) -> str:
        if KEY.fullmatch(resource):
            return f"cloudkms.cryptoKeys.{verb}IamPolicy"
        if KEY_RING.fullmatch(resource):
            return f"cloudkms.keyRings.{verb}IamPolicy"
        raise invalid(f"Resource name [{resource[:200]}] must be a key ring's or a key's.")

    def _exists(self, resource: str) -> None:
        if KEY.fullmatch(resource):
            self._store.key(resource)
        else:
            self._store.ring(resource)
