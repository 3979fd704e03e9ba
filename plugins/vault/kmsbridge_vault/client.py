"""One Vault server as it is asked over HTTP."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from kmsbridge.driver import ErrorKind, Secret
from kmsbridge.driverkit.deadline import is_over, left
from kmsbridge_vault import failures
from kmsbridge_vault.failures import VaultFailure

if TYPE_CHECKING:
    from hvac.adapters import RawAdapter

_CONNECTIONS: Final = 64
_OK: Final = 200
_NOTHING_TO_SAY: Final = 204
_BLOCK: Final = 2**16
_LARGEST: Final = 2**24
_REQUEST_ID: Final = "X-Request-Id"


class Place(NamedTuple):
    """Where a server is, and whom to trust there. Files are absolute paths; empty where there is none."""

    address: str
    namespace: str = ""
    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""


class Client:
    """Sends requests through hvac: no retries, no redirects, nothing from the environment.

    Threads may share it. Every request is made in a block of `deadline.within`.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._adapter: RawAdapter | None = None
        self._lock = threading.Lock()

    def request(
        self,
        method: Literal["GET", "POST"],
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        token: Secret | None = None,
        namespace: str | None = None,
    ) -> Mapping[str, Any]:
        """The answer's JSON, with a `request_id` whatever it is. Raises `VaultFailure`.

        A refused batch is an answer as well: its results stand in it. `namespace` is another than the
        server's own, empty for the root.
        """
        request_id = os.urandom(16).hex()
        headers = {_REQUEST_ID: request_id}
        if token is not None:
            headers["X-Vault-Token"] = token.reveal_text()
        namespace = self.place.namespace if namespace is None else namespace
        if namespace:
            headers["X-Vault-Namespace"] = namespace
        status, answer = self._send(method, path, body, headers, request_id)
        told = answer.get("request_id")
        if isinstance(told, str) and told:
            request_id = told
        if status in (_OK, _NOTHING_TO_SAY) or _is_batch(answer):
            return {**answer, "request_id": request_id}
        raise failures.of_status(status, answer, request_id)

    def _send(
        self, method: str, path: str, body: Any, headers: dict[str, str], request_id: str
    ) -> tuple[int, Mapping[str, Any]]:
        adapter = self._connected()
        try:
            seconds = left()
            response = adapter.request(
                method,
                f"v1/{path}",
                headers=headers,
                json=body,
                raise_exception=False,
                timeout=seconds,
                stream=True,
            )
            with response:
                return response.status_code, _parsed(response.status_code, _content(response))
        except Exception as error:  # noqa: BLE001 - whatever requests, urllib3 and the socket raise
            failure = _failure_of(error, request_id, over=is_over())
        # Outside the except block: the exception holds the request, and would be kept with this one.
        # The other idle connections went the same way; they are made anew.
        adapter.close()
        raise failure

    def _connected(self) -> RawAdapter:
        with self._lock:
            if self._adapter is None:
                self._adapter = _adapter(self.place)
            return self._adapter

    def close(self) -> None:
        """Close the connections; may be repeated."""
        with self._lock:
            if self._adapter is not None:
                self._adapter.close()

    def __repr__(self) -> str:
        return f"Client({self.place.address!r})"


def _adapter(place: Place) -> RawAdapter:
    import requests
    from hvac.adapters import RawAdapter

    from kmsbridge_vault.transport import DeadlineAdapter

    session = requests.Session()
    # Else REQUESTS_CA_BUNDLE would replace the CA, and .netrc and proxies would take part.
    session.trust_env = False
    session.verify = place.ca_file or True
    if place.client_cert:
        session.cert = (place.client_cert, place.client_key or place.client_cert)
    adapter = DeadlineAdapter(pool_connections=1, pool_maxsize=_CONNECTIONS, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return RawAdapter(base_uri=place.address, session=session, allow_redirects=False)


def _content(response: Any) -> bytes:
    """All of an answer, which is not allowed to be endless."""
    content = bytearray()
    for block in response.iter_content(_BLOCK):
        content += block
        if len(content) > _LARGEST:
            raise _Unreadable
    return bytes(content)


def _parsed(status: int, content: bytes) -> Mapping[str, Any]:
    """The JSON of an answer; nothing where there is none, which is no success of a status 200."""
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        return answer
    if status == _OK:
        raise _Unreadable
    return {}


class _Unreadable(Exception):
    """An answer that is not Vault's."""


def _is_batch(answer: Mapping[str, Any]) -> bool:
    data = answer.get("data")
    return isinstance(data, dict) and isinstance(data.get("batch_results"), list)


def _failure_of(error: Exception, request_id: str, *, over: bool) -> VaultFailure:
    from requests.exceptions import RequestException, SSLError

    if isinstance(error, _Unreadable):
        return VaultFailure(ErrorKind.UNAVAILABLE, "unreadable", request_id=request_id)
    if over or isinstance(error, TimeoutError):
        return VaultFailure(ErrorKind.TIMEOUT, "timeout", request_id=request_id)
    if isinstance(error, SSLError):
        remedy = "check ca_file, and the client certificate where one is needed"
        return VaultFailure(ErrorKind.UNAVAILABLE, "tls", remedy=remedy)
    if isinstance(error, RequestException) or not isinstance(error, OSError):
        return VaultFailure(ErrorKind.UNAVAILABLE, "network", request_id=request_id)
    # requests looks for the files before it connects.
    remedy = "check that ca_file, client_cert and client_key can be read"
    return VaultFailure(ErrorKind.INVALID_REQUEST, "tls-files", remedy=remedy)
