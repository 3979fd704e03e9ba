"""Keys for one run of a program."""

import itertools
import os
import subprocess
import sys
import threading

import pytest

from kmsbridge import ConfigError, EnvelopeCipher, NoMatchingKey
from kmsbridge.doctor import check_keys
from kmsbridge.driver import KeyURI, Options
from kmsbridge.drivers.memory import MemoryDriver
from kmsbridge.drivers.memory import driver as module

_numbers = itertools.count(1)


@pytest.fixture
def uri():
    """A key that nothing else uses."""
    return f"memory:unit-{next(_numbers)}"


def test_all_ciphers_of_a_process_have_the_same_key(uri):
    """Closing one takes it from nobody."""
    with EnvelopeCipher.from_uri(uri) as cipher:
        message = cipher.encrypt(b"x", context={"tenant": "acme"}, aad=b"1")
    with EnvelopeCipher.from_uri(uri) as cipher:
        assert cipher.decrypt(message, context={"tenant": "acme"}, aad=b"1") == b"x"


def test_another_name_is_another_key(uri):
    with EnvelopeCipher.from_uri(uri) as cipher:
        message = cipher.encrypt(b"x")
    with EnvelopeCipher.from_uri(f"{uri}-other") as cipher, pytest.raises(NoMatchingKey):
        cipher.decrypt(message)


PROGRAM = """
import sys
from kmsbridge import EnvelopeCipher, NoMatchingKey
with EnvelopeCipher.from_uri("memory:jobs") as cipher:
    if len(sys.argv) == 1:
        print(cipher.encrypt_text("x"))
    else:
        try:
            cipher.decrypt_text(sys.argv[1])
        except NoMatchingKey:
            print("gone")
"""


def test_the_next_run_has_another_key():
    """Its id is another too, so that the error says which key is gone."""

    def run(*arguments):
        command = [sys.executable, "-c", PROGRAM, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    message = run()
    assert message.startswith("kmsb1_")
    assert run(message) == "gone"


def test_a_forked_child_has_the_keys_of_its_parent(uri):
    """It reads what the parent wrote, and the parent what it wrote."""
    with EnvelopeCipher.from_uri(uri) as cipher:
        message = cipher.encrypt(b"parent")
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            try:
                assert cipher.decrypt(message) == b"parent"
                with EnvelopeCipher.from_uri(uri) as own:
                    os.write(writing, own.encrypt(b"child"))
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, "rb") as file:
            answer = file.read()
        os.waitpid(child, 0)
        assert cipher.decrypt(answer) == b"child"


def test_threads_that_open_it_at_once_have_one_key(uri):
    opened = []
    gate = threading.Barrier(8)

    def open_it():
        gate.wait()
        opened.append(MemoryDriver.open(KeyURI.parse(uri), Options({})).resolve(timeout=1))

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(opened)) == 1


def test_its_key_shows_nowhere(uri):
    driver = MemoryDriver.open(KeyURI.parse(uri), Options({}))
    secret = module._keys[uri.removeprefix("memory:")].secret.reveal()
    shown = f"{driver!r} {vars(driver)!r} {module._keys!r}"
    assert secret.hex() not in shown
    assert repr(secret) not in shown


def test_it_is_for_production_and_doctor_finds_it_well(uri):
    """The data is lost at the end of the run, on purpose; the key is nowhere else."""
    with EnvelopeCipher.from_uri(uri, production=True) as cipher:
        report = check_keys(cipher._session.profile)
        assert report.ok
        (key,) = report.keys
        assert key.rotation == "a new key in each run of the program"


def test_there_are_no_policies(uri):
    with pytest.raises(ConfigError, match="no policies"):
        MemoryDriver.open(KeyURI.parse(uri), Options({})).policy("encryptor")


@pytest.mark.parametrize(
    "bad",
    (
        "memory:",
        "memory:a/b",
        "memory:-a",
        "memory:a#b",
        "memory:a?b=c",
        "memory://a/b",
        f"memory:{'a' * 129}",
    ),
)
def test_a_uri_that_is_none(bad):
    with pytest.raises(ConfigError):
        EnvelopeCipher.from_uri(bad)


def test_an_option_is_refused(uri):
    with pytest.raises(ConfigError, match="not an option"):
        EnvelopeCipher.from_uri(uri, passphrase="x")
