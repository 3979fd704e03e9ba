"""Harnesses for the fake drivers, and what a harness for any service behind HTTP can build on."""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final

from kmsbridge.driver import ErrorKind, KeyDriver, KeyState
from kmsbridge.testing.certificates import LoopbackCertificates
from kmsbridge.testing.fake import FakeDriver, UnboundFakeDriver
from kmsbridge.testing.harness import Fault, Harness, KeyAddress, Misdirection, Role, Which
from kmsbridge.testing.http_fake import FakeHttpDriver
from kmsbridge.testing.http_service import HttpKeyService
from kmsbridge.testing.proxy import FaultProxy
from kmsbridge.testing.service import FakeKey, FakeService, Operation

_OPERATIONS: Final[tuple[Operation, ...]] = (
    *("wrap", "unwrap", "unwrap_many", "rewrap", "describe", "rotate"),
)
_DELAYS: Final = {Fault.HANG: 30.0, Fault.TRICKLE: 30.0, Fault.DELAY: 0.5}
_TRICKLE: Final = 20.0


class _ServiceHarness(Harness):
    """The keys of a `FakeService`, each made when it is first asked for."""

    def __init__(self, service: FakeService) -> None:
        self.service = service
        self._token = secrets.token_hex(16)
        self._keys: dict[Which, FakeKey] = {}
        self.secrets = [self._token.encode()]

    def key(self, which: Which) -> FakeKey:
        """The key itself."""
        if which not in self._keys:
            self._keys[which] = self.service.create(f"{which}-{secrets.token_hex(8)}")
        return self._keys[which]

    def rotate(self, which: Which) -> None:
        """Make a new version."""
        self.key(which).rotate()

    def disable(self, which: Which) -> None:
        """Disable the key."""
        self.key(which).state = KeyState.DISABLED

    def enable(self, which: Which) -> None:
        """Enable the key."""
        self.key(which).state = KeyState.ENABLED

    def schedule_deletion(self, which: Which) -> None:
        """Have the key wait for its deletion."""
        self.key(which).state = KeyState.PENDING_DELETION

    def delete(self, which: Which) -> None:
        """Delete the key."""
        self.service.delete(self.key(which).name)

    def expire_credentials(self) -> None:
        """Make the token invalid."""
        self.service.expire(self._token)

    def calls(self, which: Which) -> int:
        """Wraps, unwraps and batches."""
        counted = self.key(which).calls
        return counted["wrap"] + counted["unwrap"] + counted["unwrap_many"]


class FakeHarness(_ServiceHarness):
    """For `FakeDriver` and what derives from it; faults of the network are faults of the keys."""

    driver: ClassVar[type[KeyDriver] | None] = FakeDriver
    cannot: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "misdirected": "keys in memory have no address",
            "fresh_process": "another process does not see the keys in this one's memory",
        }
    )

    def __init__(self) -> None:
        super().__init__(FakeDriver.service)
        self._before = 0

    def address(self, which: Which, role: Role = "both") -> KeyAddress:
        """`fake:NAME`."""
        return KeyAddress(f"{self._scheme}:{self.key(which).name}", {"role": role, "token": self._token})

    def named(self, name: str) -> KeyAddress:
        """`fake:` and the name."""
        return KeyAddress(f"{self._scheme}:{name}", {"token": self._token})

    def break_network(self, fault: Fault) -> None:
        """Have every operation fail as it would with a service, or take long."""
        self._before = self._total()
        for key in self._keys.values():
            for operation in _OPERATIONS:
                if fault in _DELAYS:
                    key.delay(operation, _DELAYS[fault])
                else:
                    throttled = fault is Fault.THROTTLED
                    key.fail(operation, ErrorKind.THROTTLED if throttled else ErrorKind.UNAVAILABLE)

    def heal_network(self) -> None:
        """End the faults."""
        for key in self._keys.values():
            key.heal()

    def arrivals(self) -> int:
        """Calls of any operation."""
        return self._total() - self._before

    @property
    def _scheme(self) -> str:
        assert self.driver is not None
        return self.driver.scheme

    def _total(self) -> int:
        return sum(key.calls.total() for key in self._keys.values())


class UnboundFakeHarness(FakeHarness):
    """For the fake driver that binds no context."""

    driver: ClassVar[type[KeyDriver] | None] = UnboundFakeDriver


