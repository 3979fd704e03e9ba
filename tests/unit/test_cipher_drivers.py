"""Ciphers that are made from driver objects."""

import asyncio
import json

import pytest

from kmsbridge import (
    ConfigError,
    Decryptor,
    Encryptor,
    EnvelopeCipher,
    NoMatchingKey,
    RoleError,
    aio,
    inspect,
)
from kmsbridge.driver import KeyURI, Options
from kmsbridge.drivers.local import LocalDriver
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.policy import AuditPolicy, CallPolicy, DataKeyPolicy
from kmsbridge.testing.fakes.fake import FakeDriver
from tests.support import PATIENCE, Outcome, finish, fork

CONTEXT = {"tenant": "acme"}


class Counting(FakeDriver):
    """Counts how often it is closed."""

    closes = 0

    def close(self):
        self.closes += 1
        super().close()


@pytest.fixture
def make(service):
    """Makes a driver object for a key of the service."""
    counting = type("CountingDriver", (Counting,), {"service": service})
    return lambda name="app": counting.open(KeyURI.parse(f"fake:{name}"), Options({}))


@pytest.fixture
def local(tmp_path):
    KeyFile.create(tmp_path / "keys.json", "app").close()
    return LocalDriver.open(KeyURI.parse(f"local:{tmp_path}/keys.json#app"), Options({}))


def test_what_one_encrypts_the_other_decrypts(service, make):
    """Each role from an object of its own, and by a URI."""
    with Encryptor(encrypt_to=[make()]) as encryptor, Decryptor(decrypt_with=[make()]) as decryptor:
        message = encryptor.encrypt(b"x", context=CONTEXT, aad=b"1")
        assert decryptor.decrypt(message, context=CONTEXT, aad=b"1") == b"x"
    with EnvelopeCipher.from_uri("fake:app") as cipher:
        assert cipher.decrypt(message, context=CONTEXT, aad=b"1") == b"x"


def test_a_local_key_needs_no_configuration(local):
    """Nor a registry."""
    with EnvelopeCipher(encrypt_to=[local], decrypt_with=[local]) as cipher:
        assert cipher.decrypt_text(cipher.encrypt_text("x")) == "x"


def test_an_object_in_both_lists_is_one_key(service, make):
    """Asked for its id once, and closed once."""
    driver = make()
    cipher = EnvelopeCipher(encrypt_to=[driver], decrypt_with=[make("other"), driver])
    assert cipher.decrypt(cipher.encrypt(b"x")) == b"x"
    assert len(cipher._session.keys) == 2
    cipher.close()
    cipher.close()
    assert driver.closes == 1


def test_every_data_key_is_wrapped_by_each(service, make):
    """As with a profile of two keys; either opens."""
    with EnvelopeCipher(encrypt_to=[make(), make("other")], decrypt_with=[make("other")]) as cipher:
        message = cipher.encrypt(b"x")
        assert [recipient.key_id for recipient in inspect(message).recipients] == ["fake:app", "fake:other"]
        assert cipher.decrypt(message) == b"x"


def test_a_key_that_was_not_given_is_not_used(service, make):
    """And what is told names both sides."""
    with EnvelopeCipher(encrypt_to=[make()], decrypt_with=[make("other")]) as cipher:
        message = cipher.encrypt(b"x")
        with pytest.raises(NoMatchingKey, match="'fake:app'.*'fake:other'"):
            cipher.decrypt(message)


def test_messages_move_from_one_object_to_another(service, make):
    """By rewrapping."""
    with Encryptor(encrypt_to=[make()]) as before:
        message = before.encrypt(b"x", context=CONTEXT)
    new = make("other")
    with EnvelopeCipher(encrypt_to=[new], decrypt_with=[new, make()]) as moving:
        assert moving.needs_rewrap(message)
        moved = moving.rewrap(message, context=CONTEXT)
        assert not moving.needs_rewrap(moved)
    with Decryptor(decrypt_with=[make("other")]) as after:
        assert after.decrypt(moved, context=CONTEXT) == b"x"


