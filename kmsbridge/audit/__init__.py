"""The audit trail: one event for every use of a key, to `logging` and to a hash-chained file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kmsbridge.audit.event import AuditEvent
from kmsbridge.audit.trail import AuditTrail

if TYPE_CHECKING:
    from kmsbridge.audit.verification import VerifyResult, verify

__all__ = ["AuditEvent", "AuditTrail", "VerifyResult", "verify"]


def __getattr__(name: str) -> Any:
    """Import the verification of audit files when it is first used (PEP 562)."""
    if name not in ("VerifyResult", "verify"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kmsbridge.audit import verification

    return getattr(verification, name)
