"""Codes of MFA devices, for profiles with `mfa_serial`: a person is asked in the foreground, and never during a call."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from kmsbridge.driver import DriverError, ErrorKind

_FILES: Final = {
    "AWS_CONFIG_FILE": "~/.aws/config",
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
}
_CODE: Final = "MFACodeNeeded"
REMEDY: Final = (
    "use the command 'kmsbridge', which asks for the code on a terminal; for a program, get credentials beforehand by "
    "'aws sts assume-role', and put them into its environment"
)

# The credentials of roles that were assumed in this process. A code works once, and for these it was given already.
_assumed: dict[str, Any] = {}


def ask_with(provider: Any, ask: Callable[[str], str] | None) -> None:
    """Have botocore's assume-role provider get its codes from `ask`, or fail where it needs one if that is None."""
    provider.cache = _assumed
    provider._prompter = ask or _refuse  # noqa: SLF001 - botocore's own reads from the terminal, on whatever thread


def may_be_needed() -> bool:
    """Return whether a profile in the AWS files has an MFA device; without botocore, whose import takes long."""
    return any(b"mfa_serial" in _content(variable, path) for variable, path in _FILES.items())


def _content(variable: str, path: str) -> bytes:
    try:
        return Path(os.path.expanduser(os.environ.get(variable) or path)).read_bytes()
    except OSError:
        return b""


def _refuse(_: str) -> NoReturn:
    raise DriverError(ErrorKind.UNAUTHENTICATED, code=_CODE, remedy=REMEDY)
