"""`rewrap`."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import click

from kmsbridge.cli import exits, output, streams
from kmsbridge.cli.batch import for_each
from kmsbridge.cli.configured import open_cipher
from kmsbridge.cli.exits import CommandError
from kmsbridge.cli.options import PATH_OR_DASH, Command, bound_options, json_option, settings
from kmsbridge.cli.progress import copy
from kmsbridge.streams import write_all

if TYPE_CHECKING:
    from kmsbridge.cipher import EnvelopeCipher

_START: Final = 0xFFFF + 72
"""The number of bytes that hold the longest header and the shortest body."""


@click.command(cls=Command, short_help="Move messages to the current keys.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=PATH_OR_DASH)
@bound_options
@click.option(
    "--check",
    is_flag=True,
    help="Change nothing; print the files that need it, and exit with 10 if any does.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="Ask the key services which version wrapped each data key, one call each; needs the context.",
)
@json_option
def rewrap(files: tuple[str, ...], bound: dict[str, Any], check: bool, verify: bool, as_json: bool) -> None:
    """Wrap the data keys of messages again, with the keys in `encrypt_to` in their current versions.

    Files are changed in place; their bodies stay as they are. `-` rewraps stdin to stdout. Give the context
    that the messages were encrypted with; the aad is needed for direct messages only.

    \b
    kmsbridge rewrap --check *.kmsb
    kmsbridge rewrap *.kmsb -c tenant=acme
    """
    from kmsbridge import EnvelopeCipher

    if streams.DASH in files and (len(files) > 1 or as_json):
        raise click.UsageError(
            "- cannot be combined with other files or with --json", click.get_current_context()
        )
    with open_cipher(EnvelopeCipher) as cipher:
        if files == (streams.DASH,) and not check:
            _rewrap_stream(cipher, None, bound)
            return
        code = _rewrap_files(cipher, files, bound, check=check, verify=verify, as_json=as_json)
    click.get_current_context().exit(code)


def _rewrap_files(
    cipher: EnvelopeCipher,
    files: tuple[str, ...],
    bound: dict[str, Any],
    *,
    check: bool,
    verify: bool,
    as_json: bool,
) -> int:
    needed: dict[str, bool] = {}

    def work(name: str) -> None:
        needs = _needs_rewrap(cipher, name, {"verify": True, **bound} if verify else {})
        if needs and not check:
            _rewrap_file(cipher, name, bound)
        needed[name] = needs

    code = for_each(files, work)
    count = sum(needed.values())
    if as_json:
        member = "needs_rewrap" if check else "rewrapped"
        output.document([{"file": name, member: needs} for name, needs in needed.items()])
    elif check:
        for name in (name for name, needs in needed.items() if needs):
            output.result(output.plain(name))
    elif needed:
        settings().note(f"rewrapped {count}, already current {len(needed) - count}")
    return code or (exits.NEEDS_REWRAP if check and count else 0)


def _needs_rewrap(cipher: EnvelopeCipher, name: str, how: dict[str, Any]) -> bool:
    from kmsbridge import journal

    if journal.interrupted(name):
        return True
    start = _start(name)
    return cipher.needs_rewrap(start, **how)


def _start(name: str) -> bytes:
    from kmsbridge.cli.armored import detect

    with streams.open_source(name) as file:
        return _read(detect(file)[0])


def _read(reader: Any) -> bytes:
    data = b""
    while len(data) < _START and (more := reader.read(_START - len(data))):
        data += more
    return data


def _rewrap_file(cipher: EnvelopeCipher, name: str, bound: dict[str, Any]) -> None:
    from kmsbridge.cli.armored import detect

    if not streams.is_regular(name):
        raise CommandError(f"{name} is not a regular file", remedy="use - and a pipe")
    with streams.open_source(name) as file:
        armored = detect(file)[1]
    if armored:
        _rewrap_stream(cipher, name, bound)
    else:
        cipher.rewrap_file(name, **bound)


def _rewrap_stream(cipher: EnvelopeCipher, name: str | None, bound: dict[str, Any]) -> None:
    """Rewrap stdin to stdout, or an armored file in place."""
    from kmsbridge.cli.armored import ArmorWriter, detect

    mode = 0 if name is None else stat.S_IMODE(os.stat(name).st_mode)
    with (
        streams.open_source(name) as file,
        streams.open_target(name, mode=mode, force=True) as writer,
    ):
        reader, armored = detect(file)
        text = ArmorWriter(writer) if armored else None
        out = cast(BinaryIO, text or writer)
        # Only the header changes; the rest of the body is copied as it is.
        write_all(out, cipher.rewrap(_read(reader), **bound))
        copy(reader, out)
        if text is not None:
            text.end()
