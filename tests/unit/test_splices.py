"""Recipients of several messages put together: whoever writes the storage can do that."""

import asyncio

import pytest

from kmsbridge import AuthenticationError, EnvelopeCipher, KmsUnavailable, aio
from kmsbridge import message as wire
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import data_key_context
from kmsbridge.driver import ErrorKind

CONTEXT = {"tenant": "acme"}
AAD = b"users/42"


@pytest.fixture
def both(service):
    """Decrypts with app, then other; encrypts to other."""
    with EnvelopeCipher.from_uri("fake:other", decrypt_uris=["fake:app"]) as cipher:
        yield cipher


def written(uri, payload, aad=AAD):
    with EnvelopeCipher.from_uri(uri) as writer:
        return writer.encrypt(payload, context=CONTEXT, aad=aad)


def spliced(body_of, *headers_of):
    """The body of one message behind the recipients of these."""
    recipients = [recipient for message in headers_of for recipient in wire.parse(message).recipients]
    start = wire.parse(body_of).length
    return wire.inline(tuple(recipients)).encode() + body_of[start:]


@pytest.fixture
def wrong_first(service):
    """app's recipient holds another data key; other's is sound."""
    sound = written("fake:other", b"payload")
    return spliced(sound, written("fake:app", b"decoy"), sound)


def opened_file(cipher, message, path):
    path.write_bytes(message)
    cipher.decrypt_file(path, path.with_suffix(".plain"), context=CONTEXT, aad=AAD)
    return path.with_suffix(".plain").read_bytes()


def read_at_random(cipher, message, path):
    path.write_bytes(message)
    with cipher.open(path, context=CONTEXT, aad=AAD) as file:
        return file.read()


WAYS = {
    "decrypt": lambda c, m, path: c.decrypt(m, context=CONTEXT, aad=AAD),
    "decrypt_many": lambda c, m, path: c.decrypt_many([m], context=CONTEXT, aads=[AAD])[0],
    "decrypt_file": opened_file,
    "open": read_at_random,
}


@pytest.mark.parametrize("first", ("wrong", "not authentic", "short"))
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_sound_recipient_is_tried_after_one_that_is_not(service, both, tmp_path, way, first):
    """Whether the first holds another data key, is damaged, or holds something that is no data key."""
    sound = written("fake:other", b"payload")
    (decoy,) = wire.parse(written("fake:app", b"decoy")).recipients
    if first == "not authentic":
        decoy = decoy._replace(wrapped=decoy.wrapped[:-1] + bytes((decoy.wrapped[-1] ^ 1,)))
    if first == "short":
        context = data_key_context(EncryptionContext.of(CONTEXT))
        decoy = decoy._replace(wrapped=service.app.seal(bytes(31), context.canonical()))
    header = wire.inline((decoy, *wire.parse(sound).recipients))
    message = header.encode() + sound[wire.parse(sound).length :]
    for _ in range(2):  # cold and warm
        assert way(both, message, tmp_path / "message") == b"payload"


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_no_recipient_fits_is_refused_cold_and_warm(both, tmp_path, way):
    """Each of two holds a data key, and neither is the body's."""
    message = spliced(
        written("fake:app", b"body"), written("fake:app", b"decoy"), written("fake:other", b"decoy")
    )
    for _ in range(2):
        with pytest.raises(AuthenticationError):
            way(both, message, tmp_path / "message")


def test_asyncio_tries_the_second_recipient_too(service, wrong_first):
    """Cold and warm."""

    async def main():
        async with aio.EnvelopeCipher.from_uri("fake:other", decrypt_uris=["fake:app"]) as cipher:
            return [await cipher.decrypt(wrong_first, context=CONTEXT, aad=AAD) for _ in range(2)]

    assert asyncio.run(main()) == [b"payload"] * 2


def test_one_header_before_two_bodies_opens_both_whatever_came_first(service, both):
    """A header that leads to two data keys: what is cached never decides what is accepted."""
    for_app, for_other = written("fake:app", b"for app"), written("fake:other", b"for other")
    first, second = spliced(for_app, for_app, for_other), spliced(for_other, for_app, for_other)
    for message, payload in ((first, b"for app"), (second, b"for other"), (first, b"for app")):
        assert both.decrypt(message, context=CONTEXT, aad=AAD) == payload
    assert both.decrypt_many([second, first], context=CONTEXT, aads=[AAD] * 2) == [b"for other", b"for app"]


# --- rewrapping -------------------------------------------------------------------------------------


@pytest.fixture
def mover(service):
    """Decrypts with app and other, encrypts to new."""
    service.create("new")
    with EnvelopeCipher.from_uri("fake:new", decrypt_uris=["fake:app", "fake:other"]) as cipher:
        yield cipher


