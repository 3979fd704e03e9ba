"""Whatever fails, and however: no error shows a plaintext, a data key or a passphrase."""

import asyncio
import gc
import io
import itertools
import linecache
import logging
import signal
import sys
import traceback

import pytest

from kmsbridge import EnvelopeCipher, aio
from kmsbridge import message as wire
from kmsbridge.driver import ErrorKind
from kmsbridge.message import chunked, cobblestone, compact
from tests.secrets.canaries import (
    CONTEXT,
    DATA_KEY,
    DERIVED_KEY,
    PASSPHRASE,
    PLAINTEXT,
    Quoting,
    assert_clean,
    assert_discreet,
    failure_of,
)
from tests.support import PATIENCE, Outcome, crowd, encrypt_chunked, install, is_library, on_threads


@pytest.fixture(autouse=True)
def logs_are_discreet(caplog):
    """No log record at any level has a canary, in its message or in any attribute."""
    caplog.set_level(logging.DEBUG)
    yield
    for record in caplog.records:
        assert_clean(record.getMessage() + repr(vars(record)), f"a log record of {record.name}")


@pytest.fixture(autouse=True)
def data_keys_are_canaries(monkeypatch):
    """Every data key made is the canary."""
    monkeypatch.setattr(cobblestone, "new_key", DATA_KEY.reveal)


class Bench:
    """A cipher over the quoting driver, and messages and files to work on, made before anything fails."""

    def __init__(self, folder, driver, **options):
        self.driver, self.folder = driver, folder
        self.audit = folder / "audit.jsonl"
        self.options = {"token": PASSPHRASE.text(), "audit": {"file": str(self.audit)}} | options
        self.open()
        self.plain, self.sealed, self.target = folder / "plain", folder / "sealed", folder / "target"
        self.plain.write_bytes(PLAINTEXT.reveal() * 4000)
        with EnvelopeCipher.from_uri("quoting:app") as writer:
            self.message = writer.encrypt(PLAINTEXT.reveal(), context=CONTEXT)
            self.text = writer.encrypt_text(PLAINTEXT.text(), context=CONTEXT)
            writer.encrypt_file(self.plain, self.sealed, context=CONTEXT)
            self.chunked = encrypt_chunked(writer, PLAINTEXT.reveal(), context=CONTEXT)
            self.chunked_text = wire.armor(self.chunked)
        self.compact = folder / "compact"
        self.compact.write_bytes(self.message)
        self.direct_message = self.direct.encrypt(PLAINTEXT.reveal(), context=CONTEXT)

    def open(self):
        self.cipher = EnvelopeCipher.from_uri("quoting:app", **self.options)
        self.aio = aio.EnvelopeCipher.from_uri("quoting:app", **self.options)
        self.direct = EnvelopeCipher.from_uri("quoting:app", direct=True, **self.options)

    def renew(self):
        """Ciphers that have no data key at hand."""
        self.close()
        self.open()

    def plain_stream(self):
        return io.BytesIO(PLAINTEXT.reveal() * 4000)

    def close(self):
        for cipher in (self.cipher, self.direct):
            cipher.close()
        asyncio.run(self.aio.close())


@pytest.fixture
def driver(service, monkeypatch):
    driver = type("Driver", (Quoting,), {"service": service, "kind": ErrorKind.ACCESS_DENIED})
    install(monkeypatch, driver)
    return driver


@pytest.fixture
def bench(tmp_path, driver):
    bench = Bench(tmp_path, driver, calls={"max_attempts": 1})
    yield bench
    bench.close()
    if bench.audit.exists():
        assert_clean(bench.audit.read_bytes(), "the audit file")


def run(operation):
    return asyncio.run(operation)


async def drained(*arguments):
    reader = asyncio.StreamReader()
    reader.feed_data(PLAINTEXT.reveal() * 1000)
    reader.feed_eof()
    return reader


class AsyncSink:
    def write(self, data):
        pass

    async def drain(self):
        pass


async def stream_in(cipher, **options):
    await cipher.encrypt_stream(await drained(), AsyncSink(), **options)


