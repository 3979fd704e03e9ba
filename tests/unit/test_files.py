"""encrypt_file and decrypt_file: whole or not at all, and a typed error for what is no file."""

import io
import os

import pytest

from kmsbridge import AuthenticationError, EnvelopeCipher, MalformedMessage, inspect_file
from kmsbridge.cipher import files as files_module
from kmsbridge.cipher import parallel
from tests.support import Clock, Outcome


@pytest.fixture
def place(tmp_path):
    (tmp_path / "plain").write_bytes(os.urandom(200_000))
    return tmp_path


@pytest.mark.parametrize("size", (0, 1, 16384, 2**20 - 1, 2**20, 2**20 + 1, 3_000_000))
def test_a_file_comes_back(place, cipher, size):
    """At and around the edges of a step."""
    plaintext = os.urandom(size)
    (place / "plain").write_bytes(plaintext)
    cipher.encrypt_file(place / "plain", place / "sealed", context={"a": "b"}, aad=b"1")
    cipher.decrypt_file(place / "sealed", place / "opened", context={"a": "b"}, aad=b"1")
    assert (place / "opened").read_bytes() == plaintext
    assert cipher.decrypt((place / "sealed").read_bytes(), context={"a": "b"}, aad=b"1") == plaintext
    assert inspect_file(place / "sealed").plaintext_length == size
    assert sorted(os.listdir(place)) == ["opened", "plain", "sealed"]


@pytest.mark.parametrize("kind", (str, lambda path: path), ids=("str", "Path"))
def test_any_path_will_do(place, cipher, kind):
    """As elsewhere in Python."""
    cipher.encrypt_file(kind(place / "plain"), kind(place / "sealed"))
    cipher.decrypt_file(kind(place / "sealed"), kind(place / "opened"))
    assert (place / "opened").read_bytes() == (place / "plain").read_bytes()


def test_source_and_target_may_be_one(place, cipher):
    """It is replaced at the end."""
    before = (place / "plain").read_bytes()
    cipher.encrypt_file(place / "plain", place / "plain")
    assert inspect_file(place / "plain").kind == "inline"
    cipher.decrypt_file(place / "plain", place / "plain")
    assert (place / "plain").read_bytes() == before
    assert os.listdir(place) == ["plain"]


def test_a_link_is_followed_and_stays(place, cipher):
    """What it points to is replaced."""
    (place / "real").write_bytes(b"older")
    (place / "link").symlink_to("real")
    cipher.encrypt_file(place / "plain", place / "link")
    assert (place / "link").is_symlink()
    assert inspect_file(place / "real").kind == "inline"


def make(path, what):
    {
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
        "nothing": lambda: None,
        "in no folder": lambda: None,
        "looping link": lambda: path.symlink_to(path),
    }[what]()
    return path / "below" if what == "in no folder" else path


@pytest.mark.parametrize("what", ("folder", "fifo", "nothing", "in no folder", "looping link"))
@pytest.mark.parametrize("operation", ("encrypt_file", "decrypt_file", "open", "rewrap_file"))
def test_a_source_that_is_no_file_is_named(place, cipher, operation, what):
    """`OSError` with the path, at once: a FIFO is not waited for; no target, nothing else."""
    source = make(place / "source", what)
    arguments = (source, place / "target") if operation in ("encrypt_file", "decrypt_file") else (source,)
    before = sorted(os.listdir(place))
    outcome = Outcome(lambda: getattr(cipher, operation)(*arguments)).join()
    assert isinstance(outcome.error, OSError)
    assert str(source) in str(outcome.error)
    assert sorted(os.listdir(place)) == before


@pytest.mark.parametrize("what", ("folder", "fifo", "in no folder"))
@pytest.mark.parametrize("operation", ("encrypt_file", "decrypt_file"))
def test_a_target_that_cannot_be_is_named(place, cipher, operation, what):
    """`OSError` with the target's name; what is there stays."""
    cipher.encrypt_file(place / "plain", place / "sealed")
    target = make(place / "target", what)
    source = place / ("plain" if operation == "encrypt_file" else "sealed")
    before = sorted(os.listdir(place))
    outcome = Outcome(lambda: getattr(cipher, operation)(source, target)).join()
    assert isinstance(outcome.error, OSError)
    assert "target" in str(outcome.error)
    assert ".tmp" not in str(outcome.error)
    assert sorted(os.listdir(place)) == before


