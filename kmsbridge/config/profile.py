"""Builds a profile from tables whose names and types were checked, and resolves the references in them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from kmsbridge.config.document import ENVIRONMENT, LISTS, POLICIES, check_key_names
from kmsbridge.config.model import IndexConfig, KeyConfig, Profile
from kmsbridge.config.source import MASK, Source, is_reference, sounds_secret
from kmsbridge.config.suggestions import dotted_name, prefixed_errors, suggestion
from kmsbridge.config.values import convert, rendered, tunables
from kmsbridge.driver import KeyURI, Options
from kmsbridge.environment import Environment, environment
from kmsbridge.errors import ConfigError, quoted
from kmsbridge.policy import CallPolicy, checked
from kmsbridge.registry import SEPARATE_DATA_KEYS

DEFAULT: Final = "default"
OWN: Final = ("uri", "allow_in_production")
"""The settings in a key's table that are not options of its driver."""
PROTECT_WITH: Final = "protect_with"
"""The option of a key that names another key of the configuration. Its driver is given the other one's table."""

Tables = Mapping[str, Mapping[str, Any]]


def build(name: str, table: Mapping[str, Any], where: str, keys: Tables, source: Source) -> Profile:
    """Build the profile of a table. `where` is the table's dotted name, empty for arguments.

    Only the keys that the profile names are resolved, so that a missing secret of another profile does not matter.
    """
    encrypt_to, decrypt_with = (_names(table, setting, where, keys, source) for setting in LISTS)
    if not encrypt_to and not decrypt_with:
        raise ConfigError(
            f"the profile {quoted(name)} has no key in encrypt_to or decrypt_with",
            remedy="name a key in one of them",
        )
    used = {key: key_config(key, keys, source) for key in dict.fromkeys(encrypt_to + decrypt_with)}
    return Profile(
        name,
        encrypt_to=tuple(used[key] for key in encrypt_to),
        decrypt_with=tuple(used[key] for key in decrypt_with),
        data_keys=_policy(table, "data_keys", where, source, _data_key_defaults(used, encrypt_to)),
        calls=_policy(table, "calls", where, source),
        audit=_policy(table, "audit", where, source),
        production=_flag(table, "production", where, source),
        direct=_flag(table, "direct", where, source),
        mixed_recipients=_flag(table, "mixed_recipients", where, source),
        environment=_environment(table, where, source),
        origin=source.label,
    )


def index_config(name: str, document: Mapping[str, Any], source: Source) -> IndexConfig:
    """Return the blind index `name` of a document whose names and types were checked. Raises `ConfigError`."""
    indexes = document.get("indexes", {})
    if name not in indexes:
        raise ConfigError(
            f"there is no index {quoted(name)}",
            remedy=suggestion(name, indexes) if indexes else "make one with 'kmsbridge index new'",
        )
    table, where = indexes[name], dotted_name("indexes", name)
    keys = tuple(source.resolve(key, f"{where}.keys[{n}]")[0] for n, key in enumerate(table["keys"]))
    profile = table["profile"]
    return IndexConfig(
        name,
        keys,
        build(
            profile,
            document["profiles"][profile],
            dotted_name("profiles", profile),
            document.get("keys", {}),
            source,
        ),
    )


def key_uri(value: str, name: str, source: Source) -> KeyURI:
    """Return the key URI that `value` is or refers to. Raises `ConfigError`."""
    resolved, origin = source.resolve(value, name)
    with prefixed_errors(f"{name}: "):
        if is_reference(resolved):
            raise ConfigError(
                "the reference leads to another reference", remedy="refer to the key URI itself"
            )
        uri = KeyURI.parse(resolved)
    source.note(name, MASK if is_reference(value) else str(uri), origin)
    return uri


def key_config(name: str, keys: Tables, source: Source) -> KeyConfig:
    """Return the key `name` of the tables `keys`, with all references resolved. Raises `ConfigError`."""
    table = keys[name]
    where = "options" if source.from_arguments else dotted_name("keys", name)
    uri = key_uri(table["uri"], name if source.from_arguments else f"{where}.uri", source)
    options = _options(table, where, source)
    if isinstance(table.get(PROTECT_WITH), str) and not source.from_arguments:
        options[PROTECT_WITH] = _protecting_key(options[PROTECT_WITH], where, keys, source)
    allowed = _flag(table, "allow_in_production", where, source)
    return KeyConfig(name, uri, Options(options, name=where, folder=source.folder), allowed)


