"""What observers are told of keys and data keys, and what becomes of one that fails."""

import logging
import threading

import pytest
from kmsbridge_testing.contract.interruption import interrupted

from kmsbridge import Encryptor, EnvelopeCipher, errors
from kmsbridge.audit import AuditTrail
from kmsbridge.context import EncryptionContext
from kmsbridge.driver import ErrorKind, KeyURI, Options
from kmsbridge.errors import AuditError
from kmsbridge.keys import ManagedKey
from kmsbridge.observer import Event, Observer, Observers
from kmsbridge.policy import AuditPolicy, CallPolicy
from kmsbridge.testing import CallLog
from kmsbridge.testing.fakes.fake import FakeDriver

CONTEXT = EncryptionContext.of({"tenant": "acme"})
DATA_KEY = bytes(range(32))


class Log(CallLog):
    """Keeps what was started and what else happened, too."""

    def __init__(self):
        super().__init__()
        self.started, self.events = [], []

    def call_started(self, call):
        self.started.append(call)

    def event(self, event):
        self.events.append(event)


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def open_key(service, log):
    """Opens a key on the fake service, behind a driver class with these attributes changed."""

    def open_key(observer=log, policy=None, **changed):
        driver = type("Driver", (FakeDriver,), {"service": service, **changed})
        uri = KeyURI.parse("fake:app")
        return ManagedKey(
            "app", lambda: driver.open(uri, Options({})), policy, observer=observer, sleep=lambda _: None
        )

    return open_key


def test_every_call_is_started_and_finished_once(open_key, log):
    """In this order, with the same object."""
    key = open_key()
    key.unwrap(key.wrap(DATA_KEY, CONTEXT), CONTEXT)
    key.describe()
    key.rotate()
    assert [call.operation for call in log.started] == [
        *("resolve", "wrap", "unwrap", "describe"),
        *("rotate", "describe"),
    ]
    assert sorted(map(id, log.started)) == sorted(id(call) for call, _ in log.finished)
    assert {result.outcome for _, result in log.finished} == {"ok"}


def test_a_call_says_what_it_was_and_how_it_ended(service, open_key, log):
    """The key, the context as the service is given it, the version, and the cost."""
    service.app.fail("unwrap", ErrorKind.UNAVAILABLE, times=1)
    key = open_key()
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    key.unwrap(wrapped, CONTEXT)
    (_, (wrap, wrapping), (unwrap, unwrapping)) = log.finished
    assert (wrap.key_id, wrap.context, wrap.key_version, wrap.purpose) == ("fake:app", CONTEXT, "", "")
    assert (wrapping.key_version, wrapping.attempts) == (wrapped.version, 1)
    assert (unwrap.key_version, unwrapping.key_version) == (wrapped.version, wrapped.version)
    assert unwrapping.attempts == 2
    assert unwrapping.seconds >= 0
    assert unwrapping.request_id.startswith("fake-")


def test_a_failed_call_has_the_name_of_its_error(service, open_key, log):
    """And the request's id, also where the error itself must not tell it."""
    key = open_key()
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    with pytest.raises(errors.AuthenticationError):
        key.unwrap(wrapped, EncryptionContext.of({}))
    _, result = log.finished[-1]
    assert (result.outcome, result.attempts) == ("AuthenticationError", 1)
    assert result.request_id.startswith("fake-")


def test_a_call_that_the_breaker_refuses_is_told_with_no_attempt(service, open_key, log):
    service.app.fail("wrap", ErrorKind.UNAVAILABLE)
    key = open_key(policy=CallPolicy(max_attempts=1))
    for _ in range(21):
        with pytest.raises(errors.KmsUnavailable):
            key.wrap(DATA_KEY, CONTEXT)
    _, result = log.finished[-1]
    assert (result.outcome, result.attempts, result.request_id) == ("KmsUnavailable", 0, "")


def test_a_batch_is_one_call(service, open_key, log):
    """As in the provider's own log; it says how many items it held."""
    key = open_key()
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    log.finished.clear()
    key.unwrap_many([(wrapped, CONTEXT), (wrapped, CONTEXT)])
    key.unwrap_many([(wrapped, CONTEXT), (wrapped, EncryptionContext.of({}))])
    assert [(call.operation, call.batch, call.context, result.outcome) for call, result in log.finished] == [
        ("unwrap", 2, CONTEXT, "ok"),
        ("unwrap", 2, {}, "ok"),
    ]


def test_a_closed_key_makes_no_call(open_key, log):
    key = open_key()
    key.close()
    with pytest.raises(errors.ClosedError):
        key.wrap(DATA_KEY, CONTEXT)
    assert log.started == log.finished == []


