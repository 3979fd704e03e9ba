"""Reads the answers of DescribeKey, GetPublicKey and GetKeyRotationStatus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kmsbridge.driver import KeyState
from kmsbridge_aws.failures import UnfitKey, UnreadableAnswer
from kmsbridge_aws.naming import Arn

_STATES: Final = {
    "Enabled": KeyState.ENABLED,
    "Updating": KeyState.ENABLED,  # its primary region is being changed; it can be used meanwhile
    "Disabled": KeyState.DISABLED,
    "PendingDeletion": KeyState.PENDING_DELETION,
    "PendingReplicaDeletion": KeyState.PENDING_DELETION,
    "PendingImport": KeyState.DISABLED,
    "Unavailable": KeyState.DISABLED,
    "Creating": KeyState.DISABLED,
}
_SYMMETRIC: Final = ("SYMMETRIC_DEFAULT",)
_RSA: Final = ("RSA_2048", "RSA_3072", "RSA_4096")


def arn_of(answer: Mapping[str, Any], *, asymmetric: bool) -> Arn:
    """Return the key's ARN.

    Raises `UnfitKey` for a key that cannot wrap data keys, and `UnreadableAnswer` for an answer without an ARN.
    """
    metadata = _metadata(answer)
    arn = Arn.parse(str(metadata.get("Arn", "")))
    if arn is None or not arn.is_key:
        raise UnreadableAnswer("the answer of AWS KMS does not contain the key's ARN")
    check_fit(metadata, asymmetric=asymmetric)
    return arn


def check_fit(metadata: Mapping[str, Any], *, asymmetric: bool) -> None:
    """Raise `UnfitKey` unless the key is for encryption and of the configured type.

    `metadata` is the KeyMetadata of DescribeKey or the answer of GetPublicKey.
    """
    spec = metadata.get("KeySpec") or metadata.get("CustomerMasterKeySpec")
    usage = metadata.get("KeyUsage", "ENCRYPT_DECRYPT")  # moto leaves out what CreateKey was not told
    if usage != "ENCRYPT_DECRYPT" or spec not in (_RSA if asymmetric else _SYMMETRIC):
        raise UnfitKey("the AWS key is of a different type or purpose than the configuration says")


def state_of(answer: Mapping[str, Any]) -> KeyState:
    """Return the key's state; `UNKNOWN` for a state that this driver does not know."""
    return _STATES.get(str(_metadata(answer).get("KeyState")), KeyState.UNKNOWN)


def material_of(answer: Mapping[str, Any]) -> str:
    """Return the id of the key's current key material, "" for a key that has none of its own in AWS KMS."""
    return str(_metadata(answer).get("CurrentKeyMaterialId") or "")


def rotation_of(answer: Mapping[str, Any]) -> str:
    """Return how the key is rotated, as a text such as "every 365 days, next on 2026-01-31"."""
    if not answer.get("KeyRotationEnabled"):
        return "on demand"
    days, following = answer.get("RotationPeriodInDays"), answer.get("NextRotationDate")
    text = f"every {days} days" if isinstance(days, int) else "every year"
    return f"{text}, next on {following:%Y-%m-%d}" if hasattr(following, "strftime") else text


def _metadata(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = answer.get("KeyMetadata")
    if not isinstance(metadata, Mapping):
        raise UnreadableAnswer("the answer of AWS KMS does not describe a key")
    return metadata
