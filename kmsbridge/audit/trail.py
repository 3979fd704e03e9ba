"""Records events through `logging`, and in the audit file if there is one."""

from __future__ import annotations

import errno
import sys
import time
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Final

from kmsbridge.audit.event import AuditEvent
from kmsbridge.errors import AuditError, ClosedError, is_from_signal_handler
from kmsbridge.observer import Call, CallResult, Event, Observer
from kmsbridge.policy import AuditPolicy

if TYPE_CHECKING:
    import logging

    from kmsbridge.audit.file import AuditFile

WARN_EVERY: Final = 60.0
"""Seconds between two warnings about one failing sink."""

_INFO, _WARNING = 20, 30
"""The levels of `logging`, which is not imported here: a program that does not use it starts sooner."""
_logging: ContextVar[bool] = ContextVar("_logging", default=False)
"""Whether this code runs within a logging handler that was given an event."""


class AuditTrail(Observer):
    """Records events. Threads may share it, and a forked child may go on using it.

    The logger `kmsbridge.audit` gets every event, at level INFO for `ok` and WARNING otherwise, with the
    event as a dict in the record's attribute `kmsbridge`. It gets no event of a key that a logging handler
    itself uses. A sink that fails raises `AuditError` where the policy requires auditing; otherwise a warning
    is logged once a minute.
    """

    def __init__(self, policy: AuditPolicy, *, profile: str) -> None:
        self.profile = profile
        self._required = policy.required
        self._file: AuditFile | None = None
        if policy.file:
            from kmsbridge.audit.file import AuditFile

            self._file = AuditFile(policy.file, durable=policy.required)
        self._path = policy.file
        self._warned: dict[str, float] = {}
        self._closed = False
        if self._file is not None and policy.required:
            self._check(self._file)

    def call_finished(self, call: Call, result: CallResult) -> None:
        """Record the use of a key. Raises what `record` raises.

        A call that only described the key, or looked up its id with success, is not recorded.
        """
        if call.operation == "describe" or (call.operation == "resolve" and result.outcome == "ok"):
            return
        self.record(
            AuditEvent(
                operation=call.purpose or call.operation,
                outcome=result.outcome,
                key_id=result.key_id or call.key_id,
                key_version=result.key_version,
                context=call.context,
                request_id=result.request_id,
                source="call",
                attempts=result.attempts,
            )
        )

    def event(self, event: Event) -> None:
        """Record a refusal, or how many messages a data key has served. Raises what `record` raises."""
        source = "cache" if event.messages else ""
        self.record(AuditEvent(**event._asdict(), source=source))

    def record(self, event: AuditEvent) -> None:
        """Write the event to every sink, the file first.

        Raises `AuditError` for a failing sink if auditing is required, and `ClosedError` after `close`.
        """
        if self._closed:
            raise ClosedError("the audit trail is closed")
        event = event._replace(profile=event.profile or self.profile, time=event.time or time.time())
        failure = self._to_file(event)
        failure = self._to_log(event) or failure
        if failure is not None and self._required:
            raise failure

    def close(self) -> None:
        """Refuse further events. May be repeated. No file is held open between events."""
        self._closed = True

    def _check(self, file: AuditFile) -> None:
        try:
            file.check()
        except (OSError, AuditError) as error:
            raise self._failure(error) from error

    def _to_file(self, event: AuditEvent) -> AuditError | None:
        if self._file is None:
            return None
        try:
            self._file.append(event.as_dict())
        except Exception as error:  # whatever a sink raises, the policy decides whether the operation fails
            if is_from_signal_handler(error):
                raise
            return self._failed("file", self._failure(error))
        return None

    def _to_log(self, event: AuditEvent) -> AuditError | None:
        level, logger = _INFO if event.outcome == "ok" else _WARNING, _logger()
        # The events of a handler that itself encrypts would each cause further events.
        if logger is None or _logging.get() or not logger.isEnabledFor(level):
            return None
        try:
            # In a context of its own, which ends with the call, whatever interrupts it.
            copy_context().run(_send, logger, level, event)
        except Exception as error:  # a logging handler is the application's code, and may raise anything
            if is_from_signal_handler(error):
                raise
            problem = f"a logging handler failed on an audit event ({type(error).__name__})"
            return self._failed(
                "log", AuditError(problem, remedy="correct the handlers of the logger kmsbridge.audit")
            )
        return None

    def _failure(self, error: Exception) -> AuditError:
        if isinstance(error, AuditError):
            return error
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            return AuditError(
                f"the audit file {self._path} is a symbolic link", remedy="name the file that it points to"
            )
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        return AuditError(
            f"the audit file {self._path} cannot be written ({reason})",
            remedy="free space on its disk, and let this user write it and its folder",
        )

    def _failed(self, sink: str, failure: AuditError) -> AuditError:
        now = time.monotonic()
        if not self._required and now - self._warned.get(sink, -WARN_EVERY) >= WARN_EVERY:
            self._warned[sink] = now
            import logging

            try:
                logging.getLogger("kmsbridge").warning("an audit event was not recorded: %s", failure)
            except Exception as error:  # usually from the same handler
                if is_from_signal_handler(error):
                    raise
        return failure


def _logger() -> logging.Logger | None:
    """Return the logger for events; None where the program has not imported `logging`, and so has no
    handler.
    """
    module = sys.modules.get("logging")
    if module is None:
        return None
    logger: logging.Logger = module.getLogger("kmsbridge.audit")
    if not logger.handlers:
        # Without a handler of the application's own, events are dropped: logging would print those that are
        # warnings on stderr. Warnings about a failing sink do go there, through the parent logger.
        logger.addHandler(module.NullHandler())
    return logger


def _send(logger: logging.Logger, level: int, event: AuditEvent) -> None:
    _logging.set(True)
    logger.log(level, "%s", event.as_line(), extra={"kmsbridge": event.as_dict()})
