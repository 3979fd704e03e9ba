"""A column at once: text and None where they stand, a context for each value, and few calls to the key service."""

import asyncio
import random

import pytest

from kmsbridge import (
    AuthenticationError,
    ConfigError,
    EnvelopeCipher,
    KmsAccessDenied,
    LimitExceeded,
    MalformedMessage,
    aio,
)
from kmsbridge import message as wire
from kmsbridge.driver import Capability, ErrorKind
from kmsbridge.message import compact
from kmsbridge.testing.fakes.fake import FakeDriver
from tests.support import install

TENANTS = [{"tenant": name} for name in ("a", "b", "c", "a", "b", "a")]
ORDER = [{"tenant": "a", "n": "1"}, {"n": "1", "tenant": "a"}]


@pytest.fixture
def mover(service):
    """Decrypts with app, encrypts to other."""
    with EnvelopeCipher.from_uri("fake:other", decrypt_uris=["fake:app"]) as mover:
        yield mover


@pytest.fixture
def single(service, monkeypatch):
    """The same keys behind a driver without batches and without rewrapping."""
    without = {Capability.BATCH_WRAP, Capability.BATCH_UNWRAP, Capability.SERVER_REWRAP}
    members = {
        "scheme": "single",
        "capabilities": FakeDriver.capabilities - without,
        "service": service,
    }
    install(monkeypatch, type("Single", (FakeDriver,), members))


# --- text and None ----------------------------------------------------------------------------------


def test_text_comes_back_as_text_and_none_as_none(cipher):
    """Bytes as bytes, in the order in which they stand."""
    column = ["", "+1 555 0100", None, b"bytes", "Łódź", bytearray(b"buffer"), memoryview(b"view"), None]
    messages = cipher.encrypt_many(column, context={"tenant": "a"})
    assert [type(each) for each in messages] == [str, str, type(None), bytes, str, bytes, bytes, type(None)]
    assert cipher.decrypt_many(messages, context={"tenant": "a"}) == [
        bytes(value) if isinstance(value, (bytearray, memoryview)) else value for value in column
    ]
    assert cipher.decrypt_text(messages[1], context={"tenant": "a"}) == "+1 555 0100"


def test_a_column_of_nothing_costs_no_call(service, cipher):
    """None alone has no data key."""
    for many in (cipher.encrypt_many, cipher.decrypt_many, cipher.rewrap_many):
        assert many([None, None], contexts=[{"a": "b"}, None]) == [None, None]
        assert many([]) == many([], contexts=[], aads=[]) == []
    assert not service.app.calls


def test_white_space_around_armored_text_is_ignored(cipher):
    """As in `decrypt_text`."""
    messages = [f" {each}\n" for each in cipher.encrypt_many(["x", "y"])]
    assert cipher.decrypt_many(messages) == ["x", "y"]


def test_damaged_text_and_a_payload_that_is_no_text_are_told_by_place(cipher):
    """And lose none of the others."""
    messages = cipher.encrypt_many(["x", "y", "z", b"\xff"])
    messages[1] = messages[1][:-3]
    messages[2] = "not armored"
    messages[3] = wire.armor(messages[3])
    results = cipher.decrypt_many(messages, errors="return")
    assert results[0] == "x"
    assert [type(each) for each in results[1:]] == [MalformedMessage] * 3
    assert [each.index for each in results[1:]] == [1, 2, 3]
    assert "not text" in str(results[3])
    with pytest.raises(MalformedMessage) as caught:
        cipher.decrypt_many(messages)
    assert caught.value.index == 1
    with pytest.raises(MalformedMessage) as caught:
        cipher.rewrap_many(messages)
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("column", "error", "told"),
    [
        ([b"x", 7], TypeError, r"plaintexts\[1\] must be bytes-like, not int"),
        (["x", "\ud800"], ValueError, r"plaintexts\[1\] has unpaired surrogates"),
        ([b"x", memoryview(b"abcd")[::2]], TypeError, r"plaintexts\[1\] must be a contiguous"),
    ],
)
def test_a_value_that_cannot_be_is_told_by_place(cipher, column, error, told):
    """Before anything is encrypted."""
    with pytest.raises(error, match=told) as caught:
        cipher.encrypt_many(column)
    assert "\ud800" not in str(caught.value)


# --- contexts ---------------------------------------------------------------------------------------


