"""Reads a profile from a TOML file, a mapping, the environment or arguments, and keeps the origin of every value.

The only environment variables that are read are `KMSBRIDGE_CONFIG`, `KMSBRIDGE_PROFILE`, `KMSBRIDGE_KEY` and
those that `env:NAME` values name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kmsbridge.config.document import (
    ENVIRONMENT,
    FILE_NAME,
    FLAGS,
    MAX_INDEX_KEYS,
    POLICIES,
    check,
    check_key,
    check_profile,
    choose,
    plain,
    read,
)
from kmsbridge.config.model import IndexConfig, KeyConfig, Profile, Setting
from kmsbridge.config.profile import build, index_config, key_config, key_uri
from kmsbridge.config.source import ARGUMENT, Source, is_reference, read_variable
from kmsbridge.config.suggestions import dotted_name, prefixed_errors, suggestion, unknown_option_error
from kmsbridge.errors import ConfigError, forget_locals, quoted
from kmsbridge.registry import driver_class

__all__ = [
    "MAX_INDEX_KEYS",
    "IndexConfig",
    "KeyConfig",
    "Profile",
    "Setting",
    "explain",
    "from_mapping",
    "from_uri",
    "index_table",
    "load",
    "load_index",
    "load_key",
    "unknown_option_error",
]

PathLike = str | os.PathLike[str]

_KEY = "KMSBRIDGE_KEY"


def load(
    path: PathLike | None = None, *, profile: str | None = None, env: Mapping[str, str] | None = None
) -> Profile:
    """Read the configuration and return the profile to use.

    The configuration is the first of `path`, `KMSBRIDGE_CONFIG`, `KMSBRIDGE_KEY` (a key URI that is a whole
    configuration) and `./kmsbridge.toml`. The profile is the first of `profile`, `KMSBRIDGE_PROFILE`,
    `default_profile` and the only profile there is. `env` replaces `os.environ`, also for `env:` values.
    Raises `ConfigError`.
    """
    try:
        return _load(path, profile, env)[0]
    except Exception as error:
        forget_locals(error)
        del env
        raise


def load_key(name: str, path: PathLike | None = None) -> KeyConfig:
    """Read the configuration file that `load` would read, and return its key `name`, which need be in no profile.

    Raises `ConfigError`.
    """
    try:
        found, _ = _locate(path, os.environ)
        if found is None:
            raise ConfigError(
                f"there is no key {quoted(name)}, because KMSBRIDGE_KEY is a configuration of one key",
                remedy="name a configuration file, or the key's URI",
            )
        source = Source(found, os.path.dirname(_absolute(found)), os.environ, [])
        keys = read(found).get("keys", {})
        with prefixed_errors(f"{found}: "):
            if name not in keys:
                raise ConfigError(f"there is no key {quoted(name)}", remedy=suggestion(name, keys))
            return key_config(name, keys, source)
    except Exception as error:
        forget_locals(error)
        raise


def load_index(
    name: str,
    configuration: PathLike | Mapping[str, Any] | None = None,
    *,
    env: Mapping[str, str] | None = None,
) -> IndexConfig:
    """Return the blind index `name` of the configuration file that `load` would read, or of a mapping.

    Its keys are not decrypted. Raises `ConfigError`.
    """
    try:
        return _load_index(name, configuration, os.environ if env is None else env)
    except Exception as error:
        forget_locals(error)
        del configuration, env
        raise


def index_table(name: str, path: PathLike | None = None) -> dict[str, Any] | None:
    """Return the table of a blind index in the configuration file that `load` would read, as it stands there, or None.

    Raises `ConfigError`, also where KMSBRIDGE_KEY is the configuration, which can have no index.
    """
    try:
        table: dict[str, Any] | None = (
            read(_file_of_indexes(name, path, os.environ)).get("indexes", {}).get(name)
        )
        return table
    except Exception as error:
        forget_locals(error)
        raise


def identify(profile: str | None = None) -> tuple[str, str | None]:
    """Return which configuration `load(profile=profile)` reads now, and which profile is asked for.

    The configuration is the absolute path of a file, or a key URI. The profile is None where its choice is the
    configuration's. Raises `ConfigError` where there is none.
    """
    found, _ = _locate(None, os.environ)
    if profile is None:
        profile = read_variable(os.environ, "KMSBRIDGE_PROFILE")
    return os.environ[_KEY] if found is None else _absolute(found), profile


def explain(
    path: PathLike | None = None, *, profile: str | None = None, env: Mapping[str, str] | None = None
) -> list[Setting]:
    """Return every value that `load` uses with the same arguments, defaults included, and its origin.

    After them come the endpoints of the key services, where the keys' drivers tell. Secrets, and all values given as
    `env:` or `file:`, are masked. Raises `ConfigError`.
    """
    try:
        found, settings = _load(path, profile, env)
        return [*settings, *_endpoints(found)]
    except Exception as error:
        forget_locals(error)
        del env
        raise


def from_mapping(
    settings: Mapping[str, Any], *, profile: str | None = None, env: Mapping[str, str] | None = None
) -> Profile:
    """Return the profile to use of a mapping that holds what a configuration file would.

    Tables are mappings, and lists may be tuples. A path may be an `os.PathLike`, and a duration a
    `datetime.timedelta`. Relative paths start from the current folder. The profile is chosen as by `load`.
    Nothing of the mapping is changed or kept. Raises `ConfigError`, and `TypeError` for what is no mapping.
    """
    try:
        return _from_mapping(settings, profile, env)
    except Exception as error:
        forget_locals(error)
        del settings, env
        raise


def from_uri(uri: str, *, decrypt_uris: Sequence[str] = (), options: Mapping[str, object]) -> Profile:
    """Return a profile that encrypts to `uri` and decrypts with it and with `decrypt_uris`.

    The options `data_keys`, `calls`, `audit`, `production`, `direct`, `mixed_recipients`, `environment`,
    `accept_unmarked_until` and `allow_in_production` mean the same as in a configuration file. All other options are
    for the driver of `uri`, and for the `decrypt_uris` with the same scheme. Relative paths start from the current folder. Raises `ConfigError`.
    """
    try:
        return _from_uri(uri, decrypt_uris, options)
    except Exception as error:
        forget_locals(error)
        del uri, decrypt_uris, options
        raise


def _endpoints(profile: Profile) -> Iterator[Setting]:
    keys = {key.name: key for key in (*profile.encrypt_to, *profile.decrypt_with)}
    for key in keys.values():
        with contextlib.suppress(
            ConfigError
        ):  # a key that cannot be opened has no endpoint, and its values are shown
            with contextlib.closing(driver_class(key.uri.scheme).open(key.uri, key.options)) as driver:
                told = driver.endpoint()
            if told is not None:
                yield Setting(f"{key.options.name} (endpoint)", *told)


def _load(
    path: PathLike | None, profile: str | None, env: Mapping[str, str] | None
) -> tuple[Profile, list[Setting]]:
    env = os.environ if env is None else env
    found, origin = _locate(path, env)
    if found is None:
        return _from_variable(profile, env)
    folder = os.path.dirname(_absolute(found))
    source = Source(found, folder, env, [])
    source.note("config", found, origin)
    document = read(found, origin if origin.startswith("environment") else "")
    with prefixed_errors(f"{found}: "):
        return _chosen(document, profile, source), source.settings


def _load_index(
    name: str, configuration: PathLike | Mapping[str, Any] | None, env: Mapping[str, str]
) -> IndexConfig:
    if isinstance(configuration, Mapping):
        source = Source("from_mapping", _absolute("."), env, [])
        document = plain(configuration)
        with prefixed_errors("from_mapping: "):
            check(document)
    else:
        found = _file_of_indexes(name, configuration, env)
        source = Source(found, os.path.dirname(_absolute(found)), env, [])
        document = read(found)
    with prefixed_errors(f"{source.label}: "):
        return index_config(name, document, source)


def _file_of_indexes(name: str, path: PathLike | None, env: Mapping[str, str]) -> str:
    found, _ = _locate(path, env)
    if found is None:
        raise ConfigError(
            f"there is no index {quoted(name)}, because {_KEY} is a configuration of one key",
            remedy=f"write a configuration file with a table [indexes.{name}]",
        )
    return found


def _chosen(document: Mapping[str, Any], profile: str | None, source: Source) -> Profile:
    """Build the profile to use of a document whose names and types were checked."""
    name, origin = choose(document, profile, source.env)
    where = "default_profile" if "default_profile" in document else f"profiles.{name}"
    source.note("profile", name, origin or source.place(where))
    table = document["profiles"][name]
    return build(name, table, dotted_name("profiles", name), document.get("keys", {}), source)


def _from_mapping(settings: Mapping[str, Any], profile: str | None, env: Mapping[str, str] | None) -> Profile:
    if not isinstance(settings, Mapping):
        raise TypeError(
            f"settings must be a mapping, not {type(settings).__name__}: use from_config for a path"
        )
    source = Source("from_mapping", _absolute("."), os.environ if env is None else env, [])
    with prefixed_errors("from_mapping: "):
        document = plain(settings)
        check(document)
        return _chosen(document, profile, source)


def _locate(path: PathLike | None, env: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the configuration file's path and what named it. The path is None where `KMSBRIDGE_KEY` is used."""
    if path is not None:
        return os.fsdecode(path), ARGUMENT
    config, key = read_variable(env, "KMSBRIDGE_CONFIG"), read_variable(env, _KEY)
    if config and key:
        raise ConfigError("KMSBRIDGE_CONFIG and KMSBRIDGE_KEY are both set", remedy="unset one of them")
    if config:
        return config, "environment variable KMSBRIDGE_CONFIG"
    if key:
        return None, f"environment variable {_KEY}"
    if not os.path.lexists(FILE_NAME):
        raise ConfigError(
            f"there is no configuration: ./{FILE_NAME} does not exist, and neither KMSBRIDGE_CONFIG nor "
            "KMSBRIDGE_KEY is set",
            remedy="run 'kmsbridge init', or name a configuration file or a key URI",
        )
    return FILE_NAME, "default"