class ProxiedHarness(Harness):
    """Has the network broken by a `FaultProxy` in front of the HTTP service at `host`:`port`.

    The addresses that a subclass gives lead to `proxy.address`; its `close` calls this one's.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self.proxy = FaultProxy(host, port)

    def break_network(self, fault: Fault) -> None:
        """Tell the proxy."""
        _FAULTS[fault](self.proxy)

    def heal_network(self) -> None:
        """Tell the proxy."""
        self.proxy.heal()

    def arrivals(self) -> int:
        """Connections to the proxy."""
        return self.proxy.connections

    def close(self) -> None:
        """End the proxy."""
        self.proxy.close()


def _status(status: str, body: bytes = b"{}") -> Callable[[FaultProxy], None]:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return lambda proxy: proxy.answer(head.encode() + b"Connection: close\r\n\r\n" + body)


_FAULTS: Final[dict[Fault, Callable[[FaultProxy], None]]] = {
    Fault.REFUSED: FaultProxy.refuse,
    Fault.RESET_BEFORE: FaultProxy.reset,
    Fault.RESET_AFTER: lambda proxy: proxy.reset_after(0),
    Fault.HANG: FaultProxy.hang,
    Fault.TRICKLE: lambda proxy: proxy.slow(_TRICKLE),
    Fault.HALF: FaultProxy.half,
    Fault.CLOSED: FaultProxy.end,
    Fault.FOREIGN: lambda proxy: proxy.answer(b"220 mail.example ESMTP\r\n"),
    Fault.UNREADABLE: _status("200 OK", b'{"plaintext": <html>'),
    Fault.THROTTLED: _status("429 Too Many Requests"),
    Fault.INTERNAL: _status("500 Internal Server Error"),
    Fault.BAD_GATEWAY: _status("502 Bad Gateway"),
    Fault.UNAVAILABLE: _status("503 Service Unavailable"),
    Fault.GATEWAY_TIMEOUT: _status("504 Gateway Timeout"),
    Fault.DELAY: lambda proxy: proxy.delay(_DELAYS[Fault.DELAY]),
}


class FakeHttpHarness(_ServiceHarness, ProxiedHarness):
    """For `FakeHttpDriver`: a service on the loopback interface, behind a `FaultProxy`."""

    driver: ClassVar[type[KeyDriver] | None] = FakeHttpDriver
    sdk: ClassVar[Sequence[str]] = ("xmlrpc",)
    """Nothing that the driver uses: it stands for an SDK, and a mutant imports it too early."""

    def __init__(self) -> None:
        self._end = contextlib.ExitStack()
        server = self._end.enter_context(HttpKeyService())
        _ServiceHarness.__init__(self, server.keys)
        self.proxy = self._end.enter_context(FaultProxy(server.host, server.port))

    def address(self, which: Which, role: Role = "both") -> KeyAddress:
        """`fake-http:NAME` at the proxy."""
        return self._at(which, "http://{}:{}".format(*self.proxy.address), role=role)

    def named(self, name: str) -> KeyAddress:
        """`fake-http:` and the name."""
        address = "http://{}:{}".format(*self.proxy.address)
        return KeyAddress(f"fake-http:{name}", {"address": address, "token": self._token})

    def misdirected(self, why: Misdirection) -> KeyAddress:
        """At a host that is not there, or behind TLS of another CA than the driver is told to trust."""
        if why is Misdirection.NO_SUCH_HOST:
            return self._at("first", "http://no-such-host.invalid:80")
        theirs, ours = (
            LoopbackCertificates.make(self._end.enter_context(tempfile.TemporaryDirectory()))
            for _ in range(2)
        )
        tls = FaultProxy(*self.proxy.address, tls=theirs.server_context())
        self._end.enter_context(tls)
        address = "https://{}:{}".format(*tls.address)
        return self._at("first", address, ca_file=ours.ca_file)

    def close(self) -> None:
        """End the proxies and the service."""
        self._end.close()

    def _at(self, which: Which, address: str, role: Role = "both", **more: str) -> KeyAddress:
        options = {"address": address, "role": role, "token": self._token, **more}
        return KeyAddress(f"fake-http:{self.key(which).name}", options)
