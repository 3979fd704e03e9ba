"""Test tools: a key service in memory for tests of applications, and the contract suite for tests of drivers.

The names that tests of applications need (`FakeDriver`, `FakeService`, `FakeKey`, `FakeError`, `UnboundFakeDriver`,
`Role`, `installed`, `counted` and `CallLog`) come with the library. The others, such as `DriverContract` and
`Harness`, are in the distribution kmsbridge-testing, which `kmsbridge[testing]` installs; importing one without it
raises `ImportError`. Nothing here is for production.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmsbridge_testing.contract import DriverContract
    from kmsbridge_testing.fakes.harnesses import (
        FakeHarness,
        FakeHttpHarness,
        PublicKeyFakeHarness,
        UnboundFakeHarness,
    )
    from kmsbridge_testing.fakes.http_fake import FakeHttpDriver
    from kmsbridge_testing.fakes.http_service import HttpKeyService
    from kmsbridge_testing.fakes.public_fake import FakeKeyPair, PublicKeyFakeDriver
    from kmsbridge_testing.faults.certificates import LoopbackCertificates
    from kmsbridge_testing.faults.proxied import ProxiedHarness
    from kmsbridge_testing.faults.proxy import FaultProxy
    from kmsbridge_testing.fixtures import kms_cipher, kms_key
    from kmsbridge_testing.harness import Fault, Harness, KeyAddress, Misdirection, Which
    from kmsbridge_testing.peers import register_peer

    from kmsbridge.testing.calls import CallLog
    from kmsbridge.testing.fakes.fake import FakeDriver, UnboundFakeDriver
    from kmsbridge.testing.fakes.service import FakeError, FakeKey, FakeService, Role
    from kmsbridge.testing.install import counted, installed

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
    "kms_cipher",
    "kms_key",
    "register_peer",
]

_MODULES = {
    "kmsbridge.testing.calls": ("CallLog",),
    "kmsbridge.testing.fakes.fake": ("FakeDriver", "UnboundFakeDriver"),
    "kmsbridge.testing.fakes.service": ("FakeError", "FakeKey", "FakeService", "Role"),
    "kmsbridge.testing.install": ("counted", "installed"),
    "kmsbridge_testing.contract": ("DriverContract",),
    "kmsbridge_testing.fakes.harnesses": (
        "FakeHarness",
        "FakeHttpHarness",
        "PublicKeyFakeHarness",
        "UnboundFakeHarness",
    ),
    "kmsbridge_testing.fakes.http_fake": ("FakeHttpDriver",),
    "kmsbridge_testing.fakes.http_service": ("HttpKeyService",),
    "kmsbridge_testing.fakes.public_fake": ("FakeKeyPair", "PublicKeyFakeDriver"),
    "kmsbridge_testing.faults.certificates": ("LoopbackCertificates",),
    "kmsbridge_testing.faults.proxied": ("ProxiedHarness",),
    "kmsbridge_testing.faults.proxy": ("FaultProxy",),
    "kmsbridge_testing.fixtures": ("kms_cipher", "kms_key"),
    "kmsbridge_testing.harness": ("Fault", "Harness", "KeyAddress", "Misdirection", "Which"),
    "kmsbridge_testing.peers": ("register_peer",),
}
_LATE = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import the module of `name` when it is first used (PEP 562), so that the fakes do not import pytest."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        value = getattr(import_module(_LATE[name]), name)
    except ModuleNotFoundError as missing:
        if missing.name != "kmsbridge_testing":
            raise
        # Not an AttributeError: `from kmsbridge.testing import ...` would replace its text with another.
        raise ImportError(
            f"{__name__}.{name} is in the package kmsbridge-testing; install it with "
            "pip install 'kmsbridge[testing]'",
            name=missing.name,
        ) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
