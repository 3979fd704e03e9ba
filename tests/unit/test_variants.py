"""One message has endless valid headers: none of them costs a call, a place or a good data key."""

import pytest

from kmsbridge import AuthenticationError, EnvelopeCipher, KmsUnavailable
from kmsbridge import message as wire
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import cache as cache_module
from kmsbridge.datakeys import data_key_context, refusals
from kmsbridge.driver import ErrorKind
from kmsbridge.message import Recipient
from tests.support import BODIES, COMPACT, Clock, encrypt_chunked, parts, with_recipients

CONTEXT = {"tenant": "acme"}
VARIANTS = 1000


def with_junk(message, *junk):
    """The message with more recipients behind its own."""
    return with_recipients(message, *wire.parse(message).recipients, *junk)


def with_label(message, label):
    """The message with another version of its recipients' keys."""
    ours = wire.parse(message).recipients
    return with_recipients(message, *(each._replace(key_version=label) for each in ours))


def with_padding(message, padding):
    """The message with so many zero bytes behind its header's content."""
    header = wire.parse(message)
    return header._replace(length=header.length + padding).encode() + parts(message)[1]


def with_commitment(message, number):
    """The message with another commitment, or with its own where `number` is 0."""
    header = wire.parse(message)
    changed = int.from_bytes(header.commitment, "big") ^ number
    return header._replace(commitment=changed.to_bytes(32, "big")).encode() + parts(message)[1]


