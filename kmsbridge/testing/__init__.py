"""For authors of drivers: the contract suite. For authors of applications: a key service in memory.

`DriverContract` is the suite, and `Harness` what it wants of a driver's author; it takes pytest, which
`kmsbridge[testing]` brings. `FakeDriver` with `installed` does without. Nothing here is for production.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmsbridge.testing.calls import CallLog
    from kmsbridge.testing.contract import DriverContract
    from kmsbridge.testing.fakes.fake import FakeDriver, UnboundFakeDriver
    from kmsbridge.testing.fakes.harnesses import (
        FakeHarness,
        FakeHttpHarness,
        PublicKeyFakeHarness,
        UnboundFakeHarness,
    )
    from kmsbridge.testing.fakes.http_fake import FakeHttpDriver
    from kmsbridge.testing.fakes.http_service import HttpKeyService
    from kmsbridge.testing.fakes.public_fake import FakeKeyPair, PublicKeyFakeDriver
    from kmsbridge.testing.fakes.service import FakeError, FakeKey, FakeService
    from kmsbridge.testing.faults.certificates import LoopbackCertificates
    from kmsbridge.testing.faults.proxied import ProxiedHarness
    from kmsbridge.testing.faults.proxy import FaultProxy
    from kmsbridge.testing.harness import Fault, Harness, KeyAddress, Misdirection, Role, Which
    from kmsbridge.testing.install import counted, installed
    from kmsbridge.testing.peers import register_peer

__all__ = [
    "CallLog",
    "DriverContract",
    "FakeDriver",
    "FakeError",
    "FakeHarness",
    "FakeHttpDriver",
    "FakeHttpHarness",
    "FakeKey",
    "FakeKeyPair",
    "FakeService",
    "Fault",
    "FaultProxy",
    "Harness",
    "HttpKeyService",
    "KeyAddress",
    "LoopbackCertificates",
    "Misdirection",
    "ProxiedHarness",
    "PublicKeyFakeDriver",
    "PublicKeyFakeHarness",
    "Role",
    "UnboundFakeDriver",
    "UnboundFakeHarness",
    "Which",
    "counted",
    "installed",
    "register_peer",
]

_MODULES = {
    "calls": ("CallLog",),
    "contract": ("DriverContract",),
    "fakes.fake": ("FakeDriver", "UnboundFakeDriver"),
    "fakes.harnesses": ("FakeHarness", "FakeHttpHarness", "PublicKeyFakeHarness", "UnboundFakeHarness"),
    "fakes.http_fake": ("FakeHttpDriver",),
    "fakes.http_service": ("HttpKeyService",),
    "fakes.public_fake": ("FakeKeyPair", "PublicKeyFakeDriver"),
    "fakes.service": ("FakeError", "FakeKey", "FakeService"),
    "faults.certificates": ("LoopbackCertificates",),
    "faults.proxied": ("ProxiedHarness",),
    "faults.proxy": ("FaultProxy",),
    "harness": ("Fault", "Harness", "KeyAddress", "Misdirection", "Role", "Which"),
    "install": ("counted", "installed"),
    "peers": ("register_peer",),
}
_LATE = {name: f"kmsbridge.testing.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import what is asked for alone (PEP 562), so that fakes do without pytest."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_LATE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
