"""The local driver keeps the contract, with and without a passphrase."""

import pytest

from kmsbridge.testing import DriverContract


class TestLocal(DriverContract):
    @pytest.fixture
    def harness(self, make_local_harness):
        return make_local_harness()


class TestLocalWithPassphrase(DriverContract):
    @pytest.fixture
    def harness(self, make_local_harness):
        return make_local_harness("a passphrase that nothing shows")
