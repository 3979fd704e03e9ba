"""Sockets for HTTP clients that keep one deadline for connecting, the TLS handshake, sending and the whole answer.

The timeout of an HTTP client usually applies to each read, so an answer that arrives byte by byte never times out.
These sockets use `deadline.left()` for every wait. Have the client open its connections with `connect` or `connect_unix`. Also switch
off the client's redirects, which would send credentials to another host.
"""

from __future__ import annotations

import io
import socket
import ssl
from typing import Any, Final

from kmsbridge.driverkit.deadline import left

LARGEST_ANSWER: Final = 2**24
"""The most bytes of one answer, as received: more raise an `OSError`."""

_CLEANSE_PLAINTEXT: Final = 0x2
"""SSL_OP_CLEANSE_PLAINTEXT, for which Python has no name: OpenSSL overwrites what it has decrypted once it was read."""


class _Bounded:
    """The methods of both socket classes. A mixin, because `SSLSocket` takes over a socket's descriptor."""

    settimeout: Any
    _room = LARGEST_ANSWER

    def recv(self, *arguments: Any) -> bytes:
        self.settimeout(left())
        data: bytes = super().recv(*arguments)  # type: ignore[misc]
        self._count(len(data))
        return data

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(left())
        count: int = super().recv_into(*arguments)  # type: ignore[misc]
        self._count(count)
        return count

    def send(self, *arguments: Any) -> int:
        self.settimeout(left())
        self._room = LARGEST_ANSWER
        count: int = super().send(*arguments)  # type: ignore[misc]
        return count

    def sendall(self, *arguments: Any) -> None:
        self.settimeout(left())
        self._room = LARGEST_ANSWER
        super().sendall(*arguments)  # type: ignore[misc]

    def makefile(self, mode: str = "r", buffering: int | None = None, **text: Any) -> Any:
        if mode != "rb" or buffering == 0:
            return super().makefile(mode, buffering, **text)  # type: ignore[misc]
        return _Answer(_Answering(super().makefile(mode, 0)))  # type: ignore[misc]

    def _count(self, received: int) -> None:
        self._room -= received
        if self._room < 0:
            raise OSError(f"the answer is longer than {LARGEST_ANSWER} bytes")


class _Answering(io.RawIOBase):
    """What arrives on a connection; after `_end()`, zeros."""

    def __init__(self, source: io.RawIOBase) -> None:
        self._source: io.RawIOBase | None = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._source is None:
            buffer[:] = bytes(len(buffer))
            return len(buffer)
        return self._source.readinto(buffer)

    def _end(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()

    def close(self) -> None:
        self._end()
        super().close()


class _Answer(io.BufferedReader):
    """Reads one answer, and overwrites its buffer when it is closed: the answer may contain a data key."""

    raw: _Answering

    def close(self) -> None:
        if not self.closed:
            self.raw._end()  # noqa: SLF001 - the class above, which is of this one's making
            self.read(len(self.peek()))
            self.peek()
        super().close()


class DeadlineSocket(_Bounded, socket.socket):
    """A socket on which every wait ends at the deadline of the thread that uses it.

    It must be used inside a `deadline.within` block. Raises `TimeoutError` at the deadline, and `OSError` if more
    than `LARGEST_ANSWER` bytes arrive after something was sent.
    """


class DeadlineTlsSocket(_Bounded, ssl.SSLSocket):
    """A `DeadlineSocket` over TLS; the handshake keeps the deadline, too."""

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(left())
        super().do_handshake(block)


def tls_within_deadline(context: ssl.SSLContext) -> ssl.SSLContext:
    """Have `context` make `DeadlineTlsSocket` connections from now on, and return it."""
    context.sslsocket_class = DeadlineTlsSocket
    context.options |= _CLEANSE_PLAINTEXT
    return context


def connect_unix(path: str) -> DeadlineSocket:
    """Return a connection to the Unix socket at `path`, within the deadline. Raises `OSError` or `TimeoutError`."""
    sock = DeadlineSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(left())
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def connect(host: str, port: int) -> DeadlineSocket:
    """Return a connection to the first address of `host` that accepts one, within the deadline.

    The remaining time is divided among the addresses, so that one that does not answer leaves time for the next.
    Raises `socket.gaierror` for an unknown name, and `OSError` or `TimeoutError` if no address accepts a
    connection. The lookup of the name itself has no timeout; the library limits it as part of the driver's call.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure = OSError("the host name has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = DeadlineSocket(family, kind, protocol)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.settimeout(left() / (len(addresses) - number))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure
