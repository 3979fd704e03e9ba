"""What `create` gives is a file: everything that writes to one writes to it; and only its end completes it."""

import csv
import errno
import gc
import gzip
import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile

import pytest

from kmsbridge import (
    AuthenticationError,
    ClosedError,
    ConfigError,
    EnvelopeCipher,
    MalformedMessage,
    MessageWriter,
    ReentrantCall,
    inspect,
    inspect_file,
)
from tests.support import finish, fork, on_threads

PLAIN = os.urandom(100_000)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "target"


def listing(path):
    return sorted(os.listdir(path.parent))


@pytest.mark.parametrize("size", (0, 1, 16_383, 16_384, 16_385, 65_536, 300_000))
@pytest.mark.parametrize("pieces", (1, 7, 1000))
def test_what_was_written_comes_back(torture, cipher, target, size, pieces):
    """Whole, in pieces of any length, and from any buffer."""
    rng, plain = torture.rng(f"{size}/{pieces}"), os.urandom(size)
    cuts = sorted(rng.randrange(size + 1) for _ in range(pieces - 1))
    parts = [plain[start:end] for start, end in zip([0, *cuts], [*cuts, size], strict=True)]
    with cipher.create(target, context={"a": "b"}, aad=("row", 1)) as file:
        for part in parts:
            assert file.write(rng.choice((bytes, bytearray, memoryview))(part)) == len(part)
        assert file.tell() == size
    assert cipher.decrypt(target.read_bytes(), context={"a": "b"}, aad=("row", 1)) == plain
    assert inspect_file(target).plaintext_length == size
    assert listing(target) == ["target"]


def test_it_is_a_writable_binary_file(cipher, target):
    """And not a readable or seekable one."""
    with cipher.create(target) as file:
        assert isinstance(file, MessageWriter)
        assert isinstance(file, io.BufferedIOBase)
        assert (file.readable(), file.seekable(), file.writable(), file.closed) == (False, False, True, False)
        assert (file.name, file.mode, file.isatty()) == (str(target), "wb", False)
        for unsupported in (
            file.read,
            file.fileno,
            file.detach,
            lambda: file.seek(0),
            lambda: file.truncate(0),
        ):
            with pytest.raises(io.UnsupportedOperation):
                unsupported()
        file.writelines([b"one ", b"two"])
    assert cipher.decrypt(target.read_bytes()) == b"one two"


def test_a_path_has_room_to_be_rewrapped_in_place(cipher, target):
    """As `encrypt_file` leaves it; a file that was passed in has none, as `encrypt_stream` leaves it."""
    with cipher.create(target) as file:
        file.write(PLAIN)
    assert inspect_file(target).padding >= 512
    number = target.stat().st_ino
    cipher.rewrap_file(target)
    assert target.stat().st_ino == number
    passed = io.BytesIO()
    with cipher.create(passed) as file:
        file.write(PLAIN)
    assert inspect(passed.getvalue()).padding == 0


def write_csv(file):
    with io.TextIOWrapper(file, "utf-8", newline="") as text:
        csv.writer(text).writerows([n, f"name {n}"] for n in range(5000))


def write_json(file):
    with io.TextIOWrapper(file) as text:
        json.dump({"numbers": list(range(20_000))}, text)


def write_zip(file):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(5):
            archive.writestr(f"member{n}", PLAIN)


def write_tar(mode):
    def write(file):
        with tarfile.open(fileobj=file, mode=mode) as archive:
            for n in range(5):
                info = tarfile.TarInfo(f"member{n}")
                info.size = len(PLAIN)
                archive.addfile(info, io.BytesIO(PLAIN))

    return write


def write_gzip(file):
    with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
        packed.write(PLAIN)


def write_gzip_text(file):
    with gzip.open(file, "wt") as text:
        text.writelines(f"line {n}\n" for n in range(10_000))


def write_buffered(file):
    with io.BufferedWriter(file) as buffered:
        for n in range(5000):
            buffered.write(b"%d" % n)


def read_archive(data):
    if data[:2] == b"PK":
        archive = zipfile.ZipFile(io.BytesIO(data))
        return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


