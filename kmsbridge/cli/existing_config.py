"""Reads an existing configuration whose key file is missing, as after a clone or an interrupted `init`."""

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
class LocalKey:
    """A local key of a configuration: its file's absolute path, its name in the file, and its passphrase option."""

    key_file: str
    name: str
    protection: str = field(repr=False)


def find_key(config: str, key_file: str, name: str) -> LocalKey:
    """Return the key of `config` that is the key `name` of `key_file`. Raises `CommandError` where there is none."""
    from kmsbridge.config.document import read

    try:
        keys = [*_local_keys(read(config), os.path.dirname(config))]
    except ConfigError as error:
        raise CommandError(
            f"{_shown(config)} exists and cannot be used: {error.message}; nothing was changed",
            remedy="correct it, or choose another place with --config",
        ) from None
    for key in keys:
        # A URI without a name means the only key of its file.
        if key.key_file == key_file and key.name in (name, ""):
            return key
    raise CommandError(
        f"{_shown(config)} exists, but has no key {name} in {_shown(key_file)}; nothing was changed",
        remedy=_remedy(config, [key for key in keys if not os.path.lexists(key.key_file)]),
    )


def passphrase_of(key: LocalKey, config: str, reference: str) -> Secret | None:
    """Return the passphrase that `config` gives for the key, None for a key without one.

    `reference` is the reference that the command line asks for, empty where it asks for none. Raises `CommandError`
    where the two differ.
    """
    if reference and reference != key.protection:
        raise CommandError(
            f"{_shown(config)} exists and names another passphrase, or none; nothing was changed",
            remedy="leave --passphrase and --passphrase-file out",
        )
    protection = key.protection
    if protection.startswith("env:"):
        return passphrase.from_environment_or_terminal(protection.removeprefix("env:"))
    if protection.startswith("file:"):
        return passphrase.from_file(os.path.join(os.path.dirname(config), protection.removeprefix("file:")))
    return passphrase.checked(protection.encode()) if protection else None


def _local_keys(document: dict[str, Any], folder: str) -> Iterator[LocalKey]:
    from kmsbridge.keyuri import KeyURI

    for table in document.get("keys", {}).values():
        with contextlib.suppress(ConfigError):
            uri = KeyURI.parse(table["uri"])
            protection = table.get("passphrase", "")
            if uri.scheme == "local" and uri.path and isinstance(protection, str):
                yield LocalKey(os.path.abspath(os.path.join(folder, uri.path)), uri.fragment, protection)


def _remedy(config: str, missing: list[LocalKey]) -> str:
    if not missing:
        return "choose other places with --config and --key-file"
    key, command = missing[0], ["kmsbridge", "init"]
    if config != os.path.abspath("kmsbridge.toml"):
        command += ["--config", _shown(config)]
    if key.key_file != os.path.join(os.path.dirname(config), "dev-keys.json"):
        command += ["--key-file", _shown(key.key_file)]
    if key.name not in ("", "app"):
        command += ["--name", key.name]
    return f"to make the key file that it names, run: {shlex.join(command)}"


def _shown(path: str) -> str:
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