@pytest.mark.parametrize(
    ("content", "error"),
    ((b"", MalformedMessage), (b"text", MalformedMessage), (b"KMSB\1\0\xff\xff", MalformedMessage)),
    ids=("empty", "text", "a header that claims more"),
)
def test_what_is_no_message_makes_no_target(place, cipher, content, error):
    """Refused before a temporary file is made."""
    (place / "source").write_bytes(content)
    with pytest.raises(error):
        cipher.decrypt_file(place / "source", place / "target")
    assert sorted(os.listdir(place)) == ["plain", "source"]


@pytest.mark.parametrize("cut", (1, 16, 1000, 100_000), ids="{} bytes cut off".format)
def test_a_message_cut_short_makes_no_target(place, cipher, cut):
    """And an older target stays."""
    cipher.encrypt_file(place / "plain", place / "sealed")
    data = (place / "sealed").read_bytes()
    (place / "sealed").write_bytes(data[:-cut])
    (place / "target").write_bytes(b"older")
    with pytest.raises(AuthenticationError):
        cipher.decrypt_file(place / "sealed", place / "target")
    assert (place / "target").read_bytes() == b"older"
    assert sorted(os.listdir(place)) == ["plain", "sealed", "target"]


def test_progress_is_told_ten_times_a_second_at_most_and_at_the_end(monkeypatch, place, cipher):
    """With a step of a megabyte each 10 ms, one call in ten."""
    clock, told = Clock(), []
    monkeypatch.setattr(parallel, "processors", lambda: 1)
    monkeypatch.setattr(files_module.time, "monotonic", clock)
    read = files_module.read_at

    def slow(reader, buffer, offset):
        clock.now += 0.01
        return read(reader, buffer, offset)

    monkeypatch.setattr(files_module, "read_at", slow)
    size = 60 * files_module.STEP
    with open(place / "plain", "wb") as file:
        file.truncate(size)
    cipher.encrypt_file(place / "plain", place / "sealed", progress=told.append)
    assert 5 <= len(told) <= 8
    assert told == sorted(told)
    assert told[-1] == size


@pytest.mark.parametrize("length", (0, 1, 4000, 65_536, 100_000))
@pytest.mark.parametrize("way", ("direct", "in memory", "a stream"))
def test_progress_of_any_message_never_goes_back(monkeypatch, place, cipher, length, way):
    """Whatever its kind: what is told at the end is at least what was told before."""
    clock, told = Clock(), []
    clock.now = 0.0
    monkeypatch.setattr(files_module.time, "monotonic", lambda: clock.sleep(1) or clock.now)
    if way == "a stream":
        with open(place / "message", "wb") as writer:
            cipher.encrypt_stream(io.BytesIO(bytes(length)), writer)
    else:
        direct = way == "direct"
        with EnvelopeCipher.from_uri("fake:app", direct=direct) as other:
            (place / "message").write_bytes(other.encrypt(bytes(min(length, 4000 if direct else length))))
    cipher.decrypt_file(place / "message", place / "opened", progress=told.append)
    assert told == sorted(told)
    assert told[-1] >= os.path.getsize(place / "opened")


def test_a_progress_that_raises_stops_the_work(place, cipher):
    """Its own error comes out, and nothing is left."""
    with pytest.raises(ZeroDivisionError):
        cipher.encrypt_file(place / "plain", place / "sealed", progress=lambda done: done // 0)
    assert os.listdir(place) == ["plain"]


def test_threads_write_files_with_one_cipher(place, cipher):
    """Each its own, all at once."""
    outcomes = [
        Outcome(lambda n=n: cipher.encrypt_file(place / "plain", place / f"sealed{n}")) for n in range(8)
    ]
    assert [outcome.join().error for outcome in outcomes] == [None] * 8
    for n in range(8):
        cipher.decrypt_file(place / f"sealed{n}", place / "opened")
        assert (place / "opened").read_bytes() == (place / "plain").read_bytes()
