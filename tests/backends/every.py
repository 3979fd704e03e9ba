"""The four providers of this project, as harnesses and as configurations."""

import importlib
import json
from collections.abc import Mapping

HARNESSES = {
    "local": "tests.backends.local:LocalHarness",
    "aws": "tests.backends.aws:AwsHarness",
    "gcp": "tests.backends.gcp:GcpHarness",
    "vault": "tests.backends.vault:VaultHarness",
}


def harness(name):
    """A harness with keys of its own on this provider's real server."""
    module, _, attribute = HARNESSES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)()


def configuration(keys, profiles):
    """The text of a kmsbridge.toml; `keys` maps names to a `KeyAddress`, `profiles` names to tables."""
    tables = {f"keys.{name}": {"uri": address.uri, **address.options} for name, address in keys.items()}
    tables |= {f"profiles.{name}": table for name, table in profiles.items()}
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


def _value(value):
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + " }"
    # JSON's texts, numbers, flags and lists of them are TOML's too.
    return json.dumps(list(value) if isinstance(value, tuple) else value)