def write_to_file(bench, /, **options):
    with bench.cipher.create(bench.target, **options) as file:
        file.write(PLAINTEXT.reveal())
        file.write(PLAINTEXT.reveal() * 4000)
        file.flush()


async def write_to_async_file(bench, **options):
    async with await bench.aio.create(AsyncSink(), **options) as file:
        await file.write(PLAINTEXT.reveal())
        await file.write(PLAINTEXT.reveal() * 4000)
        await file.flush()


def pull(bench, /, **options):
    with bench.cipher.encrypting(bench.plain_stream(), **options) as file:
        file.read(1000)
        return file.read()


async def pull_async(bench, **options):
    file = await bench.aio.encrypting(await drained(), **options)
    await file.read(1000)
    return await file.read()


async def stream_out(cipher, message, **options):
    reader = asyncio.StreamReader()
    reader.feed_data(message)
    reader.feed_eof()
    await cipher.decrypt_stream(reader, AsyncSink(), **options)


async def open_and_close(cipher, path, **options):
    async with await cipher.open(path, **options):
        pass


WRITES = {
    "encrypt": lambda b, **o: b.cipher.encrypt(PLAINTEXT.reveal(), **o),
    "encrypt_text": lambda b, **o: b.cipher.encrypt_text(PLAINTEXT.text(), **o),
    "encrypt of much": lambda b, **o: b.cipher.encrypt(PLAINTEXT.reveal() * 2000, **o),
    "encrypt_text of much": lambda b, **o: b.cipher.encrypt_text(PLAINTEXT.text() * 2000, **o),
    "encrypt_many": lambda b, **o: b.cipher.encrypt_many([PLAINTEXT.reveal()] * 3, **o),
    "encrypt_file": lambda b, **o: b.cipher.encrypt_file(b.plain, b.target, **o),
    "encrypt_stream": lambda b, **o: b.cipher.encrypt_stream(b.plain_stream(), io.BytesIO(), **o),
    "create": write_to_file,
    "encrypting": pull,
    "direct encrypt": lambda b, **o: b.direct.encrypt(PLAINTEXT.reveal(), **o),
    "direct encrypt_text": lambda b, **o: b.direct.encrypt_text(PLAINTEXT.text(), **o),
    "async encrypt": lambda b, **o: run(b.aio.encrypt(PLAINTEXT.reveal(), **o)),
    "async encrypt of much": lambda b, **o: run(b.aio.encrypt(PLAINTEXT.reveal() * 30_000, **o)),
    "async encrypt_text": lambda b, **o: run(b.aio.encrypt_text(PLAINTEXT.text(), **o)),
    "async encrypt_many": lambda b, **o: run(b.aio.encrypt_many([PLAINTEXT.reveal()] * 3, **o)),
    "async encrypt_file": lambda b, **o: run(b.aio.encrypt_file(b.plain, b.target, **o)),
    "async encrypt_stream": lambda b, **o: run(stream_in(b.aio, **o)),
    "async create": lambda b, **o: run(write_to_async_file(b, **o)),
    "async encrypting": lambda b, **o: run(pull_async(b, **o)),
}
READS = {
    "decrypt": lambda b, **o: b.cipher.decrypt(b.message, **o),
    "decrypt_text": lambda b, **o: b.cipher.decrypt_text(b.text, **o),
    "decrypt_secret": lambda b, **o: b.cipher.decrypt_secret(b.message, **o),
    "decrypt_secret of text": lambda b, **o: b.cipher.decrypt_secret(b.text, **o),
    "decrypt_many": lambda b, **o: b.cipher.decrypt_many([b.message, b.message], **o),
    "decrypt_file": lambda b, **o: b.cipher.decrypt_file(b.sealed, b.target, **o),
    "decrypt_stream": lambda b, **o: b.cipher.decrypt_stream(io.BytesIO(b.message), io.BytesIO(), **o),
    "open": lambda b, **o: b.cipher.open(b.sealed, **o).close(),
    "decrypt, chunked": lambda b, **o: b.cipher.decrypt(b.chunked, **o),
    "decrypt_text, chunked": lambda b, **o: b.cipher.decrypt_text(b.chunked_text, **o),
    "decrypt_many, chunked": lambda b, **o: b.cipher.decrypt_many([b.chunked, b.message], **o),
    "decrypt_file, compact": lambda b, **o: b.cipher.decrypt_file(b.compact, b.target, **o),
    "decrypt_stream, chunked": lambda b, **o: b.cipher.decrypt_stream(
        io.BytesIO(b.chunked), io.BytesIO(), **o
    ),
    "open, compact": lambda b, **o: b.cipher.open(b.compact, **o).close(),
    "direct decrypt": lambda b, **o: b.direct.decrypt(b.direct_message, **o),
    "async decrypt": lambda b, **o: run(b.aio.decrypt(b.message, **o)),
    "async direct decrypt": lambda b, **o: run(b.aio.decrypt(b.direct_message, **o)),
    "async decrypt_text": lambda b, **o: run(b.aio.decrypt_text(b.text, **o)),
    "async decrypt_secret": lambda b, **o: run(b.aio.decrypt_secret(b.text, **o)),
    "async decrypt_many": lambda b, **o: run(b.aio.decrypt_many([b.message], **o)),
    "async decrypt_file": lambda b, **o: run(b.aio.decrypt_file(b.sealed, b.target, **o)),
    "async decrypt_stream": lambda b, **o: run(stream_out(b.aio, b.message, **o)),
    "async open": lambda b, **o: run(open_and_close(b.aio, b.sealed, **o)),
    "async decrypt, chunked": lambda b, **o: run(b.aio.decrypt(b.chunked, **o)),
    "async decrypt_stream, chunked": lambda b, **o: run(stream_out(b.aio, b.chunked, **o)),
    "async decrypt_file, compact": lambda b, **o: run(b.aio.decrypt_file(b.compact, b.target, **o)),
    "async open, compact": lambda b, **o: run(open_and_close(b.aio, b.compact, **o)),
}
REWRAPS = {
    "rewrap": lambda b, **o: b.cipher.rewrap(b.message, **o),
    "direct rewrap": lambda b, **o: b.direct.rewrap(b.direct_message, **o),
    "rewrap_file": lambda b, **o: b.cipher.rewrap_file(b.sealed, **o),
    "rewrap, chunked": lambda b, **o: b.cipher.rewrap(b.chunked, **o),
    "rewrap_file, compact": lambda b, **o: b.cipher.rewrap_file(b.compact, **o),
    "async rewrap": lambda b, **o: run(b.aio.rewrap(b.message, **o)),
    "async rewrap_file": lambda b, **o: run(b.aio.rewrap_file(b.sealed, **o)),
}
ALL = WRITES | READS | REWRAPS


