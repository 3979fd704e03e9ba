"""`decrypt_secret` and the value that it returns."""

import asyncio
import functools
import json
import logging
import pickle

import orjson
import pydantic
import pytest

from kmsbridge import AuthenticationError, ClosedError, MalformedMessage, SecretValue, aio, message
from kmsbridge.secret import Secret

CONTEXT = {"tenant": "acme"}


@pytest.fixture
def secret():
    return SecretValue.of_text("correct horse")


def test_it_is_decrypted_from_bytes_and_from_text(cipher, encrypt):
    """Armored or not, by a cipher and by its decryptor."""
    binary = encrypt(cipher, b"correct horse", context=CONTEXT, aad=b"row")
    for each in (binary, bytearray(binary), message.armor(binary), f" {message.armor(binary)}\n"):
        for who in (cipher, cipher.decryptor):
            secret = who.decrypt_secret(each, context=CONTEXT, aad=b"row")
            assert type(secret) is SecretValue
            assert (secret.reveal(), secret.reveal_text()) == (b"correct horse", "correct horse")


def test_asyncio_has_it_too(cipher, encrypt):
    """The value itself is used without `await`."""
    binary = encrypt(cipher, b"correct horse")

    async def main():
        async with aio.EnvelopeCipher.from_uri("fake:app") as asynchronous:
            for each in (binary, message.armor(binary)):
                with await asynchronous.decrypt_secret(each) as secret:
                    assert secret.reveal_text() == "correct horse"
                with await asynchronous.decryptor.decrypt_secret(each) as secret:
                    assert secret.reveal() == b"correct horse"

    asyncio.run(main())


def test_what_cannot_be_decrypted_is_refused(cipher, encrypt):
    """With the errors of `decrypt`."""
    with pytest.raises(AuthenticationError):
        cipher.decrypt_secret(encrypt(cipher, b"x"), context=CONTEXT)
    with pytest.raises(MalformedMessage):
        cipher.decrypt_secret("text")
    with pytest.raises(TypeError, match="bytes-like"):
        cipher.decrypt_secret(7)


def test_after_with_the_plaintext_is_gone(secret):
    """Also where the block raised; each use raises, and closing again does nothing."""
    with pytest.raises(LookupError), secret as same:
        assert same is secret
        raise LookupError
    secret.close()
    for use in (secret.reveal, secret.reveal_text, lambda: secret.use(len), lambda: secret.use_text(len)):
        with pytest.raises(ClosedError, match="decrypt the message again"):
            use()
    with pytest.raises(ClosedError):
        assert secret == SecretValue(b"")
    assert repr(secret) == "SecretValue(...)"


def test_it_is_lent_to_a_function(secret):
    """As bytes or as text; the result comes back."""
    assert secret.use(bytes.upper) == b"CORRECT HORSE"
    assert secret.use_text(str.upper) == "CORRECT HORSE"


def test_what_is_not_text_is_refused_without_being_shown():
    """Python's own error would hold the bytes."""
    with pytest.raises(ValueError, match="not text") as caught:
        SecretValue(b"canary\xff").reveal_text()
    assert caught.value.__context__ is None


def test_a_partial_decrypts_at_each_use(cipher, service):
    """The form that is kept: no plaintext in it; each call gives a value of its own."""
    text = cipher.encrypt_text("correct horse", context=CONTEXT)
    password = functools.partial(cipher.decrypt_secret, text, context=CONTEXT)
    with password() as first, password() as second:
        assert first is not second
        assert first == second
    assert "correct" not in repr(password)
    with password() as again:
        assert again.reveal_text() == "correct horse"
    cipher.close()
    with pytest.raises(ClosedError):
        password()


def test_two_are_equal_where_they_hold_the_same(secret):
    """Never to text or bytes, which would be compared in a time that tells where they differ."""
    assert secret == SecretValue(b"correct horse")
    assert secret != SecretValue(b"correct horsf")
    for other in ("correct horse", b"correct horse", Secret(b"correct horse"), None):
        assert secret != other
    with pytest.raises(TypeError, match="unhashable"):
        hash(secret)


def test_it_shows_in_no_text(secret, caplog):
    """Whatever makes text of it."""
    logging.getLogger("application").warning("%s %r %s", secret, secret, [secret])
    shown = [
        f"{secret} {secret!r} {secret:>30}",
        "%s" % secret,  # noqa: UP031 - as formatters of logs do
        str([secret]) + str({"password": secret}),
        json.dumps({"password": secret}, default=str),
        orjson.dumps({"password": secret}, default=str).decode(),
        caplog.text,
    ]
    for text in shown:
        assert "SecretValue(...)" in text
        assert "horse" not in text


@pytest.mark.parametrize(
    "leave",
    (
        json.dumps,
        orjson.dumps,
        vars,
        pickle.dumps,
        lambda secret: secret.__getstate__(),
        lambda secret: json.dumps(secret, default=vars),
        bytes,
        list,
        len,
    ),
)
def test_it_does_not_leave_as_data(secret, leave):
    """It is refused, by its name."""
    with pytest.raises(TypeError, match=r"SecretValue|__dict__|JSON") as caught:
        leave(secret)
    assert "horse" not in str(caught.value)


def test_a_model_takes_it_and_writes_none_of_it(secret):
    """pydantic, whose models are what web frameworks answer with."""

    class Model(pydantic.BaseModel):
        password: SecretValue

    model = Model(password=secret)
    assert model.password is secret
    assert "horse" not in repr(model) + repr(model.model_dump()) + model.model_dump_json()
    with pytest.raises(pydantic.ValidationError):
        Model(password="text")


def test_the_frames_of_a_function_that_it_was_lent_to_are_cleared(secret):
    """An error reporter finds no plaintext there; the caller's own frame is left."""

    def login(password):
        copy = password * 2
        raise ConnectionError(len(copy))

    mine = "kept"
    with pytest.raises(ConnectionError) as caught:
        secret.use_text(login)
    frames = []
    trace = caught.value.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    assert frames[0].f_locals["mine"] == mine
    assert frames[-1].f_code is login.__code__
    assert frames[-1].f_locals == {}
