"""Rotates a key at most once, although the answer of AWS KMS may be lost."""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

from kmsbridge.driver import DriverError, ErrorKind
from kmsbridge_aws import answers, failures
from kmsbridge_aws.client import Client
from kmsbridge_aws.naming import Arn

_LOST: Final = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT})
_UNKNOWN: Final = frozenset({ErrorKind.ACCESS_DENIED, ErrorKind.INVALID_REQUEST})
"""Refusals of a look at the key after which it is rotated all the same."""
_SHARE: Final = 0.6
"""The part of the time that RotateKeyOnDemand gets; the rest is for a look at the key if its answer is lost."""
_CONFLICT: Final = "ConflictException"
_REMEDY: Final = (
    "look at the key with 'aws kms list-key-rotations' before you repeat it: it may have been rotated, and AWS allows "
    "25 rotations on demand in a key's life"
)


class _Look(NamedTuple):
    """What AWS tells of a key's rotation. `material` is the id of the current key material, "" if AWS does not tell."""

    material: str
    in_progress: bool

    def has_rotated_since(self, material: str | None) -> bool:
        """Return whether the key was rotated, or is being, since its key material was `material`.

        Two unequal ids show that. It does not follow if one of the looks was refused and has no id.
        """
        return self.in_progress or bool(material and self.material and material != self.material)


class Rotation:
    """Rotates one key by RotateKeyOnDemand, which AWS allows 25 times in a key's life.

    A request whose answer is lost is not repeated: the key itself is looked at. Its key material is remembered, so
    that the next `rotate` of this object finds out what became of the request.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._before_lost: str | None = None

    def rotate(self, arn: Arn, deadline: float) -> None:
        """Rotate the key, unless an earlier request did so or is still in progress.

        `deadline` is a monotonic time. Raises a `DriverError` whose remedy says how to find out what happened, if
        neither the answer nor a look at the key tells.
        """
        before = self._look(arn, deadline)
        if before.has_rotated_since(self._before_lost):
            self._before_lost = None
            return
        now = time.monotonic()
        try:
            self._client.call("rotate_key_on_demand", now + _SHARE * (deadline - now), KeyId=str(arn))
        except Exception as error:
            kind = _kind(error)
            was_ours = self._before_lost is not None and failures.details(error).code == _CONFLICT
            if was_ours or (kind in _LOST and self._has_rotated(arn, before, deadline)):
                self._before_lost = None
                return
            if kind not in _LOST:
                raise
            self._before_lost = before.material
            told = failures.details(error)
            raise DriverError(kind, code=told.code, remedy=_REMEDY, request_id=told.request_id) from error
        self._before_lost = None

    def _has_rotated(self, arn: Arn, before: _Look, deadline: float) -> bool:
        try:
            after = self._look(arn, deadline)
        except Exception:  # noqa: BLE001 - the lost answer is what is reported
            return False
        return after.has_rotated_since(before.material)

    def _look(self, arn: Arn, deadline: float) -> _Look:
        status = self._ask("get_key_rotation_status", arn, deadline)
        described = self._ask("describe_key", arn, deadline)
        material = answers.material_of(described) if described else ""
        return _Look(material, "OnDemandRotationStartDate" in status)

    def _ask(self, operation: str, arn: Arn, deadline: float) -> Any:
        try:
            return self._client.call(operation, deadline, KeyId=str(arn))
        except Exception as error:
            if _kind(error) in _UNKNOWN:
                return {}
            raise


def _kind(error: Exception) -> ErrorKind:
    return error.kind if isinstance(error, DriverError) else failures.classify(error)
