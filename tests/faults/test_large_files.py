"""Files that several threads work on: whole or not at all, whatever fails in the middle, and no thread left."""

import errno
import functools
import itertools
import os
import random
import signal
import threading
import time

import pytest

from kmsbridge import AuthenticationError, ClosedError, EnvelopeCipher, MalformedMessage, inspect_file
from kmsbridge import message as wire
from kmsbridge.cipher import files, parallel
from kmsbridge.message import chunked, cobblestone
from kmsbridge.message.cobblestone import CHUNK, ENCRYPTED_CHUNK, OVERHEAD, TAG
from tests.interrupts import LIBRARY, Interrupt, Late, interrupted_at
from tests.secrets.canaries import PLAINTEXT, assert_discreet
from tests.support import PATIENCE, Outcome, threads_in

STEPS = 9
CHUNKS = 2
"""In one step, so that files of some hundred KB have many."""
STEP, ENCRYPTED_STEP = CHUNKS * CHUNK, CHUNKS * ENCRYPTED_CHUNK
SIZE = STEPS * STEP + CHUNK + 100
LINE = PLAINTEXT.reveal() + b"\n"
CONTENT = (LINE * (SIZE // len(LINE) + 1))[:SIZE]


@pytest.fixture(autouse=True)
def four_threads(monkeypatch):
    """As on a machine with many processors; small steps, and as many threads as there are steps for."""
    monkeypatch.setattr(parallel, "processors", lambda: 4)
    monkeypatch.setattr(parallel, "PARTS_EACH", 1)
    monkeypatch.setattr(files, "STEP_CHUNKS", CHUNKS)
    monkeypatch.setattr(files, "STEP", STEP)
    monkeypatch.setattr(files, "ENCRYPTED_STEP", ENCRYPTED_STEP)


class Folder:
    """A plaintext, a message of it, an older target, and what to do with them."""

    def __init__(self, cipher, path):
        self.cipher, self.path = cipher, path
        self.plain, self.sealed, self.target = path / "plain", path / "sealed", path / "target"
        self.plain.write_bytes(CONTENT)
        cipher.encrypt_file(self.plain, self.sealed)
        self.target.write_bytes(b"older")
        self.before = self.holds()

    def holds(self):
        return {path.name: path.read_bytes() for path in self.path.iterdir()}

    def do(self, operation, **options):
        source = self.plain if operation == "encrypt_file" else self.sealed
        getattr(self.cipher, operation)(source, self.target, **options)

    def comes_back(self):
        """Whether the target is the whole plaintext, or a message of it."""
        data = self.target.read_bytes()
        return data == CONTENT or (data != b"older" and self.cipher.decrypt(data) == CONTENT)


@pytest.fixture
def folder(cipher, tmp_path):
    return Folder(cipher, tmp_path)


def helpers():
    return threads_in(parallel._Shared.help_out)


def nothing_is_left(folder):
    """Whether all files are as before, and no thread is at work; one without work takes a moment to end."""
    assert folder.holds() == folder.before
    until = time.monotonic() + PATIENCE
    while helpers() and time.monotonic() < until:
        time.sleep(0.001)
    assert folder.holds() == folder.before
    return not helpers()


both = pytest.mark.parametrize("operation", ("encrypt_file", "decrypt_file"))


class Nth:
    """Calls `fault` instead of `function` at its call with this number, from 0 on, of any thread."""

    def __init__(self, function, number, fault):
        self.function, self.number, self.fault = function, number, fault
        self.calls = itertools.count()

    def __call__(self, *arguments):
        return (self.fault if next(self.calls) == self.number else self.function)(*arguments)


def fail(*arguments):
    raise OSError(errno.EIO, os.strerror(errno.EIO))


# --- what comes out -----------------------------------------------------------------------------------

AROUND = sorted(
    {0, 1, STEP // 2, CHUNK - 1, CHUNK, CHUNK + 1, STEPS * STEP, STEPS * STEP + CHUNK}
    | {steps * STEP + more for steps in (1, 2, 4, 5) for more in (-CHUNK, -1, 0, 1, CHUNK)}
)


@pytest.mark.parametrize("size", AROUND)
@pytest.mark.parametrize("processors", (1, 2, 4))
def test_a_file_of_any_length_comes_back(monkeypatch, cipher, tmp_path, size, processors):
    """At and around the bounds of chunks and steps; read by every reader, written by every writer."""
    monkeypatch.setattr(parallel, "processors", lambda: processors)
    content = random.Random(size).randbytes(size)
    (tmp_path / "plain").write_bytes(content)
    cipher.encrypt_file(tmp_path / "plain", tmp_path / "sealed", context={"a": "b"}, aad=b"1")
    cipher.decrypt_file(tmp_path / "sealed", tmp_path / "opened", context={"a": "b"}, aad=b"1")
    assert (tmp_path / "opened").read_bytes() == content
    assert inspect_file(tmp_path / "sealed").plaintext_length == size
    message = (tmp_path / "sealed").read_bytes()
    assert cipher.decrypt(message, context={"a": "b"}, aad=b"1") == content
    with open(tmp_path / "streamed", "wb") as streamed, open(tmp_path / "plain", "rb") as plain:
        cipher.encrypt_stream(plain, streamed, context={"a": "b"}, aad=b"1")
    cipher.decrypt_file(tmp_path / "streamed", tmp_path / "again", context={"a": "b"}, aad=b"1")
    assert (tmp_path / "again").read_bytes() == content


@pytest.mark.parametrize("size", (16 * 2**20 - 1, 16 * 2**20, 16 * 2**20 + 1))
def test_so_does_one_of_full_sized_steps(monkeypatch, cipher, tmp_path, size):
    """With nothing changed but the number of processors: a file of 16 MiB is for two threads."""
    monkeypatch.undo()
    monkeypatch.setattr(parallel, "processors", lambda: 2)
    content = random.Random(size).randbytes(size)
    (tmp_path / "plain").write_bytes(content)
    cipher.encrypt_file(tmp_path / "plain", tmp_path / "sealed")
    assert cipher.decrypt((tmp_path / "sealed").read_bytes()) == content
    cipher.decrypt_file(tmp_path / "sealed", tmp_path / "opened")
    assert (tmp_path / "opened").read_bytes() == content


@pytest.mark.parametrize("size", (3 * STEP, SIZE, STEPS * STEP))
def test_one_thread_and_four_write_the_same_bytes(monkeypatch, cipher, tmp_path, size):
    """And the same as in memory, where the salt is the same."""
    monkeypatch.setattr(chunked, "urandom", lambda length: bytes(range(length)))
    (tmp_path / "plain").write_bytes(CONTENT[:size])
    bodies = set()
    for processors in (1, 2, 4):
        monkeypatch.setattr(parallel, "processors", lambda processors=processors: processors)
        cipher.encrypt_file(tmp_path / "plain", tmp_path / "sealed")
        message = (tmp_path / "sealed").read_bytes()
        bodies.add(message[wire.parse(message).length :])
    whole = cipher.encrypt(CONTENT[:size])
    bodies.add(whole[wire.parse(whole).length :])
    assert len(bodies) == 1


def test_a_sparse_file_comes_back(cipher, tmp_path):
    """What was never written is zeros."""
    with open(tmp_path / "plain", "wb") as file:
        file.truncate(SIZE)
        file.seek(3 * STEP + 5)
        file.write(b"something")
    cipher.encrypt_file(tmp_path / "plain", tmp_path / "sealed")
    cipher.decrypt_file(tmp_path / "sealed", tmp_path / "opened")
    assert (tmp_path / "opened").read_bytes() == (tmp_path / "plain").read_bytes()


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="the system has no such files")
def test_a_file_that_does_not_say_how_long_it_is_comes_back(cipher, tmp_path):
    """As those of the kernel, whose size is 0; they are read to their end."""
    assert not os.path.getsize("/proc/cpuinfo")
    cipher.encrypt_file("/proc/cpuinfo", tmp_path / "sealed")
    assert b"processor" in cipher.decrypt((tmp_path / "sealed").read_bytes())


def test_streams_stay_on_their_thread(monkeypatch, folder):
    """Also where both ends are regular files."""
    monkeypatch.setattr(parallel, "run", lambda *arguments: pytest.fail("several threads"))
    with open(folder.plain, "rb") as reader, open(folder.target, "wb") as writer:
        folder.cipher.encrypt_stream(reader, writer)
    assert folder.comes_back()
    with open(folder.sealed, "rb") as reader, open(folder.target, "wb") as writer:
        folder.cipher.decrypt_stream(reader, writer)
    assert folder.comes_back()


# --- faults of the disk -------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("most", (1, 1000, CHUNK, STEP - 1))
def test_short_reads_and_writes_are_gone_on_with(monkeypatch, folder, operation, most):
    """A system may do less than it is asked to."""
    preadv, pwrite = os.preadv, os.pwrite
    chooser = random.Random(most)
    if most == 1:  # of each step, not of each byte
        lengths = itertools.chain.from_iterable(
            zip(itertools.repeat(1), itertools.repeat(STEP), strict=False)
        )
        length = functools.partial(next, lengths)
    else:
        length = lambda: chooser.randrange(1, most + 1)  # noqa: E731
    monkeypatch.setattr(os, "preadv", lambda file, views, at: preadv(file, [views[0][: length()]], at))
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: pwrite(file, data[: length()], at))
    folder.do(operation)
    assert folder.comes_back()


@both
def test_a_system_without_preadv_is_read_by_pread(monkeypatch, folder, operation):
    """Which gives bytes of its own, and as many as it likes."""
    pread = os.pread
    monkeypatch.delattr(os, "preadv")
    monkeypatch.setattr(os, "pread", lambda file, length, at: pread(file, min(length, 5000), at))
    folder.do(operation)
    assert folder.comes_back()


@both
@pytest.mark.parametrize("name", ("preadv", "pwrite"))
def test_a_read_or_write_that_fails_leaves_nothing(monkeypatch, folder, operation, name):
    """Whichever it is: its error comes out, the older target stays."""
    for number in range(STEPS):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, Nth(getattr(os, name), number, fail))
            with pytest.raises(OSError, match="nput/output error") as caught:
                folder.do(operation)
        assert caught.value.errno == errno.EIO
        assert_discreet(caught.value)
        assert nothing_is_left(folder)
    folder.do(operation)
    assert folder.comes_back()