def test_options_are_those_of_a_profile(service, make, tmp_path):
    """Each has its effect."""
    path = tmp_path / "audit.jsonl"
    with Encryptor(
        encrypt_to=[make()],
        data_keys=DataKeyPolicy(max_messages=1),
        calls=CallPolicy(max_attempts=1),
        audit=AuditPolicy(file=str(path), required=True),
        direct=True,
        name="phones",
    ) as encryptor:
        messages = [encryptor.encrypt(b"x") for _ in range(2)]
        assert repr(encryptor) == "Encryptor(profile='phones')"
        with pytest.raises(ConfigError, match="'phones' is direct"):
            encryptor.encrypt_file(path, path)
    assert service.app.calls["wrap"] == 2
    assert {inspect(message).kind for message in messages} == {"direct"}
    assert {json.loads(line)["profile"] for line in path.read_text().splitlines()} == {"phones"}


def driver(make):
    return make()


WRONG = {
    "an empty list": (lambda make: [], RoleError, "encrypt_to is empty"),
    "one object": (driver, TypeError, "must be a list of driver objects, not CountingDriver"),
    "a URI": (lambda make: "fake:app", TypeError, "must be a list of driver objects, not str.*from_uri"),
    "URIs": (lambda make: ["fake:app"], TypeError, r"encrypt_to\[0\] must be a KeyDriver object, not str"),
    "a class": (lambda make: [make(), FakeDriver], TypeError, r"encrypt_to\[1\].*not the class FakeDriver"),
    "one twice": (lambda make: [make()] * 2, ConfigError, r"encrypt_to\[1\] is there twice"),
    "too many": (lambda make: [make() for _ in range(17)], ConfigError, "more than 16 keys"),
}


