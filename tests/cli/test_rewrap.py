"""`kmsbridge rewrap`."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

import kmsbridge
from kmsbridge.journal import SUFFIX

CONTEXT = ("-c", "tenant=acme")


def version(path: str) -> str:
    data = Path(path).read_bytes()
    return kmsbridge.inspect(data.decode() if data.startswith(b"kmsb1_") else data).recipients[0].key_version


@pytest.fixture
def rotated(home):
    """A binary file, an armored one and a pipe's, encrypted before the key was rotated."""
    home.write("plain", os.urandom(200_000))
    home.ok("encrypt", "plain", "-o", "file", *CONTEXT)
    home.ok("encrypt", "plain", "-o", "text", "--armor", *CONTEXT)
    home.write("piped", home.ok("encrypt", "plain", *CONTEXT))
    home.ok("rotate", "dev", "-q")
    return home


NAMES = ("file", "text", "piped")


@pytest.mark.parametrize("name", NAMES)
def test_rewrapped_in_place(rotated, name):
    """The key's new version, the same mode and form, the same plaintext; a second time nothing happens."""
    os.chmod(name, 0o640)
    before = (rotated.path / name).read_bytes()
    assert "rewrapped 1" in rotated.run("rewrap", name, *CONTEXT).err
    after = (rotated.path / name).read_bytes()
    assert version(name) == "2"
    assert after != before
    assert after[:5] == before[:5]
    assert stat.S_IMODE(os.stat(name).st_mode) == 0o640
    assert rotated.ok("decrypt", name, *CONTEXT) == (rotated.path / "plain").read_bytes()
    assert "already current 1" in rotated.run("rewrap", name, *CONTEXT).err
    assert (rotated.path / name).read_bytes() == after
    assert set(os.listdir()) == {*NAMES, "plain", "kmsbridge.toml", "dev-keys.json", "dev-keys.json.lock"}


@pytest.mark.parametrize("name", NAMES)
def test_rewrapped_through_a_pipe(rotated, name):
    """Stdin to stdout; only the header changes."""
    out = rotated.ok("rewrap", "-", *CONTEXT, stdin=(rotated.path / name).read_bytes())
    rotated.write("out", out)
    assert version("out") == "2"
    assert rotated.ok("decrypt", "out", *CONTEXT) == (rotated.path / "plain").read_bytes()


def test_check_changes_nothing_and_says_which(rotated):
    """Exit code 10 while any needs it, its name on stdout; 0 afterwards."""
    before = rotated.files()
    done = rotated.run("rewrap", "--check", *NAMES)
    assert done.code == 10
    assert done.text.split() == list(NAMES)
    assert rotated.files() == before
    rotated.ok("rewrap", "file", "text", *CONTEXT)
    done = rotated.run("rewrap", "--check", "--json", *NAMES)
    assert done.code == 10
    assert [(row["file"], row["needs_rewrap"]) for row in json.loads(done.out)] == [
        ("file", False),
        ("text", False),
        ("piped", True),
    ]
    rotated.ok("rewrap", "piped", *CONTEXT)
    assert rotated.ok("rewrap", "--check", *NAMES) == b""
    assert rotated.run("rewrap", "--check", "-", stdin=before["file"]).code == 10


def test_one_failure_does_not_stop_the_others(rotated):
    """Every file is tried, each failure is told, and the first one's exit code counts."""
    rotated.write("junk", b"junk")
    os.mkdir("folder")
    done = rotated.run("rewrap", "junk", "folder", "none", "file", *CONTEXT, "--json")
    assert done.code == 4
    assert [line.split(": ")[1] for line in done.err.splitlines()] == ["junk", "folder", "none"]
    assert json.loads(done.out) == [{"file": "file", "rewrapped": True}]


def test_the_wrong_context_changes_nothing(rotated):
    """A file that does not open keeps its header."""
    before = rotated.files()
    done = rotated.run("rewrap", *NAMES)
    assert done.code == 5
    assert len(done.err.splitlines()) == 3
    assert rotated.files() == before


def test_compact_messages_are_rewrapped_without_their_aad(home):
    """A file, and a pipe; kind, commitment and body stay."""
    with kmsbridge.EnvelopeCipher.from_config() as cipher:
        message = cipher.encrypt(b"payload", context={"tenant": "acme"}, aad=b"row 1")
    home.write("message", message)
    before = kmsbridge.inspect(message)
    home.ok("rotate", "dev", "-q")
    piped = home.ok("rewrap", "-", *CONTEXT, stdin=message)
    home.ok("rewrap", "message", *CONTEXT)
    for after in (piped, (home.path / "message").read_bytes()):
        info = kmsbridge.inspect(after)
        assert (info.body, info.commitment, info.padding) == ("compact", before.commitment, 0)
        assert info.recipients[0].key_version == "2"
        assert after[info.header_length :] == message[before.header_length :]
        assert home.ok("decrypt", *CONTEXT, "--aad", "row 1", stdin=after) == b"payload"


def test_direct_messages_are_rewrapped_with_their_aad(home):
    """A direct message needs its aad, and has no body."""
    with open("kmsbridge.toml", "a") as file:
        file.write('[profiles.direct]\nencrypt_to = ["dev"]\ndecrypt_with = ["dev"]\ndirect = true\n')
    with kmsbridge.EnvelopeCipher.from_config(profile="direct") as cipher:
        home.write("message", cipher.encrypt(b"payload", aad=b"row 1"))
    home.ok("rotate", "dev", "-q")
    assert home.run("rewrap", "message").code == 5
    home.ok("--profile", "direct", "rewrap", "message", "--aad", "row 1")
    assert version("message") == "2"
    assert home.ok("decrypt", "message", "--aad", "row 1") == b"payload"


def test_a_rewrap_that_was_broken_off_is_finished(rotated, monkeypatch):
    """A file whose old header lies beside it is read by that, and rewrapped."""
    with kmsbridge.EnvelopeCipher.from_config() as cipher, monkeypatch.context() as patch:
        patch.setattr("kmsbridge.journal.os.unlink", _killed)
        with pytest.raises(RuntimeError):
            cipher.rewrap_file("file", context={"tenant": "acme"})
    assert os.path.exists("file" + SUFFIX)
    with open("file", "r+b") as file:
        length = int.from_bytes(file.read(8)[6:], "big")
        file.write(bytes(length - 8))
    assert rotated.ok("decrypt", "file", *CONTEXT) == (rotated.path / "plain").read_bytes()
    rotated.ok("rewrap", "file", *CONTEXT)
    assert not os.path.exists("file" + SUFFIX)
    assert rotated.ok("decrypt", "file", *CONTEXT) == (rotated.path / "plain").read_bytes()


def _killed(*_args):
    raise RuntimeError("killed")


@pytest.mark.parametrize("args", (("-", "file"), ("-", "--json")), ids=" ".join)
def test_a_pipe_stands_alone(rotated, args):
    """- cannot be mixed with files or a JSON document."""
    assert rotated.run("rewrap", *args).code == 2


def test_verify_asks_the_service_with_the_context(rotated):
    """A current file passes. A wrong context, which the service notices, fails the check."""
    rotated.ok("rewrap", "file", *CONTEXT)
    assert rotated.run("rewrap", "--check", "--verify", "file", *CONTEXT).code == 0
    assert rotated.run("rewrap", "--check", "file").code == 0
    assert rotated.run("rewrap", "--check", "--verify", "file").code == 5
