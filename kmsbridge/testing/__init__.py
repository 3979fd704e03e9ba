"""For authors of drivers: the contract suite. For authors of applications: a key service in memory.

`DriverContract` is the suite, and `Harness` what it wants of a driver's author; it takes pytest, which
`kmsbridge[testing]` brings. `FakeDriver` with `installed` does without. Nothing here is for production.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmsbridge.testing.certificates import LoopbackCertificates
    from kmsbridge.testing.contract import DriverContract
    from kmsbridge.testing.fake import FakeDriver, UnboundFakeDriver
    from kmsbridge.testing.harness import Fault, Harness, KeyAddress, Misdirection, Role, Which
    from kmsbridge.testing.harnesses import (
        FakeHarness,
        FakeHttpHarness,
        PublicKeyFakeHarness,
        UnboundFakeHarness,
    )
    from kmsbridge.testing.http_fake import FakeHttpDriver
    from kmsbridge.testing.http_service import HttpKeyService
    from kmsbridge.testing.install import counted, installed
    from kmsbridge.testing.peers import register_peer
    from kmsbridge.testing.proxied import ProxiedHarness
    from kmsbridge.testing.proxy import FaultProxy
    from kmsbridge.testing.public_fake import FakeKeyPair, PublicKeyFakeDriver
    from kmsbridge.testing.service import FakeError, FakeKey, FakeService

__all__ = [
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
    "certificates": ("LoopbackCertificates",),
    "contract": ("DriverContract",),
    "fake": ("FakeDriver", "UnboundFakeDriver"),
    "harness": ("Fault", "Harness", "KeyAddress", "Misdirection", "Role", "Which"),
    "harnesses": ("FakeHarness", "FakeHttpHarness", "PublicKeyFakeHarness", "UnboundFakeHarness"),
    "http_fake": ("FakeHttpDriver",),
    "http_service": ("HttpKeyService",),
    "install": ("counted", "installed"),
    "peers": ("register_peer",),
    "proxied": ("ProxiedHarness",),
    "proxy": ("FaultProxy",),
    "public_fake": ("FakeKeyPair", "PublicKeyFakeDriver"),
    "service": ("FakeError", "FakeKey", "FakeService"),
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
