"""The local driver's own exception. A key file that cannot be used at all is a `ConfigError` instead."""

from __future__ import annotations

from typing import Final

from kmsbridge import errors
from kmsbridge.driver import DriverError, ErrorKind

_TYPES: Final[dict[ErrorKind, type[errors.KmsError]]] = {
    ErrorKind.TIMEOUT: errors.KmsTimeout,
    ErrorKind.KEY_NOT_FOUND: errors.KmsKeyNotFound,
    ErrorKind.KEY_DISABLED: errors.KmsKeyDisabled,
    ErrorKind.UNAUTHENTICATED: errors.KmsUnauthenticated,
}


class LocalKeyError(DriverError):
    """An error with a key file, of one of the kinds of `ErrorKind`. `message` says what went wrong."""

    def __init__(self, kind: ErrorKind, message: str, remedy: str) -> None:
        super().__init__(kind, remedy=remedy)
        self.message = message

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}"

    def as_kms_error(self) -> errors.KmsError:
        """Return the error as a `KmsError`, for code that changes a key file without a driver."""
        return _TYPES.get(self.kind, errors.KmsError)(self.message, remedy=self.remedy)
