"""Cases for opening a driver, its id and description, and its declarations."""

from __future__ import annotations

from typing import get_args

import pytest

from kmsbridge import registry
from kmsbridge.driver import Capability, ErrorDetails, ErrorKind, KeyState, KeyURI, Operation
from kmsbridge.errors import KmsInvalidRequest
from kmsbridge.keys import ManagedKey
from kmsbridge.message import MAX_KEY_ID
from kmsbridge_testing.contract.base import (
    TIMEOUT,
    Cases,
    Keys,
    ask_fresh_process,
    bound,
    driver_of,
    needs,
    refused,
)
from kmsbridge_testing.contract.watch import network_events_of
from kmsbridge_testing.harness import ABILITIES, Harness

_LEAST_PLAINTEXT = 64


class ShapeCases(Cases):
    """Cases for opening, ids and descriptions, and for the declarations that the library relies on."""

    def test_harness_declares_only_abilities_and_cases(self, harness: Harness) -> None:
        """A misspelt name in `cannot` fails here; otherwise nobody would notice that it has no effect."""
        cases = {name for name in dir(self) if name.startswith("test_")}
        unknown = [name for name in harness.cannot if name.partition("[")[0] not in {*ABILITIES, *cases}]
        assert not unknown

    @pytest.mark.parametrize("name", ["sdk", "secrets"])
    def test_harness_says_what_the_cases_look_for(self, harness: Harness, name: str) -> None:
        """`sdk` and `secrets` are each set or declared in `cannot`: an empty search would prove nothing."""
        harness.address("first")
        is_set, is_declared = bool(getattr(harness, name)), name in harness.cannot
        assert is_set is not is_declared, f"set {name!r}, or say in `cannot` why there is none; not both"

    def test_scheme_is_the_uris(self, harness: Harness) -> None:
        """The `scheme` of the driver class is the one that it is registered for."""
        scheme = KeyURI.parse(harness.address("first").uri).scheme
        assert registry.driver_class(scheme).scheme == scheme

    def test_limits_and_capabilities_are_declared(self, keys: Keys) -> None:
        """`max_plaintext` is at least 64, the capabilities are known ones, and batches have more than one item."""
        driver = keys.driver()
        assert driver.max_plaintext >= _LEAST_PLAINTEXT
        assert all(isinstance(capability, Capability) for capability in driver.capabilities)
        if {Capability.BATCH_WRAP, Capability.BATCH_UNWRAP} & driver.capabilities:
            assert driver.batch_limit > 1

    def test_open_touches_no_network(self, harness: Harness) -> None:
        """`open` makes no connection and looks up no name."""
        address = harness.address("first")
        touched = network_events_of(lambda: driver_of(address).close())
        assert not touched

    @needs("sdk")
    def test_open_imports_no_sdk(self, harness: Harness) -> None:
        """`open` does not import the provider's modules."""
        imported = ask_fresh_process(harness)["imported"]
        assert not {*harness.sdk} & {*imported}

    def test_key_id_is_canonical(self, key: ManagedKey) -> None:
        """A key's id is `scheme:name`, at most 1024 bytes long."""
        scheme, _, name = key.key_id.partition(":")
        assert scheme == key.driver.scheme
        assert name
        assert len(key.key_id.encode()) <= MAX_KEY_ID

    def test_key_id_is_stable(self, keys: Keys) -> None:
        """All drivers of a key return the same id, each time."""
        one, other = keys.driver(), keys.driver()
        assert len({driver.resolve(timeout=TIMEOUT) for driver in (one, one, other)}) == 1

    def test_two_keys_have_two_ids(self, keys: Keys) -> None:
        """Two keys have different ids."""
        assert keys.open("first").key_id != keys.open("second").key_id

    def test_wrapped_key_names_its_key(self, keys: Keys, plaintext: bytes) -> None:
        """`wrap` returns the id that `resolve` returns."""
        driver = keys.driver()
        wrapped = driver.wrap(plaintext, bound(), timeout=TIMEOUT)
        assert wrapped.key_id == driver.resolve(timeout=TIMEOUT)

    def test_describe_tells_an_enabled_key(self, key: ManagedKey) -> None:
        """A working key's description has its id and the state ENABLED or UNKNOWN."""
        description = key.describe()
        assert description.key_id == key.key_id
        assert description.state in (KeyState.ENABLED, KeyState.UNKNOWN)

    def test_version_is_told_where_declared(self, key: ManagedKey, plaintext: bytes) -> None:
        """`wrap` and `describe` report the same version; without REPORTS_VERSION both report "" instead."""
        version = key.wrap(plaintext, bound()).version
        assert version == key.describe().version
        assert bool(version) is (Capability.REPORTS_VERSION in key.capabilities)

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("a"),
            KeyError(b"\xff"),
            OSError(5, "b"),
            TimeoutError(),
            RuntimeError(),
            KeyboardInterrupt(),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_classify_is_total(self, keys: Keys, error: BaseException) -> None:
        """`classify` returns a kind for every exception, and NOT_AUTHENTIC for none that is not the provider's.

        With `may_wait` false, it returns None for an exception that the driver did not cause.
        """
        driver = keys.driver()
        of_the_system = isinstance(error, OSError) and error.errno is not None
        for operation in get_args(Operation):
            kind = driver.classify(error, operation)
            assert isinstance(kind, ErrorKind) if driver.may_wait or of_the_system else kind is None
            assert kind is not ErrorKind.NOT_AUTHENTIC
        assert isinstance(driver.error_details(error), ErrorDetails)

    def test_rotate_is_there_where_declared(self, key: ManagedKey) -> None:
        """With ROTATE there is a new version; without it, the library refuses and does not call the driver."""
        before = key.describe().version
        if Capability.ROTATE not in key.capabilities:
            refused(key.rotate, KmsInvalidRequest)
            return
        key.rotate()
        reports = Capability.REPORTS_VERSION in key.capabilities
        assert (key.describe().version != before) is reports
