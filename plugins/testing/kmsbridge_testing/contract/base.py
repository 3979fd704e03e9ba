"""The fixtures and helpers that the cases share."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import pytest

from kmsbridge import registry
from kmsbridge.cipher import EnvelopeCipher
from kmsbridge.cipher.base import from_profile
from kmsbridge.config import KeyConfig, Profile
from kmsbridge.context import EncryptionContext
from kmsbridge.driver import (
    Capability,
    DriverError,
    ErrorKind,
    KeyDriver,
    KeyURI,
    Operation,
    Options,
    WrappedKey,
)
from kmsbridge.errors import AuthenticationError, KmsBridgeError
from kmsbridge.keys import ManagedKey
from kmsbridge.policy import CallPolicy
from kmsbridge.testing.calls import CallLog
from kmsbridge.testing.fakes.service import Role
from kmsbridge.testing.install import counted, installed
from kmsbridge_testing.harness import ABILITIES, Harness, KeyAddress, Which
from kmsbridge_testing.peers import PEERS
from kmsbridge_testing.plugin import record_gap

T = TypeVar("T")
Case = TypeVar("Case", bound=Callable[..., None])

PAIRS = {"tenant": "acme", "purpose": "phone", "größe": "très grande"}
TIMEOUT = 10.0
"""The timeout in seconds of calls that should succeed."""


def needs(*abilities: str) -> Callable[[Case], Case]:
    """Mark a case to be skipped if the harness declares one of these abilities in `cannot`."""
    assert set(abilities) <= set(ABILITIES)

    def mark(case: Case) -> Case:
        case.kmsbridge_needs = abilities  # type: ignore[attr-defined]
        return case

    return mark


def bound(pairs: Mapping[str, str] | None = None) -> EncryptionContext:
    """Return the context that a driver gets for a data key, with `pairs` or else `PAIRS`."""
    return EncryptionContext.of(PAIRS if pairs is None else pairs).with_reserved(kmsbridge="dek")


def refused(call: Callable[[], object], *kinds: type[KmsBridgeError]) -> Exception:
    """Return the error that `call` raises. Fails unless its class is exactly one of `kinds`."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which class it is decides below
        call()
    error = caught.value
    assert type(error) in kinds, f"{type(error).__name__} ({error}), not {_names(kinds)}"
    return error


def kind_of(driver: KeyDriver, error: BaseException, operation: Operation) -> ErrorKind | None:
    """Return the kind that the library gives to an exception raised by `operation` of a driver."""
    if isinstance(error, AuthenticationError):
        return ErrorKind.NOT_AUTHENTIC
    return error.kind if isinstance(error, DriverError) else driver.classify(error, operation)


def driver_of(address: KeyAddress) -> KeyDriver:
    """Return a driver opened as the library opens it. Fails if the driver did not read all options."""
    uri = KeyURI.parse(address.uri)
    options = Options(address.options)
    driver = registry.driver_class(uri.scheme).open(uri, options)
    unknown = [name for _, name in options.unknown()]
    assert not unknown, (
        f"`open` did not read the options {unknown}, so the library would refuse them as unknown"
    )
    return driver


def profile_of(
    encrypt_to: list[KeyAddress], decrypt_with: list[KeyAddress] | None = None, **settings: Any
) -> Profile:
    """Return a profile with these keys; `decrypt_with` is `encrypt_to` if None."""
    configs = {
        address.uri: KeyConfig(f"key{n}", KeyURI.parse(address.uri), Options(address.options))
        for n, address in enumerate([*encrypt_to, *(decrypt_with or [])])
    }
    return Profile(
        "contract",
        tuple(configs[address.uri] for address in encrypt_to),
        tuple(configs[a.uri] for a in (encrypt_to if decrypt_with is None else decrypt_with)),
        **settings,
    )


class Keys:
    """Opens keys and ciphers for one case, and closes them after it."""

    def __init__(self, harness: Harness, end: contextlib.ExitStack) -> None:
        self._harness, self._end = harness, end
        self.calls = CallLog()
        """The calls of the keys that were opened by `open` and `at`."""

    def open(
        self, which: Which = "first", role: Role = "both", policy: CallPolicy | None = None
    ) -> ManagedKey:
        """Open a key of the harness as a `ManagedKey`, which does not sleep between attempts."""
        return self.at(self._harness.address(which, role), policy)

    def at(
        self,
        address: KeyAddress,
        policy: CallPolicy | None = None,
        sleep: Callable[[float], None] = lambda _: None,
    ) -> ManagedKey:
        """Open the key at `address` as a `ManagedKey`; `sleep` is called before each further attempt."""
        patient = CallPolicy(attempt_timeout=TIMEOUT, deadline=3 * TIMEOUT)
        key = ManagedKey(
            "contract", lambda: driver_of(address), policy or patient, observer=self.calls, sleep=sleep
        )
        self._end.callback(key.close)
        return key

    def driver(self, which: Which = "first") -> KeyDriver:
        """Open a key of the harness as a driver, without the library's retries and checks."""
        driver = driver_of(self._harness.address(which))
        self._end.callback(driver.close)
        return driver

    def cipher(self, *which: Which, **settings: Any) -> EnvelopeCipher:
        """Return a cipher for these keys, or for the first one."""
        addresses = [self._harness.address(name) for name in which or ("first",)]
        return self._end.enter_context(from_profile(EnvelopeCipher, profile_of(addresses, **settings)))


