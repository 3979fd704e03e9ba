"""Environments: what is encrypted in one cannot be read in another, and what was made without one until a date."""

import asyncio
import datetime
import io
import time

import pytest

from kmsbridge import AuthenticationError, ConfigError, Decryptor, Encryptor, EnvelopeCipher, KmsAccessDenied
from kmsbridge import message as wire
from kmsbridge.aio import EnvelopeCipher as AioEnvelopeCipher
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import data_key_context
from kmsbridge.driver import ErrorKind, KeyURI, Options, WrappedKey
from kmsbridge.environment import Environment, environment
from kmsbridge.observer import Observer
from kmsbridge.registry import driver_class
from tests.support import with_recipients

CONTEXT = {"tenant": "acme"}
UNTIL = "2027-01-31"
LAST_MOMENT = datetime.datetime(2027, 2, 1, tzinfo=datetime.UTC).timestamp() - 100
SCHEMES = ("fake", "fake-unbound")


class Log(Observer):
    """The contexts that key services were given, by operation."""

    def __init__(self):
        self.calls = []

    def call_finished(self, call, result):
        if call.operation in ("wrap", "unwrap", "rewrap"):
            self.calls.append((call.operation, call.context.get("kmsbridge-environment"), result.outcome))


@pytest.fixture
def now(monkeypatch):
    """Set the time of day: `now(seconds)`."""

    def set_to(seconds):
        monkeypatch.setattr(time, "time", lambda: seconds)

    set_to(LAST_MOMENT)
    return set_to


@pytest.fixture(params=SCHEMES)
def opened(request, service):
    """A cipher of `KEY:app` in an environment, or in none."""
    ciphers = []

    def open_one(name=None, **options):
        given = options if name is None else {"environment": name, **options}
        ciphers.append(EnvelopeCipher.from_uri(f"{request.param}:app", **given))
        return ciphers[-1]

    yield open_one
    for cipher in ciphers:
        cipher.close()


def refusal(call):
    with pytest.raises(AuthenticationError) as caught:
        call()
    return caught.value


def test_one_environment_reads_what_it_wrote(opened, encrypt):
    message = encrypt(opened("prod"), b"x", context=CONTEXT, aad=b"1")
    assert opened("prod").decrypt(message, context=CONTEXT, aad=b"1") == b"x"


@pytest.mark.parametrize("writer, reader", (("prod", "staging"), ("prod", None), (None, "prod")))
def test_no_environment_reads_what_another_wrote(opened, encrypt, writer, reader):
    message = encrypt(opened(writer), b"x", context=CONTEXT)
    reading = opened(reader)
    refusal(lambda: reading.decrypt(message, context=CONTEXT))
    refusal(lambda: reading.decrypt_stream(io.BytesIO(message), io.BytesIO(), context=CONTEXT))
    refusal(lambda: reading.rewrap(message, context=CONTEXT))
    refusal(lambda: reading.decrypt_many([message, message], context=CONTEXT))


@pytest.mark.parametrize("writer, reader", (("prod", "staging"), ("prod", None), (None, "prod")))
def test_nor_a_direct_message(opened, writer, reader):
    message = opened(writer, direct=True).encrypt(b"x", context=CONTEXT, aad=b"1")
    refusal(lambda: opened(reader, direct=True).decrypt(message, context=CONTEXT, aad=b"1"))
    assert opened(writer, direct=True).decrypt(message, context=CONTEXT, aad=b"1") == b"x"


def test_the_body_is_not_bound_to_it(opened, encrypt):
    """So that a message moves to an environment by its recipients alone."""
    prod = opened("prod")
    message = encrypt(prod, b"x", context=CONTEXT, aad=b"1")
    header = wire.parse_header(message)
    key, recipient = prod._session.decrypt_with[0], header.recipients[0]
    wrapped = WrappedKey(recipient.key_id, recipient.key_version, recipient.wrapped)
    data_key = key.unwrap(wrapped, data_key_context(EncryptionContext.of(CONTEXT)))
    unmarked = opened()._session.encrypt_to[0].wrap(data_key, data_key_context(EncryptionContext.of(CONTEXT)))
    moved = with_recipients(message, wire.Recipient(*unmarked))
    assert opened().decrypt(moved, context=CONTEXT, aad=b"1") == b"x"


