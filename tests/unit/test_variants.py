"""One message has endless valid headers: none of them costs a call, a place or a good data key."""

import pytest

from kmsbridge import AuthenticationError, EnvelopeCipher, KmsUnavailable
from kmsbridge import message as wire
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import cache as cache_module
from kmsbridge.datakeys import data_key_context, refusals
from kmsbridge.driver import ErrorKind
from kmsbridge.message import Header, Recipient
from tests.support import Clock

CONTEXT = {"tenant": "acme"}
VARIANTS = 1000


def with_header(message, *, recipients=None, label=None, padding=0):
    """The message with another header in front of its body: junk recipients, another label, padding."""
    old = wire.parse(message)
    ours = [
        Recipient(each.key_id, each.key_version if label is None else label, each.wrapped)
        for each in old.recipients
    ]
    new = wire.inline((*ours, *(recipients or ())))
    padded = Header(new.kind, new.length + padding, new.recipients)
    return padded.encode() + message[old.length :]


def junk(number, size=100):
    return Recipient(f"fake:junk-{number}", "1", number.to_bytes(4, "big") * (size // 4))


HEADERS = {
    "junk recipients": lambda message, n: with_header(message, recipients=[junk(n)]),
    "large junk recipients": lambda message, n: with_header(
        message, recipients=[junk(16 * n + each, 4000) for each in range(15)]
    ),
    "labels": lambda message, n: with_header(message, label=str(n)),
    "padding": lambda message, n: with_header(message, padding=n),
}


@pytest.fixture
def message(service):
    with EnvelopeCipher.from_uri("fake:app") as writer:
        return writer.encrypt(b"payload", context=CONTEXT)


def held(cipher):
    """Bytes that the cache says it holds."""
    return cipher._decryption.data_keys._cache._weight


@pytest.mark.parametrize("way", ("decrypt", "decrypt_many"))
@pytest.mark.parametrize("vary", HEADERS.values(), ids=HEADERS)
def test_a_thousand_variants_of_a_message_cost_one_unwrap_and_one_place(service, cipher, message, vary, way):
    """And no more memory than the largest header takes."""
    variants = [vary(message, n) for n in range(VARIANTS)]
    if way == "decrypt":
        plaintexts = [cipher.decrypt(variant, context=CONTEXT) for variant in variants]
    else:
        plaintexts = cipher.decrypt_many(variants, context=CONTEXT)
    assert plaintexts == [b"payload"] * VARIANTS
    assert service.app.calls["unwrap"] + service.app.calls["unwrap_many"] == 1
    assert len(cipher._decryption.data_keys._cache) == 1
    assert len(cipher._decryption.data_keys._cache._aliases) == 1
    assert held(cipher) < 2 * wire.MAX_HEADER


def test_variants_of_one_message_drop_no_other_data_key(service, message):
    """Though the cache is full of good ones."""
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_entries": 10}) as cipher:
        good = [cipher.encrypt(b"x", context={"n": str(n)}) for n in range(9)]
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
    with EnvelopeCipher.from_uri("fake:other", decrypt_uris=["fake:app"]) as mover:
        service.app.calls.clear()
        moved = {
            mover.rewrap(vary(message, n), context=CONTEXT) for vary in HEADERS.values() for n in range(10)
        }
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
    """Many data keys with large contexts: the oldest go."""
    monkeypatch.setattr(cache_module, "MAX_WEIGHT", 100_000)
    with EnvelopeCipher.from_uri("fake:app") as cipher:
        for n in range(200):
            context = {"n": str(n), "filler": "x" * 1000}
            cipher.decrypt(cipher.encrypt(b"x", context=context), context=context)
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
    header = wire.parse(message)
    short = header.recipients[0]._replace(wrapped=service.app.seal(bytes(31), context.canonical()))
    spliced = wire.inline((short,)).encode() + message[header.length :]
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
