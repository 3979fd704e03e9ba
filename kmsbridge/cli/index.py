"""`index new`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

import click

from kmsbridge.cli import output
from kmsbridge.cli.exits import CommandError
from kmsbridge.cli.options import Command, Group, json_option, settings


@click.group(cls=Group, short_help="Make keys of blind indexes.")
def index() -> None:
    """Work with blind indexes, by which encrypted values are looked up."""


@index.command(cls=Command, short_help="Make a key of a blind index.")
@click.argument("name")
@json_option
def new(name: str, as_json: bool) -> None:
    """Make a key of the blind index NAME, encrypted by the profile, and print the configuration's table for it.

    The configuration is not changed. Where it has the index already, the table printed has the new key behind the
    others: hosts query by it, and store by it once it is the first.

    \b
    kmsbridge index new phone --profile search >> kmsbridge.toml
    """
    if not re.fullmatch("[A-Za-z0-9_-]{1,128}", name):
        raise click.BadParameter("use letters, digits, - and _", param_hint="'NAME'")
    from kmsbridge import config
    from kmsbridge.blindindex import new_index_key
    from kmsbridge.cipher import Encryptor
    from kmsbridge.cli.configured import load_profile, open_cipher

    profile = load_profile()
    before = config.index_table(name, settings().config)
    table = before or {"profile": profile.name, "keys": []}
    if table["profile"] != profile.name:
        raise CommandError(
            f"the keys of the index {name} are for the profile {table['profile']!r}, which could not decrypt this one",
            remedy=f"run the command with --profile {shlex.quote(table['profile'])}",
            code=3,
        )
    if len(table["keys"]) >= config.MAX_INDEX_KEYS:
        raise CommandError(
            f"the index {name} has {len(table['keys'])} keys, and cannot have more",
            remedy="remove those that nothing is stored with any more",
            code=3,
        )
    with open_cipher(Encryptor) as encryptor:
        message = new_index_key(encryptor, name)
    table = {**table, "keys": [*table["keys"], message]}
    if as_json:
        output.document({"name": name, "message": message, **table})
    else:
        output.result(_toml(name, table))
    if before is not None:
        settings().note(f"replace the table of {name} by this one on every host, then put the new key first")
    settings().note(
        "back it up: without it, what is stored with it is found again only once every index is computed anew"
    )


def _toml(name: str, table: Mapping[str, Any]) -> str:
    keys = "".join(f"  {_quoted(key)},\n" for key in table["keys"])
    return f"[indexes.{name}]\nprofile = {_quoted(table['profile'])}\nkeys = [\n{keys}]"


def _quoted(text: str) -> str:
    # A JSON string is a TOML string, as long as characters outside ASCII are written as they are.
    return json.dumps(text, ensure_ascii=False)
