"""An exception raised at any line, as a signal handler can: no frame of the library shows a plaintext."""

import functools
import io
from typing import Annotated

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings

from kmsbridge import EnvelopeCipher
from kmsbridge.integrations.pydantic_settings import Encrypted
from tests.interrupts import LIBRARY, Interrupt, Late, interrupted_at
from tests.secrets.canaries import PLAINTEXT, assert_discreet
from tests.support import BODIES

LINES = PLAINTEXT.reveal() + b"\n"
COPIES = 700
"""The number of lines in the payload: it is more than two chunks long."""


USES = {
    "read": lambda reader, buffer: reader.read(),
    "read some": lambda reader, buffer: reader.read(20_000),
    "read1": lambda reader, buffer: reader.read1(),
    "readinto": lambda reader, buffer: reader.readinto(buffer),
    "readinto1": lambda reader, buffer: reader.readinto1(buffer),
    "peek": lambda reader, buffer: reader.peek(),
    "readline": lambda reader, buffer: reader.readline(),
    "a line of two chunks": lambda reader, buffer: (reader.seek(16_380), reader.readline()),
    "readlines": lambda reader, buffer: reader.readlines(3000),
    "next": lambda reader, buffer: next(reader),
    "BufferedReader": lambda reader, buffer: io.BufferedReader(reader).read(20_000),
    "TextIOWrapper": lambda reader, buffer: io.TextIOWrapper(reader, "utf-8").readline(),
    "close": lambda reader, buffer: (reader.read(1), reader.close()),
}


# What Python's own buffers raise when the collector closes them, from 3.13 on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("kind", (*BODIES, "direct"))
def test_a_reader_s_frames_show_no_plaintext_whichever_line_is_interrupted(service, use, kind):
    """At each line in turn; and a caller's buffer has all that was asked for or nothing."""
    plain = LINES if kind == "direct" else LINES * COPIES
    number, interrupts, more = 0, 0, True
    with EnvelopeCipher.from_uri("fake:app", direct=kind == "direct") as cipher:
        message = BODIES.get(kind, EnvelopeCipher.encrypt)(cipher, plain)
        while more:
            reader, buffer = cipher.open(io.BytesIO(message)), Hidden(20_000)
            error, more = interrupted_at(number, functools.partial(use, reader, buffer))
            if error is not None:  # Python's own buffers swallow what `tell` raises
                assert_discreet(error)
                interrupts += 1
            assert not any(buffer) or plain.startswith(bytes(buffer).rstrip(b"\0")[: len(plain)])
            number += 1
    assert interrupts > 5


class Hidden(bytearray):
    """A caller's buffer whose repr tells nothing: it is the caller's, and not looked at."""

    def __repr__(self):
        return "Hidden"


def test_a_frame_that_shows_a_plaintext_is_seen(service):
    """The check can fail: here the test's own frame shows it."""

    def careless():
        shown = PLAINTEXT.reveal()
        raise Interrupt(len(shown))

    with pytest.raises(Interrupt) as caught:
        careless()
    with pytest.raises(AssertionError, match="plaintext in the traceback"):
        assert_discreet(caught.value)


PLACES = (
    "atomic.py",
    "cipher/files.py",
    "cipher/parallel.py",
    "cipher/pulling.py",
    "cipher/unfinished.py",
    "journal.py",
    "streams.py",
)
FILES = tuple(f"{LIBRARY}/{name}" for name in PLACES)


class Folder:
    """Files to work on, made anew for each use."""

    def __init__(self, cipher, path):
        self.cipher, self.path = cipher, path
        self.plain, self.sealed, self.target = path / "plain", path / "sealed", path / "target"
        self.plain.write_bytes(LINES * COPIES)
        cipher.encrypt_file(self.plain, self.sealed)
        self.compact = path / "compact"
        self.compact.write_bytes(cipher.encrypt(LINES * COPIES))
        self.before = self.holds()

    def holds(self):
        return {path.name: path.read_bytes() for path in self.path.iterdir()}


def create(folder):
    with folder.cipher.create(folder.target) as file:
        file.write(LINES * COPIES)


def encrypting(folder):
    with folder.cipher.encrypting(io.BytesIO(LINES * COPIES)) as file:
        file.read()


OPERATIONS = {
    "create": create,
    "encrypting": encrypting,
    "encrypt_file": lambda f: f.cipher.encrypt_file(f.plain, f.target),
    "decrypt_file": lambda f: f.cipher.decrypt_file(f.sealed, f.target),
    "encrypt_stream": lambda f: f.cipher.encrypt_stream(io.BytesIO(LINES), io.BytesIO()),
    "decrypt_stream": lambda f: f.cipher.decrypt_stream(io.BytesIO(f.before["sealed"]), io.BytesIO()),
    "open": lambda f: f.cipher.open(f.sealed).close(),
    "decrypt_file, compact": lambda f: f.cipher.decrypt_file(f.compact, f.target),
    "decrypt_stream, compact": lambda f: f.cipher.decrypt_stream(
        io.BytesIO(f.before["compact"]), io.BytesIO()
    ),
    "open, compact": lambda f: f.cipher.open(f.compact).close(),
}


# Between a file's opening and the block that closes it, Python's collector has to.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
@pytest.mark.parametrize("kind", (Interrupt, Late))
def test_an_exception_at_any_line_comes_out_of_files_and_streams(cipher, tmp_path, operation, kind):
    """Unchanged, though it is an `OSError`; shows no plaintext, and leaves the target whole or not there."""
    folder, number, more = Folder(cipher, tmp_path), 0, True
    while more:
        error, more = interrupted_at(number, functools.partial(operation, folder), kind, FILES)
        assert (error is not None) == more, f"line {number} was swallowed"
        if error is not None:
            assert type(error) is kind
            assert_discreet(error)
        holds = folder.holds()
        whole = holds.pop("target", None)
        assert holds == folder.before
        assert whole is None or len(whole) >= len(LINES * COPIES)
        folder.target.unlink(missing_ok=True)
        number += 1
    assert number > 20


VALUES = {
    "reveal": lambda secret: secret.reveal() and None,
    "reveal_text": lambda secret: secret.reveal_text() and None,
    "use": lambda secret: secret.use(len),
    "use_text": lambda secret: secret.use_text(len),
    "with": lambda secret: secret.__exit__(None, None, None) if secret.__enter__() else None,
    "repr": repr,
    "equals": lambda secret: secret.equals(secret),
}


@pytest.mark.parametrize("use", VALUES.values(), ids=VALUES)
def test_a_secret_value_s_frames_show_no_plaintext_whichever_line_is_interrupted(cipher, use):
    """And the value is still there, or was let go of."""
    text, number, more = cipher.encrypt_text(PLAINTEXT.text()), 0, True
    while more:
        secret = cipher.decrypt_secret(text)
        error, more = interrupted_at(number, functools.partial(use, secret))
        assert (error is not None) == more, f"line {number} was swallowed"
        if error is not None:
            assert_discreet(error)
        number += 1
    assert number > 1


def test_settings_show_no_plaintext_whichever_line_is_interrupted(cipher, monkeypatch):
    """Loaded from the environment: pydantic turns some exceptions into its own, which hides the input."""
    monkeypatch.setenv("PASSWORD", cipher.encrypt_text(PLAINTEXT.text()))

    class Settings(BaseSettings):
        password: Annotated[SecretStr, Encrypted(cipher=lambda: cipher)]

    number, interrupts, more = 0, 0, True
    while more:
        error, more = interrupted_at(number, Settings)
        if error is not None:
            assert_discreet(error)
            interrupts += 1
        number += 1
    assert interrupts > 20
