"""The driver for AWS KMS keeps the contract, with keys of LocalStack."""

import pytest

from kmsbridge.testing import DriverContract
from tests.backends.aws import AsymmetricAwsHarness, AwsHarness


class TestAws(DriverContract):
    @pytest.fixture
    def harness(self):
        return AwsHarness()


class TestAsymmetricAws(DriverContract):
    @pytest.fixture
    def harness(self):
        return AsymmetricAwsHarness()