@both
def test_a_write_that_takes_nothing_is_an_error(monkeypatch, folder, operation):
    """And no endless loop."""
    monkeypatch.setattr(os, "pwrite", Nth(os.pwrite, 3, lambda file, data, at: 0))
    with pytest.raises(OSError, match="returned 0"):
        folder.do(operation)
    assert nothing_is_left(folder)


@both
@pytest.mark.parametrize("name", ("fsync", "replace"))
def test_what_fails_at_the_end_leaves_nothing_either(monkeypatch, folder, operation, name):
    """When all is written, and the target is not yet there."""
    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="nput/output error"):
        folder.do(operation)
    monkeypatch.undo()
    assert nothing_is_left(folder)


def test_no_nonce_is_used_twice_whatever_fails(monkeypatch, folder):
    """Each chunk is encrypted once, also where its write failed."""
    derive, used = chunked.derive, []

    class Recording:
        def __init__(self, aead):
            self.aead = aead

        def encrypt(self, nonce, *arguments):
            used.append(nonce)
            return self.aead.encrypt(nonce, *arguments)

        def encrypt_into(self, nonce, *arguments):
            used.append(nonce)
            return self.aead.encrypt_into(nonce, *arguments)

    def recorded(*arguments):
        aead, *rest = derive(*arguments)
        return Recording(aead), *rest

    monkeypatch.setattr(chunked, "derive", recorded)
    for number in range(-1, STEPS):
        used.clear()
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", Nth(os.pwrite, number, fail))
            try:
                folder.do("encrypt_file")
            except OSError:
                assert number >= 0
        assert len(set(used)) == len(used)
        assert number >= 0 or len(used) == SIZE // CHUNK + 1