def test_each_value_has_its_own_context_and_each_context_one_data_key(service, cipher):
    """Three contexts among six values: one batch to wrap, one to unwrap."""
    column = [f"value {n}" for n in range(6)]
    messages = cipher.encrypt_many(column, contexts=TENANTS, aads=[(n,) for n in range(6)])
    assert service.app.calls == {"wrap_many": 1}
    assert cipher.decrypt_many(messages, contexts=TENANTS, aads=[(n,) for n in range(6)]) == column
    assert service.app.calls == {"wrap_many": 1, "unwrap_many": 1}
    for n, (message, context) in enumerate(zip(messages, TENANTS, strict=True)):
        assert cipher.decrypt_text(message, context=context, aad=(n,)) == column[n]
    commitments = [wire.parse(wire.dearmor(message)).commitment for message in messages]
    assert [commitments.index(each) for each in commitments] == [0, 1, 2, 0, 1, 0]
    assert service.app.calls == {"wrap_many": 1, "unwrap_many": 1}


def test_the_order_of_pairs_makes_no_other_context(service, cipher):
    """One data key for both."""
    messages = cipher.encrypt_many([b"1", b"2"], contexts=ORDER)
    assert cipher.decrypt_many(messages, contexts=ORDER[::-1]) == [b"1", b"2"]
    assert service.app.calls == {"wrap": 1, "unwrap_many": 1}


def test_a_service_without_batches_is_called_once_for_each_context(service, single):
    """To wrap and to unwrap."""
    with EnvelopeCipher.from_uri("single:app") as cipher:
        messages = cipher.encrypt_many([b"x"] * 6, contexts=TENANTS)
        assert cipher.decrypt_many(messages, contexts=TENANTS) == [b"x"] * 6
    assert service.app.calls == {"wrap": 3, "unwrap": 3}


@pytest.mark.parametrize("warm", (False, True))
def test_a_value_is_never_decrypted_in_another_s_context(cipher, warm):
    """Cold and warm."""
    messages = cipher.encrypt_many([b"a", b"b", b"c", b"a", b"b", b"a"], contexts=TENANTS)
    if warm:
        cipher.decrypt_many(messages, contexts=TENANTS)
    moved = [messages[1], messages[0], *messages[2:]]
    results = cipher.decrypt_many(moved, contexts=TENANTS, errors="return")
    assert [type(each) for each in results[:2]] == [AuthenticationError] * 2
    assert results[2:] == [b"c", b"a", b"b", b"a"]
    with pytest.raises(AuthenticationError) as caught:
        cipher.decrypt_many(moved, contexts=TENANTS)
    assert caught.value.index == 0


@pytest.mark.parametrize("name", ("encrypt_many", "decrypt_many", "rewrap_many"))
@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        ({"context": {"a": "b"}, "contexts": [None] * 3}, TypeError, "not both"),
        ({"contexts": [None] * 2}, TypeError, "a sequence of 3"),
        ({"contexts": {"a": "b", "c": "d", "e": "f"}}, TypeError, "a sequence of 3"),
        ({"contexts": [None, {"a": 7}, None]}, TypeError, r"contexts\[1\]: context must map str to str"),
        ({"contexts": [None, ["a"], None]}, TypeError, r"contexts\[1\]: context must be a mapping"),
        ({"contexts": [None, None, {"": "x"}]}, ConfigError, "empty name"),
        ({"contexts": [None, {"a": "x" * 5000}, None]}, LimitExceeded, "4096"),
    ],
)
def test_contexts_that_cannot_be_are_told_by_place(cipher, name, arguments, error, told):
    """Whatever is done with the values."""
    with pytest.raises(error, match=told) as caught:
        getattr(cipher, name)(cipher.encrypt_many([b"x"] * 3), **arguments)
    if error is not TypeError:
        assert caught.value.index == next(n for n, each in enumerate(arguments["contexts"]) if each)


def test_a_context_whose_data_key_cannot_be_wrapped_is_told_by_its_first_value(service, cipher):
    """All or none."""
    service.app.fail("wrap_many", ErrorKind.ACCESS_DENIED)
    service.app.fail("wrap", ErrorKind.ACCESS_DENIED)
    with EnvelopeCipher.from_uri("fake:app", calls={"max_attempts": 1}) as refused:
        with pytest.raises(KmsAccessDenied) as caught:
            refused.encrypt_many([None, b"x", b"y"], contexts=[None, {"n": "1"}, {"n": "2"}])
        assert caught.value.index == 1


def test_a_refusal_is_recorded_with_the_context_of_its_value(cipher, caplog):
    """Not with none, and not with the first one's."""
    caplog.set_level("INFO", "kmsbridge.audit")
    messages = cipher.encrypt_many([b"a", b"b"], contexts=TENANTS[:2])
    with pytest.raises(AuthenticationError):
        cipher.decrypt_many([messages[0], messages[0]], contexts=TENANTS[:2])
    events = [each.kmsbridge for each in caplog.records if each.kmsbridge["operation"] == "refusal"]
    assert [event["context"] for event in events] == [{"tenant": "b"}]