def each(calls):
    return pytest.mark.parametrize("call", calls.values(), ids=calls)


def assert_fails_discreetly(call):
    error = failure_of(call)
    assert_discreet(error)
    return error


@pytest.mark.parametrize("worse", ("", "classify fails", "no kind", "details fail"))
@each(ALL)
def test_a_provider_that_quotes_what_it_was_sent_is_not_quoted(bench, call, worse):
    """Its text, what it was caused by, and its attributes stay out, even where the driver is faulty."""
    bench.driver.fails = {"wrap", "unwrap", "unwrap_many", "rewrap"}
    bench.driver.worse = worse
    assert_fails_discreetly(lambda: call(bench, context=CONTEXT))


@pytest.mark.parametrize("worse", ("", "classify fails", "no kind", "details fail"))
def test_what_check_returns_quotes_no_provider(bench, worse):
    """The text of a trial is ours, whatever the driver is like."""
    bench.driver.fails = {"wrap", "unwrap"}
    bench.driver.worse = worse
    for health in (bench.cipher.check(probe=True), run(bench.aio.check(probe=True))):
        assert not health.ok
        assert_clean(repr(health) + str(health.as_dict()), "what check returns")
    service = bench.driver.service
    assert service.app.calls["wrap"] > 0


@pytest.mark.parametrize("kind", ErrorKind, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "call", (ALL["encrypt"], ALL["decrypt"], ALL["async encrypt"], ALL["direct encrypt"])
)
def test_no_kind_of_refusal_shows_a_secret(monkeypatch, bench, call, kind):
    """Every class of error that a provider's can become."""
    bench.driver.fails, bench.driver.kind = {"wrap", "unwrap"}, kind
    assert_fails_discreetly(lambda: call(bench, context=CONTEXT))


