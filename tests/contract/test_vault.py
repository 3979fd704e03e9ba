"""The Vault driver keeps the contract, on a real OpenBao, with keys of both kinds."""

import pytest

from kmsbridge.testing import DriverContract
from tests.backends.vault import DerivedVaultHarness, VaultHarness


class TestVaultAead(DriverContract):
    @pytest.fixture
    def harness(self):
        return VaultHarness()


class TestVaultDerived(DriverContract):
    @pytest.fixture
    def harness(self):
        return DerivedVaultHarness()
