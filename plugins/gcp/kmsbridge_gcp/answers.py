"""Reads and checks the answers of Cloud KMS: checksums, permissions, the state of a version."""

from __future__ import annotations

from typing import Any, Protocol

from kmsbridge.driver import KeyState
from kmsbridge_gcp.crc32c import crc32c
from kmsbridge_gcp.failures import corrupted


class Call(Protocol):
    """Sends a request by a method of google-cloud-kms's client."""

    def __call__(self, method: str, request: Any, timeout: float, /) -> Any:
        """Send the request and return the answer, within `timeout` seconds."""


def verify(answer: Any, *confirmed: str, received: str = "") -> None:
    """Raise `DriverError`, of a kind that is retried, if a checksum does not match.

    `confirmed` are the fields of the request whose checksums Cloud KMS must confirm, `received` is the field of the
    answer whose checksum must match.
    """
    for field in confirmed:
        if not getattr(answer, f"verified_{field}_crc32c"):
            raise corrupted(field)
    if received:
        value = getattr(answer, received)
        data = value.encode() if isinstance(value, str) else value
        if getattr(answer, f"{received}_crc32c") != crc32c(data):
            raise corrupted(received)


def permissions(call: Call, key: str, timeout: float, *names: str) -> set[str]:
    """Return those of the permissions `names`, written without "cloudkms.", that the caller has on the key."""
    wanted = [f"cloudkms.{name}" for name in names]
    answer = call("test_iam_permissions", {"resource": key, "permissions": wanted}, timeout)
    return {name.removeprefix("cloudkms.") for name in answer.permissions}


def key_state(state: Any) -> KeyState:
    """Return the state of a version. A destroyed version counts as pending deletion, because its key still exists."""
    if state.name == "ENABLED":
        return KeyState.ENABLED
    if state.name in ("DESTROY_SCHEDULED", "DESTROYED"):
        return KeyState.PENDING_DELETION
    return KeyState.DISABLED if state.name == "DISABLED" else KeyState.UNKNOWN