@pytest.mark.parametrize(
    "interrupt", (KeyboardInterrupt, SystemExit, MemoryError), ids=lambda kind: kind.__name__
)
@each(ALL)
def test_an_interrupt_in_the_middle_of_a_call_shows_no_secret(service, bench, call, interrupt):
    """Ctrl-C while the key service is asked."""

    def interrupted(operation):
        raise interrupt

    service.before = interrupted
    try:
        assert_fails_discreetly(lambda: call(bench, context=CONTEXT))
    finally:
        service.before = lambda operation: None
        # An interrupt ends an event loop in the middle; what it leaves is finalized here, not in a later test.
        gc.collect()


@each(READS | REWRAPS)
def test_a_wrong_context_shows_no_secret(bench, call):
    """The commonest failure of all."""
    assert_fails_discreetly(lambda: call(bench, context={"tenant": "other"}))


@each(READS)
def test_a_wrong_aad_shows_no_secret(bench, call):
    """With the data key at hand."""
    assert_fails_discreetly(lambda: call(bench, context=CONTEXT, aad=b"wrong"))


@pytest.mark.parametrize(
    "context",
    ({"": "x"}, {"kmsbridge": "x"}, {"x": "y" * 5000}, {"x": 1}, "text"),
    ids=lambda c: repr(c)[:20],
)
@each(ALL)
def test_a_context_that_cannot_be_shows_no_secret(bench, call, context):
    """Refused before anything is done."""
    assert_fails_discreetly(lambda: call(bench, context=context))


@each({name: call for name, call in ALL.items() if "many" not in name})
@pytest.mark.parametrize(
    "aad", ("text", None, 7, memoryview(b"abcd")[::2]), ids=("text", "None", "int", "strided")
)
def test_an_aad_of_a_wrong_type_shows_no_secret(bench, call, aad):
    """`TypeError`, with the data key at hand and without; where the aad does not matter it is not looked at."""
    for _ in range(2):
        try:
            call(bench, context=CONTEXT, aad=aad)
        except TypeError as error:
            assert_discreet(error)
        bench.cipher.encrypt(b"warm", context=CONTEXT)
        bench.cipher.decrypt(bench.message, context=CONTEXT)


WRONG_TYPES = {
    "str to encrypt": lambda b: b.cipher.encrypt(PLAINTEXT.text()),
    "list to encrypt": lambda b: b.cipher.encrypt([*PLAINTEXT.reveal()]),
    "strided buffer to encrypt": lambda b: b.cipher.encrypt(memoryview(PLAINTEXT.reveal())[::1][::2]),
    "list among many": lambda b: b.cipher.encrypt_many([b"", [PLAINTEXT.text()]]),
    "surrogates among many": lambda b: b.cipher.encrypt_many([b"", PLAINTEXT.text() + "\ud800"]),
    "one str for many": lambda b: b.cipher.encrypt_many(PLAINTEXT.text()),
    "bytes as text": lambda b: b.cipher.encrypt_text(PLAINTEXT.reveal()),
    "surrogates": lambda b: b.cipher.encrypt_text(PLAINTEXT.text() + "\ud800"),
    "str to direct encrypt": lambda b: b.direct.encrypt(PLAINTEXT.text()),
    "too much for direct": lambda b: b.direct.encrypt(PLAINTEXT.reveal() * 1000),
    "str to encrypt, async": lambda b: run(b.aio.encrypt(PLAINTEXT.text())),
    "list to encrypt, async": lambda b: run(b.aio.encrypt([*PLAINTEXT.reveal()])),
    "list among many, async": lambda b: run(b.aio.encrypt_many([b"", [PLAINTEXT.text()]])),
    "bytes as text, async": lambda b: run(b.aio.encrypt_text(PLAINTEXT.reveal())),
    "surrogates, async": lambda b: run(b.aio.encrypt_text(PLAINTEXT.text() + "\ud800")),
    "a reader of text": lambda b: b.cipher.encrypt_stream(io.StringIO(PLAINTEXT.text()), io.BytesIO()),
    "too few aads": lambda b: b.cipher.encrypt_many([PLAINTEXT.reveal()] * 2, aads=[b""]),
}


