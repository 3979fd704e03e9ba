"""`encrypt` and `decrypt`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import click

from kmsbridge.cli import streams
from kmsbridge.cli.batch import for_each
from kmsbridge.cli.configured import open_cipher
from kmsbridge.cli.exits import CommandError
from kmsbridge.cli.options import PATH, PATH_OR_DASH, Command, bound_options, settings
from kmsbridge.cli.progress import copy, progress
from kmsbridge.cli.terminal import TextOnly, is_terminal

if TYPE_CHECKING:
    from kmsbridge.cipher import Decryptor, Encryptor

PRIVATE: Final = 0o600
"""The permissions of files with plaintext."""


@dataclass(frozen=True, slots=True)
class Job:
    """The arguments of one `encrypt` or `decrypt` command."""

    source: str | None
    target: str | None
    bound: dict[str, Any]
    armor: bool
    force: bool

    @property
    def name(self) -> str:
        """The name of the source, `-` for standard input."""
        return self.source or streams.DASH

    @property
    def size(self) -> int:
        """The source's size in bytes, 0 where it is unknown."""
        return streams.size_of(self.source)

    @property
    def file_to_file(self) -> bool:
        """True if source and target are both files, rather than pipes or devices."""
        target = self.target
        to_file = target is not None and not streams.is_stdio(target) and not streams.is_device(target)
        return to_file and streams.is_regular(self.source)


def _arguments(command: Any) -> Any:
    for decorate in (
        click.option("--force", is_flag=True, help="Replace TARGET if it exists."),
        bound_options,
        click.option("-o", "--output", "target", metavar="TARGET", type=PATH, help="Default: stdout."),
        click.argument("source", type=PATH_OR_DASH, required=False),
    ):
        command = decorate(command)
    return command


@click.command(cls=Command, short_help="Encrypt a file or a pipe.")
@_arguments
@click.option("-a", "--armor", is_flag=True, help="Write the text form: one line that begins with kmsb1_.")
def encrypt(**given: Any) -> None:
    """Encrypt SOURCE, a file or stdin, to TARGET or stdout.

    TARGET appears whole or not at all, and is not replaced without --force.

    \b
    kmsbridge encrypt notes.txt -o notes.kmsb -c tenant=acme
    pg_dump app | kmsbridge encrypt > app.kmsb
    printf %s "$TOKEN" | kmsbridge encrypt --armor
    """
    from kmsbridge import Encryptor

    job = Job(**given)
    if is_terminal(job.target) and not job.armor:
        raise CommandError(
            "the message is binary and would be written to the terminal",
            remedy="use --armor, or name a file with -o",
        )
    streams.check_target(job.target, force=job.force)
    with open_cipher(Encryptor) as cipher:
        if job.file_to_file and not job.armor:
            _encrypt_file(cipher, job)
        else:
            _encrypt_stream(cipher, job)


@click.command(cls=Command, short_help="Decrypt a file or a pipe.")
@_arguments
@click.option("-a", "--armor", is_flag=True, help="Accept the text form only. It is recognised anyway.")
def decrypt(**given: Any) -> None:
    """Decrypt SOURCE, a file or stdin, to TARGET or stdout.

    TARGET appears once all of it is verified, and only you can read it. On stdout every part is written as soon as it
    is verified: if the command fails, discard the output.

    \b
    kmsbridge decrypt notes.kmsb -o notes.txt -c tenant=acme
    kmsbridge decrypt < app.kmsb | psql app
    """
    from kmsbridge import Decryptor

    job = Job(**given)
    streams.check_target(job.target, force=job.force)
    with open_cipher(Decryptor) as cipher:
        if streams.is_stdio(job.source):
            _decrypt_stream(cipher, job)
            return
        code = for_each((job.name,), lambda _: _decrypt_named(cipher, job))
    click.get_current_context().exit(code)


def _decrypt_named(cipher: Decryptor, job: Job) -> None:
    if not streams.is_regular(job.source) or job.armor or _is_armored(job.name):
        _decrypt_stream(cipher, job)
    elif job.file_to_file:
        _decrypt_file(cipher, job)
    else:
        _decrypt_seekable(cipher, job)


def _is_armored(source: str) -> bool:
    from kmsbridge.cli.armored import detect

    with streams.open_source(source) as file:
        return detect(file)[1]


def _encrypt_file(cipher: Encryptor, job: Job) -> None:
    with streams.errors_about(str(job.target), job.name), progress(job.size, "encrypting") as tick:
        cipher.encrypt_file(job.name, str(job.target), progress=tick, **job.bound)


def _encrypt_stream(cipher: Encryptor, job: Job) -> None:
    from kmsbridge.cli.armored import ArmorWriter

    with (
        _open_source(job) as reader,
        streams.open_target(job.target, force=job.force) as writer,
        progress(job.size, "encrypting") as tick,
    ):
        text = ArmorWriter(writer) if job.armor else None
        out = cast(BinaryIO, text or writer)
        cipher.encrypt_stream(cast(BinaryIO, reader), out, progress=tick, **job.bound)
        if text is not None:
            text.end()


def _decrypt_file(cipher: Decryptor, job: Job) -> None:
    with streams.errors_about(str(job.target), job.name), progress(job.size, "decrypting") as tick:
        cipher.decrypt_file(job.name, str(job.target), progress=tick, **job.bound)


def _decrypt_seekable(cipher: Decryptor, job: Job) -> None:
    # Not as a stream: while a file is being rewrapped, its header is in another file, which `open` reads.
    with streams.errors_about(job.name):
        message = cipher.open(job.name, **job.bound)
    with message, _plaintext_to(job) as writer:
        size = 0 if is_terminal(job.target) else job.size
        with progress(size, "decrypting") as tick:
            copy(message, writer, tick)


def _decrypt_stream(cipher: Decryptor, job: Job) -> None:
    from kmsbridge.cli.armored import ArmorReader, detect

    with _open_source(job) as file:
        reader = cast(BinaryIO, ArmorReader(file)) if job.armor else detect(file)[0]
        with _plaintext_to(job) as writer:
            cipher.decrypt_stream(reader, writer, **job.bound)


@contextlib.contextmanager
def _plaintext_to(job: Job) -> Iterator[BinaryIO]:
    with streams.open_target(job.target, mode=PRIVATE, force=job.force) as writer:
        yield cast(BinaryIO, TextOnly(writer)) if is_terminal(job.target) else writer


@contextlib.contextmanager
def _open_source(job: Job) -> Iterator[streams.Input]:
    """Open the source. Input typed on a terminal is read to its end first, so that output does not mix with it."""
    with streams.open_source(job.source) as source:
        if not (streams.is_stdio(job.source) and streams.stdin().isatty()):
            yield source
            return
        settings().note("reading from the terminal; end with Ctrl-D")
        yield streams.Input(io.BytesIO(source.readall() or b""), "standard input")
