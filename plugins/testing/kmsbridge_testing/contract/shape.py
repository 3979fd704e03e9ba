"""What a driver is before it is asked for anything."""

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
    """Opening, naming, describing, and the declarations that the library relies on."""

    def test_harness_declares_only_abilities_and_cases(self, harness: Harness) -> None:
        """A misspelt word in `cannot` would leave nothing out, or hide a case for ever."""
        cases = {name for name in dir(self) if name.startswith("test_")}
        unknown = [name for name in harness.cannot if name.partition("[")[0] not in {*ABILITIES, *cases}]
        assert not unknown

    @pytest.mark.parametrize("name", ["sdk", "secrets"])
    def test_harness_says_what_the_cases_look_for(self, harness: Harness, name: str) -> None:
        """Either what it is, or in `cannot` why there is none: a case that looks for nothing finds nothing."""
        harness.address("first")
        is_set, is_declared = bool(getattr(harness, name)), name in harness.cannot
        assert is_set is not is_declared, f"set {name!r}, or say in `cannot` why there is none; not both"

    def test_scheme_is_the_uris(self, harness: Harness) -> None:
        """The class that the registry finds says the scheme it was found by."""
        scheme = KeyURI.parse(harness.address("first").uri).scheme
        assert registry.driver_class(scheme).scheme == scheme

    def test_limits_and_capabilities_are_declared(self, keys: Keys) -> None:
        """A payload of 64 bytes at least, capabilities that the library knows, batches of more than one item."""
        driver = keys.driver()
        assert driver.max_plaintext >= _LEAST_PLAINTEXT
        assert all(isinstance(each, Capability) for each in driver.capabilities)
        if {Capability.BATCH_WRAP, Capability.BATCH_UNWRAP} & driver.capabilities:
            assert driver.batch_limit > 1

    def test_open_touches_no_network(self, harness: Harness) -> None:
        """Nothing is connected to or looked up before the first call."""
        address = harness.address("first")
        touched = network_events_of(lambda: driver_of(address).close())
        assert not touched

    @needs("sdk")
    def test_open_imports_no_sdk(self, harness: Harness) -> None:
        """The provider's own modules are imported when a key is first used."""
        imported = ask_fresh_process(harness)["imported"]
        assert not {*harness.sdk} & {*imported}

    def test_key_id_is_canonical(self, key: ManagedKey) -> None:
        """`scheme:name` of at most 1024 bytes."""
        scheme, _, name = key.key_id.partition(":")
        assert scheme == key.driver.scheme
        assert name
        assert len(key.key_id.encode()) <= MAX_KEY_ID

    def test_key_id_is_stable(self, keys: Keys) -> None:
        """The same for every driver of the key, and whenever it is asked for."""
        one, other = keys.driver(), keys.driver()
        assert len({driver.resolve(timeout=TIMEOUT) for driver in (one, one, other)}) == 1

    def test_two_keys_have_two_ids(self, keys: Keys) -> None:
        """An id names one key."""
        assert keys.open("first").key_id != keys.open("second").key_id

    def test_wrapped_key_names_its_key(self, keys: Keys, plaintext: bytes) -> None:
        """What goes into a message is the key's own id."""
        driver = keys.driver()
        wrapped = driver.wrap(plaintext, bound(), timeout=TIMEOUT)
        assert wrapped.key_id == driver.resolve(timeout=TIMEOUT)

    def test_describe_tells_an_enabled_key(self, key: ManagedKey) -> None:
        """A key that works is described as enabled, or as of unknown state, under its own id."""
        description = key.describe()
        assert description.key_id == key.key_id
        assert description.state in (KeyState.ENABLED, KeyState.UNKNOWN)

    def test_version_is_told_where_declared(self, key: ManagedKey, plaintext: bytes) -> None:
        """A wrap and the description agree on the version; without REPORTS_VERSION neither tells one."""
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
        """Every exception has a kind, and one that is not the provider's is no proof of forgery.

        A driver that runs on its caller's thread says of what it did not cause that it is not its own.
        """
        driver = keys.driver()
        of_the_system = isinstance(error, OSError) and error.errno is not None
        for operation in get_args(Operation):
            kind = driver.classify(error, operation)
            assert isinstance(kind, ErrorKind) if driver.may_wait or of_the_system else kind is None
            assert kind is not ErrorKind.NOT_AUTHENTIC
        assert isinstance(driver.error_details(error), ErrorDetails)

    def test_rotate_is_there_where_declared(self, key: ManagedKey) -> None:
        """With ROTATE there is a new version; without, the library refuses before it asks the driver."""
        before = key.describe().version
        if Capability.ROTATE not in key.capabilities:
            refused(key.rotate, KmsInvalidRequest)
            return
        key.rotate()
        reports = Capability.REPORTS_VERSION in key.capabilities
        assert (key.describe().version != before) is reports
