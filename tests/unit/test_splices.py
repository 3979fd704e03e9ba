"""Recipients of several messages put together: whoever writes the storage can do that."""

import asyncio

import pytest

from kmsbridge import AuthenticationError, EnvelopeCipher, KmsUnavailable, aio
from kmsbridge import message as wire
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import data_key_context
from kmsbridge.driver import ErrorKind
from tests.support import CHUNKED, COMPACT, with_recipients

CONTEXT = {"tenant": "acme"}
AAD = b"users/42"


@pytest.fixture
def both(service):
    """Decrypts with app, then other; encrypts to other."""
    with EnvelopeCipher.from_uri("fake:other", decrypt_uris=["fake:app"]) as cipher:
        yield cipher


@pytest.fixture
def written(service, encrypt):
    """Writes a message for the key of this URI, with each format of body in turn."""

    def write(uri, payload):
        with EnvelopeCipher.from_uri(uri) as writer:
            return encrypt(writer, payload, context=CONTEXT, aad=AAD)

    return write


def spliced(body_of, *recipients_of):
    """One message, its commitment too, with the recipients of these."""
    return with_recipients(
        body_of, *(recipient for message in recipients_of for recipient in wire.parse(message).recipients)
    )


@pytest.fixture
def wrong_first(written):
    """app's recipient holds another data key; other's is sound."""
    sound = written("fake:other", b"payload")
    return spliced(sound, written("fake:app", b"decoy"), sound)


@pytest.fixture
def none_fits(written):
    """Each of two recipients holds a data key, and neither is the body's."""
    return spliced(
        written("fake:app", b"body"), written("fake:app", b"decoy"), written("fake:other", b"decoy")
    )


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
def test_a_sound_recipient_is_tried_after_one_that_is_not(service, both, written, tmp_path, way, first):
    """Whether the first holds another data key, is damaged, or holds something that is no data key."""
    sound = written("fake:other", b"payload")
    (decoy,) = wire.parse(written("fake:app", b"decoy")).recipients
    if first == "not authentic":
        decoy = decoy._replace(wrapped=decoy.wrapped[:-1] + bytes((decoy.wrapped[-1] ^ 1,)))
    if first == "short":
        context = data_key_context(EncryptionContext.of(CONTEXT))
        decoy = decoy._replace(wrapped=service.app.seal(bytes(31), context.canonical()))
    message = with_recipients(sound, decoy, *wire.parse(sound).recipients)
    for _ in range(2):  # cold and warm
        assert way(both, message, tmp_path / "message") == b"payload"


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_what_no_recipient_fits_is_refused_cold_and_warm(both, none_fits, tmp_path, way):
    """The first time as the second."""
    for _ in range(2):
        with pytest.raises(AuthenticationError):
            way(both, none_fits, tmp_path / "message")


def test_asyncio_tries_the_second_recipient_too(service, wrong_first):
    """Cold and warm."""

    async def main():
        async with aio.EnvelopeCipher.from_uri("fake:other", decrypt_uris=["fake:app"]) as cipher:
            return [await cipher.decrypt(wrong_first, context=CONTEXT, aad=AAD) for _ in range(2)]

    assert asyncio.run(main()) == [b"payload"] * 2


def test_one_list_of_recipients_before_two_bodies_opens_both_whatever_came_first(both, written):
    """It leads to two data keys: what is cached never decides what is accepted."""
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


@CHUNKED
def test_without_the_aad_recipients_that_disagree_are_refused(mover, wrong_first):
    """Keeping the wrong data key would make the message unreadable; the error says what to do."""
    with pytest.raises(AuthenticationError, match="pass the aad"):
        mover.rewrap(wrong_first, context=CONTEXT)


@COMPACT
def test_without_the_aad_the_commitment_tells_the_data_key(mover, wrong_first):
    """It stands in the header, and does not depend on the aad."""
    moved = mover.rewrap(wrong_first, context=CONTEXT)
    assert mover.decrypt(moved, context=CONTEXT, aad=AAD) == b"payload"