@each(WRONG_TYPES)
@pytest.mark.parametrize("warm", (False, True), ids=("cold", "warm"))
def test_a_payload_of_a_wrong_type_is_not_shown(bench, call, warm):
    """Neither before nor after there is a data key."""
    if warm:
        bench.cipher.encrypt(b"warm")
    assert_fails_discreetly(lambda: call(bench))


def test_a_payload_that_is_no_text_is_not_shown(bench):
    """`decrypt_text` of what `encrypt` made; Python's own error would hold the plaintext."""
    binary = bench.cipher.encrypt(PLAINTEXT.reveal() + b"\xff", context=CONTEXT)
    for call in (bench.cipher.decrypt_text, lambda *a, **o: run(bench.aio.decrypt_text(*a, **o))):
        error = assert_fails_discreetly(lambda call=call: call(wire.armor(binary), context=CONTEXT))
        assert isinstance(error, ValueError)


def broken(*arguments):
    copy = list(arguments)
    raise MemoryError(len(copy))


COMPACT_WRITES = ("encrypt", "encrypt_text", "encrypt_many", "async encrypt")
COMPACT_READS = ("decrypt", "decrypt_secret", "decrypt_many", "async decrypt", "async decrypt_secret")
IN_MEMORY = (
    *COMPACT_WRITES,
    *COMPACT_READS,
    *("encrypt of much", "encrypt_text of much", "async encrypt of much"),
    *("decrypt, chunked", "decrypt_text, chunked", "decrypt_many, chunked", "async decrypt, chunked"),
)


@each({name: ALL[name] for name in IN_MEMORY})
def test_a_failure_inside_the_cipher_shows_no_secret(monkeypatch, bench, call):
    """Out of memory where key and plaintext are arguments."""
    bench.cipher.encrypt(b"warm", context=CONTEXT)
    run(bench.aio.encrypt(b"warm", context=CONTEXT))
    for message in (bench.message, bench.chunked):
        bench.cipher.decrypt(message, context=CONTEXT)
        run(bench.aio.decrypt(message, context=CONTEXT))
    with monkeypatch.context() as patch:
        for module, name in (
            (chunked, "encrypt"),
            (chunked, "decrypt"),
            (compact, "encrypt"),
            (compact, "encrypt_many"),
            (compact, "decrypt"),
            (compact, "decrypt_many"),
        ):
            patch.setattr(module, name, broken)
        assert isinstance(assert_fails_discreetly(lambda: call(bench, context=CONTEXT)), MemoryError)


@each({name: ALL[name] for name in (*COMPACT_WRITES, *COMPACT_READS)})
@pytest.mark.parametrize(
    ("module", "name"),
    (
        (compact, "derive"),
        (compact.xaes, "derive"),
        (compact.xaes, "_doubled"),
        (compact.xaes, "AESGCM"),
        (compact.hmac, "digest"),
    ),
    ids=lambda each: each if isinstance(each, str) else each.__name__.rpartition(".")[2],
)
def test_a_failure_while_the_keys_of_a_compact_body_are_derived_shows_no_secret(
    monkeypatch, bench, call, module, name
):
    """Out of memory where the data key, or one made from it, is an argument; no data key is at hand."""
    with monkeypatch.context() as patch:
        patch.setattr(module, name, broken)
        assert isinstance(assert_fails_discreetly(lambda: call(bench, context=CONTEXT)), MemoryError)


