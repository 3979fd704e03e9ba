"""The driver's own exception. A file that cannot be used at all is a `ConfigError` instead."""

from __future__ import annotations

import errno
from typing import Final

from kmsbridge.driver import DriverError, ErrorKind

# The first class that matches counts.
_OS_ERRORS: Final[tuple[tuple[type[OSError], ErrorKind, str], ...]] = (
    (FileNotFoundError, ErrorKind.KEY_NOT_FOUND, "restore the private file from a backup"),
    (PermissionError, ErrorKind.ACCESS_DENIED, "let this user read the private file and its folder"),
    (OSError, ErrorKind.UNAVAILABLE, "check the file system that the private file is on"),
)


class HpkeError(DriverError):
    """An error with a key pair, of one of the kinds of `ErrorKind`. `message` says what went wrong."""

    def __init__(self, kind: ErrorKind, message: str, remedy: str, code: str = "") -> None:
        super().__init__(kind, code=code, remedy=remedy)
        self.message = message

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}"


def file_error(error: OSError, path: str) -> HpkeError:
    """Return the error for a private file that cannot be read."""
    kind, remedy = next((kind, remedy) for cls, kind, remedy in _OS_ERRORS if isinstance(error, cls))
    code = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return HpkeError(kind, f"the private file {path} cannot be read ({code})", remedy, code)
