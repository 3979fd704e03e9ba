"""Compact messages by a second writer, and every way to decrypt one."""

import asyncio
import contextlib
import io
import os
import pathlib
import tempfile
import threading

from kmsbridge import KmsBridgeError, aio
from kmsbridge import message as wire
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import data_key_context
from tests.support import PATIENCE, parts
from tests.vectors import writer

CONTEXT = {"tenant": "acme"}
AAD = b"users/42/phone"
BINDING = {"context": CONTEXT, "aad": AAD}
DATA_KEY = bytes(range(32))
NONCE = bytes(range(0x64, 0x7C))
LONGEST = 65_536
"""Bytes of the longest payload that a compact body holds."""


def wrapped_for(service, data_key, context=CONTEXT):
    """A recipient with this data key, whatever its length, as whoever may wrap can make one."""
    bound = data_key_context(EncryptionContext.of(context)).canonical()
    return wire.Recipient("fake:app", "1", service.app.seal(data_key, bound))


def made(service, payload, *, data_key=DATA_KEY, context=CONTEXT, aad=AAD, nonce=NONCE):
    """A compact message by a second writer, which has no limit."""
    entry = writer.entry(*wrapped_for(service, data_key, context))
    return writer.compact(payload, context, aad, [entry], data_key, nonce)


def run(work):
    """The result of `work`, which gets an asyncio cipher."""

    async def main():
        async with aio.EnvelopeCipher.from_uri("fake:app") as cipher:
            return await work(cipher)

    return asyncio.run(main())


class Collector:
    """An asyncio writer that keeps what it gets."""

    def __init__(self):
        self.data = bytearray()

    def write(self, data):
        self.data += data

    async def drain(self):
        pass


def reader_of(data):
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


def decrypted_file(cipher, message, options):
    with temporary_folder() as folder:
        (folder / "message").write_bytes(message)
        try:
            cipher.decrypt_file(folder / "message", folder / "plain", **options)
        except BaseException:
            assert os.listdir(folder) == ["message"]
            raise
        return (folder / "plain").read_bytes()


@contextlib.contextmanager
def temporary_folder():
    with tempfile.TemporaryDirectory() as name:
        yield pathlib.Path(name)


def decrypted_stream(cipher, message, options):
    target = io.BytesIO()
    try:
        cipher.decrypt_stream(io.BytesIO(message), target, **options)
    except BaseException:
        assert not target.getvalue()
        raise
    return target.getvalue()


def through_pipes(cipher, message, options):
    """A few bytes at a time go in; what comes out is read at the other end."""
    (source, feed), (drain, target) = os.pipe(), os.pipe()
    steps = [message[at : at + 1000] for at in range(0, len(message), 1000)]

    def write():
        # It may be refused before its end.
        with contextlib.suppress(BrokenPipeError), open(feed, "wb", buffering=0) as file:
            file.writelines(steps)

    taken = []

    def read():
        with open(drain, "rb") as file:
            taken.append(file.read())

    threads = [threading.Thread(target=each, daemon=True) for each in (write, read)]
    for thread in threads:
        thread.start()
    try:
        with open(source, "rb", buffering=0) as reader, open(target, "wb", buffering=0) as raw:
            cipher.decrypt_stream(reader, raw, **options)
    finally:
        for thread in threads:
            thread.join(PATIENCE)
    return taken[0]


def read_at_random(cipher, message, options):
    with cipher.open(io.BytesIO(message), **options) as file:
        middle = file.size // 2
        file.seek(middle)
        end = file.read()
        file.seek(0)
        return file.read(middle) + end


async def async_opened(cipher, message, options):
    async with await cipher.open(io.BytesIO(message), **options) as file:
        return await file.read()


async def async_stream_out(cipher, message, options):
    target = Collector()
    await cipher.decrypt_stream(reader_of(message), target, **options)
    return bytes(target.data)


async def async_file(cipher, message, options):
    with temporary_folder() as folder:
        (folder / "message").write_bytes(message)
        await cipher.decrypt_file(folder / "message", folder / "plain", **options)
        return (folder / "plain").read_bytes()


async def twice(cipher, way, *arguments):
    """With a data key at hand after the first."""
    outcomes = [await outcome_of(way(cipher, *arguments)) for _ in range(2)]
    assert same(*outcomes), outcomes
    if isinstance(outcomes[0], KmsBridgeError):
        raise outcomes[0]
    return outcomes[0]


async def outcome_of(operation):
    try:
        return await operation
    except KmsBridgeError as error:
        return error


def many(options):
    return {"context": options["context"], "aads": [options["aad"]]}


READ = {
    "decrypt": lambda c, m, o: c.decrypt(m, **o),
    "decrypt, a view": lambda c, m, o: c.decrypt(memoryview(m), **o),
    "decrypt_text": lambda c, m, o: c.decrypt_text(wire.armor(m), **o).encode(),
    "decrypt_many": lambda c, m, o: c.decrypt_many([m], **many(o))[0],
    "decrypt_file": decrypted_file,
    "decrypt_stream": decrypted_stream,
    "pipes": through_pipes,
    "open": read_at_random,
    "async decrypt": lambda c, m, o: run(lambda c: twice(c, lambda c: c.decrypt(m, **o))),
    "async decrypt_many": lambda c, m, o: run(lambda c: twice(c, lambda c: c.decrypt_many([m], **many(o))))[
        0
    ],
    "async decrypt_stream": lambda c, m, o: run(lambda c: twice(c, async_stream_out, m, o)),
    "async decrypt_file": lambda c, m, o: run(lambda c: twice(c, async_file, m, o)),
    "async open": lambda c, m, o: run(lambda c: twice(c, async_opened, m, o)),
}


def outcome(way, cipher, message, options=BINDING):
    try:
        return way(cipher, message, options)
    except KmsBridgeError as error:
        return error


def same(one, other):
    """Whether both are the same plaintext, or errors of one class with one text."""
    if isinstance(one, KmsBridgeError):
        return type(one) is type(other) and str(one) == str(other)
    return one == other


def with_body(message, change):
    header, body = parts(message)
    return header + change(body)


def with_commitment(message, change):
    header = wire.parse(message)
    return header._replace(commitment=change(header.commitment)).encode() + parts(message)[1]