class Cases:
    """The fixtures of all groups of cases."""

    @pytest.fixture
    def harness(self) -> Harness:
        """A new harness; the one fixture that the author of a driver writes."""
        raise NotImplementedError("there is no fixture `harness`; write one that returns your harness")

    @pytest.fixture(autouse=True)
    def _examined(self, request: pytest.FixtureRequest, harness: Harness) -> Iterator[None]:
        """Skip the case if the harness declares that it cannot do it; install the driver; close the harness."""
        with contextlib.closing(harness), contextlib.ExitStack() as end:
            gap = _declared(request, harness)
            if gap:
                record_gap(request.node, f"{type(harness).__name__} cannot {gap}")
                pytest.skip(gap)
            if harness.driver is not None:
                end.enter_context(installed(harness.driver))
            yield

    @pytest.fixture
    def keys(self, harness: Harness, _examined: None) -> Iterator[Keys]:
        """Opens keys of the harness, and closes them after the case."""
        with contextlib.ExitStack() as end:
            yield Keys(harness, end)

    @pytest.fixture
    def key(self, keys: Keys) -> ManagedKey:
        """The first key of the harness."""
        return keys.open()

    @pytest.fixture
    def capabilities(self, key: ManagedKey) -> frozenset[Capability]:
        """The capabilities that the driver declares."""
        return key.capabilities

    @pytest.fixture
    def calls(self, harness: Harness, _examined: None) -> Iterator[Counter[str]]:
        """The calls of drivers that are opened after this fixture."""
        with counted(registry.driver_class(_scheme(harness))) as calls:
            yield calls

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make a case for each registered backend."""
        if "peer" in metafunc.fixturenames:
            metafunc.parametrize("peer", list(PEERS), indirect=True)

    @pytest.fixture
    def peer(self, request: pytest.FixtureRequest, harness: Harness, _examined: None) -> Iterator[Harness]:
        """A harness of another backend."""
        with contextlib.closing(PEERS[request.param]()) as peer, contextlib.ExitStack() as end:
            # For the same scheme the harness's own driver, which may be a derived class, stays installed.
            if peer.driver is not None and _scheme(peer) != _scheme(harness):
                end.enter_context(installed(peer.driver))
            yield peer

    @pytest.fixture
    def plaintext(self) -> bytes:
        """A random payload of the length of a data key."""
        return secrets.token_bytes(32)


def _declared(request: pytest.FixtureRequest, harness: Harness) -> str:
    """Return what the case needs and the harness declares in `cannot`, with the reason; "" if nothing."""
    abilities = getattr(request.function, "kmsbridge_needs", ())
    callspec = getattr(request.node, "callspec", None)
    parameters = callspec.params.values() if callspec else ()
    faults = [text for parameter in parameters if isinstance(text := getattr(parameter, "value", None), str)]
    names = (*abilities, *faults, request.node.originalname, request.node.name)
    return next((f"{name}: {harness.cannot[name]}" for name in names if name in harness.cannot), "")


def _scheme(harness: Harness) -> str:
    return KeyURI.parse(harness.address("first").uri).scheme


def _names(kinds: tuple[type[KmsBridgeError], ...]) -> str:
    return " or ".join(kind.__name__ for kind in kinds)


def cut(wrapped: WrappedKey) -> WrappedKey:
    """Return the wrapped key without its last byte."""
    return wrapped._replace(ciphertext=wrapped.ciphertext[:-1])


def ask_fresh_process(harness: Harness, **more: Any) -> dict[str, Any]:
    """Run `kmsbridge_testing.opener` for the first key in a new process, and return its answer."""
    address, driver = harness.address("first"), harness.driver
    request = {
        "uri": address.uri,
        "options": dict(address.options),
        "driver": f"{driver.__module__}:{driver.__qualname__}" if driver else "",
        "message": "",
        **more,
    }
    command = [sys.executable, "-m", "kmsbridge_testing.opener"]
    sent = json.dumps(request).encode()
    done = subprocess.run(command, input=sent, capture_output=True, timeout=60, check=False)  # noqa: S603 - this interpreter and package
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
