"""An envelope cipher is put together from an encryptor and a decryptor, which share its keys and data keys."""

import asyncio
import inspect

import pytest

from kmsbridge import ClosedError, Decryptor, Encryptor, EnvelopeCipher, KmsAccessDenied, aio
from kmsbridge.driver import ErrorKind
from kmsbridge.observer import Observer


def test_the_parts_are_what_they_say(cipher):
    """Neither can do the other's work, and the whole is neither of them."""
    assert type(cipher.encryptor) is Encryptor
    assert type(cipher.decryptor) is Decryptor
    assert not isinstance(cipher, (Encryptor, Decryptor))
    assert repr(cipher.encryptor) == "Encryptor(profile='default')"


@pytest.mark.parametrize("part", ("encryptor", "decryptor"))
@pytest.mark.parametrize("module", ("sync", "aio"))
def test_the_parts_cannot_be_replaced(service, part, module):
    """They are read-only."""
    cls = EnvelopeCipher if module == "sync" else aio.EnvelopeCipher
    cipher = cls.from_uri("fake:app")
    with pytest.raises(AttributeError):
        setattr(cipher, part, None)
    if module == "sync":
        cipher.close()
    else:
        asyncio.run(cipher.close())


def test_the_parts_and_the_whole_share_data_keys(service, cipher):
    """One wrap and one unwrap for all of them."""
    messages = [cipher.encrypt(b"x"), cipher.encryptor.encrypt(b"x")]
    assert [cipher.decryptor.decrypt(message) for message in messages] == [b"x", b"x"]
    assert [cipher.decrypt(message) for message in messages] == [b"x", b"x"]
    assert service.app.calls == {"wrap": 1, "unwrap": 1}


def test_closing_a_part_ends_its_half_alone(cipher):
    """Whoever was handed one half cannot take away the other."""
    message = cipher.encrypt(b"x")
    with cipher.encryptor as encryptor:
        assert cipher.decrypt(encryptor.encrypt(b"x")) == b"x"
    for call in (encryptor.encrypt, cipher.encrypt, cipher.needs_rewrap, cipher.rewrap):
        with pytest.raises(ClosedError):
            call(message)
    assert cipher.decrypt(message) == b"x"
    cipher.decryptor.close()
    with pytest.raises(ClosedError):
        cipher.decrypt(message)


def test_closing_the_whole_ends_both_parts(cipher):
    """Their keys are its own."""
    message = cipher.encrypt(b"x")
    cipher.close()
    with pytest.raises(ClosedError):
        cipher.encryptor.encrypt(b"x")
    with pytest.raises(ClosedError):
        cipher.decryptor.decrypt(message)


def test_what_a_cipher_closes_it_closes_once(service):
    """Observers too, however often it is closed itself; closing a part closes none."""
    closes = []

    class Observing(Observer):
        def close(self):
            closes.append(self)

    observer = Observing()
    with EnvelopeCipher.from_uri("fake:app", observers=[observer]) as cipher:
        cipher.encryptor.close()
        assert closes == []
        cipher.close()
    assert closes == [observer]


def test_a_part_outlives_the_name_of_the_whole(service):
    """Nothing is closed by being thrown away."""
    encryptor = EnvelopeCipher.from_uri("fake:app").encryptor
    with EnvelopeCipher.from_uri("fake:app") as other:
        assert other.decrypt(encryptor.encrypt(b"x")) == b"x"
    encryptor.close()


def test_a_refusal_of_a_part_is_recorded_once(cipher, caplog):
    """In the trail of the whole."""
    message = cipher.encrypt(b"x")
    for decryptor in (cipher, cipher.decryptor):
        with caplog.at_level("INFO", "kmsbridge.audit"), pytest.raises(Exception, match="authenticated"):
            decryptor.decrypt(message[:-1] + bytes([message[-1] ^ 1]))
        events = [record.kmsbridge for record in caplog.records]
        assert [event["outcome"] for event in events if event["operation"] == "refusal"] == [
            "AuthenticationError"
        ]
        caplog.clear()


def test_the_parts_for_asyncio_are_for_asyncio(service):
    """And share in the same way."""

    async def main():
        async with aio.EnvelopeCipher.from_uri("fake:app") as cipher:
            assert type(cipher.encryptor) is aio.Encryptor
            assert type(cipher.decryptor) is aio.Decryptor
            message = await cipher.encryptor.encrypt(b"x")
            assert await cipher.decryptor.decrypt(message) == await cipher.decrypt(message) == b"x"
            await cipher.encryptor.close()
            with pytest.raises(ClosedError):
                await cipher.encrypt(b"x")
            assert await cipher.decrypt(message) == b"x"

    asyncio.run(main())
    assert service.app.calls == {"wrap": 1, "unwrap": 1}


@pytest.mark.parametrize("module", (EnvelopeCipher, aio.EnvelopeCipher), ids=("sync", "aio"))
def test_the_whole_has_each_method_of_its_parts_with_the_same_signature(module):
    """They are written out, so that a stranger finds them; this keeps them from drifting apart."""
    parts = (Encryptor, Decryptor) if module is EnvelopeCipher else (aio.Encryptor, aio.Decryptor)
    for part in parts:
        for name, method in vars(part).items():
            if not name.startswith("_"):
                assert inspect.signature(getattr(module, name)) == inspect.signature(method), name


PUBLIC = [
    (cls, name)
    for cls in (Encryptor, Decryptor, EnvelopeCipher, aio.Encryptor, aio.Decryptor, aio.EnvelopeCipher)
    for name in dir(cls)
    if not name.startswith("_")
]


@pytest.mark.parametrize(("cls", "name"), PUBLIC, ids=lambda each: getattr(each, "__qualname__", each))
def test_every_public_member_says_what_it_does(cls, name):
    """In a sentence of its own, not by pointing elsewhere."""
    told = inspect.getdoc(getattr(cls, name))
    assert told
    assert not told.startswith(("As ", "The same"))
    assert len(told.split()) >= 8


def test_an_error_of_a_key_service_comes_out_of_every_class(service, cipher):
    """The guard of each is its own."""
    service.app.fail("wrap", ErrorKind.ACCESS_DENIED)
    for encryptor in (cipher, cipher.encryptor):
        with pytest.raises(KmsAccessDenied):
            encryptor.encrypt(b"x")
