"""The hpke driver keeps the contract, with both suites."""

import pytest

from kmsbridge.drivers.hpke.suites import HYBRID, X25519
from kmsbridge.testing import DriverContract
from tests.backends.hpke import HpkeHarness, HpkeOverHttpHarness


class TestHybrid(DriverContract):
    @pytest.fixture
    def harness(self):
        return HpkeHarness(HYBRID)


class TestX25519(DriverContract):
    @pytest.fixture
    def harness(self):
        return HpkeHarness(X25519)


class TestProtectedOverHttp(DriverContract):
    """Every failure of the service that protects the seed is told as that of any other service."""

    @pytest.fixture
    def harness(self):
        return HpkeOverHttpHarness()
