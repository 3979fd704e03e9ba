"""What the tests of the AWS driver share: a clean environment for the SDK, and keys."""

import contextlib
import os

import pytest
from kmsbridge_aws import AwsKmsDriver

from kmsbridge.driver import KeyURI, Options
from localstack.aws_front import AwsFront
from tests.backends import facts
from tests.backends.aws import AwsHarness


@pytest.fixture(autouse=True)
def _no_aws_from_outside(monkeypatch, tmp_path):
    """Neither the developer's credentials, nor an instance's: a test that looks for one finds nobody there."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def end():
    """What is entered here is left after the test."""
    with contextlib.ExitStack() as end:
        yield end


@pytest.fixture
def endpoint():
    """LocalStack itself."""
    return facts("aws")["endpoint"]


@pytest.fixture
def front(end):
    """What counts and refuses, in front of LocalStack."""
    return end.enter_context(AwsFront(facts("aws")["endpoint"]))


@pytest.fixture
def harness(end):
    """Two keys, each made when it is first asked for."""
    return end.enter_context(contextlib.closing(AwsHarness()))


@pytest.fixture
def driver_of(end):
    """Opens a driver by its URI and options, and closes it after the test."""

    def driver_of(uri, **options):
        driver = AwsKmsDriver.open(KeyURI.parse(uri), Options(options))
        end.callback(driver.close)
        return driver

    return driver_of
