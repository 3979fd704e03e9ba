"""`audit verify`."""

from __future__ import annotations

import dataclasses

import click

from kmsbridge.cli import output
from kmsbridge.cli.options import PATH, Command, Group, json_option


@click.group(cls=Group, short_help="Verify an audit file.")
def audit() -> None:
    """Work with audit files."""


@audit.command(cls=Command, short_help="Check that no line was changed.")
@click.argument("file", type=PATH)
@click.option("--head", metavar="HASH", help="A head noted earlier; the file must still contain that line.")
@json_option
def verify(file: str, head: str | None, as_json: bool) -> None:
    """Check that no line of FILE was changed, removed, inserted or moved since it was written.

    A file from which whole lines were cut off at the end still verifies. To detect that, keep the head that this
    prints somewhere else, and pass it the next time.
    """
    from kmsbridge import audit as trail

    found = trail.verify(file, head=head)
    if as_json:
        output.document({"file": file, **dataclasses.asdict(found)})
        return
    rows = [("lines", f"{found.lines:,}"), ("first", found.first_time), ("last", found.last_time)]
    output.result(f"{output.plain(file)}: unbroken")
    output.table((f"  {word}", value or "-") for word, value in [*rows, ("head", found.head)])
