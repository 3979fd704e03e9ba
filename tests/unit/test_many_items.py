"""An error of an operation on many says which item it is about."""

import pickle

import pytest

from kmsbridge import (
    AuthenticationError,
    EnvelopeCipher,
    KmsAccessDenied,
    LimitExceeded,
    MalformedMessage,
)
from kmsbridge.driver import ErrorKind


@pytest.fixture
def messages(cipher, encrypt):
    return [encrypt(cipher, b"%d" % n) for n in range(5)]


def damaged(message):
    return message[:-1] + bytes((message[-1] ^ 1,))


@pytest.mark.parametrize(
    "bad", (damaged, lambda message: b"none", lambda message: b""), ids=("damaged", "none", "empty")
)
def test_the_first_bad_message_is_named(cipher, messages, bad):
    """By its place, in `index` and in a note."""
    messages[3] = bad(messages[3])
    messages[4] = bad(messages[4])
    with pytest.raises((AuthenticationError, MalformedMessage)) as caught:
        cipher.decrypt_many(messages)
    assert caught.value.index == 3
    assert caught.value.__notes__ == ["item 3, counted from 0"]
    assert pickle.loads(pickle.dumps(caught.value)).index == 3


def test_each_returned_error_names_its_own_message(service, messages):
    """Though one refused call is the cause of all."""
    service.app.fail("unwrap", ErrorKind.ACCESS_DENIED)
    service.app.fail("unwrap_many", ErrorKind.ACCESS_DENIED)
    with EnvelopeCipher.from_uri("fake:app", calls={"max_attempts": 1}) as reader:
        results = reader.decrypt_many([*messages, b"none"], errors="return")
    assert [type(result) for result in results] == [KmsAccessDenied] * 5 + [MalformedMessage]
    assert [result.index for result in results] == list(range(6))
    assert len({id(result) for result in results}) == 6
    assert service.app.calls["unwrap"] + service.app.calls["unwrap_many"] == 1


def test_a_plaintext_that_is_too_large_is_named(service):
    """For a key service that wraps the payload itself."""
    with EnvelopeCipher.from_uri("fake:app", direct=True) as direct, pytest.raises(LimitExceeded) as caught:
        direct.encrypt_many([b"x", b"x", bytes(2**16)])
    assert caught.value.index == 2


def test_an_error_about_one_thing_has_no_index(cipher, messages):
    """Nor a note."""
    with pytest.raises(AuthenticationError) as caught:
        cipher.decrypt(damaged(messages[0]))
    assert caught.value.index is None
    assert not hasattr(caught.value, "__notes__")
