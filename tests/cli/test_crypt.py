"""`kmsbridge encrypt` and `kmsbridge decrypt`."""

from __future__ import annotations

import io
import itertools
import os
import stat
import threading
import tracemalloc
from typing import BinaryIO, cast

import pytest

import kmsbridge
from kmsbridge import message as wire
from kmsbridge.cli.armored import ArmorReader, ArmorWriter, detect
from kmsbridge.cli.streams import Input

TEXTS = {
    "nothing": b"",
    "one byte": b"\0",
    "several scripts": "naïve Ωμέγα 日本語 שלום 🔑\n".encode(),
    "a chunk": bytes(16384),
    "more than a step": os.urandom((1 << 20) + 12345),
}


@pytest.mark.parametrize("payload", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("armor", (False, True), ids=("binary", "armored"))
@pytest.mark.parametrize("way", ("file to file", "file to pipe", "pipe to file", "pipe to pipe"))
def test_what_goes_in_comes_out(home, payload, armor, way):
    """Whatever the payload, the form, and whether files or pipes stand at the ends."""
    source, _, target = way.partition(" to ")
    home.write("in", payload)
    flag = ("--armor",) if armor else ()

    def convert(command, name, result, data, *flags):
        args = (name,) if source == "file" else ()
        to = ("-o", result) if target == "file" else ()
        out = home.ok(command, *args, *to, *flags, stdin=b"" if args else data)
        if to:
            assert out == b""
            return (home.path / result).read_bytes()
        home.write(result, out)
        return out

    message = convert("encrypt", "in", "message", payload, *flag)
    assert message.startswith(b"kmsb1_" if armor else b"KMSB")
    if armor:
        assert message.endswith(b"\n")
        assert message.count(b"\n") == 1
    assert payload not in message or not payload.strip(b"\0")
    assert convert("decrypt", "message", "out", message) == payload


@pytest.mark.parametrize("size", (0, 7, 65_536))
@pytest.mark.parametrize("armor", (False, True), ids=("binary", "armored"))
@pytest.mark.parametrize("pipe", (False, True), ids=("file", "pipe"))
def test_compact_messages_of_the_library_are_decrypted(home, size, armor, pipe):
    """What a program wrote into a column, from a file and from a pipe; and nothing of a changed one comes out."""
    payload = bytes(n % 89 for n in range(size))
    with kmsbridge.EnvelopeCipher.from_config() as cipher:
        message = cipher.encrypt(payload, context={"tenant": "acme"}, aad=b"row 1")
    assert kmsbridge.inspect(message).body == "compact"
    args = ("-c", "tenant=acme", "--aad", "row 1")
    changed = message[:-1] + bytes((message[-1] ^ 1,))
    for name, given in (("good", message), ("bad", changed)):
        home.write(name, wire.armor(given) if armor else given)
    assert set(home.files()) >= {"good", "bad"}

    def decrypt(name):
        data = (home.path / name).read_bytes()
        return home.run("decrypt", *(() if pipe else (name,)), *args, stdin=data if pipe else b"")

    assert decrypt("good").out == payload
    refused = decrypt("bad")
    assert (refused.code, refused.out) == (5, b"")


def test_messages_are_those_of_the_library(home):
    """The command and the API read each other's messages."""
    context = {"tenant": "acme", "ü": "ß"}
    args = ("-c", "tenant=acme", "--context", "ü=ß", "--aad", "row 1")
    with kmsbridge.EnvelopeCipher.from_config() as cipher:
        message = home.ok("encrypt", *args, stdin=b"payload")
        assert cipher.decrypt(message, context=context, aad=b"row 1") == b"payload"
        text = cipher.encrypt_text("payload", context=context, aad=b"row 1")
        assert home.ok("decrypt", *args, stdin=f"  {text}\r\n".encode()) == b"payload"
        assert home.ok("decrypt", "--armor", *args, stdin=text.encode()) == b"payload"


def test_encrypted_files_have_room_to_be_rewrapped(home):
    """A file made of a file is padded; a pipe is not."""
    home.write("in", b"x")
    home.ok("encrypt", "in", "-o", "out")
    assert kmsbridge.inspect_file("out").padding >= 512
    assert kmsbridge.inspect(home.ok("encrypt", stdin=b"x")).padding == 0


@pytest.mark.parametrize(
    "wrong",
    (
        (),
        ("-c", "tenant=acme"),
        ("-c", "tenant=other", "--aad", "row 1"),
        ("-c", "tenant=acme", "--aad", "row 2"),
        ("-c", "tenant=acme", "-c", "more=1", "--aad", "row 1"),
    ),
    ids=lambda args: " ".join(args) or "nothing",
)
def test_another_context_or_aad_is_refused(home, one_line, wrong):
    """One wording for all of them, exit code 5, and no plaintext."""
    message = home.ok("encrypt", "-c", "tenant=acme", "--aad", "row 1", stdin=b"payload")
    done = home.run("decrypt", *wrong, stdin=message)
    assert done.code == 5
    assert done.out == b""
    assert "could not be authenticated" in one_line(done.err)


def test_aad_from_a_file_is_taken_byte_for_byte(home, one_line):
    """--aad-file is the same as the API's aad, newline included; both options at once are refused."""
    home.write("aad", b"\xff\0row\n")
    message = home.ok("encrypt", "--aad-file", "aad", stdin=b"x")
    with kmsbridge.Decryptor.from_config() as cipher:
        assert cipher.decrypt(message, aad=b"\xff\0row\n") == b"x"
    assert home.run("decrypt", "--aad-file", "aad", "--aad", "y", stdin=message).code == 2
    done = home.run("decrypt", "--aad-file", "none", stdin=message)
    assert done.code == 1
    assert "none: no such file" in one_line(done.err)


@pytest.mark.parametrize("command", ("encrypt", "decrypt"))
def test_a_target_that_exists_stays_unless_forced(home, one_line, command):
    """Nothing is replaced without --force, and nothing read either."""
    home.write("plain", b"payload")
    home.ok("encrypt", "plain", "-o", "message")
    source, expected = ("plain", None) if command == "encrypt" else ("message", b"payload")
    home.write("target", b"mine")
    for args in ((source,), ()):
        done = home.run(command, *args, "-o", "target", stdin=(home.path / source).read_bytes())
        assert done.code == 1
        assert "--force" in one_line(done.err)
        assert (home.path / "target").read_bytes() == b"mine"
        home.ok(command, *args, "-o", "target", "--force", stdin=(home.path / source).read_bytes())
        got = (home.path / "target").read_bytes()
        assert got == expected or (expected is None and got.startswith(b"KMSB"))
        home.write("target", b"mine")


def test_a_file_can_replace_itself_when_forced(home):
    """Source and target may be one file: it is replaced when all is done."""
    home.write("file", b"payload")
    home.ok("encrypt", "file", "-o", "file", "--force")
    assert (home.path / "file").read_bytes().startswith(b"KMSB")
    home.ok("decrypt", "file", "-o", "file", "--force")
    assert (home.path / "file").read_bytes() == b"payload"


@pytest.mark.parametrize("source", ("file", "pipe"))
def test_plaintext_files_are_private(home, source):
    """What decrypt writes is for its owner only; what encrypt writes has ordinary permissions."""
    old = os.umask(0o022)
    try:
        home.write("plain", b"x")
        home.ok("encrypt", "plain", "-o", "message")
        message = (home.path / "message").read_bytes()
        home.ok("decrypt", *(("message",) if source == "file" else ()), "-o", "out", stdin=message)
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat("out").st_mode) == 0o600
    assert stat.S_IMODE(os.stat("message").st_mode) == 0o644


