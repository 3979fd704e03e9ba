"""How a driver tells why a call failed. Drivers import these names from `kmsbridge.driver`."""

from __future__ import annotations

import enum
from typing import NamedTuple


class ErrorKind(enum.Enum):
    """Why a call failed. The library retries the first three kinds and none of the others."""

    UNAVAILABLE = enum.auto()
    THROTTLED = enum.auto()
    TIMEOUT = enum.auto()
    ACCESS_DENIED = enum.auto()
    KEY_NOT_FOUND = enum.auto()
    KEY_DISABLED = enum.auto()
    INVALID_REQUEST = enum.auto()
    UNAUTHENTICATED = enum.auto()
    CREDENTIAL_MISUSED = enum.auto()
    """A one-time credential was already used, or was issued for something else: someone else may have it."""
    NOT_AUTHENTIC = enum.auto()
    """The wrapped key was changed, or belongs to another key or another context."""
    TOO_LARGE = enum.auto()
    """The payload is longer than `max_plaintext`."""


class ErrorDetails(NamedTuple):
    """Details of an error besides its kind; each may be empty.

    `code` and `request_id` are the provider's. `remedy` tells the user what to do, and replaces the library's
    general advice for this kind of error. None of the three may quote the provider's text, which can contain
    secrets.
    """

    code: str = ""
    request_id: str = ""
    remedy: str = ""


class DriverError(Exception):
    """An error whose kind the driver already knows. The library does not call `classify` for it.

    `code`, `remedy` and `request_id` are as in `ErrorDetails`. Without a `request_id` the library uses the one
    that `report_request_id` reported last during the call. Raises `TypeError` if `kind` is not an `ErrorKind`.
    A driver may derive its own classes from this one.
    """

    def __init__(self, kind: ErrorKind, *, code: str = "", remedy: str = "", request_id: str = "") -> None:
        if not isinstance(kind, ErrorKind):
            raise TypeError(f"the kind of a DriverError must be an ErrorKind, not {type(kind).__name__}")
        super().__init__(kind)
        self.kind = kind
        self.code = code
        self.remedy = remedy
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.kind.name} ({self.code})" if self.code else self.kind.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"
