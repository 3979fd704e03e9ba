"""`policy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from kmsbridge.cli import output
from kmsbridge.cli.configured import load_profile
from kmsbridge.cli.exits import CommandError
from kmsbridge.cli.options import Command

if TYPE_CHECKING:
    from kmsbridge.config import KeyConfig, Profile

ROLES: Final = ("encryptor", "decryptor", "rewrapper", "admin")


@click.command(cls=Command, short_help="Print the permissions that a role needs for a key.")
@click.argument("key")
@click.option("--role", type=click.Choice(ROLES), required=True, help="Whom the permissions are for.")
def policy(key: str, role: Any) -> None:
    """Print the least permissions that a role needs for KEY, in the policy language of its key service.

    KEY is a key's name in the profile, or a key URI, which has a colon. No service is called.

    \b
    kmsbridge policy vault --role encryptor | vault policy write web -
    kmsbridge policy aws-kms://alias/app?region=eu-west-1 --role decryptor
    """
    from kmsbridge.cipher.session import configured_key

    config, profile = _of_uri(key) if ":" in key else _of_name(key)
    managed_key = configured_key(config, profile)
    try:
        if not profile.environment.accepts_unmarked():
            managed_key.driver.environment = profile.environment.name
        text = managed_key.driver.policy(role)
    except NotImplementedError:
        raise CommandError(
            f"the {managed_key.driver.scheme} driver cannot print policies",
            remedy="see the key service's documentation for the permissions",
        ) from None
    finally:
        managed_key.close()
    output.result(text.removesuffix("\n"))


def _of_uri(uri: str) -> tuple[KeyConfig, Profile]:
    from kmsbridge import config

    profile = config.from_uri(uri, options={})
    return profile.encrypt_to[0], profile


def _of_name(name: str) -> tuple[KeyConfig, Profile]:
    profile = load_profile()
    keys = {config.name: config for config in profile.encrypt_to + profile.decrypt_with}
    if name not in keys:
        raise CommandError(
            f"the profile {profile.name!r} has no key {name!r}",
            remedy=f"use one of its keys: {', '.join(keys)}",
            code=3,
        )
    return keys[name], profile
