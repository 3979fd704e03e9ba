"""A call that may wait: who waits, for how long, and whose exceptions come out."""

import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from kmsbridge_testing.contract.interruption import FOREIGN, SoftTimeLimit, interrupted

from kmsbridge import errors
from kmsbridge.context import EncryptionContext
from kmsbridge.driver import ErrorKind, KeyURI, Options
from kmsbridge.keys import ManagedKey
from kmsbridge.keys.attempt import AT_ONCE
from kmsbridge.keys.health import ServiceHealth
from kmsbridge.policy import CallPolicy
from kmsbridge.testing import CallLog
from kmsbridge.testing.fakes.fake import FakeDriver
from tests.support import PATIENCE, Outcome

CONTEXT = EncryptionContext.of({"tenant": "acme"})
DATA_KEY = bytes(range(32))
AT_ONCE_SECONDS = 10
"""Far less than a call that hangs takes here."""
LONG = CallPolicy(attempt_timeout=60.0, deadline=60.0, max_attempts=3)
SHORT = CallPolicy(attempt_timeout=0.2, deadline=0.5, max_attempts=3)

every_exception = pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: foreign.__name__)


@pytest.fixture
def log():
    """The calls that ended."""
    return CallLog()


@pytest.fixture
def open_key(service, log):
    """Opens a `ManagedKey` on the fake service's key app, behind a driver class with these attributes changed."""
    opened = []

    def open_key(policy=LONG, **changed):
        driver = type("Driver", (FakeDriver,), {"service": service, **changed})
        uri = KeyURI.parse("fake:app")
        opened.append(ManagedKey("app", lambda: driver.open(uri, Options({})), policy, observer=log))
        return opened[-1]

    yield open_key
    for key in opened:
        key.close()


@pytest.fixture
def hang():
    """A driver's method that hangs, whatever its timeout, until the test ends."""
    over = threading.Event()
    begun = []

    def hang(self, *arguments, **options):
        begun.append(threading.current_thread().name)
        over.wait(PATIENCE)

    hang.begun, hang.end = begun, over.set
    yield hang
    over.set()


@every_exception
def test_an_exception_of_a_signal_handler_comes_out_of_a_call_that_hangs(open_key, hang, foreign):
    """The same object, at once, and the driver is not asked again."""
    key, error = open_key(unwrap=hang), foreign()
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    began = time.monotonic()
    with interrupted(error, after=0.2), pytest.raises(foreign) as caught:
        key.unwrap(wrapped, CONTEXT)
    assert caught.value is error
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert len(hang.begun) == 1


def test_a_call_that_was_interrupted_counts_for_nothing(open_key, hang, log):
    """Not for the breaker, the budget, the limiter, nor for observers."""
    key = open_key(unwrap=hang)
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    before = (
        dict(vars(key._calls.health.breaker)),
        dict(vars(key._calls.health.budget)),
        dict(vars(key._calls.health.limiter)),
    )
    finished = list(log.finished)
    with interrupted(SoftTimeLimit(), after=0.1), pytest.raises(SoftTimeLimit):
        key.unwrap(wrapped, CONTEXT)
    health = key._calls.health
    assert (dict(vars(health.breaker)), dict(vars(health.budget)), dict(vars(health.limiter))) == before
    assert log.finished == finished


@pytest.mark.parametrize("kind", [ErrorKind.UNAVAILABLE, ErrorKind.THROTTLED], ids=lambda kind: kind.name)
@every_exception
def test_an_exception_of_a_signal_handler_comes_out_of_a_pause(service, monkeypatch, open_key, foreign, kind):
    """Between two attempts, too."""
    key, error = open_key(), foreign()
    key._calls._sleep = lambda _: time.sleep(60)
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    service.app.fail("unwrap", kind)
    began = time.monotonic()
    with interrupted(error, after=0.2), pytest.raises(foreign) as caught:
        key.unwrap(wrapped, CONTEXT)
    assert caught.value is error
    assert time.monotonic() - began < AT_ONCE_SECONDS


