"""HTTP for botocore that keeps a deadline and reuses connections. Import it on first use only: it imports botocore."""

from __future__ import annotations

import json
import socket
import sys
import threading
from typing import Any, Final
from urllib.parse import urlsplit

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.exceptions import BotoCoreError, IncompleteReadError, ReadTimeoutError
from botocore.httpsession import URLLib3Session, get_cert_path
from botocore.utils import get_environ_proxies
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from kmsbridge.driverkit import http
from kmsbridge.driverkit.addresses import is_loopback, refuse_plain_http
from kmsbridge.driverkit.deadline import is_over
from kmsbridge_aws.failures import UnreadableAnswer

_KEPT: Final = 64


class _Bounded:
    """Opens connections that keep the deadline, and raises the exceptions that botocore expects."""

    port: int
    host: str
    _dns_host: str

    def _new_conn(self) -> http.DeadlineSocket:
        try:
            sock = http.connect(self._dns_host, self.port)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "connecting took too long") from error
        except OSError as error:
            raise NewConnectionError(self, "no address accepts a connection") from error  # type: ignore[arg-type]
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock


class _Connection(_Bounded, AWSHTTPConnection):  # type: ignore[misc]
    pass


class _TlsConnection(_Bounded, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection


class _TlsPool(AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _TlsConnection


class _Session(URLLib3Session):  # type: ignore[misc]
    def __init__(self, url: str, verify: bool | str) -> None:
        # Requests to this machine may be plain http, so they must not go through a proxy.
        proxies = {} if is_loopback(urlsplit(url).hostname or "") else get_environ_proxies(url)
        super().__init__(verify, proxies, max_pool_connections=_KEPT)
        self._pool_classes_by_scheme.update(http=_Pool, https=_TlsPool)

    def _get_ssl_context(self) -> Any:
        return http.tls_within_deadline(super()._get_ssl_context())

    def _setup_proxy_ssl_context(self, proxy_url: str) -> Any:
        # For a proxy that is reached over TLS, urllib3 would make a context whose sockets keep no deadline.
        if urlsplit(proxy_url).scheme != "https":
            return None
        context = self._get_ssl_context()
        context.load_verify_locations(cafile=get_cert_path(self._verify))
        return context


def _is_object(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


class Sender:
    """The HTTP session of a session's clients, instead of botocore's own. Safe for threads.

    botocore uses it for what no handler of its event `before-send` has answered, so that a mock such as moto's keeps a
    request to itself. Environment variables can change a request's address, so each is checked: http to another host
    is refused.
    """

    def __init__(self, verify: bool | str, *, plain: bool = False) -> None:
        self._verify, self._plain = verify, plain
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def send(self, request: Any) -> Any:
        """Send the request and return its answer once it has arrived completely. Raises botocore's exceptions."""
        refuse_plain_http(request.url, "the AWS endpoint", plain=self._plain)
        try:
            answer = self._session(request.url).send(request)
        except BotoCoreError as error:
            # urllib3 may report the end of the deadline as some other failure of the connection.
            if is_over():
                raise ReadTimeoutError(endpoint_url=request.url) from error
            raise
        promised = answer.headers.get("Content-Length", "")
        if promised.isdecimal() and len(answer.content) < int(promised):
            raise IncompleteReadError(actual_bytes=len(answer.content), expected_bytes=int(promised))
        if "X-Amz-Target" in request.headers and not _is_object(answer.content):
            # Something between here and AWS answered, so the status is not a refusal by AWS.
            raise UnreadableAnswer("the answer is not one of AWS KMS")
        return answer

    def close(self) -> None:
        """Close all connections; later requests open others."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            session.close()

    def _session(self, url: str) -> _Session:
        # One for each address, because NO_PROXY can exclude some of them.
        address = urlsplit(url).netloc
        with self._lock:
            if address not in self._sessions:
                self._sessions[address] = _Session(url, self._verify)
            return self._sessions[address]
