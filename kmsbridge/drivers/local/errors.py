"""What goes wrong with a key file, short of its being unusable (that is a `ConfigError`)."""

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
    """The driver's own exception, with a sentence that says what went wrong."""

    def __init__(self, kind: ErrorKind, message: str, remedy: str) -> None:
        super().__init__(kind, remedy=remedy)
        self.message = message

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}"

    def typed(self) -> errors.KmsError:
        """The same as an error of the library's tree, for who changes a key file without a driver."""
        return _TYPES.get(self.kind, errors.KmsError)(self.message, remedy=self.remedy)
