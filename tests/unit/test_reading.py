"""What `open` gives is a file: everything that takes one takes it."""

import csv
import io
import os
import shutil
import tarfile
import zipfile

import pytest

from kmsbridge import AuthenticationError, ClosedError, EnvelopeCipher, MalformedMessage
from tests.support import BODIES

PLAIN = b"".join(b"line %06d of the text\n" % n for n in range(5000))


@pytest.fixture
def reader(cipher):
    with cipher.open(io.BytesIO(cipher.encrypt(PLAIN))) as reader:
        yield reader


def test_it_is_a_readable_seekable_binary_file(reader):
    """And not a writable one."""
    assert isinstance(reader, io.BufferedIOBase)
    assert (reader.readable(), reader.seekable(), reader.writable(), reader.closed) == (
        True,
        True,
        False,
        False,
    )
    assert reader.size == len(PLAIN)
    with pytest.raises(io.UnsupportedOperation):
        reader.write(b"x")
    with pytest.raises(io.UnsupportedOperation):
        reader.fileno()


def test_it_behaves_as_a_file_in_memory_does(torture, reader):
    """1,000 random operations give what `BytesIO` gives, and leave the position where it does."""
    rng, model = torture.rng("reading"), io.BytesIO(PLAIN)
    operations = (
        lambda f, n: f.read(n),
        lambda f, n: f.seek(n * 7),
        lambda f, n: f.seek(-min(n, f.tell()), os.SEEK_CUR),
        lambda f, n: f.seek(-n, os.SEEK_END),
        lambda f, n: f.readline(),
        lambda f, n: f.readline(n % 30),
        lambda f, n: (f.readinto(buffer := bytearray(n)), bytes(buffer)),
    )
    for _ in range(1000):
        operation, n = rng.choice(operations), rng.randrange(20_000)
        assert operation(reader, n) == operation(model, n)
        assert reader.tell() == model.tell()


@pytest.mark.parametrize("size", (-1, None), ids=("minus one", "None"))
def test_a_read_without_size_goes_to_the_end(reader, size):
    """And then there is nothing."""
    reader.seek(100)
    assert reader.read(size) == PLAIN[100:]
    assert reader.read(size) == reader.read(10) == reader.read1() == reader.peek() == b""


def test_read1_and_peek_stay_within_a_chunk(reader):
    """At most one chunk is opened; peek leaves the position."""
    reader.seek(16380)
    assert reader.peek(10) == PLAIN[16380:16384]
    assert reader.tell() == 16380
    assert reader.read1(100) == PLAIN[16380:16384]
    assert reader.read1(5) == PLAIN[16384:16389]
    assert reader.read(0) == b""


def test_lines_are_iterated(reader):
    """As of any file."""
    assert list(reader) == PLAIN.splitlines(keepends=True)


def test_wrappers_and_copies_read_from_it(reader):
    """`TextIOWrapper`, `BufferedReader`, `copyfileobj`, `csv`."""
    target = io.BytesIO()
    shutil.copyfileobj(reader, target)
    assert target.getvalue() == PLAIN
    reader.seek(0)
    assert next(csv.reader(io.TextIOWrapper(reader, "utf-8"))) == ["line 000000 of the text"]


@pytest.mark.parametrize("kind", ("zip", "tar"))
def test_archives_are_read_from_it(cipher, kind):
    """They seek about."""
    archive = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for n in range(10):
                file.writestr(f"member{n}", PLAIN)
    else:
        with tarfile.open(fileobj=archive, mode="w:gz") as file:
            for n in range(10):
                info = tarfile.TarInfo(f"member{n}")
                info.size = len(PLAIN)
                file.addfile(info, io.BytesIO(PLAIN))
    with cipher.open(io.BytesIO(cipher.encrypt(archive.getvalue()))) as reader:
        if kind == "zip":
            assert zipfile.ZipFile(reader).read("member7") == PLAIN
        else:
            with tarfile.open(fileobj=reader) as file:
                assert file.extractfile("member7").read() == PLAIN


@pytest.mark.parametrize("offset", (-1, -(10**9)))
def test_a_seek_before_the_beginning_is_refused(reader, offset):
    """`ValueError`, and the position stays."""
    reader.seek(5)
    for whence in (os.SEEK_SET, os.SEEK_END, 7):
        with pytest.raises(ValueError, match="cannot seek"):
            reader.seek(offset * 10**6, whence)
    assert reader.tell() == 5