def test_every_refusal_has_the_same_text_and_names_the_own_environment(opened):
    """Another environment, context, aad, or a changed message: nobody can tell which."""
    message = opened("prod").encrypt(b"x", context=CONTEXT, aad=b"1")
    changed = message[:-1] + bytes([message[-1] ^ 1])
    prod, staging = opened("prod"), opened("staging")
    own = {
        str(refusal(lambda: prod.decrypt(changed, context=CONTEXT, aad=b"1"))),
        str(refusal(lambda: prod.decrypt(message, context={"tenant": "other"}, aad=b"1"))),
        str(refusal(lambda: prod.decrypt(message, context=CONTEXT))),
        str(refusal(lambda: prod.decrypt_many([changed], context=CONTEXT, aads=[b"1"]))),
        str(prod.decrypt_many([changed], context=CONTEXT, aads=[b"1"], errors="return")[0]),
    }
    others = str(refusal(lambda: staging.decrypt(message, context=CONTEXT, aad=b"1")))
    assert len(own) == 1
    assert own == {others.replace("'staging'", "'prod'")}
    assert others.count("'staging'") == 1
    assert "prod" not in others


def test_without_an_environment_none_is_named(opened):
    message = opened("prod").encrypt(b"x")
    assert "environment" not in str(refusal(lambda: opened().decrypt(message)))


def test_no_other_environment_is_tried(service):
    """One call, with the own one."""
    with EnvelopeCipher.from_uri("fake:app", environment="prod") as cipher:
        message = cipher.encrypt(b"x")
    log = Log()
    with EnvelopeCipher.from_uri("fake:app", environment="staging", observers=[log]) as cipher:
        refusal(lambda: cipher.decrypt(message))
    assert [call[:2] for call in log.calls] == [("unwrap", "staging")]


