"""The seed of a key pair at the key that protects it: each unwrap is an event of its own, and may need an environment."""

import contextlib
import json
import threading
from pathlib import Path

import pytest
from kmsbridge_testing.fakes.http_fake import FakeHttpDriver

from kmsbridge import AuthenticationError, Decryptor, Encryptor, EnvelopeCipher
from kmsbridge.driver import KeyURI, OtherCall, report_call
from kmsbridge.drivers.hpke import privatefile
from kmsbridge.drivers.hpke.pairs import new_name, new_pair
from kmsbridge.drivers.hpke.suites import X25519
from kmsbridge.environment import environment
from kmsbridge.errors import AuditError, ConfigError, KmsAccessDenied, KmsKeyDisabled, KmsTimeout
from kmsbridge.keys import ManagedKey
from kmsbridge.observer import Observer
from kmsbridge.registry import driver_class
from tests.backends.hpke import HpkeHarness, HpkeOverHttpHarness
from tests.support import PATIENCE

CONTEXT = {"tenant": "acme"}


class Log(Observer):
    """Every call that has ended, and the thread that was told of it."""

    def __init__(self):
        self.calls, self.threads, self.started = [], set(), []

    def call_started(self, call):
        self.started.append(call)

    def call_finished(self, call, result):
        assert any(call is each for each in self.started)
        self.calls.append((call, result))
        self.threads.add(threading.current_thread())

    def seeds(self):
        return [
            (call, result) for call, result in self.calls if call.context.get("kmsbridge") == "hpke-private"
        ]


@pytest.fixture
def harness():
    """Two keys whose seeds a local key wraps."""
    harness = HpkeHarness(X25519)
    yield harness
    harness.close()


@pytest.fixture
def over_http():
    """Two keys whose seeds a service behind HTTP wraps."""
    harness = HpkeOverHttpHarness()
    yield harness
    harness.close()


def messages(harness, count=3):
    address = harness.address("first", "encrypt-only")
    with Encryptor.from_uri(address.uri, **address.options) as encryptor:
        return [encryptor.encrypt(b"x", context=CONTEXT) for _ in range(count)]


def decryptor(harness, log=None, **options):
    address = harness.address("first")
    observers = [log] if log else []
    return Decryptor.from_uri(address.uri, **address.options, **options, observers=observers)


# --- told to observers ----------------------------------------------------------------------------------


def test_the_unwrap_of_a_seed_is_told_once_for_each_start_and_pair(harness):
    """With the key that protects it and the context that was given there; each message has its own."""
    old = messages(harness)
    first = harness.public_key("first")
    harness.rotate("first")
    new = messages(harness)
    second = harness.public_key("first")
    for _ in range(2):
        log = Log()
        with decryptor(harness, log) as worker:
            for message in (*old, *new):
                assert worker.decrypt(message, context=CONTEXT) == b"x"
        told = log.seeds()
        assert [call.context["kmsbridge-public-key"] for call, _ in told] == [first.hash, second.hash]
        for call, result in told:
            assert call.operation == "unwrap"
            assert call.key_id.startswith("local:seeds@")
            assert (result.outcome, result.attempts, result.key_version) == ("ok", 1, "1")
            assert result.seconds > 0
        others = [call for call, _ in log.calls if call.operation == "unwrap" and call.key_id == first.key_id]
        assert len(others) == len(old) + len(new)
        assert log.threads == {threading.current_thread()}


def test_the_audit_file_has_it(harness, tmp_path):
    """As any other unwrap: nothing of the seed is in it."""
    message, audit = messages(harness, 1)[0], tmp_path / "audit.jsonl"
    with decryptor(harness, audit={"file": str(audit)}) as worker:
        worker.decrypt(message, context=CONTEXT)
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["operation"], line["key_id"].partition(":")[0], line["source"]) for line in lines] == [
        ("unwrap", "local", "call"),
        ("unwrap", "hpke", "call"),
    ]
    assert lines[0]["context"]["kmsbridge"] == "hpke-private"
    assert not any(seed.hex() in audit.read_text() for seed in harness.secrets)


