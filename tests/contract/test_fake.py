"""The fake drivers keep the contract; so does the library where a driver binds no context."""

import pytest

from kmsbridge.testing import DriverContract, FakeHarness, UnboundFakeHarness


class TestFake(DriverContract):
    @pytest.fixture
    def harness(self):
        return FakeHarness()


class TestUnboundFake(DriverContract):
    @pytest.fixture
    def harness(self):
        return UnboundFakeHarness()
