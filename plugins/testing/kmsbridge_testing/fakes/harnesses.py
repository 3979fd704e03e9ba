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
    """A harness with keys of a `FakeService`, each made on first use."""

    def __init__(self, service: FakeService) -> None:
        self.service = service
        self._token = secrets.token_hex(16)
        self._keys: dict[Which, FakeKey] = {}
        self.secrets = [self._token.encode()]

    def key(self, which: Which) -> FakeKey:
        """Return the key, making it on first use."""
        if which not in self._keys:
            self._keys[which] = self.service.put(self.made(which, f"{which}-{secrets.token_hex(8)}"))
        return self._keys[which]

    def made(self, which: Which, name: str) -> FakeKey:
        """Make a key of this name."""
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
        """Put the key into the state in which it waits for its deletion."""
        self.key(which).state = KeyState.PENDING_DELETION

    def delete(self, which: Which) -> None:
        """Delete the key."""
        self.service.delete(self.key(which).name)

    def expire_credentials(self) -> None:
        """Make the token invalid."""
        self.service.expire(self._token)

    def calls(self, which: Which) -> int:
        """Return the number of wraps, unwraps, batches and rewraps."""
        counts = self.key(which).calls
        return sum(
            counts[operation] for operation in ("wrap", "wrap_many", "unwrap", "unwrap_many", "rewrap")
        )


class FakeHarness(_ServiceHarness):
    """The harness of `FakeDriver` and of classes derived from it. Faults of the network are faults of the keys."""

    driver: ClassVar[type[KeyDriver] | None] = FakeDriver
    cannot = MappingProxyType(
        {
            "misdirected": "keys in memory have no address",
            "fresh_process": "another process does not see the keys in this one's memory",
            "sdk": "a service in memory has no SDK",
        }
    )

    def __init__(self) -> None:
        super().__init__(FakeDriver.service)
        self._before = 0

    def address(self, which: Which, role: Role = "both") -> KeyAddress:
        """Return the address of the key, `fake:NAME`."""
        return KeyAddress(f"{self._scheme}:{self.key(which).name}", {"role": role, "token": self._token})

    def named(self, name: str) -> KeyAddress:
        """Return the address `fake:NAME`."""
        return KeyAddress(f"{self._scheme}:{name}", {"token": self._token})

    def break_network(self, fault: Fault) -> None:
        """Have every operation fail or take long, as it would at a service with this fault."""
        self._before = self._total()
        for key in self._keys.values():
            for operation in get_args(Operation):
                _apply(key, operation, fault)

    def heal_network(self) -> None:
        """End the faults."""
        for key in self._keys.values():
            key.heal()

    def arrivals(self) -> int:
        """Return the number of calls of any operation since `break_network`."""
        return self._total() - self._before

    def astray(self) -> int:
        """Return 0: a service in memory does not redirect."""
        return 0

    @property
    def _scheme(self) -> str:
        assert self.driver is not None
        return self.driver.scheme

    def _total(self) -> int:
        return sum(key.calls.total() for key in self._keys.values())


def _apply(key: FakeKey, operation: Operation, fault: Fault) -> None:
    if fault in _SLOW:
        key.delay(operation, _NEVER)
    elif fault is Fault.DELAY:
        key.delay(operation, DELAY)
    elif fault is Fault.VANISHED:
        key.delay(operation, _NEVER, times=1)
    elif fault is not Fault.STALE:
        key.fail(operation, ErrorKind.THROTTLED if fault is Fault.THROTTLED else ErrorKind.UNAVAILABLE)


class UnboundFakeHarness(FakeHarness):
    """The harness of `UnboundFakeDriver`."""

    driver: ClassVar[type[KeyDriver] | None] = UnboundFakeDriver


class PublicKeyFakeHarness(FakeHarness):
    """The harness of `PublicKeyFakeDriver`."""

    driver: ClassVar[type[KeyDriver] | None] = PublicKeyFakeDriver
    cannot = MappingProxyType({**FakeHarness.cannot, "rotate": "another key pair would be another key"})

    def made(self, which: Which, name: str) -> FakeKey:
        """Make a key with one of two key pairs, the same for all harnesses: generating one is slow."""
        return FakeKeyPair(name, 1 if which == "first" else 2)

    def address(self, which: Which, role: Role = "both") -> KeyAddress:
        """Return the address, with the key's public key among the options."""
        return self._pinned(super().address(which, role), which)

    def named(self, name: str) -> KeyAddress:
        """Return the address, with the first key's public key among the options."""
        return self._pinned(super().named(name), "first")

    def _pinned(self, address: KeyAddress, which: Which) -> KeyAddress:
        pair = self.key(which)
        assert isinstance(pair, FakeKeyPair)
        return KeyAddress(address.uri, {**address.options, "public_key": pair.public_pem})


class FakeHttpHarness(_ServiceHarness, ProxiedHarness):
    """The harness of `FakeHttpDriver`: an `HttpKeyService` behind a `FaultProxy`."""

    driver: ClassVar[type[KeyDriver] | None] = FakeHttpDriver
    sdk: ClassVar[Sequence[str]] = ("xmlrpc",)
    """A package that the driver does not use, in place of an SDK."""

    def __init__(self) -> None:
        self._server = HttpKeyService()
        _ServiceHarness.__init__(self, self._server.keys)
        ProxiedHarness.__init__(self, self._server.host, self._server.port)

    def address(self, which: Which, role: Role = "both") -> KeyAddress:
        """Return the address of the key at the proxy."""
        return self._at(which, "http://{}:{}".format(*self.proxy.address), role=role)

    def named(self, name: str) -> KeyAddress:
        """Return the address `fake-http:NAME` at the proxy."""
        address = "http://{}:{}".format(*self.proxy.address)
        return KeyAddress(f"fake-http:{name}", {"address": address, "token": self._token})

    def misdirected(self, why: Misdirection) -> KeyAddress:
        """Return the first key's address at a host that does not exist or has no valid certificate."""
        url, ca_file = self.wrong_address(why)
        return self._at("first", url, ca_file=ca_file)

    def close(self) -> None:
        """End the proxies and the service."""
        ProxiedHarness.close(self)
        self._server.close()

    def _at(self, which: Which, address: str, role: Role = "both", ca_file: str = "") -> KeyAddress:
        options = {"address": address, "role": role, "token": self._token, "ca_file": ca_file}
        return KeyAddress(f"fake-http:{self.key(which).name}", options)