class BrokenSink(io.RawIOBase):
    """Fails at the n-th write, in a frame that holds what it was given."""

    def __init__(self, good=0):
        self.good = good

    def writable(self):
        return True

    def write(self, data):
        kept = bytes(data)
        self.good -= 1
        if self.good < 0:
            raise OSError(28, "No space left on device")
        return len(kept)


class BrokenSource(io.RawIOBase):
    """Gives some, then fails, in a frame that holds what it gave."""

    def __init__(self, data):
        self.data, self.reads = data, 0

    def readable(self):
        return True

    def read(self, size=-1):
        kept = self.data
        self.reads += 1
        if self.reads > 1:
            raise OSError(5, "Input/output error")
        return kept[:size]

    readinto = None

    def __getattribute__(self, name):
        if name == "readinto":
            raise AttributeError(name)
        return super().__getattribute__(name)


def failing_progress(done):
    raise RuntimeError("progress fails")


STREAMS = {
    "source fails": lambda b: b.cipher.encrypt_stream(BrokenSource(PLAINTEXT.reveal()), io.BytesIO()),
    "source of encrypting fails": lambda b: b.cipher.encrypting(BrokenSource(PLAINTEXT.reveal())).read(),
    "target of a file fails": lambda b: b.cipher.create(BrokenSink(1)).write(PLAINTEXT.reveal() * 1000),
    "target of ciphertext fails": lambda b: b.cipher.encrypt_stream(b.plain_stream(), BrokenSink(1)),
    "target of plaintext fails": lambda b: b.cipher.decrypt_stream(
        io.BytesIO(b.sealed.read_bytes()), BrokenSink(), context=CONTEXT
    ),
    "progress of encrypting fails": lambda b: b.cipher.encrypt_file(
        b.plain, b.target, progress=failing_progress
    ),
    "progress of decrypting fails": lambda b: b.cipher.decrypt_file(
        b.sealed, b.target, context=CONTEXT, progress=failing_progress
    ),
    "plaintext stream cut short": lambda b: b.cipher.decrypt_stream(
        io.BytesIO(b.sealed.read_bytes()[:-1]), io.BytesIO(), context=CONTEXT
    ),
}


@each(STREAMS)
def test_a_stream_that_breaks_shows_no_secret(bench, call):
    """Wherever it breaks, the buffers stay out of sight."""
    assert_fails_discreetly(lambda: call(bench))


def test_an_async_stream_that_breaks_shows_no_secret(bench):
    """The writer fails after the first piece was sealed."""

    class Broken(AsyncSink):
        async def drain(self):
            raise ConnectionResetError

    async def main():
        await bench.aio.encrypt_stream(await drained(), Broken())

    assert_fails_discreetly(lambda: run(main()))


def test_a_cancelled_async_stream_shows_no_secret(bench):
    """`CancelledError` has a traceback too."""

    async def main():
        reader = asyncio.StreamReader()
        reader.feed_data(PLAINTEXT.reveal())
        task = asyncio.ensure_future(bench.aio.encrypt_stream(reader, AsyncSink()))
        await bench.aio.encrypt(b"warm")
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        await task

    error = assert_fails_discreetly(lambda: run(main()))
    assert isinstance(error, asyncio.CancelledError)


@pytest.mark.parametrize("at", ("read", "readinto", "readline", "iteration", "read of an async reader"))
def test_a_changed_chunk_shows_none_of_those_before_it(bench, at):
    """A read that spans good chunks and a changed one holds none of the good ones."""
    data = bytearray(bench.sealed.read_bytes())
    data[-40_000] ^= 1
    reader = bench.cipher.open(io.BytesIO(data), context=CONTEXT)

    async def read_async():
        async with await bench.aio.open(io.BytesIO(data), context=CONTEXT) as asynchronous:
            await asynchronous.read()

    calls = {
        "read": reader.read,
        "readinto": lambda: reader.readinto(bytearray(10**6)),
        "readline": reader.readline,
        "iteration": lambda: list(reader),
        "read of an async reader": lambda: run(read_async()),
    }
    assert_fails_discreetly(calls[at])


