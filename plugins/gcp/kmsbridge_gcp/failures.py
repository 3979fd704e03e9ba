"""Classifies the errors of Google's libraries, and makes the errors of this driver itself."""

from __future__ import annotations

from typing import Any, Final

from kmsbridge.driver import DriverError, ErrorDetails, ErrorKind


def corrupted(field: str) -> DriverError:
    """Return the error for an answer whose checksum or name does not match the request. It is retried."""
    return DriverError(
        ErrorKind.UNAVAILABLE,
        code=f"CORRUPTED_{field.upper()}",
        remedy="repeat the call; if it fails again, something between this host and Cloud KMS changes data",
    )


def wrong_purpose(purpose: str) -> DriverError:
    """Return the error for a key whose purpose or algorithm is not the configured one."""
    return DriverError(ErrorKind.INVALID_REQUEST, code=f"WRONG_PURPOSE_{purpose}", remedy=PURPOSE)


PURPOSE: Final = (
    "use a key of purpose ENCRYPT_DECRYPT without algorithm, or one of ASYMMETRIC_DECRYPT (RSA, OAEP, SHA-256) "
    'with algorithm = "RSA-OAEP-SHA-256"'
)

_KINDS: Final = {
    "UNAVAILABLE": ErrorKind.UNAVAILABLE,
    "INTERNAL": ErrorKind.UNAVAILABLE,
    "UNKNOWN": ErrorKind.UNAVAILABLE,
    "ABORTED": ErrorKind.UNAVAILABLE,
    "CANCELLED": ErrorKind.UNAVAILABLE,
    "DATA_LOSS": ErrorKind.UNAVAILABLE,
    "DEADLINE_EXCEEDED": ErrorKind.TIMEOUT,
    "RESOURCE_EXHAUSTED": ErrorKind.THROTTLED,
    "UNAUTHENTICATED": ErrorKind.UNAUTHENTICATED,
    "PERMISSION_DENIED": ErrorKind.ACCESS_DENIED,
    "NOT_FOUND": ErrorKind.KEY_NOT_FOUND,
}
_STATES: Final = {"KEY_DESTROYED": ErrorKind.KEY_NOT_FOUND}
_DENIED: Final = {
    "SERVICE_DISABLED": "enable the Cloud KMS API in the project: gcloud services enable cloudkms.googleapis.com",
    "BILLING_DISABLED": "enable billing for the project",
}
_NO_CREDENTIALS: Final = (
    "give this host credentials: set credentials_file or GOOGLE_APPLICATION_CREDENTIALS, "
    "or run gcloud auth application-default login"
)
_REMEDIES: Final = {
    "PERMISSION_DENIED": "grant this caller a role on the key; `kmsbridge policy` shows the least that it needs",
    "UNAUTHENTICATED": "check this host's credentials: they are expired, revoked or not for Cloud KMS",
    "RESOURCE_EXHAUSTED": "raise the project's quota of Cloud KMS, or use each data key for more messages",
    "UNIMPLEMENTED": "check the endpoint: the server there is not Cloud KMS",
}


def code_of(error: BaseException) -> str:
    """Return the name of the error's gRPC status code, or ""."""
    return str(getattr(getattr(error, "grpc_status_code", None), "name", ""))


def is_refused_ciphertext(error: BaseException) -> bool:
    """Return whether Decrypt refused the ciphertext, or the context that it is bound to."""
    return code_of(error) == "INVALID_ARGUMENT" and not _is_checksum(error)


def kind_of(error: BaseException) -> ErrorKind:
    """Return the kind of an exception of Google's libraries, or of the operating system."""
    code = code_of(error)
    if code == "FAILED_PRECONDITION":
        return _precondition(error)
    if code == "INVALID_ARGUMENT" and _is_checksum(error):
        return ErrorKind.UNAVAILABLE
    if code:
        return _KINDS.get(code, ErrorKind.INVALID_REQUEST)
    if isinstance(error, TimeoutError):
        return ErrorKind.TIMEOUT
    auth_kind = _auth_kind(error)
    if auth_kind is not None:
        return auth_kind
    return ErrorKind.UNAVAILABLE if isinstance(error, OSError) else ErrorKind.INVALID_REQUEST


def details_of(error: BaseException, request_id: str) -> ErrorDetails:
    """Return the error's code and a remedy, with `request_id`."""
    code = code_of(error)
    if not code:
        return ErrorDetails(*_auth_details(error))
    remedy = _REMEDIES.get(code, "")
    kind = kind_of(error)
    if code == "PERMISSION_DENIED":
        remedy = _DENIED.get(str(getattr(error, "reason", "")), remedy)
    elif code == "FAILED_PRECONDITION" and kind is ErrorKind.INVALID_REQUEST:
        remedy = PURPOSE
    elif code == "FAILED_PRECONDITION" and kind is ErrorKind.KEY_DISABLED:
        remedy = "enable or restore the key's version: gcloud kms keys versions enable, or restore"
    return ErrorDetails(code, request_id, remedy)


def _precondition(error: BaseException) -> ErrorKind:
    details: Any = getattr(error, "details", None) or ()
    types = [violation.type for detail in details for violation in getattr(detail, "violations", ())]
    states = [violation for violation in types if violation.startswith("KEY_")]
    if states:
        return _STATES.get(states[0], ErrorKind.KEY_DISABLED)
    # Without this detail only the text says whether the key is disabled or has the wrong purpose.
    disabled = "is not enabled" in str(getattr(error, "message", ""))
    return ErrorKind.KEY_DISABLED if disabled else ErrorKind.INVALID_REQUEST


def _is_checksum(error: BaseException) -> bool:
    # Cloud KMS has no code of its own for a request that was damaged on the way, which can be repeated.
    return "_crc32c" in str(getattr(error, "message", ""))


def _auth_kind(error: BaseException) -> ErrorKind | None:
    names = {cls.__name__ for cls in type(error).__mro__ if cls.__module__ == "google.auth.exceptions"}
    if "TransportError" in names or ("RefreshError" in names and getattr(error, "retryable", False)):
        return ErrorKind.UNAVAILABLE
    return ErrorKind.UNAUTHENTICATED if names else None


def _auth_details(error: BaseException) -> tuple[str, str, str]:
    kind, name = _auth_kind(error), type(error).__name__
    if kind is ErrorKind.UNAVAILABLE:
        return name, "", "check that this host reaches the service that issues its tokens"
    if name == "DefaultCredentialsError":
        return name, "", _NO_CREDENTIALS
    if kind is ErrorKind.UNAUTHENTICATED:
        return (
            name,
            "",
            "check that this host's credentials are not revoked or deleted: they were refused a token",
        )
    return "", "", ""