class TestMigration:
    """`accept_unmarked_until`."""

    def test_what_was_made_without_one_is_read_until_the_date(self, opened, now, encrypt):
        message = encrypt(opened(), b"x", context=CONTEXT)
        assert opened("prod", accept_unmarked_until=UNTIL).decrypt(message, context=CONTEXT) == b"x"
        now(LAST_MOMENT + 100)
        refusal(lambda: opened("prod", accept_unmarked_until=UNTIL).decrypt(message, context=CONTEXT))

    def test_a_data_key_in_memory_does_not_outlive_the_date(self, opened, now, encrypt):
        """The cipher was open, and had unwrapped it: it is unwrapped again when the date is over."""
        message = encrypt(opened(), b"x", context=CONTEXT)
        now(LAST_MOMENT + 99.8)
        cipher = opened("prod", accept_unmarked_until=UNTIL)
        assert cipher.decrypt(message, context=CONTEXT) == b"x"
        time.sleep(0.25)
        now(LAST_MOMENT + 100.1)
        refusal(lambda: cipher.decrypt(message, context=CONTEXT))

    def test_the_date_comes_during_the_call(self, service, now):
        with EnvelopeCipher.from_uri("fake:app") as cipher:
            message = cipher.encrypt(b"x")
        service.before = lambda operation: now(LAST_MOMENT + 200) if operation == "unwrap" else None
        with EnvelopeCipher.from_uri("fake:app", environment="prod", accept_unmarked_until=UNTIL) as cipher:
            refusal(lambda: cipher.decrypt(message))

    def test_what_another_environment_wrote_is_refused_before_the_date_too(self, opened, now):
        message = opened("staging").encrypt(b"x")
        refusal(lambda: opened("prod", accept_unmarked_until=UNTIL).decrypt(message))

    def test_what_is_written_is_marked(self, opened, now):
        message = opened("prod", accept_unmarked_until=UNTIL).encrypt(b"x")
        assert opened("prod").decrypt(message) == b"x"
        refusal(lambda: opened().decrypt(message))

    def test_rewrap_moves_a_message_into_the_environment(self, opened, now, encrypt):
        """The service that rewraps takes one context, so it is unwrapped and wrapped."""
        message = encrypt(opened(), b"x", context=CONTEXT, aad=b"1")
        mover = opened("prod", accept_unmarked_until=UNTIL)
        assert mover.needs_rewrap(message)
        (moved,) = mover.rewrap_many([message], context=CONTEXT)
        assert moved[wire.parse_header(moved).length :] == message[wire.parse_header(message).length :]
        for each in (moved, mover.rewrap(message, context=CONTEXT)):
            assert opened("prod").decrypt(each, context=CONTEXT, aad=b"1") == b"x"
            refusal(lambda each=each: opened().decrypt(each, context=CONTEXT, aad=b"1"))
        now(LAST_MOMENT + 200)
        refusal(lambda: opened("prod", accept_unmarked_until=UNTIL).rewrap(message, context=CONTEXT))
        assert not mover.needs_rewrap(moved)

    def test_rewrap_moves_a_direct_message(self, opened, now):
        message = opened(direct=True).encrypt(b"x", aad=b"1")
        moved = opened("prod", accept_unmarked_until=UNTIL, direct=True).rewrap(message, aad=b"1")
        assert opened("prod").decrypt(moved, aad=b"1") == b"x"

    def test_rewrap_moves_a_file(self, opened, now, tmp_path):
        path = tmp_path / "file"
        (tmp_path / "plain").write_bytes(b"x" * 1000)
        opened().encrypt_file(tmp_path / "plain", path, context=CONTEXT)
        opened("prod", accept_unmarked_until=UNTIL).rewrap_file(path, context=CONTEXT)
        opened("prod").decrypt_file(path, tmp_path / "back", context=CONTEXT)
        assert (tmp_path / "back").read_bytes() == b"x" * 1000

    def test_a_batch_holds_both_kinds(self, opened, now):
        """The refused ones are asked for once more, in a batch."""
        contexts = [{"row": str(number)} for number in range(4)]
        old, new, other = opened(), opened("prod"), opened("staging")
        writers = (old, new, other, old)
        messages = [
            writer.encrypt(b"x", context=each) for writer, each in zip(writers, contexts, strict=True)
        ]
        cipher = opened("prod", accept_unmarked_until=UNTIL)
        results = cipher.decrypt_many(messages, contexts=contexts, errors="return")
        assert [type(result) for result in results] == [bytes, bytes, AuthenticationError, bytes]

    def test_what_is_marked_costs_one_call_and_the_rest_two(self, service, now):
        """The audit trail shows which it was."""
        with EnvelopeCipher.from_uri("fake:app") as cipher:
            message = cipher.encrypt(b"x")
        log = Log()
        options = {"environment": "prod", "accept_unmarked_until": UNTIL, "observers": [log]}
        with EnvelopeCipher.from_uri("fake:app", **options) as cipher:
            cipher.decrypt(message)
            cipher.decrypt(message)
        assert [call[:2] for call in log.calls] == [("unwrap", "prod"), ("unwrap", None)]
        assert log.calls[1][2] == "ok"

    def test_an_outage_meanwhile_is_told_as_one(self, service, now):
        """The message may well be authentic."""
        with EnvelopeCipher.from_uri("fake:app") as cipher:
            message = cipher.encrypt(b"x")
        calls = []

        def before(operation):
            calls.append(operation)
            if calls.count("unwrap") == 2:
                service.app.fail("unwrap", ErrorKind.ACCESS_DENIED)

        service.before = before
        with (
            EnvelopeCipher.from_uri("fake:app", environment="prod", accept_unmarked_until=UNTIL) as cipher,
            pytest.raises(KmsAccessDenied),
        ):
            cipher.decrypt(message)


