"""Translates what a driver's failure means into the library's errors, which say what to do."""

from __future__ import annotations

from typing import Final

from kmsbridge import errors
from kmsbridge.driver import ErrorKind
from kmsbridge.errors import KmsBridgeError, KmsError
from kmsbridge.keys.attempt import Failed
from kmsbridge.keys.breaker import Breaker
from kmsbridge.keys.identity import KeyIdentity
from kmsbridge.keys.retry import RETRIED

_NEVER_SENT: Final = "not sent, because the key service refuses most calls because of their rate"

_ERRORS: Final[dict[ErrorKind, tuple[type[KmsError], str, str]]] = {
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


def error_class(kind: ErrorKind) -> type[KmsBridgeError]:
    """Return the class of the error for a failure of this kind."""
    if kind is ErrorKind.NOT_AUTHENTIC:
        return errors.AuthenticationError
    return errors.LimitExceeded if kind is ErrorKind.TOO_LARGE else _ERRORS[kind][0]


def translate_error(
    failure: Failed, operation: str, key: KeyIdentity, *, attempts: int, seconds: float
) -> KmsBridgeError:
    """Return the library's error for a failure; `seconds` is how long was tried, and told where that is of
    interest.
    """
    kind, details, what = failure.kind, failure.details, failure.what
    assert kind is not None
    if kind is ErrorKind.NOT_AUTHENTIC:
        return errors.AuthenticationError()
    if kind is ErrorKind.TOO_LARGE:
        return errors.LimitExceeded(f"the payload is too large for {key}", remedy="use no direct mode for it")
    cls, what_happened, remedy = _ERRORS[kind]
    if kind is ErrorKind.THROTTLED and not attempts:
        what = _NEVER_SENT
    code = f" ({details.code})" if details.code else ""
    return cls(
        f"{operation} with {key}: {what or what_happened}{_attempts(kind, attempts, seconds)}{code}",
        remedy=details.remedy or remedy,
        key_id=key.key_id,
        operation=operation,
        provider_code=details.code,
        request_id=details.request_id,
        attempts=attempts,
    )


def _attempts(kind: ErrorKind, attempts: int, seconds: float) -> str:
    if attempts <= 1 and kind not in RETRIED:
        return ""
    if not attempts:
        return f", in {seconds:.1f} s"
    return f" after {attempts} attempt{'s' if attempts > 1 else ''} in {seconds:.1f} s"


def breaker_open(operation: str, key: KeyIdentity, breaker: Breaker) -> KmsError:
    """Return the error for a call that the breaker does not let through."""
    return errors.KmsUnavailable(
        f"{operation} with {key}: not tried, because the key service has failed most calls "
        f"for {breaker.failing_for:.0f} s; it is asked again in {breaker.next_probe_in:.0f} s",
        remedy="check its address and health; the call may be repeated",
        key_id=key.key_id,
        operation=operation,
    )


def key_closed() -> KmsBridgeError:
    """Return the error for a call of a key that was closed."""
    return errors.ClosedError("the key is closed", remedy="open a new cipher")


def deadline_passed(operation: str, key: KeyIdentity) -> KmsError:
    """Return the error for a call whose turn came when the operation's time was over."""
    return errors.KmsTimeout(
        f"{operation} with {key}: not tried, because the time for the whole operation was over already",
        remedy="see what the keys before it took; a longer deadline in calls leaves more time",
        key_id=key.key_id,
        operation=operation,
    )


def cannot_rotate(key: KeyIdentity) -> KmsError:
    """Return the error for a rotation by a driver that has none."""
    return errors.KmsInvalidRequest(
        f"the {key.scheme} driver does not rotate keys",
        remedy="rotate the key with the provider's own tools",
        key_id=key.key_id,
        operation="rotate",
    )


def too_long(length: int, most: int, key: KeyIdentity) -> KmsBridgeError:
    """Return the error for a payload of `length` bytes, where the key wraps at most `most`."""
    return errors.LimitExceeded(
        f"{length} bytes are more than {key} wraps at once",
        remedy=f"its limit is {most} bytes; without direct mode there is none",
    )
