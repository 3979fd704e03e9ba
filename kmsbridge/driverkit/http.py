"""HTTP within a deadline: connecting, the TLS handshake, sending, and all of an answer together.

The timeouts of HTTP clients hold for each read, so an answer that comes byte by byte never ends. These sockets wait
for as long as `deadline.left` says, whatever client uses them: give it `connect` for its way to connect. Redirects
are a client's own matter, and are to be switched off: a credential would follow them.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any, Final

from kmsbridge.driverkit.deadline import left

LARGEST_ANSWER: Final = 2**24
"""Bytes of one answer, as they come from the server: more is an `OSError`."""


class _Bounded:
    """What both kinds of socket do; a mixin, because Python makes the one over TLS from the other's descriptor."""

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

    def _count(self, received: int) -> None:
        self._room -= received
        if self._room < 0:
            raise OSError("the answer has no end")


class DeadlineSocket(_Bounded, socket.socket):
    """A socket whose every wait ends at the deadline of the thread that uses it.

    `LARGEST_ANSWER` bounds what it reads after each time that it sends.
    """


class DeadlineTlsSocket(_Bounded, ssl.SSLSocket):
    """The same over TLS."""

    def do_handshake(self, block: bool = False) -> None:
        self.settimeout(left())
        super().do_handshake(block)


def tls_within_deadline(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return `context`, whose connections are `DeadlineTlsSocket`s from now on."""
    context.sslsocket_class = DeadlineTlsSocket
    return context


def connect(host: str, port: int) -> DeadlineSocket:
    """Return a connection to the first address of `host` that answers, within the deadline.

    Each address has its share of the time left, so that a dead one leaves some for the next. Raises `socket.gaierror` for a name that is not known, else `OSError` or
    `TimeoutError`. Looking up the name takes no timeout: the library gives up a call that takes too long.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure = OSError("the name has no address")
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
