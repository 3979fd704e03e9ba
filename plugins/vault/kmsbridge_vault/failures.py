"""What a call to Vault came to when it came to nothing, and the tables that say so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kmsbridge.driver import DriverError, ErrorKind

NO_SUCH_TYPE: Final = "existing-keys-only"
"""Sent as the type of a key to be created: there is no such type, so none is created."""


UNWRAPPABLE: Final = "wrapping-token-used"
"""The code of what the server says of a wrapping token that was used, is too old, or never was."""


class VaultFailure(DriverError):
    """A refusal, or no answer. Holds nothing of the server's text, which can quote what was sent."""

    def __init__(
        self, kind: ErrorKind, code: str, *, request_id: str = "", remedy: str = "", denied: bool = False
    ) -> None:
        super().__init__(kind, code=code, request_id=request_id, remedy=remedy)
        self.denied = denied
        """Of a status 403: whether the server names the denial, which it does for a living token only."""

    def again(self) -> VaultFailure:
        """The same without its traceback, whose frames hold what was sent."""
        return VaultFailure(
            self.kind, self.code, request_id=self.request_id, remedy=self.remedy, denied=self.denied
        )


# Refusals that share a status are told apart by their text alone: there is no code. The first that fits.
_TEXTS: Final = (
    ("message authentication failed", ErrorKind.NOT_AUTHENTIC, "not-authentic", ""),
    ("invalid ciphertext", ErrorKind.NOT_AUTHENTIC, "invalid-ciphertext", ""),
    (
        "disallowed by policy (too old)",
        ErrorKind.KEY_DISABLED,
        "version-too-old",
        "lower the key's min_decryption_version, or decrypt this message where it is lower",
    ),
    (
        "soft-deleted",
        ErrorKind.KEY_DISABLED,
        "soft-deleted",
        "restore it with a write to soft-delete-restore of the key",
    ),
    (f"unknown key type {NO_SUCH_TYPE}", ErrorKind.KEY_NOT_FOUND, "no-key", ""),
    ("key not found", ErrorKind.KEY_NOT_FOUND, "no-key", ""),
    ("wrapping token is not valid", ErrorKind.INVALID_REQUEST, UNWRAPPABLE, ""),
    (
        "no handler for route",
        ErrorKind.KEY_NOT_FOUND,
        "no-mount",
        "check the mount in the URI, the namespace, and that the transit engine is enabled there",
    ),
    (
        "non-aead cipher suite",
        ErrorKind.INVALID_REQUEST,
        "wrong-key-type",
        "use a key of type aes256-gcm96 or another AEAD type",
    ),
    (
        "not supported for key type",
        ErrorKind.INVALID_REQUEST,
        "wrong-key-type",
        "use a key of type aes256-gcm96 or another AEAD type",
    ),
    (
        "missing 'context' for key derivation",
        ErrorKind.INVALID_REQUEST,
        "derived-key",
        "set `derived = true` for this key: it was made for derivation",
    ),
)

_STATUSES: Final = {
    401: ErrorKind.UNAUTHENTICATED,
    403: ErrorKind.ACCESS_DENIED,
    404: ErrorKind.KEY_NOT_FOUND,
    408: ErrorKind.UNAVAILABLE,
    412: ErrorKind.UNAVAILABLE,  # a replica that has not seen yet what was written elsewhere
    413: ErrorKind.TOO_LARGE,
    429: ErrorKind.THROTTLED,
    472: ErrorKind.UNAVAILABLE,  # a replica for disaster recovery
    473: ErrorKind.UNAVAILABLE,  # a standby that only reads
}
_REDIRECTS: Final = range(300, 400)
_TOO_MANY: Final = 429
_SERVER_ERRORS: Final = 500


def of_status(status: int, body: Mapping[str, Any], request_id: str) -> VaultFailure:
    """The failure that an answer of this status is."""
    errors = body.get("errors")
    if not isinstance(errors, list):
        return _of_stranger(status, request_id)
    texts = [each for each in errors if isinstance(each, str)]
    known = None if status in (403, 429, 503) else _known(" ".join(texts))
    if known is not None:
        _, kind, code, remedy = known
        return VaultFailure(kind, code, request_id=request_id, remedy=remedy)
    # Both products write "1 error occurred" of a policy's denial, and otherwise of a dead token.
    denied = any(each.startswith("1 error occurred") for each in texts)
    return VaultFailure(_kind_of_status(status), str(status), request_id=request_id, denied=denied)


def _of_stranger(status: int, request_id: str) -> VaultFailure:
    """What something between here and Vault said is no refusal, whatever the status."""
    if status in _REDIRECTS:
        remedy = "give the address of the active server or of a load balancer: no redirect is followed"
        return VaultFailure(ErrorKind.UNAVAILABLE, "redirect", request_id=request_id, remedy=remedy)
    kind = ErrorKind.THROTTLED if status == _TOO_MANY else ErrorKind.UNAVAILABLE
    remedy = "check the address, and what stands between here and Vault: this answer is not Vault's"
    return VaultFailure(kind, str(status), request_id=request_id, remedy=remedy)


def _kind_of_status(status: int) -> ErrorKind:
    other = ErrorKind.UNAVAILABLE if status >= _SERVER_ERRORS else ErrorKind.INVALID_REQUEST
    return _STATUSES.get(status, other)


def kind_of_text(text: str) -> ErrorKind:
    """Of the error of one item of a batch."""
    known = _known(text)
    return known[1] if known is not None else ErrorKind.INVALID_REQUEST


def _known(text: str) -> tuple[str, ErrorKind, str, str] | None:
    return next((each for each in _TEXTS if each[0] in text.lower()), None)
