"""`keygen`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from kmsbridge.cli import output
from kmsbridge.cli.exits import CommandError
from kmsbridge.cli.options import PATH, Command, json_option, settings
from kmsbridge.cli.streams import errors_about

if TYPE_CHECKING:
    from kmsbridge.config import KeyConfig
    from kmsbridge.drivers.hpke.document import Document, Pair


@click.command(cls=Command, short_help="Make a key pair for hosts that only encrypt.")
@click.argument("name")
@click.option(
    "--protect-with",
    "key",
    metavar="KEY",
    required=True,
    help="The key that wraps the private half: a key's name in the configuration, or a key URI.",
)
@click.option(
    "-o", "--output", "path", metavar="FILE", type=PATH, help="The private file. Default: NAME.hpke.toml."
)
@click.option(
    "--suite",
    type=click.Choice(("mlkem768-x25519", "x25519")),
    default="mlkem768-x25519",
    show_default=True,
    help="x25519 is smaller, and not safe from quantum computers.",
)
@click.option("--rotate", is_flag=True, help="Add a pair to the existing private file of this key.")
@click.option(
    "--encrypt-from",
    "start",
    metavar="DATE",
    type=click.DateTime(("%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ")),
    help="From when on the file's hosts encrypt to the pair, in UTC. Default: now.",
)
@click.option(
    "--environment",
    metavar="NAME",
    help="Bind the private half to this environment: profiles of another one cannot use it.",
)
@json_option
def keygen(
    name: str,
    key: str,
    path: str | None,
    suite: str,
    rotate: bool,
    start: datetime | None,
    environment: str | None,
    as_json: bool,
) -> None:
    """Make a key pair called NAME: a public key for hosts that only encrypt, and a private file for hosts that decrypt.

    The private file holds a seed that KEY has wrapped; nothing of it is on disk in the clear. The pair is tried
    before the public key is printed. Nothing is overwritten.
    """
    from kmsbridge.drivers.hpke import privatefile

    path = os.path.abspath(path or f"{name}.hpke.toml")
    made = privatefile.now()
    begins = start.replace(tzinfo=UTC) if start else made
    with _protecting(key, environment) as new_pair, errors_about(path):
        if rotate:
            pair = _add(path, lambda before: new_pair(_same_name(before.name, name), suite, made, begins))
        else:
            if os.path.lexists(path):
                raise privatefile.exists(path)
            pair = new_pair(_new_name(name), suite, made, begins)
            privatefile.create(path, pair)
    _print(pair, path, key, as_json=as_json)


NewPair = Callable[[str, str, datetime, datetime], "Pair"]


@contextlib.contextmanager
def _protecting(name: str, environment: str | None) -> Iterator[NewPair]:
    """Yield what makes a pair whose seed the key `name` wraps, bound to `environment` if there is one."""
    from kmsbridge.audit import AuditTrail
    from kmsbridge.cipher.session import configured_key
    from kmsbridge.config import Profile
    from kmsbridge.drivers.hpke import pairs
    from kmsbridge.drivers.hpke.suites import SUITES
    from kmsbridge.environment import environment as environment_of
    from kmsbridge.policy import AuditPolicy

    profile = Profile("keygen", environment=environment_of(environment))
    with contextlib.ExitStack() as cleanup:
        trail = cleanup.enter_context(contextlib.closing(AuditTrail(AuditPolicy(), profile=profile.name)))
        key = cleanup.enter_context(contextlib.closing(configured_key(_key(name), profile, trail)))
        if not key.binds_context or key.driver.scheme == "hpke":
            raise CommandError(
                f"the key {name} cannot protect a seed",
                remedy="use a symmetric key of a key service, or a local key",
                code=3,
            )

        def new_pair(full_name: str, suite: str, made: datetime, begins: datetime) -> Pair:
            return pairs.new_pair(
                full_name,
                SUITES[suite],
                key.wrap,
                key.unwrap,
                created=made,
                encrypt_from=begins,
            )

        yield new_pair


def _add(path: str, make: Callable[[Document], Pair]) -> Pair:
    from kmsbridge.drivers.hpke import privatefile
    from kmsbridge.drivers.local.errors import LocalKeyError

    made: list[Pair] = []

    def make_one(before: Document) -> Pair:
        made.append(make(before))
        return made[0]

    try:
        privatefile.add(path, make_one)
    except LocalKeyError as error:  # another process holds the file's lock
        raise error.as_kms_error() from error
    return made[0]


def _key(name: str) -> KeyConfig:
    from kmsbridge import config

    if ":" in name:
        return config.from_uri(name, options={}).encrypt_to[0]
    return config.load_key(name, settings().config)


def _new_name(name: str) -> str:
    from kmsbridge.drivers.hpke import pairs

    return pairs.new_name(name)


def _same_name(full_name: str, name: str) -> str:
    if name not in (full_name, full_name.partition("@")[0]):
        raise CommandError(
            f"the private file is that of hpke:{full_name}, not of {name}",
            remedy="name its file with --output",
            code=3,
        )
    return full_name


def _print(pair: Pair, path: str, key: str, *, as_json: bool) -> None:
    public_key = pair.public_key
    if as_json:
        output.document(
            {
                "key_id": public_key.key_id,
                "version": public_key.version,
                "suite": public_key.suite.name,
                "public_key": public_key.line(),
                "private_file": path,
            }
        )
    else:
        output.result(public_key.line())
    shown = os.path.relpath(path)
    settings().note(f"the key is {public_key.key_id}, version {public_key.version}")
    settings().note(
        f'hosts that decrypt: uri = "{public_key.key_id}", private_file = "{shown}", protect_with = "{key}"'
    )
    settings().note(f'hosts that encrypt: uri = "{public_key.key_id}", public_key = the line printed')
    settings().note(f"back {shown} up: without it, or without {key}, what was encrypted cannot be decrypted")
