"""What the audit trail is told of data keys."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from kmsbridge.audit import AuditEvent, AuditTrail
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.datakey import DataKey
from kmsbridge.errors import ClosedError, KmsBridgeError, KmsError
from kmsbridge.keys import Answer, ManagedKey


class Told:
    """What a call turned out to have used; set inside the `told_call` block.

    `answer` need only be set where another call follows in the block.
    """

    __slots__ = ("answer", "version")

    def __init__(self) -> None:
        self.version = ""
        self.answer: Answer | None = None


@contextlib.contextmanager
def told_call(
    audit: AuditTrail, operation: str, key: ManagedKey, context: EncryptionContext
) -> Iterator[Told]:
    """Record the call to `key` made inside the block, however it ends."""
    told, before = Told(), key.last_answer

    def record(outcome: str, request_id: str, attempts: int) -> None:
        audit.record(
            AuditEvent(
                operation=operation,
                outcome=outcome,
                key_id=str(key),
                key_version=told.version,
                context=context,
                profile=audit.profile,
                request_id=request_id,
                source="call",
                attempts=attempts,
            )
        )

    try:
        yield told
    except ClosedError:
        raise  # no call was made, and the trail is closed as well
    except KmsError as error:
        record(type(error).__name__, error.request_id, error.attempts)
        raise
    except KmsBridgeError as error:
        # Of one class for all causes, it has no request id; but a call that led to it had.
        answer = key.last_answer
        record(type(error).__name__, *(("", 1) if answer is before else answer))
        raise
    answer = told.answer or key.last_answer
    record("ok", answer.request_id, answer.attempts)


def told_failure(audit: AuditTrail, operation: str, key: ManagedKey, error: KmsError) -> None:
    """Record a call to `key` that uses no data key, and is worth telling only where it fails."""
    audit.record(
        AuditEvent(
            operation=operation,
            outcome=type(error).__name__,
            key_id=str(key),
            profile=audit.profile,
            request_id=error.request_id,
            attempts=error.attempts,
        )
    )


def told_of_messages(audit: AuditTrail, operation: str) -> Callable[[DataKey], None]:
    """A listener for data keys that leave a cache: records how many messages each one served."""

    def dropped(entry: DataKey) -> None:
        if used := entry.take_used():
            audit.record(
                AuditEvent(
                    operation=operation,
                    outcome="ok",
                    key_id=entry.key_id,
                    key_version=entry.key_version,
                    context=entry.context,
                    profile=audit.profile,
                    source="cache",
                    messages=used,
                )
            )

    return dropped
