"""The deadline is one for the whole operation, however many keys it takes."""

import time

import pytest

from kmsbridge import EnvelopeCipher, KmsError, KmsTimeout, KmsUnavailable
from kmsbridge import message as wire
from kmsbridge.message import Recipient
from tests.support import PATIENCE, on_threads, with_recipients

KEYS = 16
DEADLINE = 1.0
NAMES = [f"k{n}" for n in range(KEYS)]


@pytest.fixture
def open_with(service, tmp_path):
    """Opens a profile over sixteen keys whose service hangs at these operations."""

    def open_with(*hanging, encrypt_to=NAMES, decrypt_with=NAMES):
        keys = "".join(f'[keys.{name}]\nuri = "fake:{name}"\n' for name in NAMES)
        path = tmp_path / "kmsbridge.toml"
        path.write_text(
            f"{keys}[profiles.p]\nencrypt_to = {encrypt_to}\ndecrypt_with = {decrypt_with}\n"
            f'calls = {{ deadline = "{DEADLINE}s", attempt_timeout = "{DEADLINE}s" }}\n'
        )
        for name in NAMES:
            for operation in hanging:
                service.keys_by_name[name].delay(operation, 60)
        return EnvelopeCipher.from_config(path)

    service.keys_by_name = {name: service.create(name) for name in NAMES}
    return open_with


@pytest.fixture
def message(open_with, service, encrypt):
    with open_with() as cipher:
        return encrypt(cipher, b"x")


def seconds(call):
    """How long `call()` takes to fail because nobody answered."""
    start = time.monotonic()
    with pytest.raises((KmsTimeout, KmsUnavailable)):
        call()
    return time.monotonic() - start


OPERATIONS = {
    "encrypt": (("wrap",), lambda cipher, message: cipher.encrypt(b"x")),
    "decrypt": (("unwrap",), lambda cipher, message: cipher.decrypt(message)),
    "decrypt_many": (("unwrap", "unwrap_many"), lambda cipher, message: cipher.decrypt_many([message] * 3)),
    "rewrap": (("unwrap", "rewrap"), lambda cipher, message: cipher.rewrap(message)),
    "needs_rewrap": (("describe",), lambda cipher, message: cipher.needs_rewrap(message)),
}


@pytest.mark.parametrize("hanging, call", OPERATIONS.values(), ids=OPERATIONS)
def test_sixteen_keys_that_hang_take_no_longer_than_one(open_with, message, hanging, call):
    """About the deadline, and the error is told."""
    with open_with(*hanging) as cipher:
        assert seconds(lambda: call(cipher, message)) < 2.5 * DEADLINE


def test_the_last_of_sixteen_keys_is_tried_within_the_deadline(open_with, service, message):
    """Each that hangs before it gets its part of the time only."""
    with open_with("unwrap") as cipher:
        service.keys_by_name[NAMES[-1]].heal()
        assert cipher.decrypt(message) == b"x"


def test_who_waits_for_anothers_call_waits_no_longer_than_its_own_deadline(open_with, message):
    """Eight threads that want one data key."""
    with open_with("unwrap") as cipher:
        start = time.monotonic()
        outcomes = on_threads(8, lambda: cipher.decrypt(message))
        assert time.monotonic() - start < 3 * DEADLINE + PATIENCE / 10
    assert all(isinstance(outcome.error, KmsError) for outcome in outcomes)


def test_a_message_for_keys_that_are_not_ours_costs_no_time(open_with, message):
    """Sixteen recipients that nobody here can unwrap, beside one that somebody can."""
    strangers = (Recipient(f"fake:stranger-{n}", "1", b"x" * 100) for n in range(15))
    spliced = with_recipients(message, wire.parse(message).recipients[0], *strangers)
    with open_with() as cipher:
        start = time.monotonic()
        assert cipher.decrypt(spliced) == b"x"
        assert time.monotonic() - start < DEADLINE