def junk(number, size=100):
    return Recipient(f"fake:junk-{number}", "1", number.to_bytes(4, "big") * (size // 4))


HEADERS = {
    "junk recipients": lambda message, n: with_junk(message, junk(n)),
    "large junk recipients": lambda message, n: with_junk(
        message, *(junk(16 * n + each, 4000) for each in range(15))
    ),
    "labels": lambda message, n: with_label(message, str(n)),
}


@pytest.fixture
def message(service, encrypt):
    with EnvelopeCipher.from_uri("fake:app") as writer:
        return encrypt(writer, b"payload", context=CONTEXT)


def held(cipher):
    """Bytes that the cache says it holds."""
    return cipher._decryption.data_keys._cache._weight


WAYS = {
    "decrypt": lambda cipher, messages: [cipher.decrypt(each, context=CONTEXT) for each in messages],
    "decrypt_many": lambda cipher, messages: cipher.decrypt_many(messages, context=CONTEXT),
}


def assert_one_unwrap_and_one_place(service, cipher):
    """And no more memory than the largest header takes."""
    assert service.app.calls["unwrap"] + service.app.calls["unwrap_many"] == 1
    assert len(cipher._decryption.data_keys._cache) == 1
    assert len(cipher._decryption.data_keys._cache._aliases) == 1
    assert held(cipher) < 2 * wire.MAX_HEADER


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("vary", HEADERS.values(), ids=HEADERS)
def test_a_thousand_variants_of_a_message_cost_one_unwrap_and_one_place(service, cipher, message, vary, way):
    """Whatever surrounds the wrapped data key."""
    assert way(cipher, [vary(message, n) for n in range(VARIANTS)]) == [b"payload"] * VARIANTS
    assert_one_unwrap_and_one_place(service, cipher)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_thousand_paddings_of_a_message_cost_one_unwrap_and_one_place(service, cipher, way):
    """Which only headers before a chunked body have."""
    with EnvelopeCipher.from_uri("fake:app") as writer:
        message = encrypt_chunked(writer, b"payload", context=CONTEXT)
    variants = [with_padding(message, n) for n in range(VARIANTS)]
    assert way(cipher, variants) == [b"payload"] * VARIANTS
    assert_one_unwrap_and_one_place(service, cipher)


@COMPACT
@pytest.mark.parametrize("way", WAYS, ids=WAYS)
def test_a_thousand_changed_commitments_are_refused_and_cost_one_unwrap_and_one_place(
    service, cipher, message, way
):
    """The data key is unwrapped to be held against them; the true one is accepted before, between and after."""
    false = [with_commitment(message, n) for n in range(1, VARIANTS)]
    if way == "decrypt":
        for variant in (*false, *false[:10]):
            with pytest.raises(AuthenticationError):
                cipher.decrypt(variant, context=CONTEXT)
            assert len(cipher._decryption.data_keys._cache._aliases) <= 1
            if variant is false[VARIANTS // 2]:
                assert cipher.decrypt(message, context=CONTEXT) == b"payload"
    else:
        results = cipher.decrypt_many([message, *false, message], context=CONTEXT, errors="return")
        assert [type(each) for each in results[1:-1]] == [AuthenticationError] * len(false)
        assert results[0] == results[-1] == b"payload"
    assert cipher.decrypt(message, context=CONTEXT) == b"payload"
    assert_one_unwrap_and_one_place(service, cipher)


def test_both_formats_of_body_share_a_data_key_and_each_has_an_alias(service, cipher):
    """Two headers of one data key, used in turn, do not push each other out."""
    with EnvelopeCipher.from_uri("fake:app") as writer:
        pair = [write(writer, b"payload", context=CONTEXT) for write in BODIES.values()]
    assert [cipher.decrypt(each, context=CONTEXT) for each in pair * 3] == [b"payload"] * 6
    assert service.app.calls["unwrap"] == 1
    assert len(cipher._decryption.data_keys._cache) == 1
    assert len(cipher._decryption.data_keys._cache._aliases) == 2
    assert held(cipher) < 2 * wire.MAX_HEADER
    cipher._decryption.data_keys._cache.close()
    assert held(cipher) == 0


def test_variants_of_one_message_drop_no_other_data_key(service, encrypt, message):
    """Though the cache is full of good ones."""
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_entries": 10}) as cipher:
        good = [encrypt(cipher, b"x", context={"n": str(n)}) for n in range(9)]
        for n, each in enumerate(good):
            cipher.decrypt(each, context={"n": str(n)})
        for n in range(VARIANTS):
            cipher.decrypt(HEADERS["junk recipients"](message, n), context=CONTEXT)
        service.app.calls.clear()
        for n, each in enumerate(good):
            assert cipher.decrypt(each, context={"n": str(n)}) == b"x"
        assert not service.app.calls


def test_variants_of_one_message_are_rewrapped_by_one_call(service, message):
    """The new header is the same for all."""
    changes = [*HEADERS.values(), *([with_padding] if wire.parse(message).layout.padded else [])]
    with EnvelopeCipher.from_uri("fake:other", decrypt_uris=["fake:app"]) as mover:
        service.app.calls.clear()
        moved = {mover.rewrap(vary(message, n), context=CONTEXT) for vary in changes for n in range(10)}
        assert service.app.calls["unwrap"] == 1
        assert {mover.decrypt(each, context=CONTEXT) for each in moved} == {b"payload"}


def test_a_header_is_no_alias_before_a_body_opened_by_it(cipher, message):
    """A changed body leaves nothing behind that would save checking the next one."""
    damaged = message[:-1] + bytes((message[-1] ^ 1,))
    with pytest.raises(AuthenticationError):
        cipher.decrypt(damaged, context=CONTEXT)
    assert not cipher._decryption.data_keys._cache._aliases
    assert cipher.decrypt(message, context=CONTEXT) == b"payload"
    assert len(cipher._decryption.data_keys._cache._aliases) == 1


def test_what_the_cache_holds_is_bounded_in_bytes(monkeypatch, service):
    """Many data keys with large contexts, used by both formats of body: the oldest go."""
    monkeypatch.setattr(cache_module, "MAX_WEIGHT", 100_000)
    with EnvelopeCipher.from_uri("fake:app") as cipher:
        for n in range(200):
            context = {"n": str(n), "filler": "x" * 1000}
            for write in BODIES.values():
                cipher.decrypt(write(cipher, b"x", context=context), context=context)
            assert held(cipher) <= 100_000
            assert cipher._encryption.data_keys._cache._weight <= 100_000
        assert 1 < len(cipher._decryption.data_keys._cache) < 100
        cipher._decryption.data_keys._cache.close()
        assert held(cipher) == 0


def test_a_wrapped_key_that_was_called_not_authentic_is_not_asked_for_again_at_once(service, cipher, message):
    """The service gets one call for a thousand tries, and another when some seconds have passed."""
    clock = Clock()
    cipher._decryption.data_keys.refusals._clock = clock
    for _ in range(VARIANTS):
        with pytest.raises(AuthenticationError):
            cipher.decrypt(message, context={"tenant": "another"})
    assert service.app.calls["unwrap"] == 1
    clock.now += refusals.SECONDS
    with pytest.raises(AuthenticationError):
        cipher.decrypt(message, context={"tenant": "another"})
    assert service.app.calls["unwrap"] == 2


def test_batches_remember_refusals_too(service, cipher, message):
    """One batch for a hundred `decrypt_many` of the same, and none after another call found it out."""
    for _ in range(100):
        with pytest.raises(AuthenticationError):
            cipher.decrypt_many([message, message], context={"tenant": "another"})
    assert service.app.calls["unwrap"] + service.app.calls["unwrap_many"] <= 1
    with pytest.raises(AuthenticationError):
        cipher.decrypt(message, context={"tenant": "another"})
    assert service.app.calls["unwrap"] + service.app.calls["unwrap_many"] <= 1


def test_what_is_no_data_key_is_asked_for_again(service, cipher, message):
    """The service called it authentic, so nothing is remembered of it."""
    context = data_key_context(EncryptionContext.of(CONTEXT))
    (ours,) = wire.parse(message).recipients
    short = ours._replace(wrapped=service.app.seal(bytes(31), context.canonical()))
    spliced = with_recipients(message, short)
    for _ in range(3):
        with pytest.raises(AuthenticationError):
            cipher.decrypt(spliced, context=CONTEXT)
    assert service.app.calls["unwrap"] == 3


@pytest.mark.parametrize(
    "kind",
    [kind for kind in ErrorKind if kind not in (ErrorKind.NOT_AUTHENTIC, ErrorKind.THROTTLED)],
    ids=lambda kind: kind.name,
)
def test_no_other_failure_is_remembered(service, message, kind):
    """What could or would not be answered may be answered the next time."""
    with EnvelopeCipher.from_uri("fake:app", calls={"max_attempts": 1}) as cipher:
        service.app.fail("unwrap", kind, times=1)
        with pytest.raises(Exception):  # noqa: B017, PT011 - each kind has a class of its own
            cipher.decrypt(message, context=CONTEXT)
        assert cipher.decrypt(message, context=CONTEXT) == b"payload"


def test_refusals_are_bounded_in_number(service, cipher, message):
    """The oldest are forgotten."""
    for n in range(3 * refusals.MOST):
        cipher._decryption.data_keys.refusals.add(n)
    assert len(cipher._decryption.data_keys.refusals._until) <= refusals.MOST


def test_a_data_key_at_hand_is_used_for_its_own_context_only(service, cipher, message):
    """Whatever was decrypted before."""
    assert cipher.decrypt(message, context=CONTEXT) == b"payload"
    for context in ({"tenant": "another"}, {}, None, {**CONTEXT, "more": "x"}):
        with pytest.raises(AuthenticationError):
            cipher.decrypt(message, context=context)


def test_an_outage_does_not_hide_behind_a_refusal(service, cipher, message):
    """A service that is down is told as such, also after it refused another message."""
    with pytest.raises(AuthenticationError):
        cipher.decrypt(message, context={"tenant": "another"})
    service.app.fail("unwrap", ErrorKind.UNAVAILABLE)
    with pytest.raises(KmsUnavailable):
        cipher.decrypt(message, context=CONTEXT)
