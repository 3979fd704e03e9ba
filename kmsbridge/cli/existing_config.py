"""A configuration that is there already, whose key file is missing: after a clone, or after a kill."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kmsbridge.cli import passphrase
from kmsbridge.cli.exits import CommandError
from kmsbridge.errors import ConfigError
from kmsbridge.secret import Secret


@dataclass(frozen=True, slots=True)
class Named:
    """A local key of a configuration: its file's absolute path, its name there, and what protects it."""

    key_file: str
    name: str
    protection: str = field(repr=False)


def find_key(config: str, key_file: str, name: str) -> Named:
    """The key in `config` that is `name` in `key_file`. Raises `CommandError` where there is none."""
    from kmsbridge.config.document import read

    try:
        keys = [*_local_keys(read(config), os.path.dirname(config))]
    except ConfigError as error:
        raise CommandError(
            f"{_shown(config)} exists already and nothing was changed: {error.message}",
            remedy="correct it, or choose another place with --config",
        ) from None
    for each in keys:
        # Without a name, a URI means the only key of its file.
        if each.key_file == key_file and each.name in (name, ""):
            return each
    raise CommandError(
        f"{_shown(config)} exists already, has no key {name} in {_shown(key_file)}, and nothing was changed",
        remedy=_advice(config, [each for each in keys if not os.path.lexists(each.key_file)]),
    )


def passphrase_of(key: Named, config: str, reference: str) -> Secret | None:
    """The passphrase as `config` names it; `reference` is what the command line says of it."""
    if reference and reference != key.protection:
        raise CommandError(
            f"{_shown(config)} exists already and names another passphrase, or none; nothing was changed",
            remedy="leave --passphrase and --passphrase-file out",
        )
    protection = key.protection
    if protection.startswith("env:"):
        return passphrase.from_environment_or_terminal(protection.removeprefix("env:"))
    if protection.startswith("file:"):
        return passphrase.from_file(os.path.join(os.path.dirname(config), protection.removeprefix("file:")))
    return passphrase.checked(protection.encode()) if protection else None


def _local_keys(document: dict[str, Any], folder: str) -> Iterator[Named]:
    from kmsbridge.keyuri import KeyURI

    for table in document.get("keys", {}).values():
        with contextlib.suppress(ConfigError):
            uri = KeyURI.parse(table["uri"])
            protection = table.get("passphrase", "")
            if uri.scheme == "local" and uri.path and isinstance(protection, str):
                yield Named(os.path.abspath(os.path.join(folder, uri.path)), uri.fragment, protection)


def _advice(config: str, missing: list[Named]) -> str:
    if not missing:
        return "choose other places with --config and --key-file"
    key, command = missing[0], ["kmsbridge", "init"]
    if config != os.path.abspath("kmsbridge.toml"):
        command += ["--config", _shown(config)]
    if key.key_file != os.path.join(os.path.dirname(config), "dev-keys.json"):
        command += ["--key-file", _shown(key.key_file)]
    if key.name not in ("", "app"):
        command += ["--name", key.name]
    return f"the key file that it names is made by {shlex.join(command)}"


def _shown(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
