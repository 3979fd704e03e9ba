"""What tests of the portable API share: a key service in memory, messages of each kind, threads, forked children."""

import contextlib
import io
import os
import select
import sys
import threading
import time
import traceback
import warnings

import pytest

import kmsbridge
from kmsbridge import EnvelopeCipher, registry
from kmsbridge import message as wire
from kmsbridge.testing.fakes.fake import FakeDriver, UnboundFakeDriver
from kmsbridge.testing.fakes.service import FakeService

LIBRARY = os.path.dirname(kmsbridge.__file__)
"""The library's folder: not told by its name, which a checkout's folder may have too."""
PATIENCE = 30.0
"""Seconds after which something that should have happened counts as hanging."""


def is_library(filename):
    """Return whether a file is the library's own. What it ships for tests is not."""
    return filename.startswith(f"{LIBRARY}/") and not filename.startswith(f"{LIBRARY}/testing/")


class Service(FakeService):
    """The fake service with the keys app and other; `before(operation)` runs ahead of every operation."""

    def __init__(self):
        super().__init__()
        self.app, self.other = self.create("app"), self.create("other")
        self.before = lambda operation: None

    def perform(self, name, operation, caller, arguments, *, timeout):
        self.before(operation)
        return super().perform(name, operation, caller, arguments, timeout=timeout)


@pytest.fixture
def service(monkeypatch):
    """A fresh key service; `fake:app` and `fake:other` are its keys, `fake-unbound:...` the same unbound."""
    service = Service()
    install(
        monkeypatch,
        *(type(cls.__name__, (cls,), {"service": service}) for cls in (FakeDriver, UnboundFakeDriver)),
    )
    return service


@pytest.fixture
def cipher(service):
    """Encrypts to `fake:app`, and decrypts with it."""
    with EnvelopeCipher.from_uri("fake:app") as cipher:
        yield cipher


def encrypt_chunked(cipher, payload, *, context=None, aad=b""):
    """A message with a chunked body, which `encrypt` gives a large payload only, and a stream any."""
    written = io.BytesIO()
    cipher.encrypt_stream(io.BytesIO(payload), written, context=context, aad=aad)
    return written.getvalue()


def encrypt_compact(cipher, payload, *, context=None, aad=b""):
    """A message with a compact body."""
    message = cipher.encrypt(payload, context=context, aad=aad)
    assert wire.parse(message).kind is wire.Kind.INLINE_COMPACT
    return message


BODIES = {"chunked": encrypt_chunked, "compact": encrypt_compact}
CHUNKED, COMPACT = (
    pytest.mark.parametrize("encrypt", (encrypt,), ids=(name,)) for name, encrypt in BODIES.items()
)
"""For a test of one format of body, where its fixtures would give it both."""


@pytest.fixture(params=BODIES.values(), ids=BODIES)
def encrypt(request):
    """`encrypt(cipher, payload, context=..., aad=...)`: with a chunked body and with a compact one."""
    return request.param


def parts(message):
    """A message's header, as bytes, and its body."""
    start = int.from_bytes(message[6:8], "big")
    return message[:start], message[start:]


def with_recipients(message, *recipients):
    """The same message for other recipients: all else that its header holds, and the body, are left."""
    header = wire.parse_header(message)
    new = wire.inline(recipients, kind=header.kind, commitment=header.commitment)
    return new.encode() + message[header.length :]


def install(monkeypatch, *drivers):
    """Have the registry find these driver classes besides those that are installed."""
    for driver in drivers:
        monkeypatch.setitem(registry._replacements, driver.scheme, driver)


class Clock:
    """A clock that a test sets; `sleep` lets its time pass."""

    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


class Outcome:
    """What a call on another thread gave or raised."""

    def __init__(self, work):
        self.value = self.error = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work):
        try:
            self.value = work()
        except BaseException as error:  # noqa: BLE001 - for the test to look at
            self.error = error

    def join(self):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "a thread hangs"
        return self


def threads_in(function):
    """The threads that are in this function, or in what it has called."""
    return [ident for ident, frame in sys._current_frames().items() if function.__code__ in _codes(frame)]


def _codes(frame):
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back


def on_threads(count, work):
    """The outcomes of `work()` on so many threads that start together."""
    start = threading.Barrier(count)

    def begin():
        start.wait(PATIENCE)
        return work()

    return [outcome.join() for outcome in [Outcome(begin) for _ in range(count)]]


def crowd(monkeypatch, flights, size):
    """An event that is set when `size` callers have come to these flights."""
    everyone, board, came = threading.Event(), flights._board, []

    def counted(name, mine):
        flight = board(name, mine)
        came.append(name)
        if len(came) >= size:
            everyone.set()
        return flight

    monkeypatch.setattr(flights, "_board", counted)
    return everyone


def fork(work):
    """Run `work()` in a forked child; gives its process id and a descriptor that ends when it does."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
        child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - whatever it was, the child ends here
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
    os.close(writing)
    return child, reading


def finish(children):
    """Wait for forked children; all must have succeeded in time."""
    until = time.monotonic() + PATIENCE
    hanging = []
    for child, reading in children:
        ready, _, _ = select.select([reading], [], [], max(0.0, until - time.monotonic()))
        if not ready:
            hanging.append(child)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, 9)
        os.close(reading)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child, _ in children]
    assert not hanging, f"{len(hanging)} children hang"
    assert codes == [0] * len(children)
