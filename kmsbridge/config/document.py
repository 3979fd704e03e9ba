"""Reads a configuration file or a mapping like it, and checks the names and types in it."""

from __future__ import annotations

import os
import re
import sys
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import Any, Final

from kmsbridge.config.source import MAX_DEPTH, is_reference, read_file, read_variable
from kmsbridge.config.suggestions import check_names, dotted_name, prefixed_errors, suggestion
from kmsbridge.config.values import convert, flag, text, tunables, wrong_type
from kmsbridge.environment import environment
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
FLAGS: Final = ("production", "direct", "mixed_recipients")
ENVIRONMENT: Final = ("environment", "accept_unmarked_until")
INDEX: Final = ("profile", "keys")
MAX_INDEX_KEYS: Final = 8
_POSITION: Final = r"\(at (line \d+, column \d+|end of document)\)$"


def read(path: str, named_by: str = "") -> dict[str, Any]:
    """Read a TOML file, check the names and types in it, and return its tables.

    `named_by` is what named the path, for the text of errors. Raises `ConfigError`.
    """
    what = f"the configuration file {quoted(path)}" + (f" ({named_by})" if named_by else "")
    document = _parse(read_file(path, what, MAX_FILE), what)
    with prefixed_errors(f"{path}: "):
        check(document)
    return document


def check(document: Mapping[str, Any]) -> None:
    """Check the names and types in all tables of a configuration. Raises `ConfigError`."""
    check_names(document, ("default_profile", "keys", "profiles", "indexes"), "", "table or setting")
    keys, profiles = _tables(document, "keys"), _tables(document, "profiles")
    for name, table in keys.items():
        check_key(table, dotted_name("keys", name))
    for name, table in profiles.items():
        check_profile(table, dotted_name("profiles", name), keys)
    for name, table in _tables(document, "indexes").items():
        check_index(table, dotted_name("indexes", name), profiles)
    default = document.get("default_profile")
    if default is not None and text(default, "default_profile") not in profiles:
        raise ConfigError(
            f"default_profile names the profile {quoted(default)}, which does not exist",
            remedy=suggestion(default, profiles),
        )


