"""A key of a real OpenBao for each test, and the means to open it in any way."""

import contextlib
from pathlib import Path

import pytest
from kmsbridge_testing.contract.base import bound
from kmsbridge_vault import VaultTransitDriver

from kmsbridge.driver import KeyURI, Options
from kmsbridge.keys import ManagedKey
from kmsbridge.observer import NOBODY
from tests.backends.vault import Vault


@pytest.fixture
def vault():
    """The development server, as its administrator."""
    return Vault()


@pytest.fixture
def production():
    """The server with TLS, as its administrator."""
    return Vault("vault-production")


@pytest.fixture
def open_driver(tmp_path):
    """Opens drivers as the library does, and closes them; relative paths start at `tmp_path`."""
    with contextlib.ExitStack() as end:

        def open_driver(server, name, *, mount="transit", **options):
            given = {"address": server.address, **options}
            if server.ca_file:
                given.setdefault("ca_file", server.ca_file)
            read = Options(given, name="keys.app", folder=str(tmp_path))
            driver = VaultTransitDriver.open(KeyURI.parse(f"vault-transit://{mount}/{name}"), read)
            assert not read.unknown()
            end.callback(driver.close)
            return driver

        yield open_driver


@pytest.fixture
def open_key(open_driver):
    """The same behind the library's rules."""

    def open_key(server, name, *, observer=NOBODY, **options):
        driver = open_driver(server, name, **options)
        return ManagedKey("app", lambda: driver, observer=observer)

    return open_key


@pytest.fixture
def policies(open_driver):
    """The names of policies on a server, as the driver prints them for these roles."""

    def policies(server, name, *roles, **options):
        printer = open_driver(server, name, auth={"method": "token", "token": "none"}, **options)
        return [server.policy(printer.policy(role)) for role in roles]

    return policies


@pytest.fixture
def works():
    """Wraps and unwraps 32 bytes, and says whether they came back."""

    def works(key):
        return key.unwrap(key.wrap(bytes(32), bound()), bound()) == bytes(32)

    return works


@pytest.fixture
def write(tmp_path):
    """Writes a file that only its owner reads, and gives its path."""

    def write(name, text):
        path = Path(tmp_path, name)
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write
