"""`keys`, `rotate` and `providers`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from kmsbridge.cli import output
from kmsbridge.cli.configured import load_profile
from kmsbridge.cli.exits import CommandError, code_of
from kmsbridge.cli.options import Command, json_option, settings
from kmsbridge.cli.runner import report
from kmsbridge.errors import KmsBridgeError

if TYPE_CHECKING:
    from kmsbridge.config import KeyConfig, Profile


@click.command(cls=Command, short_help="List the profile's keys.")
@json_option
def keys(as_json: bool) -> None:
    """List the profile's keys with the state that their services report.

    No key is used: this host may still be refused to wrap or unwrap with a key that is listed as enabled.
    """
    profile, code = load_profile(signed_in=True), 0
    rows: list[dict[str, str]] = []
    for config in _keys_of(profile).values():
        row = {"name": config.name, "uri": str(config.uri), "key_id": "", "state": "unknown", "version": ""}
        try:
            row |= _describe(config, profile)
        except KmsBridgeError as error:
            report(error, debug=settings().debug, prefix=f"keys.{config.name}")
            code = code or code_of(error)
        rows.append({**row, "role": _role(config, profile)})
    if as_json:
        output.document(rows)
    else:
        header = ("NAME", "KEY ID", "STATE", "VERSION", "ROLE", "URI")
        output.table(([row[title.lower().replace(" ", "_")] for title in header] for row in rows), header)
    click.get_current_context().exit(code)


@click.command(cls=Command, short_help="Make a new version of a key.")
@click.argument("key")
@json_option
def rotate(key: str, as_json: bool) -> None:
    """Make a new version of KEY, a key's name in the configuration, and use it from now on.

    Messages of older versions can still be decrypted; `rewrap` moves them to the new version.
    """
    profile = load_profile(signed_in=True)
    configs = _keys_of(profile)
    if key not in configs:
        raise CommandError(
            f"the profile {profile.name!r} has no key {key!r}",
            remedy=f"use one of its keys: {', '.join(configs)}",
            code=3,
        )
    if configs[key].uri.scheme == "hpke":
        raise CommandError(
            f"the key {key!r} is a key pair, and rotate makes none",
            remedy=f"run kmsbridge keygen {configs[key].uri.path} --rotate --protect-with KEY --output FILE, with the "
            "key that protects its private file, and that file",
            code=3,
        )
    row = {"name": key, **_rotate(configs[key], profile)}
    if as_json:
        output.document(row)
    else:
        output.table([(row["name"], row["key_id"], f"version {row['version'] or 'unknown'}")])
    settings().note(
        "messages of older versions can still be decrypted; kmsbridge rewrap moves files to the new one"
    )


@click.command(cls=Command, short_help="List the installed drivers.")
@json_option
def providers(as_json: bool) -> None:
    """List the installed drivers. None is imported."""
    from kmsbridge import registry

    found = registry.providers()
    if as_json:
        output.document([provider._asdict() for provider in found])
        return
    rows = ((provider.scheme, provider.distribution, provider.version, provider.target) for provider in found)
    output.table(rows, ("SCHEME", "PACKAGE", "VERSION", "DRIVER"))


def _keys_of(profile: Profile) -> dict[str, KeyConfig]:
    return {config.name: config for config in profile.encrypt_to + profile.decrypt_with}


def _describe(config: KeyConfig, profile: Profile) -> dict[str, str]:
    from kmsbridge.cipher.session import configured_key

    with contextlib.closing(configured_key(config, profile)) as key:
        description = key.describe()
        return {"key_id": key.key_id, "state": description.state.value, "version": description.version}


def _role(config: KeyConfig, profile: Profile) -> str:
    roles = (("encrypt", profile.encrypt_to), ("decrypt", profile.decrypt_with))
    return ", ".join(role for role, keys in roles if config.name in [key.name for key in keys])


def _rotate(config: KeyConfig, profile: Profile) -> dict[str, str]:
    from kmsbridge.audit import AuditTrail
    from kmsbridge.cipher.session import configured_key

    with contextlib.ExitStack() as cleanup:
        trail = cleanup.enter_context(contextlib.closing(AuditTrail(profile.audit, profile=profile.name)))
        key = cleanup.enter_context(contextlib.closing(configured_key(config, profile, trail)))
        return {"key_id": key.key_id, "version": key.rotate()}