def test_it_has_the_services_request_id_and_the_message_has_none(over_http):
    """So that one line of the service's log belongs to one of ours."""
    message, log = messages(over_http, 1)[0], Log()
    with decryptor(over_http, log) as worker:
        worker.decrypt(message, context=CONTEXT)
    ((call, result),) = log.seeds()
    assert call.key_id.startswith("fake-http:first-")
    assert result.request_id
    (own,) = [
        result for call, result in log.calls if call.operation == "unwrap" and call.key_id.startswith("hpke:")
    ]
    assert own.request_id == ""
    assert log.threads == {threading.current_thread()}


@pytest.mark.parametrize(
    "harm, error",
    (
        (lambda harness: harness.disable("first"), KmsKeyDisabled),
        (lambda harness: harness.expire_credentials(), None),
        (lambda harness: harness.schedule_deletion("first"), KmsKeyDisabled),
    ),
    ids=("disabled", "credentials", "deletion"),
)
def test_a_refused_unwrap_is_told_too(over_http, harm, error):
    """With the class of the error and the same request id; every attempt is one."""
    message, log = messages(over_http, 1)[0], Log()
    harm(over_http)
    with decryptor(over_http, log) as worker, pytest.raises(Exception) as caught:  # noqa: PT011
        worker.decrypt(message, context=CONTEXT)
    assert error is None or isinstance(caught.value, error)
    ((_, result),) = log.seeds()
    assert result.outcome == type(caught.value).__name__
    assert result.request_id == caught.value.request_id != ""


def test_a_host_that_the_key_service_denies_is_told(over_http):
    """An unwrap with a role that may only wrap."""
    message, log = messages(over_http, 1)[0], Log()
    full, web = over_http.address("first"), over_http.address("first", "encrypt-only")
    options = {**full.options, "protect_with": web.options["protect_with"]}
    with Decryptor.from_uri(full.uri, **options, observers=[log]) as worker, pytest.raises(KmsAccessDenied):
        worker.decrypt(message, context=CONTEXT)
    assert [result.outcome for _, result in log.seeds()] == ["KmsAccessDenied"]


def test_an_attempt_that_ends_after_its_caller_gave_up_is_told_later(over_http, monkeypatch):
    """On the thread of the next caller, whom it saves the call."""
    message, log = messages(over_http, 1)[0], Log()
    hangs, unwrap = threading.Event(), FakeHttpDriver.unwrap

    def slow(self, wrapped, context, *, timeout):
        assert hangs.wait(PATIENCE)
        return unwrap(self, wrapped, context, timeout=PATIENCE)

    monkeypatch.setattr(FakeHttpDriver, "unwrap", slow)
    with decryptor(over_http, log, calls={"attempt_timeout": 0.3, "deadline": 0.3}) as worker:
        with pytest.raises(KmsTimeout):
            worker.decrypt(message, context=CONTEXT)
        assert log.seeds() == []
        hangs.set()
        for _ in range(
            int(PATIENCE / 0.3)
        ):  # a busy machine may need several calls to see the end of the first
            with contextlib.suppress(KmsTimeout):
                assert worker.decrypt(message, context=CONTEXT) == b"x"
                break
    assert [result.outcome for _, result in log.seeds()] == ["ok"]
    assert log.threads == {threading.current_thread()}


def test_what_a_required_audit_cannot_record_opens_nothing(harness, tmp_path):
    message, audit = messages(harness, 1)[0], tmp_path / "audit.jsonl"
    worker = decryptor(harness, audit={"file": str(audit), "required": True})
    audit.unlink()
    audit.mkdir()
    with pytest.raises(AuditError):
        worker.decrypt(message, context=CONTEXT)
    worker.close()


def test_outside_of_a_call_a_report_goes_nowhere():
    """As where a driver is used without the library."""
    report_call(OtherCall("unwrap", "k", None, "", None, "", 0.0))


# --- environments ---------------------------------------------------------------------------------------


