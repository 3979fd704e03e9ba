"""Uses what was stolen as its owner would, with this library."""

from __future__ import annotations

import contextlib
import itertools
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from examples.roles.customers import Values
from examples.roles.deployment import write
from kmsbridge import Decryptor, KmsBridgeError
from kmsbridge.message import parse_header


def open_with(folder: Path, files: Mapping[str, bytes], messages: Values) -> set[str]:
    """Return the places whose values can be decrypted with the configuration and credentials in `files`.

    They are put into `folder`. The profiles are tried as they are; then every key, as one to decrypt with.
    """
    if "kmsbridge.toml" not in files:
        return set()
    for name, data in files.items():
        write(folder / name, data)
    found = set()
    for configuration in _configurations(tomllib.loads(files["kmsbridge.toml"].decode()), folder, messages):
        with contextlib.suppress(KmsBridgeError), Decryptor.from_mapping(configuration) as decryptor:
            for place, message in messages.items():
                with contextlib.suppress(KmsBridgeError):
                    decryptor.decrypt(message, context=place.context, aad=place.aad)
                    found.add(f"{place.id}/{place.column}")
    return found


def _configurations(stolen: dict[str, Any], folder: Path, messages: Values) -> Iterator[dict[str, Any]]:
    keys: dict[str, dict[str, Any]] = {}
    for name, key in stolen["keys"].items():
        keys[name] = {**key}
        if "private_file" in key:
            keys[name]["private_file"] = str(folder / key["private_file"])
        if "public_key" in key:
            keys[name]["public_key"] = f"file:{folder / key['public_key'].removeprefix('file:')}"
        if "auth" in key:
            keys[name]["auth"] = {**key["auth"], "file": str(folder / key["auth"]["file"])}
    # Keys that the configuration does not name, but messages do.
    servers = [key for key in keys.values() if "auth" in key]
    for message, server in itertools.product(messages.values(), servers[:1]):
        for recipient in parse_header(message).recipients:
            scheme, _, path = recipient.key_id.partition(":")
            if scheme == "vault-transit":
                keys.setdefault(path, {**server, "uri": f"vault-transit://{path}"})
    for name in keys:
        yield {"keys": keys, "profiles": {"attack": {"decrypt_with": [name], "calls": {"max_attempts": 1}}}}
