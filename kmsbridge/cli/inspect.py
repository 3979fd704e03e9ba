"""`inspect`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import click

from kmsbridge.cli import output, streams
from kmsbridge.cli.batch import for_each
from kmsbridge.cli.options import PATH_OR_DASH, Command, json_option

if TYPE_CHECKING:
    from kmsbridge import MessageInfo


@click.command(cls=Command, short_help="Show the headers of messages.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=PATH_OR_DASH)
@json_option
def inspect(files: tuple[str, ...], as_json: bool) -> None:
    """Show the headers of messages: kind, lengths, and the keys that can decrypt them.

    This needs no key and verifies nothing: only decrypting does that. `-` stands for stdin.

    \b
    kmsbridge inspect notes.kmsb
    kmsbridge inspect --json *.kmsb | jq -r '.[].recipients[].key_id'
    """
    documents: list[dict[str, Any]] = []

    def inspect_one(name: str) -> None:
        info, armored = _inspect(name)
        if as_json:
            documents.append({"file": name, "armored": armored, **dataclasses.asdict(info)})
        else:
            _show(name, info, armored=armored)

    code = for_each(files, inspect_one)
    if as_json:
        output.document(documents)
    click.get_current_context().exit(code)


def _inspect(name: str) -> tuple[MessageInfo, bool]:
    from kmsbridge.cli.armored import detect
    from kmsbridge.inspection import inspect_file, inspect_stream

    with streams.open_source(name) as file:
        reader, armored = detect(file)
        if streams.is_regular(name) and not armored:
            return inspect_file(name), False
        return inspect_stream(cast(Any, reader)), armored


def _show(name: str, info: MessageInfo, *, armored: bool) -> None:
    if info.plaintext_length is not None:
        plaintext = _bytes(info.plaintext_length)
    else:
        plaintext = "unknown until unwrapped" if info.kind == "direct" else "invalid: the body was changed"
    words = [f"version {info.version}", info.kind]
    words += [info.body] * (info.body != "none") + ["armored"] * armored
    rows = [
        ("format", ", ".join(words)),
        ("header", _bytes(info.header_length) + (f", {info.padding} of them spare" if info.padding else "")),
        ("body", _bytes(info.body_length)),
        ("plaintext", plaintext),
    ]
    if info.data_key_id:
        rows.append(("data key", info.data_key_id))
    for recipient in info.recipients:
        version = f", version {recipient.key_version}" if recipient.key_version else ""
        rows.append(("recipient", f"{recipient.key_id}{version}"))
    output.result(output.plain("stdin" if name == streams.DASH else name))
    output.table((f"  {word}", value) for word, value in rows)


def _bytes(count: int) -> str:
    return f"{count:,} byte{'' if count == 1 else 's'}"