def test_a_changed_file_leaves_no_target(home, one_line):
    """A last byte that was changed, or is missing: exit code 5, no target, no leftovers."""
    home.write("plain", os.urandom(300_000))
    home.ok("encrypt", "plain", "-o", "message")
    good = (home.path / "message").read_bytes()
    for bad in (good[:-1], good[:-1] + bytes((good[-1] ^ 1,)), good[:100_000]):
        home.write("message", bad)
        before = home.files()
        for args in (("message",), ()):
            done = home.run("decrypt", *args, "-o", "out", stdin=bad)
            assert done.code == 5
            one_line(done.err)
            assert home.files() == before


def test_a_stream_that_was_cut_short_fails_after_what_was_verified(home):
    """Only verified plaintext is on stdout, and the exit code says that it is not all."""
    payload = os.urandom(3_000_000)
    message = home.ok("encrypt", stdin=payload)
    done = home.run("decrypt", stdin=message[:-1])
    assert done.code == 5
    assert payload.startswith(done.out)
    assert len(done.out) < len(payload)


def test_devices_and_pipes_can_be_named(home):
    """A FIFO or a device is read from and written to, not replaced."""
    os.mkfifo("pipe")
    home.write("plain", b"payload")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((home.path / "pipe").read_bytes()))
    reader.start()
    home.ok("encrypt", "plain", "-o", "pipe")
    reader.join()
    writer = threading.Thread(target=lambda: (home.path / "pipe").write_bytes(got[0]))
    writer.start()
    assert home.ok("decrypt", "pipe") == b"payload"
    writer.join()
    assert home.ok("encrypt", "plain", "-o", "/dev/null") == b""
    assert stat.S_ISFIFO(os.stat("pipe").st_mode)


