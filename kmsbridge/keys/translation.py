"""What each kind of failure is called, and what to do about it."""

from __future__ import annotations

from typing import Final

from kmsbridge import errors
from kmsbridge.driver import ErrorKind
from kmsbridge.errors import KmsBridgeError, KmsError
from kmsbridge.keys.attempt import Failed

RETRIED: Final = frozenset({ErrorKind.UNAVAILABLE, ErrorKind.THROTTLED, ErrorKind.TIMEOUT})
_NEVER_SENT: Final = "not sent, because the key service refuses most calls because of their rate"

_MEANING: Final[dict[ErrorKind, tuple[type[KmsError], str, str]]] = {
    ErrorKind.UNAVAILABLE: (
        errors.KmsUnavailable,
        "the key service could not be reached or cannot serve now",
        "check its address and health; the call may be repeated",
    ),
    ErrorKind.THROTTLED: (
        errors.KmsThrottled,
        "the key service refused because of the rate of calls",
        "raise the quota, or let one data key serve more messages",
    ),
    ErrorKind.TIMEOUT: (
        errors.KmsTimeout,
        "the key service did not answer in time",
        "check the network to it; the call may be repeated",
    ),
    ErrorKind.ACCESS_DENIED: (
        errors.KmsAccessDenied,
        "access denied",
        "grant this caller the permission for this key",
    ),
    ErrorKind.KEY_NOT_FOUND: (
        errors.KmsKeyNotFound,
        "the key, or this version of it, does not exist",
        "check the key's name; a deleted key cannot be replaced by a new one of that name",
    ),
    ErrorKind.KEY_DISABLED: (
        errors.KmsKeyDisabled,
        "the key is disabled or waits for its deletion",
        "enable it or cancel the deletion",
    ),
    ErrorKind.INVALID_REQUEST: (
        errors.KmsInvalidRequest,
        "the key service calls the request invalid",
        "check that the key is of a type that can wrap data keys",
    ),
    ErrorKind.UNAUTHENTICATED: (
        errors.KmsUnauthenticated,
        "the credentials are missing, expired, revoked or wrong",
        "give this host valid credentials",
    ),
    ErrorKind.CREDENTIAL_MISUSED: (
        errors.KmsCredentialMisused,
        "a security event: someone else used this host's one-time credential, or put another in its place",
        "find out who, revoke what was issued with it, and issue a new one",
    ),
}


def error(
    failure: Failed, operation: str, *, key: str, key_id: str, attempts: int, elapsed: float
) -> KmsBridgeError:
    """The library's error for a provider's; `elapsed` is in seconds, and told where trying takes time."""
    kind, details, what = failure.kind, failure.details, failure.what
    assert kind is not None
    if kind is ErrorKind.NOT_AUTHENTIC:
        return errors.AuthenticationError()
    if kind is ErrorKind.TOO_LARGE:
        return errors.LimitExceeded(f"the payload is too large for {key}", remedy="use no direct mode for it")
    cls, meaning, remedy = _MEANING[kind]
    if kind is ErrorKind.THROTTLED and not attempts:
        what = _NEVER_SENT
    code = f" ({details.code})" if details.code else ""
    return cls(
        f"{operation} with {key}: {what or meaning}{_tries(kind, attempts, elapsed)}{code}",
        remedy=details.remedy or remedy,
        key_id=key_id,
        operation=operation,
        provider_code=details.code,
        request_id=details.request_id,
        attempts=attempts,
    )


def _tries(kind: ErrorKind, attempts: int, elapsed: float) -> str:
    if attempts <= 1 and kind not in RETRIED:
        return ""
    if not attempts:
        return f", in {elapsed:.1f} s"
    return f" after {attempts} attempt{'s' if attempts > 1 else ''} in {elapsed:.1f} s"


def not_asked(operation: str, *, key: str, key_id: str, failing_for: float, next_probe_in: float) -> KmsError:
    """The error where the breaker is open."""
    return errors.KmsUnavailable(
        f"{operation} with {key}: not tried, because the key service has failed most calls "
        f"for {failing_for:.0f} s; it is asked again in {next_probe_in:.0f} s",
        remedy="check its address and health; the call may be repeated",
        key_id=key_id,
        operation=operation,
    )


def closed() -> KmsBridgeError:
    """The error after the key was closed."""
    return errors.ClosedError("the key is closed", remedy="open a new cipher")


def too_large(length: int, *, key: str, limit: int) -> KmsBridgeError:
    """The error for a payload that is longer than the key wraps."""
    return errors.LimitExceeded(
        f"{length} bytes are more than {key} wraps at once",
        remedy=f"its limit is {limit} bytes; without direct mode there is none",
    )


def cannot_rotate(scheme: str, *, key_id: str) -> KmsError:
    """The error where the driver cannot rotate a key."""
    return errors.KmsInvalidRequest(
        f"the {scheme} driver does not rotate keys",
        remedy="rotate the key with the provider's own tools",
        key_id=key_id,
        operation="rotate",
    )


def too_late(operation: str, *, key: str, key_id: str) -> KmsError:
    """The error where a call's turn came when the operation's time was over."""
    return errors.KmsTimeout(
        f"{operation} with {key}: not tried, because the time for the whole operation was over already",
        remedy="see what the keys before it took; a longer deadline in calls leaves more time",
        key_id=key_id,
        operation=operation,
    )


def faulty(scheme: str, what: str, *, key_id: str, operation: str) -> KmsError:
    """The error where a driver breaks its contract."""
    return KmsError(
        f"the {scheme} driver is faulty: {what}",
        remedy="report it to the driver's author; kmsbridge.testing has the suite that shows it",
        key_id=key_id,
        operation=operation,
    )