def test_after_close_nothing_is_read(cipher, tmp_path):
    """`ValueError`, as of any file; a path that was opened here is closed, a file that was passed in is not."""
    path = tmp_path / "message"
    path.write_bytes(cipher.encrypt(PLAIN))
    with path.open("rb") as mine:
        reader = cipher.open(mine)
        reader.read(1)
        reader.close()
        reader.close()
        assert not mine.closed
    before = len(os.listdir("/proc/self/fd"))
    cipher.open(path).close()
    assert len(os.listdir("/proc/self/fd")) == before
    for call in (
        reader.read,
        reader.tell,
        reader.peek,
        reader.read1,
        lambda: reader.seek(0),
        reader.readline,
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


USES = {
    "read": lambda reader: reader.read(),
    "read1": lambda reader: reader.read1(),
    "readline": lambda reader: reader.readline(),
    "lines": list,
    "readinto": lambda reader: reader.readinto(bytearray(10)),
    "readinto1": lambda reader: reader.readinto1(bytearray(10)),
    "peek": lambda reader: reader.peek(),
    "seek": lambda reader: reader.seek(0),
    "tell": lambda reader: reader.tell(),
    "through a buffer": lambda reader: io.BufferedReader(reader).read(1),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("kind", (*BODIES, "direct"))
def test_a_reader_of_a_closed_cipher_raises_closed_error(service, use, kind):
    """Also where it has the chunk already; to close it is still in order."""
    cipher = EnvelopeCipher.from_uri("fake:app", direct=kind == "direct")
    write = BODIES.get(kind, EnvelopeCipher.encrypt)
    reader = cipher.open(io.BytesIO(write(cipher, b"some\nlines\n")))
    reader.read(1)
    cipher.close()
    with pytest.raises(ClosedError):
        use(reader)
    reader.close()
    assert reader.closed


class Breaking(io.BytesIO):
    """A file that fails from some offset on, once it is told to."""

    limit = 10**9

    def read(self, size=-1):
        if self.tell() >= self.limit:
            raise OSError("the disk is gone")
        return super().read(size)


@pytest.mark.parametrize("fault", ("changed", "gone"))
@pytest.mark.parametrize("name", ("readinto", "readinto1", "read"))
def test_a_read_that_fails_fills_nothing_and_moves_nothing(cipher, fault, name):
    """Not even with the chunks before the one that is not authentic or cannot be read."""
    message = bytearray(cipher.encrypt(PLAIN))
    if fault == "changed":
        message[-60_000] ^= 1
    file = Breaking(message)
    reader, buffer = cipher.open(file), bytearray(b"-" * len(PLAIN))
    start = 0 if name != "readinto1" else len(PLAIN) - 59_000
    reader.seek(start)
    file.limit = len(message) - 80_000 if fault == "gone" else file.limit
    with pytest.raises(AuthenticationError if fault == "changed" else OSError):
        reader.read(len(buffer)) if name == "read" else getattr(reader, name)(buffer)
    assert buffer == b"-" * len(PLAIN)
    assert reader.tell() == start


def test_a_direct_message_is_a_file_too(service, cipher):
    """Its payload is in the header."""
    with EnvelopeCipher.from_uri("fake:app", direct=True) as direct:
        message = direct.encrypt(b"direct payload", aad=b"1")
    with cipher.open(io.BytesIO(message), aad=b"1") as reader:
        reader.seek(7)
        assert reader.read() == b"payload"


def test_an_empty_message_is_an_empty_file(cipher, encrypt):
    """Of size 0."""
    with cipher.open(io.BytesIO(encrypt(cipher, b""))) as reader:
        assert (reader.size, reader.read(), reader.readline()) == (0, b"", b"")


class Unseekable(io.BytesIO):
    def seekable(self):
        return False


@pytest.mark.parametrize(
    "source", (Unseekable(b"x"), 7, b"KMSB\0", None), ids=("pipe", "int", "a name of bytes", "None")
)
def test_what_cannot_be_opened_is_told(cipher, source):
    """`TypeError` points to `decrypt_stream`; bytes are a path, as everywhere."""
    with pytest.raises((TypeError, ValueError), match="path or a seekable|null"):
        cipher.open(source)


def test_junk_and_wrong_contexts_are_refused_at_open(cipher, tmp_path):
    """No reader, and the file is closed."""
    path = tmp_path / "message"
    before = len(os.listdir("/proc/self/fd"))
    path.write_bytes(b"junk, and no message")
    with pytest.raises(MalformedMessage):
        cipher.open(path)
    path.write_bytes(cipher.encrypt(PLAIN, aad=b"1"))
    with pytest.raises(AuthenticationError):
        cipher.open(path, aad=b"2")
    assert len(os.listdir("/proc/self/fd")) == before