def test_encryptors_decryptors_and_driver_objects_have_one(service):
    def driver():
        return driver_class("fake").open(KeyURI.parse("fake:app"), Options({}))

    with Encryptor(encrypt_to=[driver()], environment="prod") as encryptor:
        message = encryptor.encrypt(b"x")
    with Decryptor(decrypt_with=[driver()], environment="prod") as decryptor:
        assert decryptor.decrypt(message) == b"x"
    day = datetime.date(2000, 1, 1)
    with Decryptor(decrypt_with=[driver()], environment="staging", accept_unmarked_until=day) as decryptor:
        refusal(lambda: decryptor.decrypt(message))
    with pytest.raises(ConfigError):
        Decryptor(decrypt_with=[driver()], environment="")


async def in_asyncio(message):
    async with AioEnvelopeCipher.from_uri("fake:app", environment="staging") as cipher:
        await cipher.decrypt(message)


def test_asyncio(service):
    with EnvelopeCipher.from_uri("fake:app", environment="prod") as cipher:
        message = cipher.encrypt(b"x")
    with pytest.raises(AuthenticationError, match="environment 'staging'"):
        asyncio.run(in_asyncio(message))


def profile(**settings):
    return {
        "keys": {"app": {"uri": "fake:app"}},
        "profiles": {"p": {"encrypt_to": ["app"], "decrypt_with": ["app"], **settings}},
    }


def test_a_profile_names_it_and_may_refer_to_a_variable(service):
    with EnvelopeCipher.from_mapping(profile(environment="prod")) as cipher:
        message = cipher.encrypt(b"x")
    referring = profile(environment="env:STAGE", accept_unmarked_until=datetime.date(2027, 1, 31))
    with EnvelopeCipher.from_mapping(referring, env={"STAGE": "prod"}) as cipher:
        assert cipher.decrypt(message) == b"x"
    with EnvelopeCipher.from_mapping(referring, env={"STAGE": "staging"}) as cipher:
        refusal(lambda: cipher.decrypt(message))
    with pytest.raises(ConfigError, match="profiles.p.environment"):
        EnvelopeCipher.from_mapping(referring, env={"STAGE": " prod"})


def test_a_file_holds_a_date(service, tmp_path):
    path = tmp_path / "kmsbridge.toml"
    path.write_text(
        'keys.app.uri = "fake:app"\n[profiles.p]\nencrypt_to = ["app"]\nenvironment = "prod"\n'
        "accept_unmarked_until = 2027-01-31\n"
    )
    with Encryptor.from_config(path) as encryptor:
        assert encryptor._session.profile.environment == environment("prod", "2027-01-31")


@pytest.mark.parametrize("name", ("", " ", "prod ", "a\nb", "x" * 65, "\ud800", 1, True, ["prod"]))
def test_a_name_that_is_none(name):
    with pytest.raises(ConfigError) as caught:
        EnvelopeCipher.from_mapping(profile(environment=name))
    assert "profiles.p.environment is" in caught.value.message
    assert "prod" in caught.value.remedy


@pytest.mark.parametrize(
    "until",
    (
        "soon",
        "2027-1-31",
        "2027-02-30",
        20270131,
        datetime.datetime(2027, 1, 31, 12, tzinfo=datetime.UTC),
        True,
    ),
)
def test_a_date_that_is_none(until):
    with pytest.raises(ConfigError, match="accept_unmarked_until is not a date"):
        EnvelopeCipher.from_mapping(profile(environment="prod", accept_unmarked_until=until))


def test_a_date_without_an_environment():
    with pytest.raises(ConfigError, match="no environment is"):
        EnvelopeCipher.from_mapping(profile(accept_unmarked_until=UNTIL))


def test_the_last_day_counts_in_utc():
    assert environment("prod", UNTIL) == Environment("prod", LAST_MOMENT + 100)
    assert environment("prod", datetime.date(9999, 12, 31)).accepts_unmarked()
