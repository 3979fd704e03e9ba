"""`ProxiedHarness`: a base class for harnesses of services behind a network, with a `FaultProxy` and certificates."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Final

from kmsbridge_testing.faults.certificates import LoopbackCertificates
from kmsbridge_testing.faults.proxy import FaultProxy
from kmsbridge_testing.harness import Fault, Harness, Misdirection

DELAY: Final = 0.5
"""The seconds by which `Fault.DELAY` delays an answer."""
_TRICKLE: Final = 20.0
_BLOCK: Final = 65536

_PAGE: Final = (
    b"<!doctype html>\n<html><head><title>Welcome</title></head><body>Please log in.</body></html>\n"
)
_JSON: Final = "application/json"
_HTML: Final = "text/html; charset=utf-8"

Break = Callable[[Any], None]
"""A function that applies a fault to the network of the harness that it is called with."""


def says(data: bytes, *, then_end: bool = True) -> Break:
    """Return a fault that answers each request with `data`, and then closes the connection or stays silent."""
    return lambda harness: harness.proxy.answer(data, then_end=then_end)


def status(line: str, body: bytes = b"{}", *, kind: str = _JSON, **more: str) -> Break:
    """Return a fault that answers each request with an HTTP status line and `body`.

    `kind` is its Content-Type; `more` are further headers, with "_" in place of "-".
    """
    return says(_head(line, kind, Content_Length=str(len(body)), Connection="close", **more) + body)


def _head(line: str, kind: str = _JSON, **more: str) -> bytes:
    headers = {"Content-Type": kind, **{name.replace("_", "-"): value for name, value in more.items()}}
    lines = [f"HTTP/1.1 {line}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def _page(line: str) -> Break:
    return status(line, _PAGE, kind=_HTML)


def _redirect(line: str) -> Break:
    def redirect(harness: ProxiedHarness) -> None:
        harness.elsewhere.heal()
        # Another host name, and also another port, for clients that do not compare names.
        location = f"http://localhost:{harness.elsewhere.address[1]}/"
        status(line, b"", Location=location)(harness)

    return redirect


FAULTS: Final[Mapping[Fault, Break]] = MappingProxyType(
    {
        Fault.REFUSED: lambda harness: harness.proxy.refuse(),
        Fault.RESET_BEFORE: lambda harness: harness.proxy.reset(),
        Fault.RESET_AFTER: lambda harness: harness.proxy.reset_after(0),
        Fault.RESET_AMID: lambda harness: harness.proxy.reset_amid(),
        Fault.CLOSED: lambda harness: harness.proxy.end(),
        Fault.HALF: lambda harness: harness.proxy.half(),
        Fault.HANG: lambda harness: harness.proxy.hang(),
        Fault.TRICKLE: lambda harness: harness.proxy.slow(_TRICKLE),
        Fault.STALLED: lambda harness: harness.proxy.stall(),
        Fault.CONTINUE: says(b"HTTP/1.1 100 Continue\r\n\r\n", then_end=False),
        Fault.EARLY_HINTS: says(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", then_end=False),
        Fault.FOREIGN: says(b"220 mail.example ESMTP\r\n"),
        Fault.TLS_ALERT: says(b"\x15\x03\x01\x00\x02\x02\x28"),
        Fault.TLS_PORT: status(
            "400 Bad Request", b"plain HTTP was sent to an HTTPS port\n", kind="text/plain"
        ),
        Fault.UNREADABLE: status("200 OK", b'{"plaintext": <html>'),
        Fault.EMPTY: status("200 OK", b""),
        Fault.NULL: status("200 OK", b"null"),
        Fault.LIST: status("200 OK", b"[]"),
        Fault.OBJECT: status("200 OK", b"{}"),
        Fault.CUT_BY_LENGTH: says(_head("200 OK", Content_Length="9") + b'{"data": {"keys": {}}}'),
        Fault.BROKEN_CHUNKS: says(_head("200 OK", Transfer_Encoding="chunked") + b"{}\r\n{}\r\n"),
        Fault.BROKEN_GZIP: status("200 OK", b"\x1f\x8b\x08none of it", Content_Encoding="gzip"),
        Fault.ENDLESS_BODY: lambda harness: harness.proxy.endless(_head("200 OK"), b" " * _BLOCK),
        Fault.ENDLESS_HEAD: lambda harness: harness.proxy.endless(
            b"HTTP/1.1 200 OK\r\n", b"X-More: and more\r\n" * (_BLOCK // 18)
        ),
        Fault.REDIRECT: _redirect("302 Found"),
        Fault.REDIRECT_307: _redirect("307 Temporary Redirect"),
        Fault.LOGIN_PAGE: _page("200 OK"),
        Fault.BLOCKED_PAGE: _page("403 Forbidden"),
        Fault.NOT_FOUND_PAGE: _page("404 Not Found"),
        Fault.GATEWAY_PAGE: _page("502 Bad Gateway"),
        Fault.PROXY_LOGIN: status(
            "407 Proxy Authentication Required", b"", Proxy_Authenticate='Basic realm="proxy"'
        ),
        Fault.REQUEST_TIMEOUT: status("408 Request Timeout", b""),
        Fault.MISDIRECTED: status("421 Misdirected Request", b""),
        Fault.THROTTLED: status("429 Too Many Requests"),
        Fault.INTERNAL: status("500 Internal Server Error"),
        Fault.INTERNAL_LIST: status("500 Internal Server Error", b"[]"),
        Fault.BAD_GATEWAY: status("502 Bad Gateway"),
        Fault.UNAVAILABLE: status("503 Service Unavailable"),
        Fault.GATEWAY_TIMEOUT: status("504 Gateway Timeout"),
        Fault.UNKNOWN_STATUS: status("520 Unknown Error"),
        Fault.DELAY: lambda harness: harness.proxy.delay(DELAY),
        Fault.STALE: lambda harness: harness.proxy.drop(),
        Fault.VANISHED: lambda harness: harness.proxy.vanish(),
    }
)


class ProxiedHarness(Harness):
    """A harness that breaks the network with a `FaultProxy` in front of the service at `host`:`port`.

    A derived class returns addresses at `proxy.address`, and its `close` calls this one's. Faults with a status are
    answers in HTTP/1.1; a client of another protocol, such as gRPC, takes them for answers of a foreign protocol. The
    harness of such a client replaces the entries of `faults` for which the error depends on the status, such as
    THROTTLED, and extends `heal_network` and `arrivals`::

        faults = ProxiedHarness.faults | {Fault.THROTTLED: lambda harness: harness.server.fail("EXHAUSTED")}
    """

    faults: ClassVar[Mapping[Fault, Break]] = FAULTS
    """By fault, the function that applies it to the harness."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._opened = contextlib.ExitStack()
        self.proxy = self._opened.enter_context(FaultProxy(host, port))
        self._service = host, port

    @functools.cached_property
    def elsewhere(self) -> FaultProxy:
        """The host that the redirects name. It passes on to the same service, so that a followed redirect succeeds."""
        return self._opened.enter_context(FaultProxy(*self._service))

    def break_network(self, fault: Fault) -> None:
        """Apply the fault by its entry in `faults`."""
        self.faults[fault](self)

    def heal_network(self) -> None:
        """End the fault."""
        self.proxy.heal()

    def arrivals(self) -> int:
        """Return the number of connections to the proxy since `break_network`."""
        return self.proxy.connections

    def astray(self) -> int:
        """Return the number of connections to the other host since `break_network`."""
        return self.elsewhere.connections

    def wrong_address(self, why: Misdirection) -> tuple[str, str]:
        """Return a URL at which the service cannot be reached because of `why`, and the CA file to trust, or "".

        It is for the implementation of `misdirected`.
        """
        if why is Misdirection.NO_SUCH_HOST:
            return "http://no-such-host.invalid:80", ""
        served = self._certificates(
            host="another-host.invalid" if why is Misdirection.OTHER_HOST else "",
            expired=why is Misdirection.EXPIRED,
        )
        trusted = self._certificates() if why is Misdirection.UNKNOWN_CA else served
        tls = None if why is Misdirection.NO_TLS else served.server_context()
        proxy = self._opened.enter_context(FaultProxy(*self.proxy.address, tls=tls))
        if tls is None:
            # Not passed on, because the service itself may use TLS.
            proxy.answer(_head("400 Bad Request", Content_Length="0"))
        return "https://{}:{}".format(*proxy.address), trusted.ca_file

    def close(self) -> None:
        """End the proxies."""
        self._opened.close()

    def _certificates(self, *, host: str = "", expired: bool = False) -> LoopbackCertificates:
        folder = self._opened.enter_context(tempfile.TemporaryDirectory())
        return LoopbackCertificates.make(folder, host=host, expired=expired)
