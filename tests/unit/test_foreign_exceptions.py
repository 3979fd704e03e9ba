"""Exceptions that neither the library nor a driver caused, raised at every line: they come out as they are."""

import itertools
import re
import sys
import threading
import time

import pytest
from kmsbridge_testing.contract.interruption import FOREIGN, SoftTimeLimit, interrupted

from kmsbridge import EnvelopeCipher, errors
from kmsbridge.context import EncryptionContext
from kmsbridge.driver import KeyURI, Options, Secret
from kmsbridge.drivers.local import files
from kmsbridge.drivers.local.document import Cost
from kmsbridge.drivers.local.driver import LocalDriver
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.keys import ManagedKey
from kmsbridge.testing.fakes.fake import FakeDriver
from tests.support import PATIENCE, Outcome

CONTEXT = EncryptionContext.of({"tenant": "acme"})
DATA_KEY = bytes(range(32))
WORD = "correct horse"
LEAST_LINES = 20

every_exception = pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: foreign.__name__)


class _Raising:
    """A trace function that raises `error` at the first line in matching files that is not in `seen`."""

    def __init__(self, files, error, seen):
        self._files, self._error, self._seen = re.compile(files), error, seen
        self.raised = None

    def __call__(self, frame, event, _argument):
        name = frame.f_code.co_filename
        if self.raised is not None or not self._files.search(name):
            return None
        where = name, frame.f_lineno
        if event == "line" and where not in self._seen:
            self._seen.add(where)
            self.raised = where
            raise self._error
        return self


def raised_at_every_line(files, foreign, work, prepare=lambda: ()):
    """What came out of `work(*prepare())` instead of the exception, by line; and how many lines there were."""
    seen, wrong = set(), {}
    while True:
        error, prepared = foreign(), prepare()
        trace = _Raising(files, error, seen)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            work(*prepared)
            came_out = None
        except BaseException as caught:  # noqa: BLE001 - whatever it is
            came_out = caught
        finally:
            sys.settrace(before)
        if trace.raised is None:
            return wrong, len(seen)
        if came_out is not error:
            wrong[trace.raised] = repr(came_out)


@pytest.fixture(params=("", WORD), ids=("plain", "protected"))
def new_local(request, tmp_path):
    """Makes a key in a file of its own, and gives what opens it; the passphrase is derived anew by each."""
    secret = Secret(request.param.encode()) if request.param else None
    options, numbers = {"passphrase": request.param} if request.param else {}, itertools.count()

    def new_local(name=""):
        path = tmp_path / (name or f"{next(numbers)}.json")
        KeyFile.create(path, "app", secret, cost=Cost(1, 8, 1))
        uri = KeyURI.parse(f"local:{path}#app")
        return lambda: ManagedKey("app", lambda: LocalDriver.open(uri, Options(options)))

    return new_local


@pytest.fixture
def open_local(new_local):
    """Opens a key in keys.json."""
    return new_local("keys.json")