def _options(table: Mapping[str, Any], where: str, source: Source) -> dict[str, Any]:
    return {
        option: source.resolve_option(value, dotted_name(where, option), hidden=sounds_secret(option, value))
        for option, value in table.items()
        if option not in OWN
    }


def _protecting_key(name: str, where: str, keys: Tables, source: Source) -> dict[str, Any]:
    """Return the table of the key that protects another, as that one's driver is given it."""
    what = dotted_name(where, PROTECT_WITH)
    if name not in keys:
        # Not quoted: the text that a reference leads to may be a secret.
        raise ConfigError(f"{what} names a key that does not exist", remedy=suggestion("", keys))
    table, its_name = keys[name], dotted_name("keys", name)
    if PROTECT_WITH in table:
        raise ConfigError(
            f"{what} names {its_name}, which has a {PROTECT_WITH} itself",
            remedy="name a key that needs no other",
        )
    uri, _ = source.resolve(table["uri"], f"{its_name}.uri")
    own = {"uri": uri, "allow_in_production": _flag(table, "allow_in_production", its_name, source)}
    return {**_options(table, its_name, source), **own}


def _names(
    table: Mapping[str, Any], setting: str, where: str, keys: Tables, source: Source
) -> tuple[str, ...]:
    name = dotted_name(where, setting)
    values = table.get(setting, [])
    names = []
    for n, value in enumerate(values):
        resolved, origin = source.resolve(value, f"{name}[{n}]")
        if resolved not in keys:
            # Not quoted: the text that a reference leads to may be a secret.
            raise ConfigError(
                f"{name}[{n}] names a key that does not exist ({origin})", remedy=suggestion("", keys)
            )
        names.append(resolved)
    check_key_names(names, name, keys)
    shown = (MASK if is_reference(value) else value for value in values)
    source.note(name, ", ".join(shown), _origin(table, setting, where, source))
    return tuple(names)


def _flag(table: Mapping[str, Any], setting: str, where: str, source: Source) -> bool:
    value = bool(table.get(setting, False))
    source.note(dotted_name(where, setting), str(value).lower(), _origin(table, setting, where, source))
    return value


def _data_key_defaults(used: Mapping[str, KeyConfig], encrypt_to: tuple[str, ...]) -> Mapping[str, Any]:
    schemes = {used[key].uri.scheme for key in encrypt_to}
    return {"max_messages": 1} if schemes and schemes <= SEPARATE_DATA_KEYS else {}


def _environment(table: Mapping[str, Any], where: str, source: Source) -> Environment:
    values = []
    for setting in ENVIRONMENT:
        value, name = table.get(setting), dotted_name(where, setting)
        resolved, origin = (None, DEFAULT) if value is None else source.resolve(value, name)
        shown = "" if value is None else str(resolved)
        source.note(name, MASK if is_reference(value) else shown, origin)
        values.append(resolved)
    with prefixed_errors(f"{where}." if where else ""):
        return environment(*values)


def _policy(
    profile: Mapping[str, Any],
    which: str,
    where: str,
    source: Source,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    table, policy, name = profile.get(which, {}), POLICIES[which], dotted_name(where, which)
    settings = tunables(policy)
    values: dict[str, Any] = dict(defaults)
    origins: dict[str, str] = {}
    for setting, value in table.items():
        resolved, origins[setting] = source.resolve(value, dotted_name(name, setting))
        values[setting] = convert(resolved, settings[setting], dotted_name(name, setting))
    if values.get("file"):
        values["file"] = os.path.join(source.folder, values["file"])
    if "deadline" in values and "attempt_timeout" not in values:
        # A short deadline alone must not be refused because the default attempt_timeout is longer.
        values["attempt_timeout"] = max(0.001, min(CallPolicy().attempt_timeout, values["deadline"]))
    with prefixed_errors(f"{name}."):
        built = checked(policy(**values))
    for setting, tunable in settings.items():
        masked = is_reference(table.get(setting))
        shown = MASK if masked else rendered(getattr(built, setting), tunable)
        source.note(dotted_name(name, setting), shown, origins.get(setting, DEFAULT))
    return built


def _origin(table: Mapping[str, Any], setting: str, where: str, source: Source) -> str:
    return source.place(dotted_name(where, setting)) if setting in table else DEFAULT