MEMBERS = {f"member{n}": PLAIN for n in range(5)}
WRITERS = {
    "csv": (write_csv, lambda data: len(data.splitlines()) == 5000),
    "json": (write_json, lambda data: json.loads(data)["numbers"] == list(range(20_000))),
    "zip": (write_zip, lambda data: read_archive(data) == MEMBERS),
    "tar": (write_tar("w"), lambda data: read_archive(data) == MEMBERS),
    "tar stream": (write_tar("w|"), lambda data: read_archive(data) == MEMBERS),
    "tar.gz": (write_tar("w:gz"), lambda data: read_archive(data) == MEMBERS),
    "gzip": (write_gzip, lambda data: gzip.decompress(data) == PLAIN),
    "gzip of text": (write_gzip_text, lambda data: len(gzip.decompress(data).splitlines()) == 10_000),
    "BufferedWriter": (write_buffered, lambda data: data == b"".join(b"%d" % n for n in range(5000))),
    "copyfileobj": (lambda file: shutil.copyfileobj(io.BytesIO(PLAIN), file), lambda data: data == PLAIN),
    "print": (lambda file: print("text", file=io.TextIOWrapper(file, write_through=True)), b"text\n".__eq__),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("kind", ("path", "file"))
def test_what_writes_to_files_writes_to_it(cipher, target, name, kind):
    """Also where it closes the file when it is done, or drops the wrapper."""
    write, is_right = WRITERS[name]
    passed = io.BytesIO()
    with cipher.create(target if kind == "path" else passed) as file:
        write(file)
    data = target.read_bytes() if kind == "path" else passed.getvalue()
    assert is_right(cipher.decrypt(data))


class Stop(Exception):
    pass


def stop(*_):
    raise Stop


@pytest.mark.parametrize(
    "name", ("csv", "json", "zip", "tar", "tar stream", "gzip of text", "BufferedWriter")
)
@pytest.mark.parametrize("kind", ("path", "file"))
def test_an_exception_in_the_block_abandons_the_message(cipher, target, name, kind):
    """Also where a wrapper completes and closes what it wrote to; an older target stays as it was."""
    target.write_bytes(b"older")
    passed = io.BytesIO()
    with pytest.raises(Stop), cipher.create(target if kind == "path" else passed) as file:
        WRITERS[name][0](file)
        stop()
    assert file.closed
    assert target.read_bytes() == b"older"
    assert listing(target) == ["target"]
    if kind == "file":
        refuses(cipher, passed)


def refuses(cipher, passed):
    """No reader takes what was written for a message."""
    with pytest.raises((AuthenticationError, MalformedMessage)):
        cipher.decrypt(passed.getvalue())
    with pytest.raises((AuthenticationError, MalformedMessage)):
        cipher.decrypt_stream(io.BytesIO(passed.getvalue()), io.BytesIO())
    with pytest.raises((AuthenticationError, MalformedMessage)):
        cipher.open(io.BytesIO(passed.getvalue()))


@pytest.mark.parametrize("written", (0, 1, 16_384, 65_536, 100_000))
def test_a_wrapper_s_block_that_fails_abandons_the_message_too(cipher, target, written):
    """Whichever of the two blocks the exception is raised in."""
    with pytest.raises(Stop), cipher.create(target) as file, io.TextIOWrapper(file) as text:
        text.write("x" * written)
        stop()
    assert listing(target) == []


def test_close_completes_the_message_and_may_be_repeated(cipher, target):
    """Without a block it appears at `close`; with one when the block ends."""
    file = cipher.create(target)
    file.write(PLAIN)
    assert not target.exists()
    file.close()
    assert cipher.decrypt(target.read_bytes()) == PLAIN
    target.unlink()
    file.close()
    file.abandon()
    assert listing(target) == []
    with cipher.create(target) as file:
        file.write(PLAIN)
        file.close()
        assert file.closed
        assert not target.exists()
    assert cipher.decrypt(target.read_bytes()) == PLAIN


@pytest.mark.parametrize("kind", ("path", "file"))
def test_abandon_ends_it_without_a_message(cipher, target, kind):
    """In a block or not; then `close` does nothing, also at the block's end."""
    passed = io.BytesIO()
    with cipher.create(target if kind == "path" else passed) as file:
        file.write(PLAIN)
        file.abandon()
        file.close()
    assert listing(target) == []
    if kind == "file":
        refuses(cipher, passed)
        assert not passed.closed


def test_after_close_nothing_is_written(cipher, target):
    """`ValueError`, as of any file."""
    file = cipher.create(target)
    file.close()
    for call in (
        lambda: file.write(b"x"),
        file.tell,
        file.flush,
        file.__enter__,
        lambda: file.writelines([b""]),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    "drop", (lambda file: None, io.TextIOWrapper, io.BufferedWriter), ids=("bare", "text", "buffered")
)
def test_one_that_is_garbage_leaves_nothing(cipher, target, drop):
    """Also where a wrapper, collected first, closes it."""
    file = cipher.create(target)
    file.write(PLAIN)
    wrapper = drop(file)
    assert len(listing(target)) == 1
    del wrapper, file
    assert listing(target) == []
    passed = io.BytesIO()
    wrapper = drop(cipher.create(passed))
    del wrapper
    refuses(cipher, passed)


@pytest.mark.parametrize("drop", (lambda file: file, io.TextIOWrapper), ids=("bare", "text"))
def test_one_that_is_garbage_is_warned_of(cipher, target, drop):
    """As Python warns of its own files, with the path."""
    file = [drop(cipher.create(target))]
    with pytest.warns(ResourceWarning, match="target.* was not closed"):
        file.clear()


def test_a_wrapper_that_is_garbage_in_the_block_abandons_nothing(cipher, target):
    """A function that wraps the file and returns is no error."""
    with cipher.create(target) as file:
        io.TextIOWrapper(file).write("text")
    assert cipher.decrypt(target.read_bytes()) == b"text"


class Disk(io.RawIOBase):
    """A file that takes so many bytes, and then fails as a full disk does."""

    def __init__(self, room, error=None):
        super().__init__()
        self.data, self.room = bytearray(), room
        self.error = error or OSError(errno.ENOSPC, "No space left on device")

    def writable(self):
        return True

    def write(self, data):
        if len(self.data) >= self.room:
            raise self.error
        part = bytes(data)[: self.room - len(self.data)]
        self.data += part
        return len(part)

    def getvalue(self):
        return bytes(self.data)


@pytest.mark.parametrize("room", (1000, 20_000, 90_000))
@pytest.mark.parametrize("wrap", (None, io.BufferedWriter, io.TextIOWrapper))
def test_a_write_that_fails_ends_the_message(cipher, room, wrap):
    """Later writes and the end raise again, with the same `errno`; nothing valid is left."""
    disk, full = Disk(room), 0
    try:
        with cipher.create(disk) as file:
            inner = wrap(file) if wrap else file
            for n in range(200):
                try:
                    inner.write(str(n).zfill(1000) if wrap is io.TextIOWrapper else b"%1000d" % n)
                except OSError as error:
                    full += error.errno == errno.ENOSPC
            if wrap:
                inner.close()
    except OSError as error:
        full += error.errno == errno.ENOSPC
    assert full >= 2
    assert len(disk.data) == room
    refuses(cipher, disk)


@pytest.mark.parametrize(
    "error", (InterruptedError(errno.EINTR, "x"), BlockingIOError(errno.EAGAIN, "x"), Stop()), ids=repr
)
def test_after_any_failure_a_buffer_does_not_try_for_ever(cipher, error):
    """Python's own retry what was interrupted."""
    file = cipher.create(Disk(1000, error))
    buffered = io.BufferedWriter(file)
    with pytest.raises((OSError, Stop)):
        buffered.write(PLAIN)
    with pytest.raises(OSError, match="earlier") as caught:
        buffered.close()
    assert caught.value.errno == errno.EIO
    assert file.closed
    file.close()


def test_a_swallowed_failure_is_told_at_the_end_of_the_block(monkeypatch, cipher, target):
    """Else nobody would know that nothing appeared."""
    from kmsbridge.cipher import writing

    def fail(writer, data):
        raise OSError(errno.EIO, "the disk is gone")

    with pytest.raises(OSError, match="cannot be completed"), cipher.create(target) as file:
        with monkeypatch.context() as patch:
            patch.setattr(writing, "write_all", fail)
            with pytest.raises(OSError, match="gone"):
                file.write(PLAIN)
        assert listing(target) == []
    assert listing(target) == []


@pytest.mark.parametrize("kind", ("path", "file"))
@pytest.mark.parametrize("call", ("write", "flush", "close"))
def test_closing_the_cipher_meanwhile_ends_the_message(service, target, call, kind):
    """`ClosedError` at the next use, and again; nothing appears."""
    cipher, passed = EnvelopeCipher.from_uri("fake:app"), io.BytesIO()
    with pytest.raises(ClosedError), cipher.create(target if kind == "path" else passed) as file:
        file.write(PLAIN)
        cipher.close()
        if call != "close":
            with pytest.raises(ClosedError):
                getattr(file, call)(*[b"x"] * (call == "write"))
    assert listing(target) == []
    if kind == "file":
        with EnvelopeCipher.from_uri("fake:app") as other:
            refuses(other, passed)


def test_a_text_is_refused_and_the_file_goes_on(cipher, target):
    """`TypeError` before anything is done."""
    with cipher.create(target) as file:
        for wrong in ("text", 7, None, memoryview(b"abcd")[::2]):
            with pytest.raises(TypeError):
                file.write(wrong)
        file.write(b"right")
    assert cipher.decrypt(target.read_bytes()) == b"right"


@pytest.mark.parametrize("wrong", (7, None, [], ()), ids=repr)
def test_what_cannot_be_written_to_is_told(cipher, wrong):
    with pytest.raises(TypeError, match="path or a writable binary file"):
        cipher.create(wrong)


def test_a_target_that_cannot_be_is_named(cipher, tmp_path):
    """`OSError`, at once; nothing is left."""
    for target in (tmp_path, tmp_path / "none" / "target"):
        with pytest.raises(OSError, match=str(tmp_path)):
            cipher.create(target)
    assert os.listdir(tmp_path) == []


def test_in_direct_mode_there_are_no_files(service, target):
    """`ConfigError`, as of `encrypt_stream`."""
    with EnvelopeCipher.from_uri("fake:app", direct=True) as direct:
        for call in (lambda: direct.create(target), lambda: direct.encrypting(io.BytesIO())):
            with pytest.raises(ConfigError, match="direct"):
                call()
    assert listing(target) == []


def test_a_file_that_was_passed_in_is_written_as_it_comes_and_left_open(cipher, tmp_path):
    """Each chunk once it is complete; `flush` is passed on."""
    with (tmp_path / "mine").open("wb") as mine:
        file = cipher.create(mine)
        assert file.name == str(tmp_path / "mine")
        before = mine.tell()
        assert before > 0
        file.write(b"x" * 16_383)
        assert mine.tell() == before
        file.write(b"x")
        assert mine.tell() >= before + 16_384
        file.flush()
        assert os.path.getsize(mine.name) == mine.tell()
        file.close()
        assert not mine.closed
    assert cipher.decrypt((tmp_path / "mine").read_bytes()) == b"x" * 16_384


def test_threads_may_share_it(cipher, target):
    """Each write is whole, and no chunk is encrypted with the nonce of another."""
    lines = 300
    with cipher.create(target) as file:

        def write():
            for _ in range(lines):
                file.write(b"%0999d\n" % 7)

        assert [outcome.error for outcome in on_threads(8, write)] == [None] * 8
    assert cipher.decrypt(target.read_bytes()) == b"%0999d\n" % 7 * lines * 8


def test_a_signal_handler_in_the_middle_of_a_write_is_refused(cipher):
    """`ReentrantCall`; what it interrupted goes on."""
    refused = []

    class Handled(io.BytesIO):
        def write(self, data):
            if scope and not scope["file"].closed:
                for call in (lambda: scope["file"].write(b"from the handler"), scope["file"].close):
                    with pytest.raises(ReentrantCall):
                        call()
                refused.append(len(data))
            return super().write(data)

    scope, passed = {}, Handled()
    scope["file"] = cipher.create(passed)
    scope["file"].write(PLAIN)
    scope["file"].close()
    assert refused
    assert cipher.decrypt(passed.getvalue()) == PLAIN


@pytest.mark.parametrize("ending", ("write", "close", "block", "garbage"))
def test_a_forked_child_leaves_the_message_to_its_parent(cipher, target, ending):
    """It can neither write to it nor complete it, nor does it remove anything; the parent goes on."""
    file = [cipher.create(target)]
    file[0].write(PLAIN)
    before = listing(target)

    def in_child():
        if ending == "garbage":
            file.clear()
            gc.collect()
        else:
            with pytest.raises(ClosedError, match="forked"):
                if ending == "block":
                    with file[0]:
                        pass
                else:
                    getattr(file[0], ending)(*[b"x"] * (ending == "write"))
        assert listing(target) == before

    finish([fork(in_child)])
    assert listing(target) == before
    file[0].close()
    assert cipher.decrypt(target.read_bytes()) == PLAIN


def test_it_cannot_be_pickled(cipher):
    """It holds a key."""
    file = cipher.create(io.BytesIO())
    with pytest.raises(TypeError, match="holds a key"):
        pickle.dumps(file)
    file.abandon()


def test_what_it_wrote_counts_for_the_data_key(service, target):
    """One data key encrypts no more than `max_bytes`."""
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_bytes": 50_000}) as cipher:
        first = cipher.encrypt(b"x")
        with cipher.create(target) as file:
            file.write(PLAIN)
        wrapped = [inspect(message).recipients[0] for message in (first, target.read_bytes())]
        assert wrapped[0] == wrapped[1]
        assert first[:200] != cipher.encrypt(b"x")[:200]