@pytest.fixture
def bound(harness):
    """Makes a pair bound to an environment, by what keygen uses; returns the options of both sorts of hosts."""

    def make(name):
        from kmsbridge.driver import Options

        uri = KeyURI.parse(harness.protecting["uri"])
        key = ManagedKey(
            "seeds", lambda: driver_class("local").open(uri, Options({})), environment=environment(name)
        )
        path, now = Path(harness._path("first")).with_name(f"{name}.toml"), privatefile.now()
        pair = new_pair(new_name("bound"), X25519, key.wrap, key.unwrap, created=now, encrypt_from=now)
        key.close()
        privatefile.create(str(path), pair)
        return (
            f"hpke:{pair.public_key.name}",
            {"public_key": pair.public_key.line()},
            {"private_file": str(path), "protect_with": harness.protecting},
        )

    return make


def sealed(uri, web, name):
    with Encryptor.from_uri(uri, **web, **({"environment": name} if name else {})) as encryptor:
        return encryptor.encrypt(b"x", context=CONTEXT)


def test_a_pair_bound_to_an_environment_opens_there(bound):
    uri, web, worker = bound("prod")
    log = Log()
    with Decryptor.from_uri(uri, **worker, environment="prod", observers=[log]) as decryptor:
        assert decryptor.decrypt(sealed(uri, web, "prod"), context=CONTEXT) == b"x"
    ((call, result),) = log.seeds()
    assert (call.context["kmsbridge-environment"], result.outcome) == ("prod", "ok")


@pytest.mark.parametrize("reader", ("staging", None))
def test_and_nowhere_else(bound, reader):
    """The key service refuses the seed, whatever the message is; nothing tells where the pair is from."""
    uri, web, worker = bound("prod")
    log, named = Log(), {"environment": reader} if reader else {}
    with Decryptor.from_uri(uri, **worker, **named, observers=[log]) as decryptor:
        for made_in in ("prod", "staging", None):
            with pytest.raises(ConfigError) as caught:
                decryptor.decrypt(sealed(uri, web, made_in), context=CONTEXT)
            assert "environment" in caught.value.remedy
            assert "prod" not in str(caught.value)
    told = log.seeds()
    assert {result.outcome for _, result in told} == {"AuthenticationError"}
    assert {call.context.get("kmsbridge-environment") for call, _ in told} == {reader, None}


def test_a_pair_without_an_environment_opens_in_each(harness):
    """As pairs that were made before; the messages are still bound to the environment."""
    address = harness.address("first")
    web = harness.address("first", "encrypt-only")
    for name in ("prod", "staging"):
        log = Log()
        with Decryptor.from_uri(address.uri, **address.options, environment=name, observers=[log]) as worker:
            for _ in range(2):
                message = sealed(web.uri, web.options, name)
                assert worker.decrypt(message, context=CONTEXT) == b"x"
            with pytest.raises(AuthenticationError):
                worker.decrypt(sealed(web.uri, web.options, "other"), context=CONTEXT)
        assert [
            (call.context.get("kmsbridge-environment"), result.outcome) for call, result in log.seeds()
        ] == [(name, "AuthenticationError"), (None, "ok")]


def test_an_unmarked_message_is_read_with_a_bound_pair_while_that_is_accepted(bound):
    """The environment of the pair and that of the message are two things."""
    uri, web, worker = bound("prod")
    with EnvelopeCipher.from_uri(
        uri, **web, **worker, environment="prod", accept_unmarked_until="9999-12-31"
    ) as cipher:
        assert cipher.decrypt(sealed(uri, web, None), context=CONTEXT) == b"x"


def test_a_service_that_refuses_for_another_reason_is_not_asked_again(over_http):
    """An environment is tried without only where the seed is not authentic with it."""
    message, log = messages(over_http, 1)[0], Log()
    over_http.disable("first")
    with (
        decryptor(over_http, log, environment="prod", calls={"max_attempts": 1}) as worker,
        pytest.raises(KmsKeyDisabled),
    ):
        worker.decrypt(message, context=CONTEXT)
    assert len(log.seeds()) == 1
