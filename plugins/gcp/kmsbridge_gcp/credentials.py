"""The credentials of calls to Cloud KMS, as metadata of each call.

Tokens are fetched here and not by gRPC, so that fetching counts towards the call's timeout, is tried only once,
and fails with a different error than Cloud KMS does.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any, Final

from kmsbridge.driverkit.bounded import SharedCall
from kmsbridge.driverkit.deadline import left
from kmsbridge.errors import ConfigError
from kmsbridge_gcp.settings import Access

# google-auth is published with few types.
Credentials = Any
Metadata = Sequence[tuple[str, str]]

SCOPES: Final = ("https://www.googleapis.com/auth/cloudkms",)
_PATIENCE: Final = 10.0
_MARGIN: Final = datetime.timedelta(seconds=10)
_TRY_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})


class Caller:
    """The identity that calls Cloud KMS, with its credentials. Safe for threads."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._credentials: Credentials | None = None
        self._refresh = SharedCall("gcp-credentials", self._fetch, patience=_PATIENCE)

    def metadata(self, timeout: float) -> Metadata:
        """Return the metadata that identifies the caller. Waits up to `timeout` seconds for a token if none is valid.

        Raises google-auth's errors, `TimeoutError`, or `ConfigError` if the credentials_file cannot be used.
        """
        access, headers = self._access, dict[str, str]()
        if access.access_token is not None:
            headers["authorization"] = f"Bearer {access.access_token.reveal_text()}"
        elif not (access.anonymous or access.insecure):
            self._valid(timeout).apply(headers)
        if access.quota_project:
            headers["x-goog-user-project"] = access.quota_project
        return [(name.lower(), value) for name, value in headers.items()]

    def _valid(self, timeout: float) -> Credentials:
        current = self._credentials
        if current is not None and current.valid:
            return current
        if current is not None and _is_usable(current):
            self._refresh.begin()
            return current
        self._refresh.wait(timeout)
        assert self._credentials is not None
        return self._credentials

    def _fetch(self) -> None:
        if self._credentials is not None and self._credentials.valid:
            return  # the previous run has just fetched it
        request = _request()
        self._credentials = self._credentials or _find(self._access, request)
        self._credentials.refresh(request)


def _is_usable(credentials: Credentials) -> bool:
    """Return whether a token that should be renewed can still be used meanwhile."""
    if not credentials.token or credentials.expiry is None:
        return False
    now = datetime.datetime.now(datetime.UTC).replace(
        tzinfo=None
    )  # google-auth keeps times in UTC without a zone
    left: datetime.timedelta = credentials.expiry - now
    return left > _MARGIN


def _find(access: Access, request: Any) -> Credentials:
    import google.auth

    credentials: Any = None
    if access.credentials_file:
        credentials = _of_file(access.credentials_file)
    else:
        credentials, _ = google.auth.default(scopes=SCOPES, request=request)
    if hasattr(credentials, "with_always_use_jwt_access"):
        # As Google's own clients do: a token signed here needs no call of the token service.
        credentials = credentials.with_always_use_jwt_access(True)
    if access.impersonated:
        from google.auth import impersonated_credentials

        impersonate: Any = impersonated_credentials.Credentials
        credentials = impersonate(credentials, access.impersonated, list(SCOPES))
    return credentials


def _of_file(path: str) -> Any:
    from google.auth.exceptions import MalformedError
    from google.oauth2 import service_account

    read: Any = service_account.Credentials.from_service_account_file
    try:
        return read(path, scopes=SCOPES)
    except OSError as error:
        reason = error.strerror or "it cannot be read"
    except (ValueError, MalformedError):
        reason = "it is not the key of a service account"
    raise ConfigError(
        f"the credentials_file {path} cannot be used: {reason}",
        remedy="give the JSON file of a service account's key, or leave it out for application default credentials",
    )


def _request() -> Any:
    """Return the transport with which google-auth calls its servers: within the deadline, and without retries."""
    from google.auth import exceptions
    from google.auth.transport.requests import Request

    refused: Any = exceptions.RefreshError

    class Once(Request):
        def __call__(
            self,
            url: str,
            method: str = "GET",
            body: Any = None,
            headers: Any = None,
            timeout: float | None = None,
            **options: Any,
        ) -> Any:
            patience = min(timeout or left(), left())
            response = super().__call__(  # type: ignore[no-untyped-call]
                url, method, body, headers, patience, **options
            )
            if response.status in _TRY_AGAIN:
                raise refused("the token service is unavailable", retryable=True)
            return response

    return Once()
