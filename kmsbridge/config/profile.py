"""A profile built from tables that were checked for their shape; here references are followed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from kmsbridge.config.document import LISTS, POLICIES, check_key_names
from kmsbridge.config.model import KeyConfig, Profile
from kmsbridge.config.source import MASK, Source, is_reference, sounds_secret
from kmsbridge.config.suggestions import about, advice, dotted
from kmsbridge.config.values import convert, rendered, tunables
from kmsbridge.driver import KeyURI, Options
from kmsbridge.errors import ConfigError, quoted
from kmsbridge.policy import CallPolicy, checked

DEFAULT: Final = "default"
OWN: Final = ("uri", "allow_in_production")
"""What a key's table holds besides the driver's options."""

Tables = Mapping[str, Mapping[str, Any]]


def build(name: str, table: Mapping[str, Any], where: str, keys: Tables, source: Source) -> Profile:
    """The profile of this table; `where` is its dotted name, empty for arguments.

    Only the keys that it names are looked at, so that another profile's missing secret harms nobody.
    """
    encrypt_to, decrypt_with = (_names(table, setting, where, keys, source) for setting in LISTS)
    if not encrypt_to and not decrypt_with:
        raise ConfigError(
            f"the profile {quoted(name)} has neither encrypt_to nor decrypt_with",
            remedy="name a key in one of them",
        )
    used = {key: _key(key, keys[key], source) for key in dict.fromkeys(encrypt_to + decrypt_with)}
    return Profile(
        name,
        encrypt_to=tuple(used[key] for key in encrypt_to),
        decrypt_with=tuple(used[key] for key in decrypt_with),
        data_keys=_policy(table, "data_keys", where, source),
        calls=_policy(table, "calls", where, source),
        audit=_policy(table, "audit", where, source),
        production=_flag(table, "production", where, source),
        direct=_flag(table, "direct", where, source),
        origin=source.label,
    )


def key_uri(value: str, name: str, source: Source) -> KeyURI:
    """The key URI that `value` is or refers to."""
    resolved, origin = source.resolve(value, name)
    with about(f"{name}: "):
        if is_reference(resolved):
            raise ConfigError("a reference led to another one", remedy="refer to the key URI itself")
        uri = KeyURI.parse(resolved)
    source.note(name, MASK if is_reference(value) else str(uri), origin)
    return uri


def _key(name: str, table: Mapping[str, Any], source: Source) -> KeyConfig:
    where = "options" if source.from_arguments else dotted("keys", name)
    uri = key_uri(table["uri"], name if source.from_arguments else f"{where}.uri", source)
    options = {
        option: source.resolve_option(value, dotted(where, option), hidden=sounds_secret(option, value))
        for option, value in table.items()
        if option not in OWN
    }
    allowed = _flag(table, "allow_in_production", where, source)
    return KeyConfig(name, uri, Options(options, name=where, folder=source.folder), allowed)


def _names(
    table: Mapping[str, Any], setting: str, where: str, keys: Tables, source: Source
) -> tuple[str, ...]:
    name = dotted(where, setting)
    given = table.get(setting, [])
    names = []
    for n, each in enumerate(given):
        resolved, origin = source.resolve(each, f"{name}[{n}]")
        if resolved not in keys:
            # Not quoted: what a reference led to may be a secret.
            raise ConfigError(
                f"{name}[{n}] names a key that is not there ({origin})", remedy=advice("", keys)
            )
        names.append(resolved)
    check_key_names(names, name, keys)
    shown = (MASK if is_reference(each) else each for each in given)
    source.note(name, ", ".join(shown), _origin(table, setting, where, source))
    return tuple(names)


def _flag(table: Mapping[str, Any], setting: str, where: str, source: Source) -> bool:
    value = bool(table.get(setting, False))
    source.note(dotted(where, setting), str(value).lower(), _origin(table, setting, where, source))
    return value


def _policy(profile: Mapping[str, Any], which: str, where: str, source: Source) -> Any:
    table, policy, name = profile.get(which, {}), POLICIES[which], dotted(where, which)
    settings = tunables(policy)
    values, origins = {}, {}
    for word, value in table.items():
        resolved, origins[word] = source.resolve(value, dotted(name, word))
        values[word] = convert(resolved, settings[word], dotted(name, word))
    if values.get("file"):
        values["file"] = os.path.join(source.folder, values["file"])
    if "deadline" in values and "attempt_timeout" not in values:
        # A short deadline alone must not be refused because of the other's default.
        values["attempt_timeout"] = max(0.001, min(CallPolicy().attempt_timeout, values["deadline"]))
    with about(f"{name}."):
        built = checked(policy(**values))
    for word, setting in settings.items():
        masked = is_reference(table.get(word))
        shown = MASK if masked else rendered(getattr(built, word), setting)
        source.note(dotted(name, word), shown, origins.get(word, DEFAULT))
    return built


def _origin(table: Mapping[str, Any], setting: str, where: str, source: Source) -> str:
    return source.place(dotted(where, setting)) if setting in table else DEFAULT