def _from_variable(profile: str | None, env: Mapping[str, str]) -> tuple[Profile, list[Setting]]:
    for what, value, other in (
        ("a profile is named", profile, "do not name a profile"),
        ("KMSBRIDGE_PROFILE is set", read_variable(env, "KMSBRIDGE_PROFILE"), "unset KMSBRIDGE_PROFILE"),
    ):
        if value is not None:
            raise ConfigError(
                f"{what}, but KMSBRIDGE_KEY is a configuration without profiles",
                remedy=f"unset KMSBRIDGE_KEY, or {other}",
            )
    uri = env[_KEY]
    if is_reference(uri):
        raise ConfigError(
            f"{_KEY} is a reference (env: or file:) instead of a key URI",
            remedy="set it to the key URI itself",
        )
    source = Source(_KEY, _absolute("."), env, [], given_by=f"environment variable {_KEY}")
    source.note("profile", _KEY, source.given_by)
    table = {"encrypt_to": [_KEY], "decrypt_with": [_KEY]}
    return build(_KEY, table, f"profiles.{_KEY}", {_KEY: {"uri": uri}}, source), source.settings


def _from_uri(uri: str, decrypt_uris: Sequence[str], options: Mapping[str, object]) -> Profile:
    if isinstance(decrypt_uris, str):
        raise TypeError("decrypt_uris must be a list of key URIs, not one str")
    source = Source("from_uri", _absolute("."), os.environ, [], given_by=ARGUMENT)
    own = {name: value for name, value in options.items() if name in (*POLICIES, *FLAGS, *ENVIRONMENT)}
    others = {name: value for name, value in options.items() if name not in own}
    tables: dict[str, dict[str, Any]] = {"uri": {**others, "uri": uri}}
    scheme = key_uri(uri, "uri", source).scheme
    for n, decrypt_uri in enumerate(decrypt_uris):
        name = f"decrypt_uris[{n}]"
        same_scheme = key_uri(decrypt_uri, name, source).scheme == scheme
        allowed = {"allow_in_production": others.get("allow_in_production", False)}
        tables[name] = {**(others if same_scheme else allowed), "uri": decrypt_uri}
    check_key(tables["uri"], "options")
    table = {**own, "encrypt_to": ["uri"], "decrypt_with": [*tables]}
    check_profile(table, "", tables)
    return build("default", table, "", tables, source)


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except OSError:
        raise ConfigError(
            "the current folder cannot be read", remedy="change to a folder that exists"
        ) from None
