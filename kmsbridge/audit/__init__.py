"""The audit trail: one event for every use of a key, to `logging` and to a hash-chained file."""

from __future__ import annotations

from kmsbridge.audit.event import AuditEvent
from kmsbridge.audit.trail import AuditTrail
from kmsbridge.audit.verification import VerifyResult, verify

__all__ = ["AuditEvent", "AuditTrail", "VerifyResult", "verify"]
