"""One deadline for a whole call: for all its requests, and however slowly their bytes come.

The timeouts of requests and urllib3 are of each read alone.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

_this_thread = threading.local()


@contextlib.contextmanager
def within(timeout: float) -> Iterator[None]:
    """The calls of this thread in the block end within `timeout` seconds, and within those of a block around."""
    before: float | None = getattr(_this_thread, "deadline", None)
    deadline = time.monotonic() + timeout
    _this_thread.deadline = deadline if before is None else min(before, deadline)
    try:
        yield
    finally:
        _this_thread.deadline = before


def left() -> float:
    """Seconds; raises `TimeoutError` where there are none."""
    seconds: float = _this_thread.deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def is_over() -> bool:
    """Whether there is no time left worth speaking of."""
    deadline: float = _this_thread.deadline
    return deadline - time.monotonic() < 0.005  # noqa: PLR2004 - a clock that wakes early


class _Socket(socket.socket):
    """Reads and writes within the deadline of the thread that uses it."""

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(left())
        return super().recv_into(*arguments)

    def sendall(self, *arguments: Any) -> None:
        self.settimeout(left())
        super().sendall(*arguments)


class _TlsSocket(ssl.SSLSocket):
    """The same over TLS."""

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(left())
        return super().recv_into(*arguments)

    def send(self, *arguments: Any) -> int:
        self.settimeout(left())
        return super().send(*arguments)

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(left())
        super().do_handshake(block)


class _Connection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _connected(self)


class _TlsConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _connected(self)

    def connect(self) -> None:
        # A new one each time: urllib3 reads the files into it, which may have been renewed since.
        self.ssl_context = create_urllib3_context()
        self.ssl_context.sslsocket_class = _TlsSocket
        super().connect()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class DeadlineAdapter(HTTPAdapter):
    """For a `requests.Session` whose calls are made in blocks of `within`."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


def _connected(connection: HTTPConnection) -> socket.socket:
    """To the first address of the host that answers; each has its share of the time left, the last all of it.

    The look-up of the host's name takes no deadline: who waits for a call gives up by itself when it takes too long.
    """
    failure: OSError = OSError("a host without an address")
    found = socket.getaddrinfo(
        connection._dns_host,  # noqa: SLF001 - as in the method that is replaced
        connection.port,
        type=socket.SOCK_STREAM,
    )
    for tried, (family, kind, protocol, _, address) in enumerate(found):
        sock = _Socket(family, kind, protocol)
        try:
            for option in connection.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(left() / (len(found) - tried))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure
