"""Handlers that use a cipher while it is in use beneath them: they get an answer or an error, and never hang."""

import itertools
import logging
import signal
import subprocess
import sys
import textwrap

import pytest

from kmsbridge import ClosedError, EnvelopeCipher, ReentrantCall
from tests.support import PATIENCE, Outcome, is_library

CONTEXT = {"tenant": "acme"}


class Encrypting(logging.Handler):
    """Encrypts every record, as one that ships logs somewhere does, and keeps what it could not."""

    def __init__(self, cipher, context):
        super().__init__()
        self.cipher, self.context = cipher, context
        self.messages, self.failures = [], []

    def emit(self, record):
        try:
            self.messages.append(self.cipher.encrypt_text(self.format(record), context=self.context))
        except (ReentrantCall, ClosedError) as error:
            self.failures.append(error)


@pytest.fixture
def root_handler(request):
    """Install a handler at the root logger, for records of every level."""

    def install(handler):
        root, level = logging.getLogger(), logging.getLogger().level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        request.addfinalizer(lambda: root.removeHandler(handler))
        request.addfinalizer(lambda: root.setLevel(level))
        return handler

    return install


@pytest.mark.parametrize(
    "context", (CONTEXT, {"handler": "logs"}), ids=("the same context", "a context of its own")
)
def test_a_root_handler_that_encrypts_ends_every_operation(service, root_handler, context):
    """The audit events of its own data key's call come while that call is made."""
    with EnvelopeCipher.from_uri("fake:app") as cipher:
        handler = root_handler(Encrypting(cipher, context))
        work = Outcome(lambda: cipher.decrypt(cipher.encrypt(b"x", context=CONTEXT), context=CONTEXT))
        assert work.join().value == b"x"
        logging.getLogger("application").info("hello")
        assert cipher.decrypt_text(handler.messages[-1], context=context).endswith("hello")
    assert service.app.calls["wrap"] <= 2


def test_a_root_handler_that_encrypts_with_several_keys_ends(service, root_handler, tmp_path):
    """Each key's call, and its event, is on another thread than the one that waits for both."""
    path = tmp_path / "kmsbridge.toml"
    path.write_text(
        '[keys]\napp.uri = "fake:app"\nother.uri = "fake:other"\n'
        '[profiles.p]\nencrypt_to = ["app", "other"]\ndecrypt_with = ["app", "other"]\n'
    )
    with EnvelopeCipher.from_config(path, profile="p") as cipher:
        handler = root_handler(Encrypting(cipher, CONTEXT))
        assert Outcome(lambda: cipher.encrypt(b"x", context=CONTEXT)).join().value
        assert handler.failures
        assert "logging handler" in str(handler.failures[0])
        assert "queue" in handler.failures[0].remedy


def test_a_root_handler_that_encrypts_with_a_data_key_for_each_message_ends(service, root_handler):
    """Each record would make an event, and so another record."""
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_messages": 1}) as cipher:
        root_handler(Encrypting(cipher, CONTEXT))
        assert Outcome(lambda: cipher.encrypt(b"x", context=CONTEXT)).join().value
    assert service.app.calls["wrap"] < 10


def interrupt_everywhere(operation, handler, start, stride):
    """Run `operation()` again and again, with a signal handled at one line of the library after the other."""
    for nth in itertools.count(start, stride):
        steps, interrupted = itertools.count(), []

        def trace(frame, event, argument, nth=nth, steps=steps, interrupted=interrupted):
            name = frame.f_code.co_filename
            if not is_library(name):
                return None
            if event == "line" and next(steps) == nth:
                interrupted.append((name, frame.f_lineno))
                signal.raise_signal(signal.SIGUSR1)
            return trace

        def on_signal(number, frame):
            sys.settrace(None)
            handler()

        before = signal.signal(signal.SIGUSR1, on_signal)
        sys.settrace(trace)
        try:
            operation()
        finally:
            sys.settrace(None)
            signal.signal(signal.SIGUSR1, before)
        if not interrupted:
            return
        yield interrupted[0]


@pytest.mark.parametrize("size", (10, 65_537), ids=("compact", "chunked"))
@pytest.mark.parametrize("warm", (False, True), ids=("cold", "warm"))
@pytest.mark.parametrize("uri", ("fake:app", "local"))
def test_a_signal_handler_that_encrypts_and_decrypts_ends_wherever_it_comes(
    service, key_file, torture, uri, warm, size
):
    """At every line of encrypt, decrypt and close: it works, or `ReentrantCall` says that it cannot."""
    uri = key_file if uri == "local" else uri
    opened, outer, inner = [], b"o" * size, b"i" * size

    def operation():
        if not warm or not opened:
            opened.append(EnvelopeCipher.from_uri(uri))
        cipher = opened[-1]
        assert cipher.decrypt(cipher.encrypt(outer, context=CONTEXT), context=CONTEXT) == outer
        if not warm:
            cipher.close()

    def handler():
        if opened:
            try:
                message = opened[-1].encrypt(inner, context=CONTEXT)
                assert opened[-1].decrypt(message, context=CONTEXT) == inner
            except ReentrantCall:
                outcomes.append("refused")
            except Exception as error:  # noqa: BLE001 - looked at below
                outcomes.append(type(error).__name__)
            else:
                outcomes.append("works")

    outcomes = []
    signal.alarm(int(4 * PATIENCE))  # a hang ends the test run, and shows where
    try:
        stride = 1 if torture.scale == 1.0 else 3 if warm else 11
        start = torture.rng(f"{uri}/{warm}/{size}").randrange(stride)
        points = sum(1 for _ in interrupt_everywhere(operation, handler, start, stride))
    finally:
        signal.alarm(0)
    assert points > 10
    assert set(outcomes) <= {"works", "refused", "ClosedError"}
    assert "works" in outcomes
    if not warm:
        assert "refused" in outcomes
    opened[-1].close()


AT_THE_END = """
import logging, logging.handlers
from kmsbridge import EnvelopeCipher
cipher = EnvelopeCipher.from_uri("local:keys.json#app")

class Encrypting(logging.Handler):
    def emit(self, record):
        with open("shipped", "a") as file:
            file.write(cipher.encrypt_text(record.getMessage()) + "\\n")

logging.getLogger("application").addHandler(logging.handlers.MemoryHandler(100, target=Encrypting()))
logging.getLogger("application").setLevel("INFO")
logging.getLogger("application").info("the last words")
"""


@pytest.mark.parametrize("warm", (False, True), ids=("cold", "warm"))
def test_a_handler_that_flushes_at_the_end_still_finds_the_cipher(tmp_path, key_file, warm):
    """Records that were kept until the interpreter ended are encrypted, with a data key at hand or a new one."""
    program = AT_THE_END + ('cipher.encrypt(b"warm")\n' if warm else "")
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert result.stderr == ""
    with EnvelopeCipher.from_uri(key_file) as cipher:
        (line,) = (tmp_path / "shipped").read_text().splitlines()
        assert cipher.decrypt_text(line) == "the last words"
