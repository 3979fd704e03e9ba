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
from kmsbridge.cli.streams import errors_about
from kmsbridge.secret import Secret

CONFIGURATION: Final = """\
# The keys that protect the data, and the profiles that use them. This file holds no secret: keep it with the code.

default_profile = "dev"

# A key in a file, for development. In production use a key service; only this file changes then:
#   [keys.prod]
#   uri = "aws-kms://alias/app?region=eu-west-1"
[keys.dev]
uri = {uri}
{protection}
# New messages are encrypted to every key in encrypt_to. To decrypt, the keys in decrypt_with are tried in order.
[profiles.dev]
encrypt_to = ["dev"]
decrypt_with = ["dev"]
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """The files that `init` will make. All paths are absolute."""

    config: str
    key_file: str
    name: str
    passphrase: Secret | None
    reference: str
    kept: bool = False
    """True if the configuration exists and is kept as it is."""

    @property
    def folder(self) -> str:
        """The folder of the key file."""
        return os.path.dirname(self.key_file)

    @property
    def uri(self) -> str:
        """The key's URI for the configuration."""
        return f"local:{quote(_seen_from(self.config, self.key_file))}#{quote(self.name)}"

    def text(self) -> str:
        """Return the text of the configuration."""
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
    """Make a configuration and a key in a local file, to start with.

    Nothing is overwritten. If the configuration exists and the key file that it names does not, as in a fresh clone,
    only the key file is made. In a git checkout the key file is added to .gitignore.
    """
    if settings().profile is not None:
        raise click.UsageError("init takes no --profile", click.get_current_context())
    plan = _plan(settings().config or "kmsbridge.toml", key_file, name, protect, passphrase_file)
    _make(plan)
    result(f"configuration  {_shown(plan.config)}{' (left as it was)' if plan.kept else ''}")
    result(f"key file       {_shown(plan.key_file)}")
    _print_notices(plan)


def _print_notices(plan: Plan) -> None:
    for variable in ("KMSBRIDGE_CONFIG", "KMSBRIDGE_KEY"):
        value = os.environ.get(variable)
        if value and (variable == "KMSBRIDGE_KEY" or os.path.abspath(value) != plan.config):
            settings().note(f"{variable} is set, so commands will not read {_shown(plan.config)}; unset it")
    if plan.reference.startswith("env:"):
        settings().note(f"set {plan.reference.removeprefix('env:')} before you use the key")
    if plan.kept:
        name = os.path.basename(plan.key_file)
        settings().note(f"this is a new key: data encrypted with another copy of {name} needs that copy")
    settings().note("back the key file up: without it, what it protects cannot be decrypted")


def _plan(config: str, key_file: str | None, name: str, protect: bool, passphrase_file: str | None) -> Plan:
    if protect and passphrase_file is not None:
        raise click.UsageError(
            "--passphrase and --passphrase-file cannot be used together", click.get_current_context()
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
    """Plan the missing key file of an existing configuration."""
    key = existing_config.find_key(config, key_file, name)
    _check_place(config, key_file, name)
    secret = existing_config.passphrase_of(key, config, reference)
    return Plan(config, key_file, name, secret, key.protection, kept=True)


def _check_new(config: str, key_file: str) -> None:
    made, kept = os.path.lexists(key_file), os.path.lexists(config)
    if made and not kept:
        raise CommandError(
            f"the key file {_shown(key_file)} exists, but the configuration {_shown(config)} does not; "
            "nothing was changed",
            remedy="restore the configuration, or choose another --key-file",
        )
    if made or kept:
        both = " and ".join(_shown(path) for path, there in ((config, kept), (key_file, made)) if there)
        raise CommandError(
            f"{both} exist{'' if made and kept else 's'} already; nothing was changed",
            remedy="choose other places with --config and --key-file",
        )
    if config == key_file:
        raise CommandError(
            "the configuration and the key file would be the same file", remedy="name two files"
        )


def _check_place(config: str, key_file: str, name: str) -> None:
    from kmsbridge.drivers.local import files

    for folder in dict.fromkeys((os.path.dirname(config), os.path.dirname(key_file))):
        if not os.path.isdir(folder):
            raise CommandError(f"the folder {_shown(folder)} does not exist", remedy="make it first")
    _check_name(name)
    files.check_folder(key_file)


def _check_name(name: str) -> None:
    from kmsbridge.drivers.local.document import is_name

    if not is_name(name):
        raise click.BadParameter(
            "use 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit, without '..'",
            click.get_current_context(),
            param_hint="--name",
        )


def _check_text(plan: Plan) -> None:
    """Raise `CommandError` unless the configuration, once parsed, has the planned path and name."""
    import tomllib

    from kmsbridge.errors import ConfigError
    from kmsbridge.keyuri import KeyURI

    with contextlib.suppress(ConfigError, ValueError):
        uri = KeyURI.parse(tomllib.loads(plan.text())["keys"]["dev"]["uri"])
        if (uri.path, uri.fragment) == (_seen_from(plan.config, plan.key_file), plan.name):
            return
    raise CommandError(
        "the path or name cannot be written into a configuration", remedy="use plain letters in it"
    )


def _make(plan: Plan) -> None:
    # The order matters: if this is interrupted anywhere, no key can be committed, and the next init completes it.
    from kmsbridge import atomic

    _ignore(plan)
    if plan.kept:
        _make_key_file(plan)
        return
    with errors_about(plan.config):
        atomic.write(plan.config, plan.text().encode(), exclusive=True)
    try:
        _make_key_file(plan)
    except BaseException:
        # If the key file exists, another init was faster and needs the configuration.
        if not os.path.lexists(plan.key_file):
            with contextlib.suppress(OSError):
                os.unlink(plan.config)
        raise


def _make_key_file(plan: Plan) -> None:
    from kmsbridge.drivers.local.errors import LocalKeyError
    from kmsbridge.drivers.local.keyfile import KeyFile

    with errors_about(plan.key_file):
        try:
            KeyFile.create(plan.key_file, plan.name, plan.passphrase).close()
        except LocalKeyError as error:
            raise error.as_kms_error() from error


def _ignore(plan: Plan) -> None:
    if gitignore.checkout_of(plan.folder) is None:
        return
    name = os.path.basename(plan.key_file)
    with errors_about(os.path.join(plan.folder, ".gitignore")):
        changed = gitignore.ensure_ignored(plan.folder, (name, f"{name}.lock", f".{name[:50]}*.tmp"))
    settings().note(f"git ignores {name}" + (f", by {_shown(changed)}" if changed else " already"))
    if gitignore.is_tracked(plan.folder, name):
        say(
            f"WARNING: {_shown(plan.key_file)} IS TRACKED BY GIT, so ignoring it has no effect; "
            f"run 'git rm --cached {name}' before the next commit"
        )


def _seen_from(config: str, path: str) -> str:
    """Return the path for the configuration: relative if it is in the configuration's folder or below."""
    folder = os.path.dirname(config)
    return os.path.relpath(path, folder) if os.path.commonpath((folder, path)) == folder else path


def _shown(path: str) -> str:
    """Return the path as shown to people: relative if it is in the current folder or below."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