def test_what_was_waiting_when_its_caller_left_never_reaches_the_service(service, open_key, hang):
    """Nothing storms a service that returns."""
    key = open_key(SHORT, describe=hang)
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    hanging = [Outcome(key.describe) for _ in range(AT_ONCE)]
    for each in hanging:
        assert isinstance(each.join().error, errors.KmsError)
    assert len(hang.begun) == AT_ONCE
    key._calls.health.breaker.succeeded()
    with pytest.raises(errors.KmsTimeout, match="calls that one key makes at once hang") as caught:
        key.unwrap(wrapped, CONTEXT)
    assert "fake:app" in str(caught.value)
    before = service.app.calls["unwrap"]
    hang.end()
    assert key.unwrap(wrapped, CONTEXT) == DATA_KEY
    assert service.app.calls["unwrap"] == before + 1


def test_a_driver_that_ignores_its_timeout_does_not_hold_the_caller(open_key, hang):
    """`KmsTimeout` that says what it was, of every attempt that the deadline allows; by a thread of ours."""
    key = open_key(SHORT, unwrap=hang)
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    began = time.monotonic()
    with pytest.raises(
        errors.KmsTimeout,
        match=r"unwrap with fake:app: the driver did not return in time after .* in 0\.\d s",
    ) as caught:
        key.unwrap(wrapped, CONTEXT)
    assert time.monotonic() - began < AT_ONCE_SECONDS
    assert caught.value.attempts == len(hang.begun)
    assert all(name.startswith("kmsbridge-") for name in hang.begun)


def test_a_drivers_own_timeout_is_what_is_told(service, open_key):
    """It has a little more time than it was given, so that its error, which may know more, comes first."""
    key = open_key(CallPolicy(attempt_timeout=0.5, deadline=0.5))
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    service.app.delay("unwrap", 60)
    with pytest.raises(errors.KmsTimeout, match="the key service did not answer.*TIMEOUT") as caught:
        key.unwrap(wrapped, CONTEXT)
    assert caught.value.request_id.startswith("fake-")


def test_observers_are_told_on_the_thread_that_called(service, open_key, log, monkeypatch):
    """Though the call itself was made on another: with the request's id of that call."""
    threads, tell = [], log.call_finished

    def note(call, result):
        threads.append(threading.get_ident())
        tell(call, result)

    monkeypatch.setattr(log, "call_finished", note)
    key = open_key()
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    other = Outcome(lambda: (threading.get_ident(), key.unwrap(wrapped, CONTEXT))).join().value
    me = threading.get_ident()
    assert threads == [me, me, other[0]]
    requests = [result.request_id for call, result in log.finished if call.operation != "resolve"]
    assert all(each.startswith("fake-") for each in requests)
    assert len(set(requests)) == 2


def test_the_drivers_code_for_a_call_runs_on_one_thread(open_key):
    """What its client remembers of a request, by thread, is there for its classes and details."""
    threads = []

    def noted(result):
        def method(self, *arguments, **options):
            threads.append(threading.get_ident())
            if isinstance(result, Exception):
                raise result
            return result

        return method

    key = open_key(
        unwrap=noted(ConnectionError()), classify=noted(ErrorKind.ACCESS_DENIED), error_details=noted(None)
    )
    with pytest.raises(errors.KmsAccessDenied):
        key.unwrap(key.wrap(DATA_KEY, CONTEXT), CONTEXT)
    assert len(threads) == 3
    assert len(set(threads)) == 1
    assert threading.get_ident() not in threads


def test_close_does_not_wait_for_a_call_that_hangs(open_key, hang):
    """Though the driver's own `close` waits for it."""
    key = open_key(describe=hang, close=hang)
    waiting = Outcome(key.describe)
    while not hang.begun:
        time.sleep(0.01)
    began = time.monotonic()
    key.close()
    assert time.monotonic() - began < AT_ONCE_SECONDS
    hang.end()
    waiting.join()


