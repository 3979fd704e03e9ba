"""HTTP for botocore within a deadline: connecting, sending and all of the answer together, on kept connections.

botocore's own timeouts hold for each read, so an answer that comes byte by byte never ends. Here every
wait of a call is as long as what is left of its deadline. To be imported on first use: it imports botocore.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.exceptions import BotoCoreError, IncompleteReadError, ReadTimeoutError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from kmsbridge_aws.failures import UnreadableAnswer
from kmsbridge_aws.settings import check_endpoint, is_loopback

_KEPT: Final = 64
_LARGEST: Final = 2**20
"""Bytes of one answer; those of KMS and STS have a few thousand."""
_NEVER: Final = float("inf")
_call = threading.local()


@contextlib.contextmanager
def deadline(at: float) -> Iterator[None]:
    """Have what this thread sends meanwhile end at the monotonic time `at`, with a timeout error."""
    before = getattr(_call, "deadline", _NEVER)
    _call.deadline = min(at, before)
    try:
        yield
    finally:
        _call.deadline = before


def _left() -> float:
    left: float = getattr(_call, "deadline", _NEVER) - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _is_over() -> bool:
    return bool(getattr(_call, "deadline", _NEVER) <= time.monotonic())


class _Answer(io.RawIOBase):
    """The bytes that come from a socket, each waited for only as long as the deadline allows, and not for ever."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._room = _LARGEST
        self._raw: Any = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left())
        count: int = self._raw.readinto(buffer) or 0
        self._room -= count
        if self._room < 0:
            raise OSError("an answer without end")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Source:
    """What `http.client` takes for a socket to read an answer from."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Answer(self._sock))


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *rest: Any, **options: Any) -> None:
        super().__init__(_Source(sock), *rest, **options)  # type: ignore[arg-type]


class _Bounded:
    """A connection all of whose waiting ends at the deadline of the thread that uses it."""

    response_class = _Response
    sock: Any
    port: int
    _dns_host: str
    host: str

    def _new_conn(self) -> socket.socket:
        try:
            sock = self._first_that_answers()
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error  # type: ignore[arg-type]
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "connecting took too long") from error
        except OSError as error:
            raise NewConnectionError(self, "no address accepts a connection") from error  # type: ignore[arg-type]
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock

    def _first_that_answers(self) -> socket.socket:
        """Each address gets its share of the time, so that a dead one leaves some for the next."""
        addresses = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        failure = OSError("the name has no address")
        for number, (family, kind, protocol, _, address) in enumerate(addresses):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(_left() / (len(addresses) - number))
                sock.connect(address)
                sock.settimeout(_left())  # for the TLS handshake
                return sock
            except OSError as error:
                sock.close()
                failure = error
        raise failure

    def request(self, *request: Any, **options: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(_left())
        super().request(*request, **options)  # type: ignore[misc]


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
        # Nothing for this machine goes by a proxy: it may be in plain text.
        proxies = {} if is_loopback(urlsplit(url).hostname or "") else get_environ_proxies(url)
        super().__init__(verify, proxies, max_pool_connections=_KEPT)
        self._pool_classes_by_scheme.update(http=_Pool, https=_TlsPool)


def _is_object(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


class Sender:
    """Sends a client's requests, in the place of its own HTTP session: a handler of `before-send`.

    Where to, the environment may have said: no address gets a data key or a credential in plain text.
    """

    def __init__(self, verify: bool | str, *, plain: bool = False) -> None:
        self._verify, self._plain = verify, plain
        self._sessions: dict[str, _Session] = {}
        self._lock = threading.Lock()

    def __call__(self, request: Any, **_: Any) -> Any:
        """The answer, which is whole; raises botocore's exceptions."""
        check_endpoint(request.url, plain=self._plain, option="the AWS endpoint")
        try:
            answer = self._session(request.url).send(request)
        except BotoCoreError as error:
            # Whatever the clients beneath call it, what ends with the time ends for want of it.
            if _is_over():
                raise ReadTimeoutError(endpoint_url=request.url) from error
            raise
        promised = answer.headers.get("Content-Length", "")
        if promised.isdecimal() and len(answer.content) < int(promised):
            raise IncompleteReadError(actual_bytes=len(answer.content), expected_bytes=int(promised))
        if "X-Amz-Target" in request.headers and not _is_object(answer.content):
            # Something in between spoke, and its status is no refusal by AWS.
            raise UnreadableAnswer("the answer is none of AWS KMS")
        return answer

    def close(self) -> None:
        """Close the connections that are kept."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            session.close()

    def _session(self, url: str) -> _Session:
        # By address, because the environment can name addresses that need no proxy.
        place = urlsplit(url).netloc
        with self._lock:
            if place not in self._sessions:
                self._sessions[place] = _Session(url, self._verify)
            return self._sessions[place]
