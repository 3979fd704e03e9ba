"""`policy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from kmsbridge.cli import output
from kmsbridge.cli.exits import CommandError
from kmsbridge.cli.opening import profile
from kmsbridge.cli.options import Command

if TYPE_CHECKING:
    from kmsbridge.config import KeyConfig, Profile

ROLES: Final = ("encryptor", "decryptor", "rewrapper", "admin")


@click.command(cls=Command, short_help="Print the permissions that a role needs for a key.")
@click.argument("key")
@click.option("--role", type=click.Choice(ROLES), required=True, help="Whom the permissions are for.")
def policy(key: str, role: Any) -> None:
    """Print the least that a role needs for KEY, in its key service's own language.

    KEY is a key's name in the profile, or a key URI, which has a colon. No service is called.

    \b
    kmsbridge policy vault --role encryptor | vault policy write web -
    kmsbridge policy aws-kms://alias/app?region=eu-west-1 --role decryptor
    """
    from kmsbridge.cipher.session import configured_key

    found = configured_key(*(_of_uri(key) if ":" in key else _of_name(key)))
    try:
        text = found.driver.policy(role)
    except NotImplementedError:
        raise CommandError(
            f"the {found.driver.scheme} driver prints no policies",
            remedy="give the role its permissions as the key service's own documentation says",
        ) from None
    finally:
        found.close()
    output.result(text.removesuffix("\n"))


def _of_uri(uri: str) -> tuple[KeyConfig, Profile]:
    from kmsbridge import config

    found = config.from_uri(uri, options={})
    return found.encrypt_to[0], found


def _of_name(name: str) -> tuple[KeyConfig, Profile]:
    current = profile()
    keys = {each.name: each for each in current.encrypt_to + current.decrypt_with}
    if name not in keys:
        raise CommandError(
            f"profile {current.name!r} has no key {name!r}", remedy=f"it has {', '.join(keys)}", code=3
        )
    return keys[name], current
