"""A data key's limits: age, messages, bytes, and how many are kept."""

import io

import pytest

from kmsbridge import Encryptor, EnvelopeCipher
from tests.support import Clock

MIB = 2**20


def open_with(clock=None, **policy):
    cipher = EnvelopeCipher.from_uri("fake:app", data_keys=policy)
    if clock is not None:
        cipher._encryption.data_keys._cache._clock = cipher._decryption.data_keys._cache._clock = clock
    return cipher


def test_one_message_for_each_data_key_is_one_call_for_each_message(service, encrypt):
    """`max_messages = 1`: nothing is shared or kept, on either side."""
    with open_with(max_messages=1) as cipher:
        messages = [encrypt(cipher, b"x") for _ in range(10)]
        for _ in range(2):
            assert [cipher.decrypt(message) for message in messages] == [b"x"] * 10
    assert service.app.calls == {"wrap": 10, "unwrap": 20}


def test_decrypt_many_keeps_nothing_where_nothing_is_shared(service, encrypt):
    """With `max_messages = 1` a batch leaves no data key behind for a later decrypt."""
    with open_with(max_messages=1) as cipher:
        message = encrypt(cipher, b"x")
        cipher.decrypt_many([message])
        cipher.decrypt(message)
    assert service.app.calls == {"wrap": 1, "unwrap_many": 1, "unwrap": 1}


def test_the_message_after_the_last_allowed_one_has_a_new_data_key(service, encrypt):
    """`max_messages` of each data key, no more and no fewer."""
    with open_with(max_messages=100) as cipher:
        for _ in range(250):
            encrypt(cipher, b"x")
    assert service.app.calls["wrap"] == 3


@pytest.mark.parametrize(("age", "wraps"), ((299.9, 1), (300.0, 2)), ids=("just before", "at the limit"))
def test_a_data_key_is_replaced_at_its_age(service, encrypt, age, wraps):
    """`max_age`, 5 minutes by default."""
    clock = Clock()
    with open_with(clock) as cipher:
        encrypt(cipher, b"x")
        clock.now += age
        encrypt(cipher, b"x")
    assert service.app.calls["wrap"] == wraps


def test_use_does_not_keep_a_data_key_young(service):
    """The age counts from when it was made."""
    clock = Clock()
    with open_with(clock, max_age=10.0) as cipher:
        for _ in range(40):
            cipher.encrypt(b"x")
            clock.now += 1
    assert service.app.calls["wrap"] == 4


def test_an_unwrapped_data_key_is_asked_for_again_at_its_age(service, encrypt):
    """A key that was disabled meanwhile is found out."""
    clock = Clock()
    with open_with(clock) as cipher:
        message = encrypt(cipher, b"x")
        for _ in range(3):
            cipher.decrypt(message)
        clock.now += 300
        cipher.decrypt(message)
    assert service.app.calls["unwrap"] == 2


@pytest.mark.parametrize(
    ("size", "messages"), ((MIB // 4 + 1, 4), (MIB // 32, 32)), ids=("chunked", "compact")
)
def test_bytes_count_against_the_data_key(service, size, messages):
    """`max_bytes`: the message that passes the limit still gets out, the next has a new data key."""
    with open_with(max_bytes=MIB) as cipher:
        for _ in range(2 * messages):
            cipher.encrypt(bytes(size))
    assert service.app.calls["wrap"] == 2


def test_files_and_streams_count_too(service, tmp_path):
    """Their lengths are known at the end only, and count all the same."""
    (tmp_path / "plain").write_bytes(bytes(MIB))
    with open_with(max_bytes=MIB) as cipher:
        cipher.encrypt_file(tmp_path / "plain", tmp_path / "sealed")
        cipher.encrypt_stream(io.BytesIO(bytes(MIB)), io.BytesIO())
        cipher.encrypt(b"x")
    assert service.app.calls["wrap"] == 3


def test_no_more_data_keys_are_kept_than_allowed(service):
    """`max_entries`: the one used least recently goes."""
    with open_with(max_entries=2) as cipher:
        for tenant in ("a", "b", "a", "c", "a"):
            cipher.encrypt(b"x", context={"tenant": tenant})
        assert service.app.calls["wrap"] == 3
        assert len(cipher._encryption.data_keys._cache) == 2
        cipher.encrypt(b"x", context={"tenant": "b"})
    assert service.app.calls["wrap"] == 4


def test_many_contexts_stay_within_the_bound(service):
    """3,000 tenants leave no more than `max_entries` data keys behind."""
    with open_with(max_entries=100) as cipher:
        for n in range(3_000):
            cipher.encrypt(b"x", context={"tenant": str(n)})
        assert len(cipher._encryption.data_keys._cache) == 100


def test_contexts_share_no_data_key(service):
    """Not even where one is a part of the other."""
    with Encryptor.from_uri("fake:app") as cipher:
        for context in (None, {"a": "b"}, {"a": "b", "c": "d"}, {"a": "d", "c": "b"}, {"b": "a"}):
            cipher.encrypt(b"x", context=context)
    assert service.app.calls["wrap"] == 5


def test_the_order_of_a_context_makes_no_difference(service, cipher, encrypt):
    """One context, one data key."""
    message = encrypt(cipher, b"x", context={"a": "1", "b": "2"})
    assert cipher.decrypt(message, context={"b": "2", "a": "1"}) == b"x"
    encrypt(cipher, b"x", context={"b": "2", "a": "1"})
    assert service.app.calls["wrap"] == 1
