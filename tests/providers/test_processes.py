"""What a cipher leaves behind in its process, and what a forked child makes of it, with each provider."""

import contextlib
import os
import threading
import time

import pytest

from kmsbridge import EnvelopeCipher, registry
from kmsbridge.driver import KeyURI, Options
from tests.backends.every import HARNESSES, configuration, harness
from tests.support import PATIENCE, finish, fork

CHILDREN = 4
CYCLES = 1000
CALLS = 20
CONTEXT = {"tenant": "acme"}


@pytest.fixture(params=[[name] for name in HARNESSES] + [list(HARNESSES)], ids=[*HARNESSES, "all at once"])
def addresses(request):
    """A key of each of these providers, at its real server."""
    with contextlib.ExitStack() as end:
        services = {name: end.enter_context(contextlib.closing(harness(name))) for name in request.param}
        yield {name: service.address("first") for name, service in services.items()}


@pytest.fixture
def open_cipher(addresses, tmp_path):
    """Opens a cipher whose data keys serve one message, so that each operation is a call of every provider."""
    path = tmp_path / "kmsbridge.toml"
    names = list(addresses)
    profile = {"encrypt_to": names, "decrypt_with": names, "data_keys": {"max_messages": 1}}
    path.write_text(configuration(addresses, {"default": profile}))
    return lambda: EnvelopeCipher.from_config(path, profile="default")


@pytest.fixture
def nothing_left():
    """Checks that a piece of work leaves no thread and no open file; what is made once per process may stay."""

    @contextlib.contextmanager
    def check():
        threads, files = set(threading.enumerate()), open_files()
        yield
        until = time.monotonic() + PATIENCE
        while (set(threading.enumerate()) - threads or open_files() > files) and time.monotonic() < until:
            time.sleep(0.01)  # what a library ends in the background
        assert [thread.name for thread in set(threading.enumerate()) - threads] == []
        assert open_files() <= files

    return check


def open_files():
    return len(os.listdir("/dev/fd"))


def works(cipher):
    assert cipher.decrypt(cipher.encrypt(b"payload", context=CONTEXT), context=CONTEXT) == b"payload"


def test_a_cipher_opened_before_a_fork_works_in_every_child(open_cipher):
    """One that was used as well as one that was not; in the parent too, during and after."""
    with open_cipher() as used, open_cipher() as unused:
        message = used.encrypt(b"payload", context=CONTEXT)

        def child():
            for cipher in (used, unused):
                assert cipher.decrypt(message, context=CONTEXT) == b"payload"
                works(cipher)

        children = [fork(child) for _ in range(CHILDREN)]
        works(used)
        finish(children)
        works(used)
        works(unused)


def test_a_closed_cipher_leaves_no_thread_and_no_file(open_cipher, nothing_left):
    """However often one is opened, used and closed."""
    with open_cipher() as cipher:
        works(cipher)
    with nothing_left():
        for _ in range(CALLS):
            with open_cipher() as cipher:
                cipher.encrypt(b"payload", context=CONTEXT)


@pytest.mark.parametrize("backend", HARNESSES)
def test_a_driver_that_made_no_call_leaves_nothing_at_all(backend, nothing_left):
    """A thousand of them, closed."""
    with contextlib.closing(harness(backend)) as service:
        address = service.address("first")
        uri = KeyURI.parse(address.uri)
        driver = registry.driver_class(uri.scheme)
        driver.open(uri, Options(address.options)).close()
        with nothing_left():
            for _ in range(CYCLES):
                driver.open(uri, Options(address.options)).close()
