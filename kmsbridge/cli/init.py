"""`init`."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import click

from kmsbridge.cli import existing_config, gitignore, passphrase
from kmsbridge.cli.exits import CommandError
from kmsbridge.cli.options import PATH, Command, settings
from kmsbridge.cli.output import result, say
from kmsbridge.cli.streams import named
from kmsbridge.secret import Secret

CONFIGURATION: Final = """\
# Which keys protect the data, and who may use them how. This file holds no secret: keep it with the code.

default_profile = "dev"

# A key in a file, for development. Elsewhere use a key service; nothing but this file changes then:
#   [keys.prod]
#   uri = "aws-kms://alias/app?region=eu-west-1"
[keys.dev]
uri = {uri}
{protection}
# New messages are for every key in encrypt_to; decrypt_with is tried in order, and no other key is used.
[profiles.dev]
encrypt_to = ["dev"]
decrypt_with = ["dev"]
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be made, each path absolute."""

    config: str
    key_file: str
    name: str
    passphrase: Secret | None
    reference: str
    kept: bool = False
    """Whether the configuration is there already, and stays as it is."""

    @property
    def folder(self) -> str:
        """Where the key file will be."""
        return os.path.dirname(self.key_file)

    @property
    def uri(self) -> str:
        """The key's URI as the configuration has it."""
        return f"local:{quote(_seen_from(self.config, self.key_file))}#{quote(self.name)}"

    def text(self) -> str:
        """The configuration."""
        protection = f"passphrase = {json.dumps(self.reference)}\n" if self.reference else ""
        return CONFIGURATION.format(uri=json.dumps(self.uri), protection=protection)


@click.command(cls=Command, short_help="Make a configuration and a local key.")
@click.option(
    "--key-file", metavar="PATH", type=PATH, help="Default: dev-keys.json beside the configuration."
)
@click.option("--name", default="app", show_default=True, help="The key's name in the key file.")
@click.option(
    "--passphrase", "protect", is_flag=True, help="Protect the key file; asks, or takes KMSBRIDGE_PASSPHRASE."
)
@click.option("--passphrase-file", metavar="PATH", type=PATH, help="Protect it with the text in a file.")
def init(key_file: str | None, name: str, protect: bool, passphrase_file: str | None) -> None:
    """Make a configuration with a key in a local file, to start with.

    Nothing is ever overwritten. Where the configuration is there and the key file that it names is not,
    as in a fresh clone, the key file alone is made. In a git checkout it is put into .gitignore.
    """
    if settings().profile is not None:
        raise click.UsageError("init takes no --profile", click.get_current_context())
    plan = _plan(settings().config or "kmsbridge.toml", key_file, name, protect, passphrase_file)
    _make(plan)
    result(f"configuration  {_shown(plan.config)}{' (left as it was)' if plan.kept else ''}")
    result(f"key file       {_shown(plan.key_file)}")
    _tell_what_to_know(plan)


def _tell_what_to_know(plan: Plan) -> None:
    for variable in ("KMSBRIDGE_CONFIG", "KMSBRIDGE_KEY"):
        value = os.environ.get(variable)
        if value and (variable == "KMSBRIDGE_KEY" or os.path.abspath(value) != plan.config):
            settings().note(f"{variable} is set, so commands will not read {_shown(plan.config)}; unset it")
    if plan.reference.startswith("env:"):
        settings().note(f"set {plan.reference.removeprefix('env:')} before you use the key")
    if plan.kept:
        name = os.path.basename(plan.key_file)
        settings().note(f"this is a new key: what another copy of {name} protects needs that copy")
    settings().note("back the key file up: without it, what it protects cannot be opened")


def _plan(config: str, key_file: str | None, name: str, protect: bool, passphrase_file: str | None) -> Plan:
    if protect and passphrase_file is not None:
        raise click.UsageError(
            "--passphrase and --passphrase-file exclude each other", click.get_current_context()
        )
    config = os.path.abspath(config)
    key_file = os.path.abspath(key_file or os.path.join(os.path.dirname(config), "dev-keys.json"))
    reference = f"env:{passphrase.VARIABLE}" if protect else ""
    if passphrase_file is not None:
        reference = f"file:{_seen_from(config, os.path.abspath(passphrase_file))}"
    if os.path.lexists(config) and not os.path.lexists(key_file):
        return _plan_key_file(config, key_file, name, reference)
    _check_new(config, key_file)
    _check_place(config, key_file, name)
    secret = None
    if passphrase_file is not None:
        secret = passphrase.from_file(passphrase_file)
    elif protect:
        secret = passphrase.from_environment_or_terminal(other=", or pass --passphrase-file")
    plan = Plan(config, key_file, name, secret, reference)
    _check_text(plan)
    return plan