def test_a_call_that_is_interrupted_is_not_finished(open_key, log):
    """The exception comes out at once: no observer holds it up."""
    over = threading.Event()

    def hang(self, wrapped, context, *, timeout):
        over.wait(30)

    key = open_key(unwrap=hang)
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    finished = len(log.finished)
    try:
        with pytest.raises(KeyboardInterrupt), interrupted(KeyboardInterrupt(), after=0.1):
            key.unwrap(wrapped, CONTEXT)
    finally:
        over.set()
    assert log.started[-1].operation == "unwrap"
    assert len(log.finished) == finished


class Failing(Observer):
    """Raises this at everything."""

    def __init__(self, error):
        self.error = error

    def call_started(self, call):
        raise self.error

    def call_finished(self, call, result):
        raise self.error

    def event(self, event):
        raise self.error


def test_an_observer_that_fails_does_not_fail_the_operation(open_key, log, caplog):
    """The others are told, and a warning names its class once a minute, without the exception's text."""
    caplog.set_level(logging.WARNING, "kmsbridge")
    key = open_key(Observers([Failing(LookupError("quotes a secret")), log]))
    key.unwrap(key.wrap(DATA_KEY, CONTEXT), CONTEXT)
    assert len(log.finished) == 3
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning == "the observer Failing failed (LookupError)"


def test_an_observer_may_fail_the_operation_with_an_error_of_the_library(open_key, log):
    """As the audit trail does where auditing is required; the others are told nevertheless."""
    key = open_key(Observers([Failing(AuditError("no space")), log]))
    with pytest.raises(AuditError, match="no space"):
        key.describe()
    assert log.started


def test_the_audit_trail_is_an_observer(open_key, caplog):
    """It records what keys were used for; asking for an id or a state is none, unless the id cannot be had."""
    caplog.set_level(logging.INFO, "kmsbridge.audit")
    trail = AuditTrail(AuditPolicy(), profile="p")
    key = open_key(trail)
    key.describe()
    assert caplog.records == []
    key.wrap(DATA_KEY, CONTEXT, purpose="rewrap")
    trail.event(Event("refusal", "NoMatchingKey", context={"tenant": "acme"}))
    trail.event(Event("decrypt", key_id="fake:app", messages=7))
    told = [record.kmsbridge for record in caplog.records]
    assert [(each["operation"], each["outcome"], each["source"], each["messages"]) for each in told] == [
        ("rewrap", "ok", "call", 0),
        ("refusal", "NoMatchingKey", "", 0),
        ("decrypt", "ok", "cache", 7),
    ]
    assert {each["profile"] for each in told} == {"p"}


def test_a_key_that_cannot_tell_its_id_is_audited_as_that(service, open_key, caplog):
    """Not as a wrap, which was never asked for."""
    caplog.set_level(logging.INFO, "kmsbridge.audit")

    def resolve(self, *, timeout):
        return self.call("describe", None, timeout)

    service.app.fail("describe", ErrorKind.ACCESS_DENIED)
    key = open_key(AuditTrail(AuditPolicy(), profile="p"), resolve=resolve)
    with pytest.raises(errors.KmsAccessDenied):
        key.wrap(DATA_KEY, CONTEXT)
    ((operation, outcome),) = ((r.kmsbridge["operation"], r.kmsbridge["outcome"]) for r in caplog.records)
    assert (operation, outcome) == ("resolve", "KmsAccessDenied")


def test_a_cipher_tells_the_observers_that_it_is_given(service, log):
    """Beside the audit trail: of calls, of refusals, and of what each data key served; and it closes them."""
    closed = []
    log.close = lambda: closed.append(True)
    with EnvelopeCipher.from_uri("fake:app", observers=[log]) as cipher:
        message = cipher.encrypt(b"x", context=CONTEXT)
        for _ in range(3):
            cipher.decrypt(message, context=CONTEXT)
        with pytest.raises(errors.NoMatchingKey):
            cipher.decrypt(message.replace(b"fake:app", b"fake:abc"), context=CONTEXT)
    assert [call.operation for call, _ in log.finished] == ["resolve", "wrap", "unwrap"]
    assert {(each.operation, each.outcome, each.messages) for each in log.events} == {
        ("refusal", "NoMatchingKey", 0),
        ("encrypt", "ok", 1),
        ("decrypt", "ok", 3),
    }
    assert closed == [True]


def test_a_cipher_of_driver_objects_tells_observers_too(service, log):
    driver = type("Driver", (FakeDriver,), {"service": service}).open(KeyURI.parse("fake:app"), Options({}))
    with Encryptor(encrypt_to=[driver], observers=[log]) as encryptor:
        encryptor.encrypt(b"x")
    assert [call.operation for call, _ in log.finished] == ["resolve", "wrap"]


@pytest.mark.parametrize("observers", (Observer(), [Observer], ["log"]), ids=("one", "a class", "text"))
def test_what_is_no_list_of_observers_is_refused(service, observers):
    with pytest.raises(TypeError, match="observers.* must be "):
        EnvelopeCipher.from_uri("fake:app", observers=observers)
