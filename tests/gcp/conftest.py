"""The shared emulator, a stock client of it, and drivers of keys in it."""

import contextlib
import secrets

import pytest
from kmsbridge_gcp_emulator import Emulator

from kmsbridge.context import EncryptionContext
from tests.backends import facts
from tests.backends.gcp import open_one, stock_client


@pytest.fixture(scope="session")
def emulator():
    """The emulator of the run, which other tests use too."""
    return Emulator.at(facts("gcp")["endpoint"])


@pytest.fixture
def client(emulator):
    """google-cloud-kms's own client."""
    with stock_client(emulator.endpoint) as client:
        yield client


@pytest.fixture
def ring(emulator):
    """A key ring's name that nobody else uses; its faults end with the test."""
    name = f"projects/test/locations/global/keyRings/test-{secrets.token_hex(8)}"
    yield name
    emulator.heal(name)


@pytest.fixture
def key(emulator, ring):
    """A symmetric key's name."""
    return emulator.create_key(f"{ring}/cryptoKeys/key")


@pytest.fixture
def decrypting(emulator, ring):
    """The name of a key of purpose ASYMMETRIC_DECRYPT."""
    return emulator.create_key(f"{ring}/cryptoKeys/rsa", algorithm="RSA_DECRYPT_OAEP_2048_SHA256")


@pytest.fixture
def opened(emulator):
    """Opens drivers of keys of the emulator, with more options, and closes them."""
    with contextlib.ExitStack() as end:

        def open_driver(name, **options):
            options = {"endpoint": emulator.endpoint, "insecure": True, **options}
            driver = open_one(f"gcp-kms://{name}", options)
            end.callback(driver.close)
            return driver

        yield open_driver


@pytest.fixture
def context():
    """As a driver is given it for a data key."""
    return EncryptionContext.of({"tenant": "acme"}).with_reserved(kmsbridge="dek")