def test_what_is_no_regular_file_goes_through_as_a_stream_of_any_length(home):
    """Standard input by its name, a FIFO as source or as target, a file as the other end."""
    payload = os.urandom(20 * 2**20 + 5)
    home.write("plain", payload)
    done = home.shell("kmsbridge encrypt /dev/stdin -o message < plain")
    assert done.code == 0, done.err
    os.mkfifo("pipe")
    for source, command, target in (("message", "decrypt", "out"), ("plain", "encrypt", "sealed")):
        content = (home.path / source).read_bytes()
        writer = threading.Thread(target=(home.path / "pipe").write_bytes, args=(content,))
        writer.start()
        home.ok(command, "pipe", "-o", target)
        writer.join()
    assert (home.path / "out").read_bytes() == payload
    assert home.ok("decrypt", "sealed") == payload


def test_a_file_that_is_cut_short_meanwhile_is_named_with_what_to_do(home, monkeypatch):
    """It is being written by another program: not the disk's fault, and not the target's."""
    from kmsbridge.cipher import files

    home.write("plain", bytes(2**20))
    read = files.read_at

    def cut(*arguments):
        os.truncate("plain", 5)
        return read(*arguments)

    monkeypatch.setattr(files, "read_at", cut)
    done = home.run("encrypt", "plain", "-o", "message")
    assert done.code == 1
    assert "plain: " in done.err
    assert "when no other program writes to it" in done.err
    assert not (home.path / "message").exists()


def test_a_link_stays_and_its_target_is_replaced(home):
    """A symbolic link under the target's name is followed."""
    home.write("real", b"old")
    os.symlink("real", "link")
    home.ok("encrypt", "-o", "link", "--force", stdin=b"x")
    assert os.path.islink("link")
    assert (home.path / "real").read_bytes().startswith(b"KMSB")


def test_a_profile_of_one_role_does_that_only(home, one_line):
    """A profile that cannot decrypt still encrypts, and the other way round: exit code 6."""
    with open("kmsbridge.toml", "a") as file:
        file.write('[profiles.web]\nencrypt_to = ["dev"]\n[profiles.worker]\ndecrypt_with = ["dev"]\n')
    message = home.ok("--profile", "web", "encrypt", stdin=b"x")
    assert home.ok("decrypt", "--profile", "worker", stdin=message) == b"x"
    for command, profile in (("decrypt", "web"), ("encrypt", "worker")):
        done = home.run(command, "--profile", profile, stdin=message)
        assert done.code == 6
        assert profile in one_line(done.err)


# --- the armored form, in pieces ------------------------------------------------------------------


def armored(data: bytes, *cuts: int) -> bytes:
    out = io.BytesIO()
    writer = ArmorWriter(out)
    for start, end in zip((0, *cuts), (*cuts, len(data)), strict=True):
        writer.write(data[start:end])
    writer.end()
    return out.getvalue()


@pytest.mark.parametrize("length", range(8))
def test_armor_written_in_pieces_is_the_same(length):
    """Whatever the pieces, the text is what the library makes of the whole."""
    data = os.urandom(length)
    whole = wire.armor(data).encode() + b"\n"
    assert all(armored(data, a, b) == whole for a in range(length + 1) for b in range(a, length + 1))


