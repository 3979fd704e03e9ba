"""Failures of calls to Vault, and the tables that classify them by status and text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kmsbridge.driver import DriverError, ErrorKind

NO_SUCH_TYPE: Final = "existing-keys-only"
"""Sent as the type of a key that an encrypt could create: there is no such type, so that Vault creates none."""
UNREADABLE: Final = "unreadable"
"""The code for an answer that is not Vault's."""
STALE: Final = "version-too-new"
"""The code for a ciphertext of a version that the server does not know."""
IGNORED: Final = "associated-data-ignored"
"""The code for a server that does not know `associated_data`, which binds the context."""
UNWRAPPABLE: Final = "wrapping-token-used"
"""The code for a wrapping token that was used, has expired or never existed; Vault does not say which."""


class VaultFailure(DriverError):
    """A refusal by Vault, or no answer. Contains nothing of the server's text, which can quote the request."""

    def __init__(
        self, kind: ErrorKind, code: str, *, request_id: str = "", remedy: str = "", denied: bool = False
    ) -> None:
        super().__init__(kind, code=code, request_id=request_id, remedy=remedy)
        self.denied = denied
        """For a status 403: whether a policy denied the request. The token itself is valid then."""

    def again(self) -> VaultFailure:
        """Return a copy without the traceback, whose frames contain the request."""
        return VaultFailure(
            self.kind, self.code, request_id=self.request_id, remedy=self.remedy, denied=self.denied
        )


# Vault has no error codes: only the text distinguishes refusals with the same status. The first match counts.
_TEXTS: Final = (
    (
        "disabled in replication",
        ErrorKind.UNAVAILABLE,
        "dr-secondary",
        "set address to the cluster that serves: a secondary for disaster recovery answers nothing",
    ),
    # A node that has not heard of the last rotation yet.
    ("version is too new", ErrorKind.UNAVAILABLE, STALE, ""),
    ("message authentication failed", ErrorKind.NOT_AUTHENTIC, "not-authentic", ""),
    ("invalid ciphertext", ErrorKind.NOT_AUTHENTIC, "invalid-ciphertext", ""),
    (
        "disallowed by policy (too old)",
        ErrorKind.KEY_DISABLED,
        "version-too-old",
        "lower the key's min_decryption_version to the version of this message",
    ),
    (
        "soft-deleted",
        ErrorKind.KEY_DISABLED,
        "soft-deleted",
        "restore the key by a write to its path soft-delete-restore",
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
        "set `derived = true` for this key: it was made with derivation",
    ),
)

_STATUSES: Final = {
    401: ErrorKind.UNAUTHENTICATED,
    403: ErrorKind.ACCESS_DENIED,
    404: ErrorKind.KEY_NOT_FOUND,
    408: ErrorKind.UNAVAILABLE,
    412: ErrorKind.UNAVAILABLE,  # a replica that does not have the latest writes yet
    413: ErrorKind.TOO_LARGE,
    429: ErrorKind.THROTTLED,
    472: ErrorKind.UNAVAILABLE,  # a replica for disaster recovery
    473: ErrorKind.UNAVAILABLE,  # a standby that only reads
}
_REDIRECTS: Final = range(300, 400)
_TOO_MANY: Final = 429
_SERVER_ERRORS: Final = 500


def of_status(status: int, body: Mapping[str, Any], request_id: str) -> VaultFailure:
    """Return the failure for an answer of this status."""
    errors = body.get("errors")
    if not isinstance(errors, list):
        return _not_of_vault(status, request_id)
    texts = [text for text in errors if isinstance(text, str)]
    known = None if status in (403, 429, 503) else _known(" ".join(texts))
    if known is not None:
        _, kind, code, remedy = known
        return VaultFailure(kind, code, request_id=request_id, remedy=remedy)
    # Vault and OpenBao begin a denial by policy with "1 error occurred", and the refusal of an invalid token otherwise.
    denied = any(text.startswith("1 error occurred") for text in texts)
    return VaultFailure(_kind_of_status(status), str(status), request_id=request_id, denied=denied)


def _not_of_vault(status: int, request_id: str) -> VaultFailure:
    """Return the failure for an answer of something between here and Vault, whose status is not a refusal by Vault."""
    if status in _REDIRECTS:
        remedy = "set address to the active server or a load balancer: redirects are not followed"
        return VaultFailure(ErrorKind.UNAVAILABLE, "redirect", request_id=request_id, remedy=remedy)
    kind = ErrorKind.THROTTLED if status == _TOO_MANY else ErrorKind.UNAVAILABLE
    remedy = "check the address and any proxy before Vault: this answer is not Vault's"
    return VaultFailure(kind, str(status), request_id=request_id, remedy=remedy)


def _kind_of_status(status: int) -> ErrorKind:
    other = ErrorKind.UNAVAILABLE if status >= _SERVER_ERRORS else ErrorKind.INVALID_REQUEST
    return _STATUSES.get(status, other)


def kind_of_text(text: str) -> ErrorKind | None:
    """Return the kind of a batch item's error, from its text; None for a text that says nothing known."""
    known = _known(text)
    return known[1] if known is not None else None


def is_server_error(failure: VaultFailure) -> bool:
    """Return whether the server answered with a status from 500 on, and is not known to be unable to serve at all."""
    return failure.code in ("500", "502", "504")


def ignored() -> VaultFailure:
    """Return the failure for a server that ignores associated data."""
    remedy = (
        "use OpenBao, or Vault 1.13 or later: this server ignores associated_data, so that nothing would bind the "
        "context; or use a derived key"
    )
    return VaultFailure(ErrorKind.INVALID_REQUEST, IGNORED, remedy=remedy)


def _known(text: str) -> tuple[str, ErrorKind, str, str] | None:
    return next((entry for entry in _TEXTS if entry[0] in text.lower()), None)
