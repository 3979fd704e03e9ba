"""What Cloud KMS answers, checked: checksums, permissions, the state of a version."""

from __future__ import annotations

from typing import Any, Protocol

from kmsbridge.driver import KeyState
from kmsbridge_gcp.crc32c import crc32c
from kmsbridge_gcp.failures import corrupted


class Call(Protocol):
    """One request by a method of google-cloud-kms's client, within `timeout` seconds."""

    def __call__(self, method: str, request: Any, timeout: float, /) -> Any:
        """The answer."""


def verify(answer: Any, *confirmed: str, received: str = "") -> None:
    """Raise where Cloud KMS does not confirm a checksum that was sent, or `received` has another one."""
    for field in confirmed:
        if not getattr(answer, f"verified_{field}_crc32c"):
            raise corrupted(field)
    if received:
        value = getattr(answer, received)
        data = value.encode() if isinstance(value, str) else value
        if getattr(answer, f"{received}_crc32c") != crc32c(data):
            raise corrupted(received)


def permissions(call: Call, key: str, timeout: float, *asked: str) -> set[str]:
    """Which of `cloudkms.` permissions the caller has on the key."""
    wanted = [f"cloudkms.{each}" for each in asked]
    answer = call("test_iam_permissions", {"resource": key, "permissions": wanted}, timeout)
    return {each.removeprefix("cloudkms.") for each in answer.permissions}


def key_state(state: Any) -> KeyState:
    """Of a version; a destroyed one is gone, but its key is still there to be described."""
    if state.name == "ENABLED":
        return KeyState.ENABLED
    if state.name in ("DESTROY_SCHEDULED", "DESTROYED"):
        return KeyState.PENDING_DELETION
    return KeyState.DISABLED if state.name == "DISABLED" else KeyState.UNKNOWN