class Slow(io.RawIOBase):
    """Gives `step` bytes at a time."""

    def __init__(self, data: bytes, step: int) -> None:
        self.data, self.step = io.BytesIO(data), step

    def readinto(self, buffer):
        data = self.data.read(min(self.step, len(buffer)))
        buffer[: len(data)] = data
        return len(data)


def slow(data: bytes, step: int) -> Input:
    return Input(cast(BinaryIO, Slow(data, step)), "it")


@pytest.mark.parametrize("step", (1, 2, 3, 4, 5, 7, 64))
@pytest.mark.parametrize("length", (0, 1, 2, 3, 4, 100))
def test_armor_read_in_pieces_is_the_same(step, length):
    """Whatever a read gives, and with white space around it."""
    data = os.urandom(length)
    text = b" \n\t" + wire.armor(data).encode() + b"\r\n \n"
    assert ArmorReader(slow(text, step)).read() == data
    reader, is_armored = detect(slow(text, step))
    assert is_armored
    assert reader.read() == data


@pytest.mark.parametrize("step", (1, 2, 3, 4, 5, 7, 64))
@pytest.mark.parametrize(
    "change",
    (
        lambda text: text[:10] + b" " + text[10:],
        lambda text: text[:14] + b"\n" + text[14:],
        lambda text: text[:6] + b" " + text[6:],
        lambda text: text[:-1] + b"\n" + text[-1:],
        lambda text: text + b"=",
        lambda text: text + b" =",
        lambda text: text[:9] + b"+" + text[10:],
        lambda text: text[:9] + b"\xe9" + text[10:],
        lambda text: text + b"A",
        lambda text: text[:-3],
        lambda text: text + b"\n" + text,
        lambda text: text[1:],
        lambda text: b"",
        lambda text: b"kmsb",
        lambda text: text + b"\x1c",
        lambda text: b"\x1f" + text,
        lambda text: text + b"\0",
        lambda text: text + b"\n" * 100 + b"A",
    ),
    ids=(
        "space inside",
        "newline inside",
        "space after the prefix",
        "newline before the last sign",
        "padding",
        "padding after space",
        "sign of another alphabet",
        "not ASCII",
        "one sign too many",
        "three signs too few",
        "two messages",
        "cut at the start",
        "nothing",
        "half a prefix",
        "a separator after",
        "a separator before",
        "a zero byte after",
        "a sign after much white space",
    ),
)
def test_armor_with_junk_is_refused_in_any_pieces(step, change):
    """What the library refuses whole is refused in pieces too."""
    text = wire.armor(os.urandom(24)).encode()
    with pytest.raises(kmsbridge.MalformedMessage):
        wire.dearmor(change(text).decode("ascii", "replace"))
    with pytest.raises(kmsbridge.MalformedMessage):
        ArmorReader(slow(change(text), step)).read()


class Repeated(io.RawIOBase):
    """Gives `before`, `count` times `block`, and `after`, without ever holding them together."""

    def __init__(self, before: bytes, block: bytes, count: int, after: bytes) -> None:
        self.parts = itertools.chain([before], itertools.repeat(block, count), [after])
        self.left = b""

    def readinto(self, buffer):
        while not self.left and (part := next(self.parts, None)) is not None:
            self.left = part
        data, self.left = self.left[: len(buffer)], self.left[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


@pytest.mark.parametrize("where", ("before", "after"))
def test_megabytes_of_white_space_around_armor_are_not_kept(where):
    """64 MiB of it take the memory of a step, and each byte of it is looked at once."""
    data = os.urandom(100)
    text = wire.armor(data).encode()
    before, after = (b"", text) if where == "before" else (text, b"")
    tracemalloc.start()
    try:
        source = Input(cast(BinaryIO, Repeated(before, b" \n\t\r" * 16384, 1024, after)), "it")
        reader, is_armored = detect(source)
        assert is_armored
        assert reader.read() == data
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_white_space_before_a_binary_message_is_no_message(home):
    """It is ignored around the armored form only."""
    home.write("plain", "x")
    home.ok("encrypt", "plain", "-o", "sealed")
    sealed = (home.path / "sealed").read_bytes()
    for space in (b"\n", b" " * 300_000):
        assert home.run("decrypt", stdin=space + sealed).code == 4
        assert home.run("inspect", "-", stdin=space + sealed).code == 4
