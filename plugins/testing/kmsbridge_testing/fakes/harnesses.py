"""Harnesses for the fake drivers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from types import MappingProxyType
from typing import ClassVar, Final, get_args

from kmsbridge.driver import ErrorKind, KeyDriver, KeyState
from kmsbridge.testing.fakes.fake import FakeDriver, UnboundFakeDriver
from kmsbridge.testing.fakes.service import FakeKey, FakeService, Operation, Role
from kmsbridge_testing.fakes.http_fake import FakeHttpDriver
from kmsbridge_testing.fakes.http_service import HttpKeyService
from kmsbridge_testing.fakes.public_fake import FakeKeyPair, PublicKeyFakeDriver
from kmsbridge_testing.faults.proxied import DELAY, ProxiedHarness
from kmsbridge_testing.harness import Fault, Harness, KeyAddress, Misdirection, Which

_NEVER: Final = 30.0
_SLOW: Final = (Fault.HANG, Fault.TRICKLE, Fault.STALLED, Fault.CONTINUE, Fault.EARLY_HINTS)


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
            self._keys[which] = self.service.put(self.made(which, f"{which}-{secrets.token_hex(8)}"))
        return self._keys[which]

    def made(self, which: Which, name: str) -> FakeKey:
        """A new key of this name."""
        return FakeKey(name)

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
        """Wraps, unwraps, batches and rewraps."""
        counted = self.key(which).calls
        return sum(counted[each] for each in ("wrap", "wrap_many", "unwrap", "unwrap_many", "rewrap"))


class FakeHarness(_ServiceHarness):
    """For `FakeDriver` and what derives from it; faults of the network are faults of the keys."""

    driver: ClassVar[type[KeyDriver] | None] = FakeDriver
    cannot = MappingProxyType(
        {
            "misdirected": "keys in memory have no address",
            "fresh_process": "another process does not see the keys in this one's memory",
            "sdk": "there is none to a service in memory",
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
            for operation in get_args(Operation):
                _suffer(key, operation, fault)

    def heal_network(self) -> None:
        """End the faults."""
        for key in self._keys.values():
            key.heal()

    def arrivals(self) -> int:
        """Calls of any operation."""
        return self._total() - self._before

    def astray(self) -> int:
        """None: keys in memory have no other host."""
        return 0

    @property
    def _scheme(self) -> str:
        assert self.driver is not None
        return self.driver.scheme

    def _total(self) -> int:
        return sum(key.calls.total() for key in self._keys.values())


def _suffer(key: FakeKey, operation: Operation, fault: Fault) -> None:
    if fault in _SLOW:
        key.delay(operation, _NEVER)
    elif fault is Fault.DELAY:
        key.delay(operation, DELAY)
    elif fault is Fault.VANISHED:
        key.delay(operation, _NEVER, times=1)
    elif fault is not Fault.STALE:
        key.fail(operation, ErrorKind.THROTTLED if fault is Fault.THROTTLED else ErrorKind.UNAVAILABLE)


class UnboundFakeHarness(FakeHarness):
    """For the fake driver that binds no context."""

    driver: ClassVar[type[KeyDriver] | None] = UnboundFakeDriver


class PublicKeyFakeHarness(FakeHarness):
    """For the fake driver that wraps with a pinned public key."""

    driver: ClassVar[type[KeyDriver] | None] = PublicKeyFakeDriver
    cannot = MappingProxyType({**FakeHarness.cannot, "rotate": "another key pair would be another key"})

    def made(self, which: Which, name: str) -> FakeKey:
        """One of the same two pairs in every harness: to make one takes long."""
        return FakeKeyPair(name, 1 if which == "first" else 2)

    def address(self, which: Which, role: Role = "both") -> KeyAddress:
        """With the public key pinned."""
        return self._pinned(super().address(which, role), which)

    def named(self, name: str) -> KeyAddress:
        """With the first key's public key."""
        return self._pinned(super().named(name), "first")

    def _pinned(self, address: KeyAddress, which: Which) -> KeyAddress:
        pair = self.key(which)
        assert isinstance(pair, FakeKeyPair)
        return KeyAddress(address.uri, {**address.options, "public_key": pair.public_pem})


class FakeHttpHarness(_ServiceHarness, ProxiedHarness):
    """For `FakeHttpDriver`: a service on the loopback interface, behind a `FaultProxy`."""

    driver: ClassVar[type[KeyDriver] | None] = FakeHttpDriver
    sdk: ClassVar[Sequence[str]] = ("xmlrpc",)
    """Nothing that the driver uses: it stands for an SDK, which opening a driver must not import."""

    def __init__(self) -> None:
        self._server = HttpKeyService()
        _ServiceHarness.__init__(self, self._server.keys)
        ProxiedHarness.__init__(self, self._server.host, self._server.port)

    def address(self, which: Which, role: Role = "both") -> KeyAddress:
        """`fake-http:NAME` at the proxy."""
        return self._at(which, "http://{}:{}".format(*self.proxy.address), role=role)

    def named(self, name: str) -> KeyAddress:
        """`fake-http:` and the name."""
        address = "http://{}:{}".format(*self.proxy.address)
        return KeyAddress(f"fake-http:{name}", {"address": address, "token": self._token})

    def misdirected(self, why: Misdirection) -> KeyAddress:
        """At a host that is not there, or that cannot prove to be the one."""
        url, ca_file = self.wrong_address(why)
        return self._at("first", url, ca_file=ca_file)

    def close(self) -> None:
        """End the proxies and the service."""
        ProxiedHarness.close(self)
        self._server.close()

    def _at(self, which: Which, address: str, role: Role = "both", ca_file: str = "") -> KeyAddress:
        options = {"address": address, "role": role, "token": self._token, "ca_file": ca_file}
        return KeyAddress(f"fake-http:{self.key(which).name}", options)