def test_a_call_that_hangs_does_not_keep_the_process_from_ending():
    """Nor does closing what was left open; the program's own exit code comes out."""
    program = """
        import sys, threading, time
        from kmsbridge import EnvelopeCipher, KmsTimeout
        from kmsbridge.testing import FakeDriver, installed

        class Hanging(FakeDriver):
            def wrap(self, plaintext, context, *, timeout):
                time.sleep(600)

        FakeDriver.service.create("app")
        with installed(Hanging):
            cipher = EnvelopeCipher.from_uri("fake:app", calls={"attempt_timeout": 0.2, "deadline": 0.5})
        try:
            cipher.encrypt(b"x")
        except KmsTimeout:
            sys.exit(7)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (7, "")


# --- drivers that run where they are called -------------------------------------------------------


def here(service):
    return {"may_wait": False, "classify": lambda self, error, operation: None}


@every_exception
def test_a_driver_that_does_not_wait_runs_on_the_callers_thread(service, open_key, foreign):
    """And what it did not cause comes out as it is."""
    key, error, threads = open_key(**here(service)), foreign(), []
    wrapped = key.wrap(DATA_KEY, CONTEXT)

    def raising(operation):
        threads.append(threading.current_thread())
        raise error

    service.before = raising
    with pytest.raises(foreign) as caught:
        key.unwrap(wrapped, CONTEXT)
    assert caught.value is error
    assert threads == [threading.current_thread()]
    assert not key.unhealthy


def test_its_own_failures_are_translated_as_ever(service, open_key, log):
    """And tried again where they may pass."""
    key = open_key(**here(service))
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    service.app.fail("unwrap", ErrorKind.UNAVAILABLE, times=1)
    assert key.unwrap(wrapped, CONTEXT) == DATA_KEY
    assert log.last.attempts == 2
    service.app.fail("unwrap", ErrorKind.ACCESS_DENIED)
    with pytest.raises(errors.KmsAccessDenied):
        key.unwrap(wrapped, CONTEXT)


# --- signal handlers that call --------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [None, *(kind for kind in ErrorKind if kind.value <= 4)],
    ids=lambda kind: kind.name if kind else "ok",
)
def test_a_call_at_any_line_of_a_call_does_not_hang(service, open_key, kind):
    """As a signal handler or a logging handler makes it: on this thread, and on others that it waits for."""
    key = open_key(CallPolicy(max_attempts=3))
    key._calls._sleep = lambda _: None
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    if kind is not None:
        service.app.fail("unwrap", kind)
    lines, depth = set(), 0

    def again():
        try:
            key.unwrap(wrapped, CONTEXT)
        except errors.KmsError as error:
            del error

    def trace(frame, event, _argument):
        nonlocal depth
        if not re.search(r"/kmsbridge/(keys/|threads\.py)", frame.f_code.co_filename):
            return None
        where = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and where not in lines and not depth:
            lines.add(where)
            depth += 1
            again()
            Outcome(again).join()
            depth -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for _ in range(60):
            key._calls.health = ServiceHealth(time.monotonic)  # else the breaker would end it soon
            again()
    finally:
        sys.settrace(before)
    assert len(lines) > 60
    service.app.heal()
    key._calls.health.breaker._next_probe = 0.0
    assert key.unwrap(wrapped, CONTEXT) == DATA_KEY


def test_a_signal_handler_that_calls_while_its_thread_waits_is_answered(open_key, hang):
    """The call that was under way goes on."""
    key, answers = open_key(describe=hang), []
    wrapped = key.wrap(DATA_KEY, CONTEXT)

    def handler(*_):
        answers.append(key.unwrap(wrapped, CONTEXT))
        hang.end()

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        timer = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR2))
        timer.start()
        with pytest.raises(errors.KmsError, match="returned no KeyDescription"):
            key.describe()
        timer.join()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert answers == [DATA_KEY]