@pytest.mark.parametrize(("given", "kind", "words"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("module", ("sync", "aio"))
def test_what_is_no_list_of_drivers_is_refused(make, given, kind, words, module):
    """By every class, before any object is used."""
    classes = (Encryptor, EnvelopeCipher) if module == "sync" else (aio.Encryptor, aio.EnvelopeCipher)
    for cls in classes:
        more = {} if cls.__name__ == "Encryptor" else {"decrypt_with": [make()]}
        with pytest.raises(kind, match=words):
            cls(encrypt_to=given(make), **more)


@pytest.mark.parametrize("cls", (Decryptor, EnvelopeCipher, aio.Decryptor, aio.EnvelopeCipher))
def test_a_list_to_decrypt_with_is_checked_too(make, cls):
    """It may be longer: nobody writes into a message what it decrypts with."""
    more = {"encrypt_to": [make()]} if "Envelope" in cls.__name__ else {}
    with pytest.raises(RoleError, match="decrypt_with is empty"):
        cls(decrypt_with=[], **more)
    drivers = [make() for _ in range(17)]
    cipher = cls(decrypt_with=drivers, **more)
    if asyncio.iscoroutinefunction(cipher.close):
        asyncio.run(cipher.close())
    else:
        cipher.close()
    assert {each.closes for each in drivers} == {1}


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    (
        ({"datakeys": DataKeyPolicy()}, TypeError, "'datakeys' is no option: there are data_keys, calls"),
        ({"data_keys": {"max_age": 5}}, TypeError, "data_keys must be of DataKeyPolicy, not of dict"),
        ({"name": None}, TypeError, "name must be of str, not of NoneType"),
        ({"data_keys": DataKeyPolicy(max_age=0)}, ConfigError, "max_age is 0"),
        ({"calls": CallPolicy(attempt_timeout=20.0)}, ConfigError, "attempt_timeout"),
        ({"audit": AuditPolicy(required=True)}, ConfigError, "no audit file is set"),
    ),
)
def test_an_option_that_cannot_be_is_refused(make, options, kind, words):
    """And the object stays the caller's."""
    given = make()
    with pytest.raises(kind, match=words):
        EnvelopeCipher(encrypt_to=[given], decrypt_with=[given], **options)
    assert given.closes == 0


def test_direct_is_for_one_key(make):
    """As in a profile."""
    with pytest.raises(ConfigError, match="one key, but encrypt_to names 2"):
        Encryptor(encrypt_to=[make(), make("other")], direct=True)


def test_a_profile_is_no_driver(service):
    """What was once passed internally is refused."""
    from kmsbridge.config import Profile

    with pytest.raises(TypeError, match="positional"):
        EnvelopeCipher(Profile("x"))  # type: ignore[call-arg]


# --- forks ----------------------------------------------------------------------------------------


USES = {
    "encrypt": lambda cipher, message: cipher.encrypt(b"x"),
    "decrypt": lambda cipher, message: cipher.decrypt(message),
    "rewrap": lambda cipher, message: cipher.rewrap(message),
    "decrypt_many": lambda cipher, message: cipher.decrypt_many([message]),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("warm", (False, True), ids=("cold", "warm"))
def test_a_forked_child_does_not_use_the_parents_object(service, make, use, warm):
    """`ConfigError` says what to do; nothing is asked of the service, and the parent goes on."""
    driver = make()
    with Encryptor(encrypt_to=[make()]) as other:
        message = other.encrypt(b"x")
    with EnvelopeCipher(encrypt_to=[driver], decrypt_with=[driver]) as cipher:
        if warm:
            cipher.decrypt(message)
            cipher.needs_rewrap(cipher.encrypt(b"x"))
        asked = []

        def child():
            service.before = asked.append
            for _ in range(2):
                with pytest.raises(ConfigError, match="before the process was forked.*after the fork"):
                    use(cipher, message)
            cipher.close()
            assert asked == []
            assert driver.closes == 0

        finish([fork(child)])
        assert cipher.decrypt(message) == b"x"


def test_a_cipher_made_in_a_child_works_there(make):
    """With an object that is made there."""

    def child():
        driver = make()
        with EnvelopeCipher(encrypt_to=[driver], decrypt_with=[driver]) as cipher:
            assert cipher.decrypt(cipher.encrypt(b"x")) == b"x"

    finish([fork(child)])


# --- asyncio --------------------------------------------------------------------------------------


def test_the_same_for_asyncio(service, make):
    """Roles, both in one, and closing."""
    drivers = [make(), make(), make("other")]

    async def main():
        async with (
            aio.Encryptor(encrypt_to=drivers[:1]) as encryptor,
            aio.EnvelopeCipher(encrypt_to=[drivers[2]], decrypt_with=[drivers[2], drivers[1]]) as moving,
        ):
            messages = await asyncio.gather(*(encryptor.encrypt(b"%d" % n) for n in range(50)))
            moved = [await moving.rewrap(message) for message in messages]
            assert [await moving.decrypt(message) for message in moved] == [b"%d" % n for n in range(50)]
        async with aio.Decryptor(decrypt_with=[make("other")]) as decryptor:
            assert await decryptor.decrypt(moved[7]) == b"7"

    asyncio.run(main())
    assert [driver.closes for driver in drivers] == [1, 1, 1]
    assert service.app.calls["wrap"] == 1


def test_a_forked_child_does_not_use_the_parents_object_by_asyncio_either(service, make):
    """The threads that load are not the parent's."""
    driver = make()
    cipher = aio.EnvelopeCipher(encrypt_to=[driver], decrypt_with=[driver])
    message = asyncio.run(cipher.encrypt(b"x"))

    def child():
        for call in (lambda: cipher.encrypt(b"x"), lambda: cipher.decrypt(message)):
            with pytest.raises(ConfigError, match="after the fork"):
                asyncio.run(asyncio.wait_for(call(), PATIENCE))

    finish([fork(child)])
    assert Outcome(lambda: asyncio.run(cipher.decrypt(message))).join().value == b"x"
    asyncio.run(cipher.close())