def test_rewrapping_takes_the_data_key_that_fits_the_body(mover, wrong_first):
    """The aad tells which."""
    moved = mover.rewrap(wrong_first, context=CONTEXT, aad=AAD)
    assert mover.decrypt(moved, context=CONTEXT, aad=AAD) == b"payload"


def test_without_the_aad_recipients_that_disagree_are_refused(mover, wrong_first):
    """Keeping the wrong data key would make the message unreadable; the error says what to do."""
    with pytest.raises(AuthenticationError, match="pass the aad"):
        mover.rewrap(wrong_first, context=CONTEXT)


def test_without_the_aad_recipients_that_agree_are_rewrapped(service, mover):
    """As any message that was written to both."""
    with EnvelopeCipher.from_uri("fake:other") as writer:
        message = writer.encrypt(b"payload", context=CONTEXT, aad=AAD)
    with EnvelopeCipher.from_uri("fake:app", decrypt_uris=["fake:other"]) as once:
        other = wire.parse(once.rewrap(message, context=CONTEXT, aad=AAD))
    two = spliced(message, message, other.encode() + message[wire.parse(message).length :])
    moved = mover.rewrap(two, context=CONTEXT)
    assert mover.decrypt(moved, context=CONTEXT, aad=AAD) == b"payload"


def test_without_the_aad_nothing_is_given_up_while_a_service_is_down(service, wrong_first):
    """The recipient that could not be asked may be the only sound one."""
    service.create("new")
    with EnvelopeCipher.from_uri(
        "fake:new", decrypt_uris=["fake:app", "fake:other"], calls={"max_attempts": 1}
    ) as mover:
        service.other.fail("unwrap", ErrorKind.UNAVAILABLE)
        with pytest.raises(KmsUnavailable):
            mover.rewrap(wrong_first, context=CONTEXT)


def test_a_file_is_rewrapped_by_the_data_key_that_fits(mover, wrong_first, tmp_path):
    """And left alone where that is not known."""
    path = tmp_path / "message"
    path.write_bytes(wrong_first)
    with pytest.raises(AuthenticationError):
        mover.rewrap_file(path, context=CONTEXT)
    assert path.read_bytes() == wrong_first
    mover.rewrap_file(path, context=CONTEXT, aad=AAD)
    assert mover.decrypt(path.read_bytes(), context=CONTEXT, aad=AAD) == b"payload"


def test_a_service_rewraps_each_recipient_for_itself_or_not_at_all(service, wrong_first):
    """One recipient of two is given up only after both were unwrapped and compared."""
    with EnvelopeCipher.from_uri("fake:app", decrypt_uris=["fake:other"]) as narrower:
        with pytest.raises(AuthenticationError):
            narrower.rewrap(wrong_first, context=CONTEXT)
        moved = narrower.rewrap(wrong_first, context=CONTEXT, aad=AAD)
        assert narrower.decrypt(moved, context=CONTEXT, aad=AAD) == b"payload"


def test_a_service_rewraps_two_recipients_where_both_are_kept(service, tmp_path):
    """Each by itself: nothing is compared, and nothing is given up."""
    with EnvelopeCipher.from_uri("fake:app", decrypt_uris=["fake:other"]) as writer:
        message = writer.encrypt(b"payload", context=CONTEXT, aad=AAD)
    with EnvelopeCipher.from_uri("fake:other", decrypt_uris=["fake:app"]) as once:
        other = once.rewrap(message, context=CONTEXT, aad=AAD)
    two = spliced(message, message, other)
    path = tmp_path / "kmsbridge.toml"
    path.write_text(
        '[keys]\napp.uri = "fake:app"\nother.uri = "fake:other"\n'
        '[profiles.p]\nencrypt_to = ["app", "other"]\ndecrypt_with = ["app", "other"]\n'
    )
    service.app.calls.clear()
    service.other.calls.clear()
    with EnvelopeCipher.from_config(path, profile="p") as keeper:
        moved = keeper.rewrap(two, context=CONTEXT)
        assert (service.app.calls["rewrap"], service.other.calls["rewrap"]) == (1, 1)
        assert not service.app.calls["unwrap"]
        assert keeper.decrypt(moved, context=CONTEXT, aad=AAD) == b"payload"


def test_one_header_before_two_bodies_is_rewrapped_for_each(mover):
    """What was rewrapped before does not decide which data key the next message keeps."""
    for_app, for_other = written("fake:app", b"for app"), written("fake:other", b"for other")
    messages = [spliced(body, for_app, for_other) for body in (for_app, for_other, for_app)]
    moved = [mover.rewrap(message, context=CONTEXT, aad=AAD) for message in messages]
    opened = [mover.decrypt(message, context=CONTEXT, aad=AAD) for message in moved]
    assert opened == [b"for app", b"for other", b"for app"]
