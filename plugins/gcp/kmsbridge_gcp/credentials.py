"""As whom Cloud KMS is called: the metadata that each call carries.

The tokens are fetched here, and not by gRPC, so that this counts towards a call's timeout, is tried once,
and fails with an error that tells it from a failure of Cloud KMS.
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
    """Gives the metadata of a call. Safe for threads."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._credentials: Credentials | None = None
        self._refresh = SharedCall("gcp-credentials", self._fetch, patience=_PATIENCE)

    def metadata(self, timeout: float) -> Metadata:
        """What says who calls. Waits up to `timeout` seconds for a token where there is none that is valid.

        Raises google-auth's errors, `TimeoutError`, or `ConfigError` for a file that cannot be used.
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
        known = self._credentials
        if known is not None and known.valid:
            return known
        if known is not None and _serves_still(known):
            self._refresh.begin()
            return known
        self._refresh.wait(timeout)
        assert self._credentials is not None
        return self._credentials

    def _fetch(self) -> None:
        if self._credentials is not None and self._credentials.valid:
            return  # another thread's request for it ended just now
        request = _request()
        self._credentials = self._credentials or _find(self._access, request)
        self._credentials.refresh(request)


def _serves_still(credentials: Credentials) -> bool:
    """Whether a token that should be renewed can be used meanwhile."""
    if not credentials.token or credentials.expiry is None:
        return False
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)  # as google-auth keeps times
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
        # As Google's own clients: a token signed here saves a call and a service that may be down.
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
        reason = "it is no key of a service account"
    raise ConfigError(
        f"the credentials_file {path} cannot be used: {reason}",
        remedy="give the JSON file of a service account's key, or leave it out for application default credentials",
    )


def _request() -> Any:
    """How google-auth reaches its servers: in time, and once."""
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
                raise refused("the token service cannot serve now", retryable=True)
            return response

    return Once()
