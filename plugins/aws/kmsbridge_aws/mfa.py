"""Codes of MFA devices, for profiles with `mfa_serial`: a person is asked in the foreground, and never during a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn

from kmsbridge.driver import DriverError, ErrorKind
from kmsbridge_aws.settings import is_in_aws_files

_CODE: Final = "MFACodeNeeded"
REMEDY: Final = (
    "use the command 'kmsbridge', which asks for the code on a terminal; for a program, get credentials beforehand by "
    "'aws sts assume-role', and put them into its environment"
)

# The credentials of roles that were assumed while a person could be asked. A code works once, and for these it was given
# already.
_assumed: dict[str, Any] = {}


def ask_with(provider: Any, ask: Callable[[str], str] | None) -> None:
    """Have botocore's assume-role provider get its codes from `ask`, or fail where it needs one if that is None."""
    # What a program assumes is not kept: if AWS refuses those credentials, the role is assumed again.
    provider.cache = dict(_assumed) if ask is None else _assumed
    provider._prompter = ask or _refuse  # noqa: SLF001 - botocore's own reads from the terminal, on whatever thread


def may_be_needed() -> bool:
    """Return whether a profile in the AWS files has an MFA device; without botocore, whose import takes long."""
    return is_in_aws_files(b"mfa_serial")


def _refuse(_: str) -> NoReturn:
    raise DriverError(ErrorKind.UNAUTHENTICATED, code=_CODE, remedy=REMEDY)