def plain(value: Any, name: str = "", depth: int = 0) -> Any:
    """Return a copy of `value` as a TOML file would give it: tables as `dict`, lists as `list`, paths as text,
    and time spans as seconds. Raises `ConfigError`.
    """
    if depth > MAX_DEPTH + 2:  # of options, which are two levels down
        raise ConfigError(f"{name} is nested too deeply", remedy=f"use at most {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ConfigError(
                    f"{name or 'the mapping'} has a name of the wrong type ({type(key).__name__})",
                    remedy="use str for names",
                )
        return {key: plain(member, dotted_name(name, key), depth + 1) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{name}[{n}]", depth + 1) for n, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    datetime = sys.modules.get("datetime")  # whoever passes a time span has imported it
    is_span = datetime is not None and isinstance(value, datetime.timedelta)
    return value.total_seconds() if is_span else value


def check_key(table: Mapping[str, Any], name: str) -> None:
    """Check the settings of a key that are not options of its driver. Raises `ConfigError`."""
    if "uri" not in table:
        raise ConfigError(f"{name} has no uri", remedy="add one, such as uri = 'local:keys.json#app'")
    text(table["uri"], f"{name}.uri")
    flag(table.get("allow_in_production", False), f"{name}.allow_in_production")


def check_profile(table: Mapping[str, Any], name: str, keys: Mapping[str, Any]) -> None:
    """Check every name and type in a profile's table. References are not followed. Raises `ConfigError`."""
    check_names(table, (*LISTS, *POLICIES, *FLAGS, *ENVIRONMENT), name, "setting of a profile")
    for setting in LISTS:
        check_key_names(table.get(setting, []), dotted_name(name, setting), keys)
    if len(table.get("encrypt_to", [])) > MAX_RECIPIENTS:
        raise ConfigError(
            f"{dotted_name(name, 'encrypt_to')} names more than {MAX_RECIPIENTS} keys",
            remedy="remove some; a message cannot have more recipients",
        )
    if not any(is_reference(table.get(setting)) for setting in ENVIRONMENT):
        with prefixed_errors(f"{name}." if name else ""):
            environment(*(table.get(setting) for setting in ENVIRONMENT))
    for setting in FLAGS:
        flag(table.get(setting, False), dotted_name(name, setting))
    if table.get("direct", False) and len(table.get("encrypt_to", [])) > 1:
        raise ConfigError(
            f"{dotted_name(name, 'direct')} is true, and {dotted_name(name, 'encrypt_to')} names several keys",
            remedy="name one key, or leave direct out; with several keys, recipients of two direct messages could be "
            "combined into a message that two readers decrypt to different payloads",
        )
    for setting, policy in POLICIES.items():
        _check_policy(table.get(setting, {}), policy, dotted_name(name, setting))


def check_index(table: Mapping[str, Any], name: str, profiles: Mapping[str, Any]) -> None:
    """Check every name and type in a blind index's table. References are not followed. Raises `ConfigError`."""
    check_names(table, INDEX, name, "setting of an index")
    for setting in INDEX:
        if setting not in table:
            raise ConfigError(f"{name} has no {setting}", remedy="use what 'kmsbridge index new' prints")
    profile, keys = text(table["profile"], f"{name}.profile"), table["keys"]
    if profile not in profiles:
        raise ConfigError(
            f"{name}.profile names the profile {quoted(profile)}, which does not exist",
            remedy=suggestion(profile, profiles),
        )
    if not isinstance(keys, (list, tuple)):
        raise wrong_type(keys, f"{name}.keys", "a list of armored messages")
    if not 1 <= len(keys) <= MAX_INDEX_KEYS:
        raise ConfigError(f"{name}.keys has {len(keys)} messages", remedy=f"give 1 to {MAX_INDEX_KEYS}")
    for n, key in enumerate(keys):
        text(key, f"{name}.keys[{n}]")


def check_key_names(names: object, name: str, keys: Mapping[str, Any]) -> None:
    """Check that a list names existing keys, and none of them twice. Raises `ConfigError`."""
    if not isinstance(names, (list, tuple)):
        raise wrong_type(names, name, "a list of keys' names")
    seen: set[str] = set()
    for n, key in enumerate(names):
        text(key, f"{name}[{n}]")
        if key not in keys and not is_reference(key):
            raise ConfigError(
                f"{name} names the key {quoted(key)}, which does not exist", remedy=suggestion(key, keys)
            )
        if key in seen:
            raise ConfigError(f"{name} names the key {quoted(key)} twice", remedy="remove one of them")
        seen.add(key)


def choose(document: Mapping[str, Any], argument: str | None, env: Mapping[str, str]) -> tuple[str, str]:
    """Return the name of the profile to use and what named it, which is empty where the file did.

    Raises `ConfigError` where there is no such profile, or none was chosen of several.
    """
    profiles: Mapping[str, Any] = document.get("profiles", {})
    chosen, origin = argument, "argument"
    if chosen is None:
        chosen, origin = read_variable(env, "KMSBRIDGE_PROFILE"), "environment variable KMSBRIDGE_PROFILE"
    if chosen is None:
        return _default(document.get("default_profile"), profiles), ""
    if not isinstance(chosen, str):
        raise TypeError(f"profile must be str, not {type(chosen).__name__}")
    if chosen not in profiles:
        raise ConfigError(
            f"there is no profile {quoted(chosen)} ({origin})", remedy=suggestion(chosen, profiles)
        )
    return chosen, origin


def _default(name: str | None, profiles: Mapping[str, Any]) -> str:
    if name is not None:
        return name
    if not profiles:
        raise ConfigError("the configuration has no profile", remedy="add a table [profiles.NAME]")
    if len(profiles) > 1:
        raise ConfigError(
            f"the configuration has several profiles ({', '.join(sorted(profiles))}), and none was chosen",
            remedy="pass the name of one, or set KMSBRIDGE_PROFILE or default_profile",
        )
    return next(iter(profiles))


def _parse(data: bytes, what: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(data.removeprefix(BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        problem, remedy = f"is not UTF-8 at byte {error.start}", "save it as UTF-8"
    except RecursionError:
        problem, remedy = "is nested too deeply", "use fewer levels of tables and lists"
    except ValueError as error:
        position = re.search(_POSITION, str(error))
        problem = f"is not valid TOML at {position[1]}" if position else "is not valid TOML"
        remedy = "correct it there; it can also be a table or setting that is given twice"
    # Not inside `except`: those exceptions hold the file's text.
    raise ConfigError(f"{what} {problem}", remedy=remedy)


def _tables(document: Mapping[str, Any], name: str) -> Mapping[str, Mapping[str, Any]]:
    tables = document.get(name, {})
    if not isinstance(tables, dict):
        raise wrong_type(tables, name, f"tables [{name}.NAME]")
    for key, table in tables.items():
        full_name = dotted_name(name, key)
        if not _is_name(key):
            raise ConfigError(f"{full_name} is not a valid name", remedy="use letters, digits, - and _")
        if not isinstance(table, dict):
            raise wrong_type(table, full_name, f"a table [{full_name}]")
    return tables


def _is_name(text: str) -> bool:
    plain = text.isprintable() and text.strip() == text != "" and len(text) <= MAX_NAME
    return plain and not is_reference(text)


def _check_policy(table: object, policy: type[Policy], name: str) -> None:
    if not isinstance(table, Mapping):
        raise wrong_type(table, name, "a table")
    settings = tunables(policy)
    check_names(table, settings, name, "setting")
    for setting, value in table.items():
        if not (is_reference(value) and settings[setting].takes_text):
            convert(value, settings[setting], dotted_name(name, setting))
