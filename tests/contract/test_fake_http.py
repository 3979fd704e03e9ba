"""The driver over HTTP keeps the contract, with real sockets and a network that misbehaves."""

import pytest

from kmsbridge.testing import DriverContract, FakeHttpHarness


class TestFakeHttp(DriverContract):
    @pytest.fixture
    def harness(self):
        return FakeHttpHarness()
