"""Requests to one Vault server over HTTP."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import quote

from kmsbridge.driver import ErrorKind, Secret
from kmsbridge.driverkit.deadline import is_over, left
from kmsbridge_vault import failures
from kmsbridge_vault.failures import VaultFailure
from kmsbridge_vault.naming import is_cluster_id
from kmsbridge_vault.place import Place

if TYPE_CHECKING:
    from hvac.adapters import RawAdapter

_CONNECTIONS: Final = 64
_OK: Final = 200
_NOTHING_TO_SAY: Final = 204
_BLOCK: Final = 2**16
_LARGEST: Final = 2**24
_REQUEST_ID: Final = "X-Request-Id"
_ANY_NODE: Final = "?standbyok=true&perfstandbyok=true"
_STATES: Final = ("472", "501", "503")
"""How `sys/health` of a disaster-recovery secondary answers, of a server that is not initialised, and of a sealed one."""
_CANNOT_SERVE: Final = "check the server: it is sealed, not initialised, or a secondary for disaster recovery"
_NO_HEALTH: Final = "set the key's option instance, a name for this server: it does not tell the id of its cluster (sys/health)"


class Client:
    """Sends requests through hvac, without retries, redirects or settings from environment variables.

    Safe for threads. Every request must be made inside a `deadline.within` block.
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
        query: str = "",
    ) -> Mapping[str, Any]:
        """Return the answer's JSON object, which always has a `request_id`. Raises `VaultFailure`.

        A refused batch is returned as well, because it contains the results of its items. `namespace` replaces that
        of the server's `Place`; "" is the root namespace.
        """
        request_id = os.urandom(16).hex()
        headers: dict[str, str | bytes] = {_REQUEST_ID: request_id, "X-Vault-Request": "true"}
        if token is not None and token.reveal():
            headers["X-Vault-Token"] = token.reveal_text()
        namespace = self.place.namespace if namespace is None else namespace
        if namespace:
            headers["X-Vault-Namespace"] = namespace.encode()
        status, answer = self._send(method, quote(path) + query, body, headers, request_id)
        answered_id = answer.get("request_id")
        if isinstance(answered_id, str) and answered_id:
            request_id = answered_id
        if status in (_OK, _NOTHING_TO_SAY) or _is_batch(answer):
            return {**answer, "request_id": request_id}
        raise failures.of_status(status, answer, request_id)

    def cluster_id(self) -> str:
        """Return the id that the server's cluster made up for itself once. Needs no token. Raises `VaultFailure`."""
        try:
            answer = self.request("GET", "sys/health", namespace="", query=_ANY_NODE)
        except VaultFailure as failure:
            if failure.code.isdigit():
                failure.remedy = _CANNOT_SERVE if failure.code in _STATES else _NO_HEALTH
            raise
        cluster_id = answer.get("cluster_id")
        if isinstance(cluster_id, str) and is_cluster_id(cluster_id):
            return cluster_id
        raise VaultFailure(ErrorKind.INVALID_REQUEST, "no-cluster-id", remedy=_NO_HEALTH)

    def _send(
        self, method: str, path: str, body: Any, headers: dict[str, str | bytes], request_id: str
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
        # Raised outside the except block: the exception contains the request, and must not become its context.
        # Other idle connections are probably broken as well.
        adapter.close()
        raise failure

    def _connected(self) -> RawAdapter:
        with self._lock:
            if self._adapter is None:
                self._adapter = _adapter(self.place)
            return self._adapter

    def close(self) -> None:
        """Close the connections. May be called twice."""
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
    # Otherwise REQUESTS_CA_BUNDLE would replace the CA, and .netrc and proxy variables would be used.
    session.trust_env = False
    session.verify = place.ca_file or True
    if place.client_cert:
        session.cert = (place.client_cert, place.client_key or place.client_cert)
    if place.proxy:
        session.proxies = {"https": place.proxy}
    adapter = DeadlineAdapter(
        socket=place.socket,
        server_name=place.tls_server_name,
        pool_connections=1,
        pool_maxsize=_CONNECTIONS,
        max_retries=0,
    )
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return RawAdapter(base_uri=place.url, session=session, allow_redirects=False)


def _content(response: Any) -> bytearray:
    """Return the whole body of an answer. Raises `_Unreadable` if it is longer than 16 MiB."""
    content = bytearray()
    for block in map(Secret, response.iter_content(_BLOCK)):
        content += block.reveal()
        if len(content) > _LARGEST:
            raise _Unreadable
    return content


def _parsed(status: int, content: bytearray) -> Mapping[str, Any]:
    """Return the JSON object in an answer, or {} if there is none. Raises `_Unreadable` for status 200 without one.

    `content` is overwritten: it may contain a data key.
    """
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    content[:] = bytes(len(content))
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
        return VaultFailure(ErrorKind.UNAVAILABLE, failures.UNREADABLE, request_id=request_id)
    if over or isinstance(error, TimeoutError):
        return VaultFailure(ErrorKind.TIMEOUT, "timeout", request_id=request_id)
    if isinstance(error, SSLError):
        remedy = "check ca_file, and the client certificate where one is needed"
        return VaultFailure(ErrorKind.UNAVAILABLE, "tls", remedy=remedy)
    if isinstance(error, RequestException) or not isinstance(error, OSError):
        return VaultFailure(ErrorKind.UNAVAILABLE, "network", request_id=request_id)
    # requests raises a plain OSError only if one of the files cannot be read, before it connects.
    remedy = "check that ca_file, client_cert and client_key can be read"
    return VaultFailure(ErrorKind.INVALID_REQUEST, "tls-files", remedy=remedy)