def test_a_group_of_failed_tasks_shows_no_secret(bench):
    """An `ExceptionGroup` of a task group, each member looked at."""
    bench.driver.fails = {"wrap"}

    async def main():
        async with asyncio.TaskGroup() as group:
            for n in range(5):
                group.create_task(bench.aio.encrypt(PLAINTEXT.reveal(), context={"n": str(n % 2)}))

    error = assert_fails_discreetly(lambda: run(main()))
    assert isinstance(error, ExceptionGroup)


@pytest.mark.parametrize("worse", ("", "classify fails", "no kind", "details fail"))
@pytest.mark.parametrize("call", (ALL["encrypt"], ALL["encrypt_text"]), ids=("encrypt", "encrypt_text"))
def test_the_errors_of_those_who_waited_show_no_secret(monkeypatch, bench, call, worse):
    """Leader and followers of one failed wrap, each on its thread."""
    bench.driver.fails, bench.driver.worse = {"wrap"}, worse
    everyone = crowd(monkeypatch, bench.cipher._encryption.data_keys.flights, 8)
    bench.driver.service.before = lambda operation: everyone.wait(PATIENCE)
    for outcome in on_threads(8, lambda: call(bench, context=CONTEXT)):
        assert_discreet(outcome.error)


def test_the_error_on_a_thread_of_ones_own_shows_no_secret(bench):
    """As a thread's excepthook would get it."""
    bench.driver.fails = {"wrap"}
    assert_discreet(Outcome(lambda: bench.cipher.encrypt(PLAINTEXT.reveal())).join().error)


OPENING = {
    "unknown option": lambda: EnvelopeCipher.from_uri("quoting:app", token=PASSPHRASE.text(), tokn="x"),
    "misspelt secret": lambda: EnvelopeCipher.from_uri("quoting:app", tokken=PASSPHRASE.text()),
    "bad role": lambda: EnvelopeCipher.from_uri("quoting:app", token=PASSPHRASE.text(), role="none"),
    "no such scheme": lambda: EnvelopeCipher.from_uri("quotin:app", token=PASSPHRASE.text()),
    "secret of a wrong type": lambda: EnvelopeCipher.from_uri("quoting:app", token=[PASSPHRASE.text()]),
    "production": lambda: EnvelopeCipher.from_uri("quoting:app", token=PASSPHRASE.text(), production=True),
    "async": lambda: aio.EnvelopeCipher.from_uri("quotin:app", token=PASSPHRASE.text()),
    "environment": lambda: EnvelopeCipher.from_config("/nowhere.toml", env={"SECRET": PASSPHRASE.text()}),
    "environment, async": lambda: aio.Decryptor.from_config(
        "/nowhere.toml", env={"SECRET": PASSPHRASE.text()}
    ),
    "local key file": lambda: EnvelopeCipher.from_uri(
        "local:/nowhere.json#app", passphrase=PASSPHRASE.text()
    ),
}


@pytest.mark.parametrize("call", OPENING.values(), ids=OPENING)
def test_opening_that_fails_shows_no_secret(driver, call):
    """A passphrase among the options, or in the environment given."""
    assert_fails_discreetly(call)


def test_a_required_audit_that_fails_shows_no_secret(bench, tmp_path):
    """The audit file becomes a folder while the cipher is open."""
    audit = tmp_path / "required.jsonl"
    cipher = EnvelopeCipher.from_uri("quoting:app", audit={"file": str(audit), "required": True})
    audit.unlink()
    audit.mkdir()
    assert_fails_discreetly(lambda: cipher.encrypt(PLAINTEXT.reveal()))
    assert_fails_discreetly(lambda: cipher.encrypt_many([PLAINTEXT.reveal()]))
    cipher._session.observer.close()