# --- allowances -------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", ({"max_messages": 3}, {"max_bytes": 30}))
def test_a_data_key_that_is_used_up_within_a_column_is_replaced(service, settings):
    """Ten messages of ten bytes, three for each data key."""
    with EnvelopeCipher.from_uri("fake:app", data_keys=settings) as cipher:
        messages = cipher.encrypt_many([b"0123456789"] * 10)
        assert cipher.decrypt_many(messages) == [b"0123456789"] * 10
    used = [wire.parse(message).commitment for message in messages]
    assert [used.count(each) for each in dict.fromkeys(used)] == [3, 3, 3, 1]


def test_a_data_key_for_each_message_is_one_for_each_value(service):
    """`max_messages = 1`, which takes one batch nevertheless."""
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_messages": 1}) as cipher:
        messages = cipher.encrypt_many([b"x"] * 50)
        assert len({wire.parse(message).commitment for message in messages}) == 50
        assert cipher.decrypt_many(messages) == [b"x"] * 50
        assert cipher.decrypt_many(cipher.rewrap_many(messages)) == [b"x"] * 50
    assert service.app.calls["wrap_many"] == 1


def test_more_contexts_than_a_cache_holds_take_no_more_calls(service):
    """Nothing is asked for twice because it was dropped meanwhile."""
    contexts = [{"n": str(n % 20)} for n in range(100)]
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_entries": 5}) as cipher:
        messages = cipher.encrypt_many([b"x"] * 100, contexts=contexts)
        assert service.app.calls == {"wrap_many": 1}
        assert cipher.decrypt_many(messages, contexts=contexts) == [b"x"] * 100
        assert service.app.calls == {"wrap_many": 1, "unwrap_many": 1}


def test_large_values_are_chunked_among_small_ones(cipher):
    """Each as `encrypt` would make it."""
    column = [b"x", bytes(compact.MAX_PAYLOAD), bytes(compact.MAX_PAYLOAD + 1), b""]
    messages = cipher.encrypt_many(column)
    assert [wire.parse(message).kind for message in messages] == [3, 3, 0, 3]
    assert cipher.decrypt_many(messages) == column


def test_all_nonces_of_a_column_differ(cipher):
    """They are drawn at once."""
    messages = cipher.encrypt_many([b"x"] * 5000)
    start = wire.parse(messages[0]).length
    assert len({message[start : start + 24] for message in messages}) == 5000
    assert len({message[start : start + 12] for message in messages}) == 1


def test_direct_payloads_have_contexts_too(service):
    """Each is wrapped by a call, in its own."""
    with EnvelopeCipher.from_uri("fake:app", direct=True) as direct:
        messages = direct.encrypt_many(["a", None, b"c"], contexts=TENANTS[:3], aads=[b"1", b"2", b"3"])
        assert direct.decrypt_many(messages, contexts=TENANTS[:3], aads=[b"1", b"2", b"3"]) == [
            "a",
            None,
            b"c",
        ]
        again = direct.rewrap_many(messages, contexts=TENANTS[:3], aads=[b"1", b"2", b"3"])
        assert direct.decrypt_many(again, contexts=TENANTS[:3], aads=[b"1", b"2", b"3"]) == ["a", None, b"c"]
        with pytest.raises(AuthenticationError) as caught:
            direct.decrypt_many(messages, contexts=TENANTS[3:], aads=[b"1", b"2", b"3"])
        assert caught.value.index == 2


# --- rewrapping -------------------------------------------------------------------------------------


def test_a_column_is_rewrapped_with_one_call_for_each_data_key(service, mover):
    """By the service itself where it can."""
    with EnvelopeCipher.from_uri("fake:app") as writer:
        messages = writer.encrypt_many(["x", None, b"y", "z"] * 25, contexts=(TENANTS * 17)[:100])
    service.other.calls.clear()
    service.app.calls.clear()
    moved = mover.rewrap_many(messages, contexts=(TENANTS * 17)[:100])
    assert mover.decrypt_many(moved, contexts=(TENANTS * 17)[:100]) == ["x", None, b"y", "z"] * 25
    assert service.other.calls["rewrap"] + service.other.calls["wrap_many"] + service.other.calls["wrap"] <= 3
    assert [type(each) for each in moved] == [type(each) for each in messages]
    assert {each.key_id for each in wire.parse(moved[2]).recipients} == {"fake:other"}


