"""Group 12: a driver with the public key wraps without a call."""

from __future__ import annotations

import pytest

from kmsbridge.driver import Capability
from kmsbridge.errors import KmsUnavailable
from kmsbridge_testing.contract.base import Cases, Keys, bound, needs, refused
from kmsbridge_testing.contract.watch import network_events_of
from kmsbridge_testing.harness import Fault, Harness


class LocalWrapCases(Cases):
    """Cases for `LOCAL_WRAP`, with the public key in the harness's addresses. Without it, the service wraps."""

    @needs("break_network")
    @pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.HANG], ids=lambda fault: fault.value)
    def test_local_wrap_works_without_a_network(
        self, harness: Harness, keys: Keys, plaintext: bytes, fault: Fault
    ) -> None:
        """A new driver wraps while the network is down, and the result unwraps when it is back."""
        key = keys.open()
        if Capability.LOCAL_WRAP not in key.capabilities:
            harness.break_network(Fault.REFUSED)
            refused(lambda: key.wrap(plaintext, bound()), KmsUnavailable)
            return
        harness.break_network(fault)
        wrapped = key.wrap(plaintext, bound())
        assert harness.arrivals() == 0
        harness.heal_network()
        assert keys.open().unwrap(wrapped, bound()) == plaintext

    def test_local_wrap_touches_no_network(self, keys: Keys, plaintext: bytes) -> None:
        """A local wrap does not use the network, even if the key has been used with it."""
        key = keys.open()
        if Capability.LOCAL_WRAP in key.capabilities:
            assert key.unwrap(key.wrap(plaintext, bound()), bound()) == plaintext
            assert not network_events_of(lambda: key.wrap(plaintext, bound()))

    @needs("calls")
    def test_wrap_costs_one_call_or_none(self, harness: Harness, keys: Keys, plaintext: bytes) -> None:
        """A wrap is one request to the service, or none with LOCAL_WRAP."""
        key = keys.open()
        before = harness.calls("first")
        key.wrap(plaintext, bound())
        local = Capability.LOCAL_WRAP in key.capabilities
        assert harness.calls("first") - before == (0 if local else 1)
