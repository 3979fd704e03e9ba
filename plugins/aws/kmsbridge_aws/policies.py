"""IAM policies: the least permissions that a role needs for one key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from kmsbridge.driver import PolicyRole
from kmsbridge.errors import ConfigError
from kmsbridge_aws.naming import Arn

_PURPOSE: Final = "kms:EncryptionContext:kmsbridge"
_ENVIRONMENT: Final = "kms:EncryptionContext:kmsbridge-environment"
_OAEP: Final = {"kms:EncryptionAlgorithm": "RSAES_OAEP_SHA_256"}
_USES: Final[dict[PolicyRole, list[str]]] = {
    "encryptor": ["kms:Encrypt"],
    "decryptor": ["kms:Decrypt"],
    "rewrapper": ["kms:ReEncryptFrom", "kms:ReEncryptTo"],
}
# Without PutKeyPolicy and CreateGrant, with which an administrator could grant itself the use of the key.
_ADMIN: Final = (
    *(
        "CancelKeyDeletion",
        "DescribeKey",
        "DisableKey",
        "DisableKeyRotation",
        "EnableKey",
        "EnableKeyRotation",
    ),
    *("GetKeyPolicy", "GetKeyRotationStatus", "ListKeyRotations", "ListResourceTags", "RotateKeyOnDemand"),
    *("ScheduleKeyDeletion", "TagResource", "UntagResource", "UpdateKeyDescription"),
)


def policy(
    arn: Arn | None,
    role: PolicyRole,
    *,
    asymmetric: bool,
    purposes: Sequence[str],
    environment: str = "",
) -> str:
    """Return the policy as JSON, to attach to a role or user; for a symmetric key it requires one of `purposes`, and
    `environment`, if there is one.

    Raises `ConfigError` if `arn` is None.
    """
    if arn is None:
        raise ConfigError(
            "a policy for an AWS key needs the key's account, which its URI does not contain",
            remedy="write the key's ARN in the URI, as DescribeKey shows it",
        )
    statements = _asymmetric(role) if asymmetric else _symmetric(role, purposes, environment)
    document = {"Version": "2012-10-17", "Statement": [_for(arn, statement) for statement in statements]}
    return json.dumps(document, indent=2) + "\n"


def _symmetric(role: PolicyRole, purposes: Sequence[str], environment: str) -> list[dict[str, Any]]:
    if role == "admin":
        return [_administration()]
    pairs: dict[str, Any] = {_PURPOSE: list(purposes)}
    if environment:
        pairs[_ENVIRONMENT] = environment
    used = _statement("Use", _USES[role], {"StringEquals": pairs})
    return [used, _statement("Look", ["kms:DescribeKey"])]


def _asymmetric(role: PolicyRole) -> list[dict[str, Any]]:
    """Return the statements for an RSA key, which binds no context and wraps without AWS KMS."""
    if role == "admin":
        return [_administration()]
    looks = ["kms:DescribeKey"] if role == "decryptor" else ["kms:DescribeKey", "kms:GetPublicKey"]
    look = _statement("Look", looks)
    if role == "encryptor":
        return [look]
    return [_statement("Use", ["kms:Decrypt"], {"StringEquals": _OAEP}), look]


def _administration() -> dict[str, Any]:
    return _statement("Administer", [f"kms:{action}" for action in _ADMIN])


def _statement(name: str, actions: list[str], condition: dict[str, Any] | None = None) -> dict[str, Any]:
    statement: dict[str, Any] = {"Sid": f"Kmsbridge{name}", "Effect": "Allow", "Action": actions}
    return {**statement, "Condition": condition} if condition else statement


def _for(arn: Arn, statement: dict[str, Any]) -> dict[str, Any]:
    """Return the statement for this key. For an alias it is for all keys, with a condition: policies name no alias."""
    if arn.is_key:
        return {**statement, "Resource": str(arn)}
    keys = f"arn:{arn.partition}:kms:{arn.region}:{arn.account}:key/*"
    has_alias = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": arn.resource}}
    return {**statement, "Resource": keys, "Condition": {**statement.get("Condition", {}), **has_alias}}
