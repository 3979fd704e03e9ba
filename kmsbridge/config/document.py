"""A configuration file: found, read, and checked for its shape."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Any, Final

from kmsbridge.config.source import is_reference, read_file, read_variable
from kmsbridge.config.suggestions import about, advice, check_words, dotted
from kmsbridge.config.values import convert, flag, text, tunables, wrong_type
from kmsbridge.errors import ConfigError, quoted
from kmsbridge.message import MAX_RECIPIENTS
from kmsbridge.policy import AuditPolicy, CallPolicy, DataKeyPolicy, Policy

FILE_NAME: Final = "kmsbridge.toml"
MAX_FILE: Final = 64 * 1024
MAX_NAME: Final = 128
LISTS: Final = ("encrypt_to", "decrypt_with")
POLICIES: Final[Mapping[str, type[Policy]]] = {
    "data_keys": DataKeyPolicy,
    "calls": CallPolicy,
    "audit": AuditPolicy,
}
FLAGS: Final = ("production", "direct")
_POSITION: Final = r"\(at (line \d+, column \d+|end of document)\)$"


def read(path: str, named_by: str = "") -> dict[str, Any]:
    """The tables of a TOML file, checked for shape and unknown words; `named_by` says who chose the path."""
    what = f"the configuration file {quoted(path)}" + (f" ({named_by})" if named_by else "")
    document = _parse(read_file(path, what, MAX_FILE), what)
    with about(f"{path}: "):
        _check(document)
    return document


def check_key(table: Mapping[str, Any], name: str) -> None:
    """Check what this library reads of a key's table; the rest is the driver's."""
    if "uri" not in table:
        raise ConfigError(f"{name} has no uri", remedy="add one, as in uri = 'local:keys.json#app'")
    text(table["uri"], f"{name}.uri")
    flag(table.get("allow_in_production", False), f"{name}.allow_in_production")


def check_profile(table: Mapping[str, Any], name: str, keys: Mapping[str, Any]) -> None:
    """Check every word and type of a profile. References are not followed."""
    check_words(table, (*LISTS, *POLICIES, *FLAGS), name, "setting of a profile")
    for setting in LISTS:
        check_key_names(table.get(setting, []), dotted(name, setting), keys)
    if len(table.get("encrypt_to", [])) > MAX_RECIPIENTS:
        raise ConfigError(
            f"{dotted(name, 'encrypt_to')} names more than {MAX_RECIPIENTS} keys",
            remedy="a message has no room for more; remove some",
        )
    for setting in FLAGS:
        flag(table.get(setting, False), dotted(name, setting))
    if table.get("direct", False) and len(table.get("encrypt_to", [])) > 1:
        raise ConfigError(
            f"{dotted(name, 'direct')} is true, and {dotted(name, 'encrypt_to')} names several keys",
            remedy="name one key, or leave direct out; recipients of two direct messages could be put "
            "together, and two readers would read different things",
        )
    for setting, policy in POLICIES.items():
        _check_policy(table.get(setting, {}), policy, dotted(name, setting))


def check_key_names(names: object, name: str, keys: Mapping[str, Any]) -> None:
    """Check a list of keys' names: all there, none twice."""
    if not isinstance(names, (list, tuple)):
        raise wrong_type(names, name, "a list of keys' names")
    seen: set[str] = set()
    for n, each in enumerate(names):
        text(each, f"{name}[{n}]")
        if each not in keys and not is_reference(each):
            raise ConfigError(
                f"{name} names the key {quoted(each)}, which is not there", remedy=advice(each, keys)
            )
        if each in seen:
            raise ConfigError(f"{name} names the key {quoted(each)} twice", remedy="remove one of them")
        seen.add(each)


def choose(document: Mapping[str, Any], argument: str | None, env: Mapping[str, str]) -> tuple[str, str]:
    """The name of the profile to use, and what named it; empty where the file did."""
    profiles: Mapping[str, Any] = document.get("profiles", {})
    chosen, origin = argument, "argument"
    if chosen is None:
        chosen, origin = read_variable(env, "KMSBRIDGE_PROFILE"), "environment variable KMSBRIDGE_PROFILE"
    if chosen is None:
        return _default(document.get("default_profile"), profiles), ""
    if not isinstance(chosen, str):
        raise TypeError(f"profile must be str, not {type(chosen).__name__}")
    if chosen not in profiles:
        raise ConfigError(f"there is no profile {quoted(chosen)} ({origin})", remedy=advice(chosen, profiles))
    return chosen, origin


def _default(name: str | None, profiles: Mapping[str, Any]) -> str:
    if name is not None:
        return name
    if not profiles:
        raise ConfigError("there is no profile", remedy="add a table [profiles.NAME]")
    if len(profiles) > 1:
        raise ConfigError(
            f"no profile was chosen of {', '.join(sorted(profiles))}",
            remedy="pass its name, or set KMSBRIDGE_PROFILE or default_profile",
        )
    return next(iter(profiles))


def _check(document: Mapping[str, Any]) -> None:
    check_words(document, ("default_profile", "keys", "profiles"), "", "table or setting")
    keys, profiles = _tables(document, "keys"), _tables(document, "profiles")
    for name, table in keys.items():
        check_key(table, dotted("keys", name))
    for name, table in profiles.items():
        check_profile(table, dotted("profiles", name), keys)
    default = document.get("default_profile")
    if default is not None and text(default, "default_profile") not in profiles:
        raise ConfigError(
            f"default_profile names the profile {quoted(default)}, which is not there",
            remedy=advice(default, profiles),
        )


def _parse(data: bytes, what: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(data.removeprefix(BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        problem, remedy = f"is not UTF-8 at byte {error.start}", "save it as UTF-8"
    except RecursionError:
        problem, remedy = "is nested too deeply", "use fewer levels"
    except ValueError as error:
        position = re.search(_POSITION, str(error))
        problem = f"is not valid TOML at {position[1]}" if position else "is not valid TOML"
        remedy = "correct it there; a table or setting given twice does this too"
    # Not inside `except`: those exceptions carry the file's text along.
    raise ConfigError(f"{what} {problem}", remedy=remedy)


def _tables(document: Mapping[str, Any], name: str) -> Mapping[str, Mapping[str, Any]]:
    tables = document.get(name, {})
    if not isinstance(tables, dict):
        raise wrong_type(tables, name, f"tables [{name}.NAME]")
    for each, table in tables.items():
        if not (each.isprintable() and each.strip() == each != "" and len(each) <= MAX_NAME) or is_reference(
            each
        ):
            raise ConfigError(
                f"{dotted(name, each)}: this cannot be a name", remedy="use letters, digits, - and _"
            )
        if not isinstance(table, dict):
            raise wrong_type(table, dotted(name, each), f"a table [{dotted(name, each)}]")
    return tables


def _check_policy(table: object, policy: type[Policy], name: str) -> None:
    if not isinstance(table, Mapping):
        raise wrong_type(table, name, "a table")
    settings = tunables(policy)
    check_words(table, settings, name, "setting")
    for word, value in table.items():
        if not (is_reference(value) and settings[word].takes_text):
            convert(value, settings[word], dotted(name, word))
