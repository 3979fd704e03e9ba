"""The emulated Cloud KMS behind the gRPC server: it identifies callers, counts calls, and has functions answer them."""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import grpc
from google.cloud.kms_v1.types import service as messages
from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]
from kmsbridge_gcp.naming import KEY, KEY_RING, LOCATION, VERSION

from kmsbridge_gcp_emulator import faults, managing, using
from kmsbridge_gcp_emulator.control import Control
from kmsbridge_gcp_emulator.faults import Faults
from kmsbridge_gcp_emulator.iam import OWNER, Iam
from kmsbridge_gcp_emulator.policies import Policies
from kmsbridge_gcp_emulator.refusal import Refusal, invalid, unauthenticated
from kmsbridge_gcp_emulator.store import Store

KMS: Final = "google.cloud.kms.v1.KeyManagementService"
IAM: Final = "google.iam.v1.IAMPolicy"
CONTROL: Final = "kmsbridge_gcp_emulator.Control"
_REMEMBERED: Final = 1000
_JWT_PARTS: Final = 3


class KmsService:
    """One emulated Cloud KMS: its keys, policies and faults, and the log of its calls."""

    def __init__(self) -> None:
        self.store, self.iam, self.faults = Store(), Iam(), Faults()
        self._policies = Policies(self.store, self.iam)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._log: deque[dict[str, str]] = deque(maxlen=_REMEMBERED)
        self._lock = threading.Lock()

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Return the handlers for a gRPC server."""
        rpcs = {
            name: self._kms(name, function, permission)
            for name, (function, permission) in {**managing.METHODS, **using.METHODS}.items()
        }
        policies = {
            "SetIamPolicy": self._iam_rpc(self._policies.set, iam_policy_pb2.SetIamPolicyRequest),
            "GetIamPolicy": self._iam_rpc(self._policies.get, iam_policy_pb2.GetIamPolicyRequest),
            "TestIamPermissions": self._iam_rpc(
                self._policies.test, iam_policy_pb2.TestIamPermissionsRequest
            ),
        }
        control = {"Call": grpc.unary_unary_rpc_method_handler(self._control)}
        return (
            grpc.method_handlers_generic_handler(KMS, rpcs),
            grpc.method_handlers_generic_handler(IAM, policies),
            grpc.method_handlers_generic_handler(CONTROL, control),
        )

    def requests(self, resource: str = "", method: str = "") -> int:
        """Return the number of calls, including refused ones, on a resource and what is below it."""
        with self._lock:
            return sum(
                count
                for (called, name), count in self._counts.items()
                if method in ("", called) and (not resource or f"{name}/".startswith(f"{resource}/"))
            )

    def log(self, resource: str = "") -> list[dict[str, str]]:
        """Return the latest of these calls, oldest first: method, resource, principal, reason and code."""
        with self._lock:
            return [entry for entry in self._log if f"{entry['resource']}/".startswith(resource)]

    def _kms(self, name: str, function: Callable[[Store, Any], Any], permission: str) -> Any:
        kind = getattr(messages, f"{name}Request")

        def answer(principal: str, request: Any) -> Any:
            resource = _resource(request)
            self.iam.check(principal, permission, resource)
            if name in using.METHODS:
                return function(self.store, request)
            with self.store.lock:
                # A copy: the store may change the original before it is sent.
                response = function(self.store, request)
                return type(response)(response)

        def write(response: Any) -> bytes:
            data: bytes = type(response).serialize(response)
            return data

        return self._rpc(name, kind.deserialize, _resource, answer, write)

    def _iam_rpc(self, function: Callable[[str, Any], Any], kind: Any) -> Any:
        def answer(principal: str, request: Any) -> Any:
            with self.store.lock:
                return function(principal, request)

        def write(response: Any) -> bytes:
            data: bytes = response.SerializeToString()
            return data

        name = kind.DESCRIPTOR.name.removesuffix("Request")
        return self._rpc(name, kind.FromString, lambda request: str(request.resource), answer, write)

    def _rpc(
        self,
        method: str,
        read: Callable[[bytes], Any],
        resource_of: Callable[[Any], str],
        answer: Callable[[str, Any], Any],
        write: Callable[[Any], bytes],
    ) -> Any:
        def call(request: Any, context: grpc.ServicerContext) -> Any:
            metadata = {key: str(value) for key, value in context.invocation_metadata()}
            entry = {"method": method, "resource": "", "principal": "", "code": "OK"}
            entry["reason"] = metadata.get("x-goog-request-reason", "")
            try:
                entry["principal"] = principal = _principal(metadata)
                entry["resource"] = resource = resource_of(request)
                found = self.faults.of(method, resource)
                faults.before(found, context)
                self.iam.authenticate(principal)
                return faults.after(found, answer(principal, request))
            except Refusal as refusal:
                entry["code"] = refusal.code.name
                context.set_trailing_metadata(refusal.trailer())
                context.abort(refusal.code, refusal.text)
            finally:
                self._count(entry)

        return grpc.unary_unary_rpc_method_handler(call, read, write)

    def _count(self, entry: dict[str, str]) -> None:
        with self._lock:
            self._counts[entry["method"], entry["resource"]] += 1
            self._log.append(entry)

    def _control(self, request: bytes, context: grpc.ServicerContext) -> Any:
        arguments = json.loads(request)
        try:
            return json.dumps(Control(self).perform(arguments.pop("do"), arguments)).encode()
        except Refusal as refusal:
            context.abort(refusal.code, refusal.text)


def _resource(request: Any) -> str:
    fields: Iterable[str] = type(request).meta.fields
    if "crypto_key_version" in fields and "update_mask" in fields:
        name = request.crypto_key_version.name
    else:
        name = next(getattr(request, field) for field in ("name", "parent", "location") if field in fields)
    if not any(grammar.fullmatch(name) for grammar in (LOCATION, KEY_RING, KEY, VERSION)):
        raise invalid(f"Resource name [{name[:200]}] must match the pattern of its kind.")
    return str(name)


def _principal(metadata: dict[str, str]) -> str:
    scheme, _, token = metadata.get("authorization", "").partition(" ")
    if not scheme:
        return OWNER
    if scheme != "Bearer" or not token:
        raise unauthenticated()
    parts = token.split(".")
    if len(parts) != _JWT_PARTS:
        return token
    try:
        # Not verified: the emulator does not know the keys of service accounts.
        return str(json.loads(base64.urlsafe_b64decode(parts[1] + "=="))["iss"])
    except (ValueError, KeyError):
        return token
