"""`keys`, `rotate` and `providers`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from kmsbridge.cli import output
from kmsbridge.cli.exits import CommandError, code_of
from kmsbridge.cli.opening import profile
from kmsbridge.cli.options import Command, json_option, settings
from kmsbridge.cli.running import report
from kmsbridge.errors import KmsBridgeError

if TYPE_CHECKING:
    from kmsbridge.config import KeyConfig, Profile


@click.command(cls=Command, short_help="List the profile's keys.")
@json_option
def keys(as_json: bool) -> None:
    """List the profile's keys, with their state as their services tell it.

    No key is used: a key that is listed as enabled may still refuse to wrap or unwrap.
    """
    current, code = profile(), 0
    rows: list[dict[str, str]] = []
    for each in _keys_of(current).values():
        row = {"name": each.name, "uri": str(each.uri), "key_id": "", "state": "unknown", "version": ""}
        try:
            row |= _described(each, current)
        except KmsBridgeError as error:
            report(error, debug=settings().debug, about=f"keys.{each.name}")
            code = code or code_of(error)
        rows.append({**row, "role": _role(each, current)})
    if as_json:
        output.document(rows)
    else:
        header = ("NAME", "KEY ID", "STATE", "VERSION", "ROLE", "URI")
        output.table(([row[word.lower().replace(" ", "_")] for word in header] for row in rows), header)
    click.get_current_context().exit(code)


@click.command(cls=Command, short_help="Make a new version of a key.")
@click.argument("key")
@json_option
def rotate(key: str, as_json: bool) -> None:
    """Make a new version of KEY, a key's name in the configuration, and use it from now on.

    What older versions wrapped still opens; `rewrap` moves it to the new one.
    """
    current = profile()
    found = _keys_of(current)
    if key not in found:
        raise CommandError(
            f"profile {current.name!r} has no key {key!r}", remedy=f"it has {', '.join(found)}", code=3
        )
    row = {"name": key, **_rotated(found[key], current)}
    if as_json:
        output.document(row)
    else:
        output.table([(row["name"], row["key_id"], f"version {row['version'] or 'unknown'}")])
    settings().note("what older versions wrapped still opens; kmsbridge rewrap moves files to the new one")


@click.command(cls=Command, short_help="List the installed drivers.")
@json_option
def providers(as_json: bool) -> None:
    """List the installed drivers, without importing any."""
    from kmsbridge import registry

    found = registry.providers()
    if as_json:
        output.document([each._asdict() for each in found])
        return
    rows = ((each.scheme, each.distribution, each.version, each.target) for each in found)
    output.table(rows, ("SCHEME", "PACKAGE", "VERSION", "DRIVER"))


def _keys_of(current: Profile) -> dict[str, KeyConfig]:
    return {each.name: each for each in current.encrypt_to + current.decrypt_with}


def _described(each: KeyConfig, current: Profile) -> dict[str, str]:
    from kmsbridge.cipher.session import configured_key

    with contextlib.closing(configured_key(each, current)) as key:
        told = key.describe()
        return {"key_id": key.key_id, "state": told.state.value, "version": told.version}


def _role(each: KeyConfig, current: Profile) -> str:
    roles = (("encrypt", current.encrypt_to), ("decrypt", current.decrypt_with))
    return ", ".join(role for role, names in roles if each.name in [one.name for one in names])


def _rotated(each: KeyConfig, current: Profile) -> dict[str, str]:
    from kmsbridge.audit import AuditTrail
    from kmsbridge.cipher.session import configured_key

    with contextlib.ExitStack() as end:
        trail = end.enter_context(contextlib.closing(AuditTrail(current.audit, profile=current.name)))
        key = end.enter_context(contextlib.closing(configured_key(each, current, trail)))
        return {"key_id": key.key_id, "version": key.rotate()}
