"""The fake drivers keep the contract; so does the library where a driver binds no context, or wraps by itself."""

import re

import pytest

from kmsbridge.testing import (
    DriverContract,
    FakeDriver,
    FakeHarness,
    PublicKeyFakeHarness,
    UnboundFakeHarness,
)


class TestFake(DriverContract):
    @pytest.fixture
    def harness(self):
        return FakeHarness()


class TestUnboundFake(DriverContract):
    @pytest.fixture
    def harness(self):
        return UnboundFakeHarness()


class TestPublicKeyFake(DriverContract):
    @pytest.fixture
    def harness(self):
        return PublicKeyFakeHarness()


class SharingDriver(FakeDriver):
    """Rewraps from every key of its service, as AWS KMS does."""

    scheme = "fake-sharing"

    def rewraps_from(self, key_id):
        return re.fullmatch(rf"{self.scheme}:[a-z]+-[0-9a-f]+", key_id) is not None


class SharingHarness(FakeHarness):
    driver = SharingDriver


class TestSharingFake(DriverContract):
    @pytest.fixture
    def harness(self):
        return SharingHarness()


class ResolvingDriver(FakeDriver):
    """Finds its id with a call, as where a URI names an alias, and remembers it."""

    scheme = "fake-alias"
    found = ""

    @property
    def key_id(self):
        return self.resolve(timeout=10)

    def resolve(self, *, timeout):
        if not self.found:
            self.call("describe", None, timeout)
            self.found = f"{self.scheme}:{self.name}"
        return self.found


class ResolvingHarness(FakeHarness):
    driver = ResolvingDriver


class TestResolvingFake(DriverContract):
    @pytest.fixture
    def harness(self):
        return ResolvingHarness()