@pytest.mark.parametrize("options", ({}, {"aad": AAD}), ids=("without the aad", "with the aad"))
def test_what_no_recipient_fits_is_not_rewrapped(mover, none_fits, tmp_path, options):
    """In memory or in a file, which stays as it is; the first time as the second."""
    path = tmp_path / "message"
    path.write_bytes(none_fits)
    for _ in range(2):
        for rewrap in (
            lambda: mover.rewrap(none_fits, context=CONTEXT, **options),
            lambda: mover.rewrap_file(path, context=CONTEXT, **options),
        ):
            with pytest.raises(AuthenticationError):
                rewrap()
    assert path.read_bytes() == none_fits


def test_without_the_aad_recipients_that_agree_are_rewrapped(mover, written):
    """As any message that was written to both."""
    message = written("fake:other", b"payload")
    with EnvelopeCipher.from_uri("fake:app", decrypt_uris=["fake:other"]) as once:
        two = spliced(message, message, once.rewrap(message, context=CONTEXT, aad=AAD))
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


@CHUNKED
def test_a_file_is_left_alone_where_the_data_key_is_not_known(mover, wrong_first, tmp_path):
    """Without the aad."""
    path = tmp_path / "message"
    path.write_bytes(wrong_first)
    with pytest.raises(AuthenticationError):
        mover.rewrap_file(path, context=CONTEXT)
    assert path.read_bytes() == wrong_first


def test_a_file_is_rewrapped_by_the_data_key_that_fits(mover, wrong_first, tmp_path):
    """The aad tells which."""
    path = tmp_path / "message"
    path.write_bytes(wrong_first)
    mover.rewrap_file(path, context=CONTEXT, aad=AAD)
    assert mover.decrypt(path.read_bytes(), context=CONTEXT, aad=AAD) == b"payload"


@COMPACT
def test_a_compact_file_is_rewrapped_without_the_aad(mover, wrong_first, tmp_path):
    """The commitment tells which."""
    path = tmp_path / "message"
    path.write_bytes(wrong_first)
    mover.rewrap_file(path, context=CONTEXT)
    assert mover.decrypt(path.read_bytes(), context=CONTEXT, aad=AAD) == b"payload"


@pytest.fixture
def narrower(service):
    """Encrypts to app, whose service rewraps; decrypts with app and other."""
    with EnvelopeCipher.from_uri("fake:app", decrypt_uris=["fake:other"]) as cipher:
        yield cipher


@CHUNKED
def test_without_the_aad_no_recipient_of_two_is_given_up_for_a_rewrap_by_the_service(narrower, wrong_first):
    """Both are unwrapped and compared; they disagree."""
    with pytest.raises(AuthenticationError):
        narrower.rewrap(wrong_first, context=CONTEXT)


@COMPACT
def test_without_the_aad_the_sound_recipient_of_two_is_kept(service, narrower, wrong_first):
    """Both are unwrapped; the service, which would rewrap the other one unseen, is not asked to."""
    moved = narrower.rewrap(wrong_first, context=CONTEXT)
    assert narrower.decrypt(moved, context=CONTEXT, aad=AAD) == b"payload"
    assert not service.app.calls["rewrap"]


def test_a_service_rewraps_each_recipient_for_itself_or_not_at_all(narrower, wrong_first):
    """One recipient of two is given up only after both were unwrapped and compared with the body."""
    moved = narrower.rewrap(wrong_first, context=CONTEXT, aad=AAD)
    assert narrower.decrypt(moved, context=CONTEXT, aad=AAD) == b"payload"


def test_a_service_rewraps_two_recipients_where_both_are_kept(service, written, tmp_path):
    """Each by itself: nothing is compared, and nothing is given up."""
    message = written("fake:app", b"payload")
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


def test_one_list_of_recipients_before_two_bodies_is_rewrapped_for_each(mover, written):
    """What was rewrapped before does not decide which data key the next message keeps."""
    for_app, for_other = written("fake:app", b"for app"), written("fake:other", b"for other")
    messages = [spliced(body, for_app, for_other) for body in (for_app, for_other, for_app)]
    moved = [mover.rewrap(message, context=CONTEXT, aad=AAD) for message in messages]
    opened = [mover.decrypt(message, context=CONTEXT, aad=AAD) for message in moved]
    assert opened == [b"for app", b"for other", b"for app"]
