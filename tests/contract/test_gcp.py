"""The driver for Google Cloud KMS keeps the contract, on the emulator, with both kinds of keys."""

import pytest

from kmsbridge.testing import DriverContract
from tests.backends.gcp import AsymmetricGcpHarness, GcpHarness


class TestGcp(DriverContract):
    @pytest.fixture
    def harness(self):
        return GcpHarness()


class TestAsymmetricGcp(DriverContract):
    @pytest.fixture
    def harness(self):
        return AsymmetricGcpHarness()