OPERATIONS = {
    "open": lambda key, _: None,
    "wrap": lambda key, _: key.wrap(DATA_KEY, CONTEXT),
    "unwrap": lambda key, wrapped: key.unwrap(wrapped, CONTEXT),
    "describe": lambda key, _: key.describe(),
    "rotate": lambda key, _: key.rotate(),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@every_exception
def test_it_comes_out_of_every_line_of_the_local_driver(new_local, foreign, operation):
    """Of opening a key, and of each call; nothing is translated or tried again."""

    def prepare():
        open_local = new_local()
        return open_local, open_local().wrap(DATA_KEY, CONTEXT)

    wrong, lines = raised_at_every_line(
        r"/kmsbridge/drivers/local/",
        foreign,
        lambda open_local, wrapped: operation(open_local(), wrapped),
        prepare,
    )
    assert wrong == {}
    assert lines > LEAST_LINES


@pytest.mark.parametrize("may_wait", (True, False), ids=("waiting", "here"))
@every_exception
def test_it_comes_out_of_every_line_of_a_call(service, foreign, may_wait):
    """Whether the driver may wait or not."""
    changed = {
        "service": service,
        "may_wait": may_wait,
        "classify": lambda self, error, operation: None,
    }
    driver = type("Driver", (FakeDriver,), changed)
    key = ManagedKey("app", lambda: driver.open(KeyURI.parse("fake:app"), Options({})))
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    wrong, lines = raised_at_every_line(
        r"/kmsbridge/(keys|testing)/", foreign, lambda: key.unwrap(wrapped, CONTEXT)
    )
    assert wrong == {}
    assert lines > LEAST_LINES
    assert key.unwrap(wrapped, CONTEXT) == DATA_KEY
    assert not key.unhealthy
    key.close()


@every_exception
def test_it_comes_out_of_waiting_for_another_process(open_local, foreign, tmp_path):
    """That holds the lock of the key file."""
    key, error = open_local(), foreign()
    began = time.monotonic()
    with (
        files.locked(str(tmp_path / "keys.json"), timeout=PATIENCE),
        interrupted(error, after=0.2),
        pytest.raises(foreign) as caught,
    ):
        key.rotate(deadline=key.new_deadline())
    assert caught.value is error
    assert time.monotonic() - began < PATIENCE


def test_a_call_at_any_line_of_the_local_driver_does_not_hang(open_local):
    """As a signal handler makes it, while the passphrase is being derived, too; also on another thread."""
    wrapped = open_local().wrap(DATA_KEY, CONTEXT)
    seen, depth = set(), 0

    def again(key):
        try:
            assert key.unwrap(wrapped, CONTEXT) == DATA_KEY
        except (
            errors.KmsTimeout
        ) as error:  # another thread that waited for the derivation, and was told in time
            del error

    while True:
        key, before_this = open_local(), len(seen)

        def trace(frame, event, _argument, key=key):
            nonlocal depth
            if "/kmsbridge/drivers/local/" not in frame.f_code.co_filename:
                return None
            where = frame.f_code.co_filename, frame.f_lineno
            if event == "line" and where not in seen and not depth:
                seen.add(where)
                depth += 1
                assert key.unwrap(wrapped, CONTEXT) == DATA_KEY
                depth -= 1
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            again(key)
        finally:
            sys.settrace(before)
        if len(seen) == before_this:
            break
    assert len(seen) > LEAST_LINES


def test_another_thread_of_a_signal_handler_waits_no_longer_than_its_deadline(tmp_path):
    """Where the interrupted thread is the one that derives the key of the passphrase."""
    path = tmp_path / "keys.json"
    KeyFile.create(path, "app", Secret(WORD.encode()), cost=Cost(1, 8, 1))
    calls = {"attempt_timeout": 0.3, "deadline": 0.5, "max_attempts": 1}
    with EnvelopeCipher.from_uri(f"local:{path}#app", passphrase=WORD, calls=calls) as cipher:
        (key,) = cipher._session.keys.values()
        with key.driver._file._unlocker._lock:
            error = Outcome(lambda: cipher.encrypt(b"x")).join().error
        assert isinstance(error, errors.KmsTimeout)
        assert cipher.decrypt(cipher.encrypt(b"x")) == b"x"


def test_a_soft_time_limit_while_a_passphrase_is_derived_comes_out(tmp_path):
    """When the derivation, which nothing interrupts, is over."""
    path = tmp_path / "keys.json"
    KeyFile.create(path, "app", Secret(WORD.encode()), cost=Cost(4, 256 * 1024, 1))
    error = SoftTimeLimit()
    with EnvelopeCipher.from_uri(f"local:{path}#app", passphrase=WORD) as cipher:
        with interrupted(error, after=0.05), pytest.raises(SoftTimeLimit) as caught:
            cipher.encrypt(b"x")
        assert caught.value is error
        assert cipher.decrypt(cipher.encrypt(b"x")) == b"x"
    assert threading.current_thread() is threading.main_thread()