def _plan_key_file(config: str, key_file: str, name: str, reference: str) -> Plan:
    """What is missing of what `config` describes: after a clone of the code, or after an `init` was killed."""
    key = existing_config.find_key(config, key_file, name)
    _check_place(config, key_file, name)
    secret = existing_config.passphrase_of(key, config, reference)
    return Plan(config, key_file, name, secret, key.protection, kept=True)


def _check_new(config: str, key_file: str) -> None:
    made, kept = os.path.lexists(key_file), os.path.lexists(config)
    if made and not kept:
        raise CommandError(
            f"{_shown(key_file)} exists already and is left as it is, but there is no {_shown(config)}",
            remedy="restore the configuration, or choose another --key-file",
        )
    if made or kept:
        both = " and ".join(_shown(path) for path, there in ((config, kept), (key_file, made)) if there)
        raise CommandError(
            f"{both} exist{'' if made and kept else 's'} already and nothing was changed",
            remedy="choose other places with --config and --key-file",
        )
    if config == key_file:
        raise CommandError("the configuration and the key file would be one file", remedy="name two files")


def _check_place(config: str, key_file: str, name: str) -> None:
    from kmsbridge.drivers.local import files

    for folder in dict.fromkeys((os.path.dirname(config), os.path.dirname(key_file))):
        if not os.path.isdir(folder):
            raise CommandError(f"there is no folder {_shown(folder)}", remedy="make it first")
    _check_name(name)
    files.check_folder(key_file)


def _check_name(name: str) -> None:
    from kmsbridge.drivers.local.document import is_name

    if not is_name(name):
        raise click.BadParameter(
            "use 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit, and no '..'",
            click.get_current_context(),
            param_hint="--name",
        )


def _check_text(plan: Plan) -> None:
    """Raise unless the configuration will say what is meant."""
    import tomllib

    from kmsbridge.errors import ConfigError
    from kmsbridge.keyuri import KeyURI

    with contextlib.suppress(ConfigError, ValueError):
        uri = KeyURI.parse(tomllib.loads(plan.text())["keys"]["dev"]["uri"])
        if (uri.path, uri.fragment) == (_seen_from(plan.config, plan.key_file), plan.name):
            return
    raise CommandError("a path or name cannot be written into a configuration", remedy="use plain letters")


def _make(plan: Plan) -> None:
    # In this order: stopped anywhere, no key can be committed by mistake, and the next init makes the rest.
    from kmsbridge import atomic

    _ignore(plan)
    if plan.kept:
        _make_key_file(plan)
        return
    with named(plan.config):
        atomic.write(plan.config, plan.text().encode(), exclusive=True)
    try:
        _make_key_file(plan)
    except BaseException:
        # If the key file is there, another init was faster, and needs the configuration.
        if not os.path.lexists(plan.key_file):
            with contextlib.suppress(OSError):
                os.unlink(plan.config)
        raise


def _make_key_file(plan: Plan) -> None:
    from kmsbridge.drivers.local.errors import LocalKeyError
    from kmsbridge.drivers.local.keyfile import KeyFile

    with named(plan.key_file):
        try:
            KeyFile.create(plan.key_file, plan.name, plan.passphrase).close()
        except LocalKeyError as error:
            raise error.typed() from error


def _ignore(plan: Plan) -> None:
    if gitignore.checkout_of(plan.folder) is None:
        return
    name = os.path.basename(plan.key_file)
    with named(os.path.join(plan.folder, ".gitignore")):
        changed = gitignore.ensure_ignored(plan.folder, (name, f"{name}.lock", f".{name[:50]}*.tmp"))
    settings().note(f"git ignores {name}" + (f", by {_shown(changed)}" if changed else " already"))
    if gitignore.is_tracked(plan.folder, name):
        say(
            f"WARNING: {_shown(plan.key_file)} IS TRACKED BY GIT, so ignoring it has no effect; "
            f"run 'git rm --cached {name}' before the next commit"
        )


def _seen_from(config: str, path: str) -> str:
    """The path as the configuration names it: relative where it is in the same folder or below."""
    folder = os.path.dirname(config)
    return os.path.relpath(path, folder) if os.path.commonpath((folder, path)) == folder else path


def _shown(path: str) -> str:
    """The path as people see it from where they are."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