# --- sources that change ------------------------------------------------------------------------------


def meanwhile(monkeypatch, number, change):
    """Have `change()` done before the read of a step with this number, from 0 on."""

    def changed(*arguments):
        change()
        return read(*arguments)

    read = files.read_at
    monkeypatch.setattr(files, "read_at", Nth(read, number, changed))


@pytest.mark.parametrize("number", (0, 1, STEPS - 1))
@pytest.mark.parametrize("length", (0, 1, STEP // 2, STEP, STEPS * STEP, SIZE - 1))
def test_a_source_that_is_cut_short_meanwhile_is_refused(monkeypatch, folder, number, length):
    """`OSError` that names it, whether what is missing was read before or not."""
    meanwhile(monkeypatch, number, lambda: os.truncate(folder.plain, length))
    refuses_a_source_that_is_cut_short(folder)


@pytest.mark.parametrize("reads", (0, 1), ids="before read {}".format)
def test_so_is_one_that_is_cut_short_behind_its_last_full_step(monkeypatch, folder, reads):
    """Also when all of it was read."""

    def cut(*arguments):
        os.truncate(folder.plain, STEPS * STEP + 1)
        return read(*arguments)

    read = files.read_into
    monkeypatch.setattr(files, "read_into", Nth(read, reads, cut))
    refuses_a_source_that_is_cut_short(folder)


def refuses_a_source_that_is_cut_short(folder):
    with pytest.raises(OSError, match="cut short") as caught:
        folder.do("encrypt_file")
    assert caught.value.filename == str(folder.plain)
    folder.plain.write_bytes(CONTENT)
    assert nothing_is_left(folder)


@pytest.mark.parametrize("number", (0, 1, STEPS - 1))
@pytest.mark.parametrize("length", (0, 1, STEP // 2, STEP, STEPS * STEP, SIZE, SIZE + STEPS * TAG))
def test_a_message_that_is_cut_short_meanwhile_is_refused(monkeypatch, folder, number, length):
    """Though its last chunk was there, and verified, at the start."""
    message = folder.sealed.read_bytes()
    meanwhile(monkeypatch, number, lambda: os.truncate(folder.sealed, length))
    with pytest.raises(AuthenticationError):
        folder.do("decrypt_file")
    folder.sealed.write_bytes(message)
    assert nothing_is_left(folder)


def add(path, data):
    with open(path, "ab") as file:
        file.write(data)


@pytest.mark.parametrize("more", (1, CHUNK, 3 * STEP))
def test_a_source_that_grows_meanwhile_is_encrypted_to_its_end(monkeypatch, folder, more):
    """As a file that is written to is read by any program."""
    meanwhile(monkeypatch, 2, lambda: add(folder.plain, bytes(more)))
    folder.do("encrypt_file")
    assert folder.cipher.decrypt(folder.target.read_bytes()) == CONTENT + bytes(more)


def test_a_message_that_grows_meanwhile_is_refused(monkeypatch, folder):
    """What is added is no part of it."""
    message = folder.sealed.read_bytes()
    meanwhile(monkeypatch, 2, lambda: add(folder.sealed, b"x"))
    with pytest.raises(AuthenticationError):
        folder.do("decrypt_file")
    folder.sealed.write_bytes(message)
    assert nothing_is_left(folder)


# --- messages that are not authentic ------------------------------------------------------------------


def at_chunk(number, within=0):
    return OVERHEAD + number * ENCRYPTED_CHUNK + within


LAST = SIZE // CHUNK
PLACES = {
    "salt": 0,
    "commitment": OVERHEAD - 1,
    **{f"chunk {n}": at_chunk(n, 5) for n in (0, 1, CHUNKS, LAST // 2, STEPS * CHUNKS - 1, LAST - 1)},
    "a tag": at_chunk(7, ENCRYPTED_CHUNK - 1),
    "the last chunk": at_chunk(LAST),
    "the last tag": at_chunk(LAST, SIZE % CHUNK + TAG - 1),
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_changed_bit_is_refused_and_never_written(monkeypatch, folder, place):
    """Wherever it is; and of its chunk no plaintext was in any file."""
    message = bytearray(folder.sealed.read_bytes())
    message[inspect_file(folder.sealed).header_length + place] ^= 1
    folder.sealed.write_bytes(message)
    folder.before = folder.holds()
    written, pwrite = [], os.pwrite

    def seen(file, data, at):
        written.append((at, data == CONTENT[at : at + STEP]))
        return pwrite(file, data, at)

    monkeypatch.setattr(os, "pwrite", seen)
    with pytest.raises(AuthenticationError) as caught:
        folder.do("decrypt_file")
    assert_discreet(caught.value)
    assert nothing_is_left(folder)
    assert all(authentic for _, authentic in written)
    number = (place - OVERHEAD) // ENCRYPTED_CHUNK // CHUNKS
    assert number * STEP not in [at for at, _ in written]


def body_chunks(message):
    start = wire.parse(message).length + OVERHEAD
    return message[:start], [
        message[at : at + ENCRYPTED_CHUNK] for at in range(start, len(message), ENCRYPTED_CHUNK)
    ]


CHANGES = {
    "without the last chunk": lambda chunks: chunks[:-1],
    "without the first": lambda chunks: chunks[1:],
    "without one in the middle": lambda chunks: chunks[:5] + chunks[6:],
    "with two in each other's place": lambda chunks: [chunks[1], chunks[0], *chunks[2:]],
    "with two steps in each other's place": lambda chunks: [*chunks[2:4], *chunks[:2], *chunks[4:]],
    "with one twice": lambda chunks: [*chunks[:3], *chunks[2:]],
    "with the last chunk twice": lambda chunks: [*chunks, chunks[-1]],
}
KEPT = (0, 1, 2, 4, 17, STEPS * CHUNKS)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_message_of_other_chunks_is_refused(folder, change):
    """Put together anew from what is authentic, each in its place."""
    start, chunks = body_chunks(folder.sealed.read_bytes())
    refused(folder, start, change(chunks))


@pytest.mark.parametrize("end", (slice(0), slice(-1, None)), ids=("no end", "the right end"))
@pytest.mark.parametrize("kept", KEPT)
def test_a_message_cut_at_the_bounds_of_chunks_and_steps_is_refused(folder, kept, end):
    """Also where what is missing is in the middle."""
    start, chunks = body_chunks(folder.sealed.read_bytes())
    refused(folder, start, chunks[:kept] + chunks[end])


def refused(folder, start, chunks):
    folder.sealed.write_bytes(start + b"".join(chunks))
    folder.before = folder.holds()
    with pytest.raises((AuthenticationError, MalformedMessage)):
        folder.do("decrypt_file")
    assert nothing_is_left(folder)


def test_a_message_that_was_cut_short_is_refused_before_anything_is_written(monkeypatch, folder):
    """The last chunk is looked at first."""
    start, chunks = body_chunks(folder.sealed.read_bytes())
    folder.sealed.write_bytes(start + b"".join(chunks[:-1]))
    monkeypatch.setattr(files.atomic, "replacing", lambda *a, **o: pytest.fail("a target was made"))
    with pytest.raises(AuthenticationError):
        folder.do("decrypt_file")


# --- interruptions ------------------------------------------------------------------------------------

PLACES_OF_CODE = tuple(f"{LIBRARY}/{name}" for name in ("atomic.py", "cipher/files.py", "cipher/parallel.py"))


# Between a file's opening and the block that closes it, Python's collector has to.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@both
@pytest.mark.parametrize("kind", (Interrupt, Late))
def test_an_exception_at_any_line_leaves_nothing(folder, operation, kind):
    """It comes out unchanged and shows no plaintext; the target is whole or what it was."""
    number, more = 0, True
    while more:
        use = functools.partial(folder.do, operation)
        error, more = interrupted_at(number, use, kind, PLACES_OF_CODE)
        assert (error is not None) == more, f"line {number} was swallowed"
        if error is not None:
            assert type(error) is kind
            assert_discreet(error)
        if folder.target.read_bytes() != b"older":
            assert folder.comes_back()
            folder.target.write_bytes(b"older")
        assert nothing_is_left(folder)
        number += 1
    assert number > 100


# An interrupt can also arrive in a callback of Python's collector, which shows it and goes on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@both
def test_ctrl_c_at_any_moment_leaves_nothing(folder, operation, torture):
    """A signal at a random time, often while other threads are in the middle of a step."""
    rng, interrupted = torture.rng(f"ctrl-c in {operation}"), 0
    began = time.perf_counter()
    folder.do(operation)
    usual = time.perf_counter() - began
    folder.target.write_bytes(b"older")
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for _ in range(torture.times(1000)):
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, usual))
                try:
                    folder.do(operation)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
            if folder.target.read_bytes() != b"older":
                assert folder.comes_back()
                folder.target.write_bytes(b"older")
            assert nothing_is_left(folder)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert interrupted


@both
def test_a_cipher_that_is_closed_meanwhile_leaves_nothing(service, folder, operation):
    """`ClosedError`, at the next step of the caller's thread."""
    with EnvelopeCipher.from_uri("fake:app") as folder.cipher:
        with pytest.raises(ClosedError):
            folder.do(operation, progress=lambda done: folder.cipher.close())
        assert nothing_is_left(folder)


@both
def test_progress_is_told_on_the_callers_thread_and_ends_with_the_whole(folder, operation):
    """Never less than before; of a message its body counts."""
    told = []

    def run():
        folder.do(operation, progress=lambda done: told.append((done, threading.get_ident())))
        return threading.get_ident()

    thread = Outcome(run).join()
    assert thread.error is None
    assert {ident for _, ident in told} == {thread.value}
    counts = [done for done, _ in told]
    whole = {"encrypt_file": SIZE, "decrypt_file": chunked.encrypted_length(SIZE)}[operation]
    assert counts == sorted(counts)
    assert counts[-1] == whole


@both
def test_a_progress_that_raises_ends_it_and_leaves_nothing(folder, operation):
    """At the first call, while the other threads are busy, and at the last."""
    whole = {"encrypt_file": SIZE, "decrypt_file": chunked.encrypted_length(SIZE)}[operation]
    for at in (0, whole - 1):

        def raising(done, at=at):
            if done > at:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            folder.do(operation, progress=raising)
        assert nothing_is_left(folder)


def test_a_data_key_counts_what_all_threads_have_encrypted(service, folder):
    """`max_bytes` is of the file's whole length."""
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_bytes": SIZE + 1}) as cipher:
        service.app.calls.clear()
        for _ in range(3):
            cipher.encrypt_file(folder.plain, folder.target)
        assert service.app.calls["wrap"] == 2


def test_steps_of_the_two_ways_to_cut_a_file_fit_each_other():
    """What is read of a message in one step is what a step of a plaintext becomes."""
    assert chunked.encrypted_length(files.STEP) - OVERHEAD - TAG == files.ENCRYPTED_STEP
    assert cobblestone.CHUNK * files.STEP_CHUNKS == files.STEP