@pytest.mark.parametrize("scheme", ("fake", "single"))
def test_a_column_is_moved_by_unwrapping_once_and_wrapping_once(service, single, monkeypatch, scheme):
    """In batches where the service has them, else by a call for each data key."""
    no_rewrap = FakeDriver.capabilities - {Capability.SERVER_REWRAP}
    members = {"scheme": "fake", "capabilities": no_rewrap, "service": service}
    install(monkeypatch, type("NoRewrap", (FakeDriver,), members))
    with EnvelopeCipher.from_uri(f"{scheme}:app") as writer:
        messages = writer.encrypt_many([b"x"] * 60, contexts=TENANTS * 10)
    service.app.calls.clear()
    with EnvelopeCipher.from_uri(f"{scheme}:other", decrypt_uris=[f"{scheme}:app"]) as mover:
        moved = mover.rewrap_many(messages, contexts=TENANTS * 10)
        assert (service.app.calls, service.other.calls) == (
            ({"unwrap_many": 1}, {"wrap_many": 1, "describe": 1})
            if scheme == "fake"
            else ({"unwrap": 3}, {"wrap": 3, "describe": 1})
        )
        for old, new in zip(messages, moved, strict=True):
            before, after = wire.parse(old), wire.parse(new)
            assert (before.kind, before.commitment) == (after.kind, after.commitment)
            assert old[before.length :] == new[after.length :]
        assert mover.rewrap_many(messages, contexts=TENANTS * 10) == moved
        assert mover.rewrap(messages[0], context=TENANTS[0]) == moved[0]


def test_rewrapping_a_column_is_all_or_none(service, mover):
    """The error has the place of the message that cannot be."""
    with EnvelopeCipher.from_uri("fake:app") as writer:
        messages = writer.encrypt_many([b"x"] * 6, contexts=TENANTS)
    wrong = [*TENANTS[:4], {"tenant": "wrong"}, TENANTS[5]]
    with pytest.raises(AuthenticationError) as caught:
        mover.rewrap_many(messages, contexts=wrong)
    assert caught.value.index == 4
    with pytest.raises(MalformedMessage) as caught:
        mover.rewrap_many([messages[0], b"", messages[1]], contexts=TENANTS[:3])
    assert caught.value.index == 1


# --- the same as one by one ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_column_gives_what_its_values_give_one_by_one(service, seed):
    """Random columns, some of them damaged: each outcome is that of `decrypt` alone, cold and warm."""
    rng = random.Random(seed)
    contexts = [rng.choice([None, {"t": "a"}, {"t": "b"}, {"t": "a", "u": "b"}]) for _ in range(60)]
    aads = [rng.choice([b"", b"x", ("users", 7)]) for _ in range(60)]
    values = [rng.choice([None, "text", b"bytes", rng.randbytes(20), bytes(70_000)]) for _ in range(60)]
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_messages": 7}) as writer:
        messages = writer.encrypt_many(values, contexts=contexts, aads=aads)
    for n in rng.sample(range(60), 20):
        if isinstance(messages[n], bytes):
            at = rng.randrange(len(messages[n]))
            messages[n] = messages[n][:at] + bytes((messages[n][at] ^ 1,)) + messages[n][at + 1 :]
    with EnvelopeCipher.from_uri("fake:app") as one, EnvelopeCipher.from_uri("fake:app") as many:
        expected = [
            outcome(one, message, context, aad)
            for message, context, aad in zip(messages, contexts, aads, strict=True)
        ]
        for _ in range(2):
            results = many.decrypt_many(messages, contexts=contexts, aads=aads, errors="return")
            assert [type(each) if isinstance(each, Exception) else each for each in results] == expected


def outcome(cipher, message, context, aad):
    """A plaintext, or the class of an error."""
    if message is None:
        return None
    decrypt = cipher.decrypt_text if isinstance(message, str) else cipher.decrypt
    try:
        return decrypt(message, context=context, aad=aad)
    except Exception as error:  # noqa: BLE001 - whatever it is
        return type(error)


def test_asyncio_takes_columns_too(service):
    """The same methods, on a thread."""

    async def main():
        async with aio.EnvelopeCipher.from_uri("fake:app") as cipher:
            messages = await cipher.encrypt_many(["x", None, b"y"], contexts=TENANTS[:3])
            moved = await cipher.rewrap_many(messages, contexts=TENANTS[:3])
            return await cipher.decrypt_many(moved, contexts=TENANTS[:3])

    assert asyncio.run(main()) == ["x", None, b"y"]