def test_use_after_close_shows_no_secret(bench):
    """Every operation on a closed cipher."""
    bench.close()
    for name, call in ALL.items():
        if not name.startswith(("async open", "open")):
            assert_discreet(failure_of(lambda call=call: call(bench, context=CONTEXT)))


class SoftLimit(Exception):
    """As a task queue's, raised by a signal handler wherever the program happens to be."""


def soft_limit(number, frame):
    raise SoftLimit


ENTRIES = (
    "guarded.<locals>.guard",
    "EncryptMethods.encrypt",
    "EncryptMethods.encrypt_text",
    "discreet.<locals>.guarded",
    "discreet.<locals>.guard",
)
"""The frames that a user's call of a method that writes begins with."""


def interrupted(call, nth):
    """Return what `call()` raises if it is interrupted at the nth line of the library; None if it has fewer."""
    steps, raised = itertools.count(), []

    def trace(frame, event, argument):
        code = frame.f_code
        # What is raised in a finalizer is dropped by Python, and what is raised in a repr by asyncio, which shows one.
        if not is_library(code.co_filename):
            return None
        if code.co_name in ("__del__", "__repr__"):
            return None
        # An interpreter takes no interrupt between a with block and the release of its lock.
        can_be = event == "line" and "with " not in linecache.getline(
            frame.f_code.co_filename, frame.f_lineno
        )
        if can_be and next(steps) == nth:
            raised.append((frame.f_code.co_qualname, frame.f_lineno))
            signal.raise_signal(signal.SIGUSR1)
        return trace

    before = signal.signal(signal.SIGUSR1, soft_limit)
    # A collection that begins at that very moment runs finalizers, and Python drops what is raised in one.
    gc.disable()
    sys.settrace(trace)
    try:
        call()
    except BaseException as error:  # noqa: BLE001 - whatever the interrupt turned into
        return error
    finally:
        sys.settrace(None)
        gc.enable()
        signal.signal(signal.SIGUSR1, before)
    assert not raised, "the interrupt was swallowed"
    return None


# What was interrupted between opening a file and keeping it is closed by the garbage collector, which says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("warm", (False, True), ids=("cold", "warm"))
@pytest.mark.parametrize("name", ALL)
def test_an_interrupt_at_any_line_comes_out_and_shows_no_secret(bench, torture, name, warm):
    """The exception of a signal handler, at every line that an operation runs (a part of them, by turns)."""
    stride = 1 if torture.scale == 1.0 else 7 if warm else round(0.7 / torture.scale)
    start = torture.rng(f"{name}/{warm}").randrange(stride)
    points = 0
    ALL[name](bench, context=CONTEXT)
    for nth in itertools.count(start, stride):
        if not warm:
            bench.renew()
        error = interrupted(lambda: ALL[name](bench, context=CONTEXT), nth)
        if error is None:
            break
        points += 1
        assert isinstance(error, SoftLimit), f"it came out as {error!r}"
        # At its first line an entry point has what its caller gave it, and can let go of nothing yet.
        if not (name in WRITES and _innermost(error) in ENTRIES):
            assert_discreet(error)
    assert points > 1 or "async" in name  # of whose lines many run on threads
    gc.collect()  # here, and not in another test


def _innermost(error):
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [code.co_qualname for code in codes if code.co_name not in ("trace", "soft_limit")][-1]


def test_the_search_finds_what_leaks():
    """The canary in a frame, a text, a cause and a pickle: each is seen."""

    def leaking_frame():
        secret = PLAINTEXT.reveal()
        raise ValueError(len(secret))

    def leaking_text():
        raise ValueError(DATA_KEY.reveal())

    def leaking_derived_key():
        key = DERIVED_KEY.reveal()
        raise ValueError(len(key))

    def leaking_hidden_context():
        try:
            raise KeyError(PASSPHRASE.text())
        except KeyError:
            raise ValueError("hidden") from None

    for leak in (leaking_frame, leaking_text, leaking_derived_key, leaking_hidden_context):
        error = failure_of(leak)
        with pytest.raises(AssertionError):
            assert_discreet(error)
