"""The portable API for asyncio: the same three classes, with `await`.

An operation whose data key is at hand is done where it is called, without a thread: it takes
microseconds. Calls to key services, files, and payloads of more than 1 MiB go to a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, BinaryIO, Generic, Protocol, Self, TypeVar

from kmsbridge import body, cipher
from kmsbridge import message as wire
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import direct
from kmsbridge.cipher.arguments import Buffer, as_bytes, bytes_to_text, check_bytes, check_text, text_to_bytes
from kmsbridge.cipher.direct import DirectOpener
from kmsbridge.cipher.files import Progress
from kmsbridge.cipher.opened import Opened
from kmsbridge.cipher.reading import MessageReader
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import CachedKey, Flight, Pairs, SingleFlight, name_of, without_padding
from kmsbridge.errors import forget_locals

__all__ = ["Decryptor", "Encryptor", "EnvelopeCipher"]

INLINE = 2**20
"""Payloads up to this many bytes are sealed and opened on the event loop: less than a millisecond."""
_STEP = 64 * 1024

T = TypeVar("T")
SyncT = TypeVar("SyncT", bound=Opened)


class AsyncReader(Protocol):
    """What `asyncio.StreamReader` is: `read(n)` gives b"" at the end."""

    def read(self, n: int = -1, /) -> Awaitable[bytes]: ...


class AsyncWriter(Protocol):
    """What `asyncio.StreamWriter` is."""

    def write(self, data: bytes, /) -> Any: ...
    def drain(self) -> Awaitable[None]: ...


class _Opened(Generic[SyncT]):
    """Opening and closing. One object may serve several event loops."""

    _kind: type[Any]
    _sync: SyncT

    def __init__(self, sync: SyncT) -> None:
        self._sync = sync

    @classmethod
    def from_config(
        cls, path: PathLike | None = None, *, profile: str | None = None, env: Mapping[str, str] | None = None
    ) -> Self:
        """As the synchronous one; it touches no network."""
        try:
            return cls(cls._kind.from_config(path, profile=profile, env=env))
        except BaseException as error:
            forget_locals(error)
            del env
            raise

    @classmethod
    def from_uri(cls, uri: str, *, decrypt_uris: Sequence[str] = (), **options: Any) -> Self:
        """As the synchronous one; it touches no network."""
        try:
            return cls(cls._kind.from_uri(uri, decrypt_uris=decrypt_uris, **options))
        except BaseException as error:
            forget_locals(error)
            del uri, decrypt_uris, options
            raise

    async def close(self) -> None:
        """Drop every data key and connection; may be repeated."""
        await asyncio.to_thread(self._sync.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"aio.{self._sync!r}"


class Encryptor(_Opened[cipher.Encryptor]):
    """Encrypts, and has no way to decrypt."""

    _kind = cipher.Encryptor

    async def encrypt(self, plaintext: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """As `kmsbridge.Encryptor.encrypt`."""
        try:
            check_bytes(plaintext, "plaintext", "encrypt_text")
            if self._sync._profile.direct or len(plaintext) > INLINE:
                return await asyncio.to_thread(self._sync.encrypt, plaintext, context=context, aad=aad)
            check_bytes(aad, "aad")
            entry = await self._sealing_key(context, len(plaintext))
            return body.seal(entry.key.reveal(), entry.seal_context + aad, plaintext, entry.header)
        except BaseException as error:
            self._sync._failed(error, context)
            del plaintext, aad
            raise

    async def encrypt_text(self, text: str, *, context: Pairs = None, aad: Buffer = b"") -> str:
        """As `kmsbridge.Encryptor.encrypt_text`."""
        try:
            return wire.armor(await self.encrypt(text_to_bytes(text), context=context, aad=aad))
        except BaseException as error:
            forget_locals(error)
            del text, aad
            raise

    async def encrypt_many(
        self, plaintexts: Iterable[Buffer], *, context: Pairs = None, aads: Sequence[Buffer] | None = None
    ) -> list[bytes]:
        """As `kmsbridge.Encryptor.encrypt_many`; always on a thread."""
        try:
            return await asyncio.to_thread(self._sync.encrypt_many, plaintexts, context=context, aads=aads)
        except BaseException as error:
            forget_locals(error)
            del plaintexts, aads
            raise

    async def encrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """As `kmsbridge.Encryptor.encrypt_file`; when cancelled it stops, and leaves no target."""
        await _stoppable(
            lambda tick: self._sync.encrypt_file(source, target, context=context, aad=aad, progress=tick),
            progress,
        )

    async def encrypt_stream(
        self, reader: AsyncReader, writer: AsyncWriter, *, context: Pairs = None, aad: Buffer = b""
    ) -> None:
        """Encrypt what `reader` holds to its end into `writer`, which is drained and left open."""
        try:
            aad = as_bytes(aad, "aad")
            self._sync._check_no_direct()
            entry = await self._sealing_key(context, 0)
            sealer = body.Sealer(entry.key.reveal(), entry.seal_context + aad)
            writer.write(entry.header)
            self._sync._encryption.count(entry, await _seal_stream(sealer, reader, writer))
        except BaseException as error:
            self._sync._failed(error, context)
            raise

    async def _sealing_key(self, pairs: Pairs, size: int) -> CachedKey:
        keys = self._sync._encryption
        entry = keys.cached(pairs, size)
        if entry is not None:
            return entry
        context = EncryptionContext.of(pairs)
        if not keys.shared:
            return await asyncio.to_thread(keys.get, context, size)
        name = name_of(context)
        return await _fetch(
            keys.flights, name, lambda: keys.cached(context, size), lambda: keys.load(name, context)
        )


class Decryptor(_Opened[cipher.Decryptor]):
    """Decrypts, and has no way to encrypt."""

    _kind = cipher.Decryptor

    async def decrypt(self, message: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """As `kmsbridge.Decryptor.decrypt`."""
        try:
            data = as_bytes(message, "message", "decrypt_text")
            check_bytes(aad, "aad")
            if len(data) > INLINE:
                return await asyncio.to_thread(self._sync.decrypt, data, context=context, aad=aad)
            start = int.from_bytes(data[6:8], "big")
            entry = self._sync._decryption.cached(data[:start], context, len(data))
            if entry is None or len(data) - start < wire.MIN_BODY:
                header = wire.parse(data)
                if header.kind is wire.Kind.DIRECT:
                    return await asyncio.to_thread(self._sync.decrypt, data, context=context, aad=aad)
                entry = await self._opening_key(header, context, len(data))
            return body.open_sealed(entry.key.reveal(), entry.seal_context + aad, memoryview(data)[start:])
        except BaseException as error:
            self._sync._failed(error, context)
            del message, aad
            raise

    async def decrypt_text(self, text: str, *, context: Pairs = None, aad: Buffer = b"") -> str:
        """As `kmsbridge.Decryptor.decrypt_text`."""
        try:
            message = wire.dearmor(check_text(text))
            return bytes_to_text(await self.decrypt(message, context=context, aad=aad))
        except BaseException as error:
            forget_locals(error)
            del aad
            raise

    async def decrypt_many(
        self, messages: Iterable[Buffer], *, context: Pairs = None, aads: Sequence[Buffer] | None = None
    ) -> list[bytes]:
        """As `kmsbridge.Decryptor.decrypt_many`; always on a thread."""
        return await asyncio.to_thread(self._sync.decrypt_many, messages, context=context, aads=aads)

    async def decrypt_file(
        self,
        source: PathLike,
        target: PathLike,
        *,
        context: Pairs = None,
        aad: Buffer = b"",
        progress: Progress | None = None,
    ) -> None:
        """As `kmsbridge.Decryptor.decrypt_file`; when cancelled it stops, and leaves no target."""
        await _stoppable(
            lambda tick: self._sync.decrypt_file(source, target, context=context, aad=aad, progress=tick),
            progress,
        )

    async def decrypt_stream(
        self, reader: AsyncReader, writer: AsyncWriter, *, context: Pairs = None, aad: Buffer = b""
    ) -> None:
        """Decrypt a message from `reader` into `writer` as it comes; only verified chunks are written.

        Until this returns their end may be missing: use what was written only then.
        """
        aad = as_bytes(aad, "aad")
        try:
            header, data = await _read_start(reader)
            opener = await self._opener(header, context, aad)
            while data or (data := await reader.read(_STEP)):
                writer.write(opener.update(data))
                await writer.drain()
                data = b""
            writer.write(opener.finalize())
            await writer.drain()
        except BaseException as error:
            self._sync._failed(error, context)
            raise

    async def open(self, source: PathLike | BinaryIO, *, context: Pairs = None, aad: Buffer = b"") -> Reader:
        """As `kmsbridge.Decryptor.open`; what it gives is read with `await`."""
        return Reader(await asyncio.to_thread(self._sync.open, source, context=context, aad=aad))

    async def _opener(self, header: wire.Header, context: Pairs, aad: bytes) -> body.Opener | DirectOpener:
        if header.kind is wire.Kind.DIRECT:
            keys = self._sync._decryption
            return DirectOpener(await asyncio.to_thread(direct.decrypt, keys, header, context, aad))
        entry = await self._opening_key(header, context, 0)
        return body.Opener(entry.key.reveal(), entry.seal_context + aad)

    async def _opening_key(self, header: wire.Header, pairs: Pairs, size: int) -> CachedKey:
        keys = self._sync._decryption
        if not keys.shared:
            return await asyncio.to_thread(keys.get, header, pairs, size)
        context, bare = EncryptionContext.of(pairs), without_padding(header)
        packed = bare.encode()
        name = (packed, name_of(context))
        return await _fetch(
            keys.flights,
            name,
            lambda: keys.cached(packed, context, size),
            lambda: keys.load(name, bare, context),
        )


class EnvelopeCipher(Encryptor, Decryptor):
    """Both, and rewraps."""

    _kind = cipher.EnvelopeCipher
    _sync: cipher.EnvelopeCipher

    async def rewrap(self, message: Buffer, *, context: Pairs = None, aad: Buffer = b"") -> bytes:
        """As `kmsbridge.EnvelopeCipher.rewrap`."""
        return await asyncio.to_thread(self._sync.rewrap, message, context=context, aad=aad)

    async def rewrap_file(self, path: PathLike, *, context: Pairs = None, aad: Buffer = b"") -> None:
        """As `kmsbridge.EnvelopeCipher.rewrap_file`."""
        await asyncio.to_thread(self._sync.rewrap_file, path, context=context, aad=aad)

    async def needs_rewrap(self, message: Buffer) -> bool:
        """As `kmsbridge.EnvelopeCipher.needs_rewrap`."""
        return await asyncio.to_thread(self._sync.needs_rewrap, message)


class Reader:
    """A seekable file of a message's plaintext; tasks may share it, and take turns."""

    def __init__(self, sync: MessageReader) -> None:
        self._sync = sync
        self._turn = asyncio.Lock()

    @property
    def size(self) -> int:
        """The length of the plaintext in bytes."""
        return self._sync.size

    async def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes from the position on; to the end where it is negative."""
        async with self._turn:
            return await asyncio.to_thread(self._sync.read, size)

    async def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset` on; the position moves behind them."""
        async with self._turn:
            self._sync.seek(offset)
            return await asyncio.to_thread(self._sync.read, size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; no chunk is read."""
        return self._sync.seek(offset, whence)

    def tell(self) -> int:
        """The position in bytes."""
        return self._sync.tell()

    async def close(self) -> None:
        """Forget the key, and close the file if it was opened here."""
        async with self._turn:
            self._sync.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _fetch(
    flights: SingleFlight[CachedKey],
    name: Hashable,
    cached: Callable[[], CachedKey | None],
    load: Callable[[], CachedKey],
) -> CachedKey:
    """The data key, loaded on a thread where it is not at hand.

    The load belongs to no task: when the task that began it is cancelled, the others still get it.
    """
    loop = asyncio.get_running_loop()
    while (entry := cached()) is None:
        flight, leads = flights.join(name)
        raised = _lead_on_thread(loop, flights, name, flight, load) if leads else []
        landed = loop.create_future()
        flight.when_done(lambda landed=landed: _set(loop, landed))  # type: ignore[misc]
        await landed
        if raised:
            raise raised.pop()
        flight.outcome()
    return entry


def _lead_on_thread(
    loop: asyncio.AbstractEventLoop,
    flights: SingleFlight[CachedKey],
    name: Hashable,
    flight: Flight[CachedKey],
    load: Callable[[], CachedKey],
) -> list[BaseException]:
    """Lead the flight; the list will have what the load raised, by the time that it has landed."""
    raised: list[BaseException] = []

    def noting() -> CachedKey:
        try:
            return load()
        except BaseException as error:
            raised.append(error)
            raise

    def lead() -> None:
        with contextlib.suppress(BaseException):  # it is in the list
            flights.lead(name, flight, noting)

    try:
        loop.run_in_executor(None, lead)
    except BaseException:
        flights.give_up(name, flight)
        raise
    return raised


def _set(loop: asyncio.AbstractEventLoop, landed: asyncio.Future[None]) -> None:
    def once() -> None:
        if not landed.done():
            landed.set_result(None)

    with contextlib.suppress(RuntimeError):  # the loop of a waiter that is gone
        loop.call_soon_threadsafe(once)


async def _seal_stream(sealer: body.Sealer, reader: AsyncReader, writer: AsyncWriter) -> int:
    """Seal what `reader` holds into `writer`; gives how many bytes it was."""
    done = 0
    while data := await reader.read(_STEP):
        writer.write(sealer.update(data))
        done += len(data)
        await writer.drain()
    writer.write(sealer.finalize())
    await writer.drain()
    return done


class _Stopped(Exception):
    """Raised on the thread of an operation whose task was cancelled."""


async def _stoppable(operation: Callable[[Progress], None], progress: Progress | None) -> None:
    """Run `operation` on a thread; when cancelled, stop it at its next step and wait for that."""
    loop = asyncio.get_running_loop()
    stop = threading.Event()

    def tick(done: int) -> None:
        if stop.is_set():
            raise _Stopped
        if progress is not None:
            loop.call_soon_threadsafe(progress, done)

    work = asyncio.ensure_future(asyncio.to_thread(operation, tick))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        stop.set()
        with contextlib.suppress(Exception):
            await work
        raise


async def _read_start(reader: AsyncReader) -> tuple[wire.Header, bytes]:
    """As `cipher.files.read_start`."""
    fixed = await _read_up_to(reader, wire.FIXED)
    rest = await _read_up_to(reader, wire.header_length(fixed) - len(fixed))
    header, start = wire.parse_header(fixed + rest), await _read_up_to(reader, wire.MIN_BODY)
    wire.check_body_length(header.kind, len(start))
    return header, start


async def _read_up_to(reader: AsyncReader, length: int) -> bytes:
    data = b""
    while len(data) < length and (part := await reader.read(length - len(data))):
        data += part
    return data
