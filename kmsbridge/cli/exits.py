"""The table of exit codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kmsbridge import errors

USAGE: Final = 2
NEEDS_REWRAP: Final = 10
MISUSED: Final = 11
UNEXPECTED: Final = 12
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
INTERRUPTED: Final = 130
BROKEN_PIPE: Final = 141


@dataclass(frozen=True, slots=True)
class Row:
    """An exit code, its meaning, and the errors that lead to it."""

    code: int
    meaning: str
    errors: tuple[type[BaseException], ...] = ()


# The first row that matches an error counts.
TABLE: Final = (
    Row(0, "done"),
    Row(USAGE, "the command line is wrong"),
    Row(3, "the configuration, a key URI or a key file cannot be used", (errors.ConfigError,)),
    Row(4, "the input is not a message, or one of a later version", (errors.MessageError,)),
    Row(5, "the message is not authentic: changed, or another context or aad", (errors.AuthenticationError,)),
    Row(
        6,
        "the profile has no key for the message, or not the role",
        (errors.NoMatchingKey, errors.RoleError),
    ),
    Row(
        7,
        "a key service is unavailable, throttles or times out; try again later",
        (errors.KmsUnavailable, errors.KmsThrottled, errors.KmsTimeout),
    ),
    Row(
        MISUSED,
        "a security event: someone else used this host's one-time credential",
        (errors.KmsCredentialMisused,),
    ),
    Row(8, "a key service refused: access, credentials, or the key's state", (errors.KmsError,)),
    Row(9, "the audit trail cannot be written, or does not verify", (errors.AuditError,)),
    Row(
        NEEDS_REWRAP,
        "`rewrap --check` found messages that need it, or `doctor --count` some without an environment",
    ),
    Row(
        UNEXPECTED,
        "`doctor` found that this host can do less with a key than it needs, or other than expected",
    ),
    Row(NOT_EXECUTABLE, "`exec` found the command and could not run it"),
    Row(NOT_FOUND, "`exec` did not find the command"),
    Row(INTERRUPTED, "interrupted with Ctrl-C; 143 and 129 stand for SIGTERM and SIGHUP"),
    Row(BROKEN_PIPE, "the reader of the output stopped reading"),
    Row(1, "anything else: a file, a full disk, a limit", (Exception,)),
)


class CommandError(errors.KmsBridgeError):
    """An error of the command line itself. `code` is its exit code."""

    def __init__(self, message: str, *, remedy: str = "", code: int = 1) -> None:
        super().__init__(message, remedy=remedy)
        self.code = code


def code_of(error: BaseException) -> int:
    """Return the exit code for an error."""
    if isinstance(error, CommandError):
        return error.code
    return next(row.code for row in TABLE if isinstance(error, row.errors))
