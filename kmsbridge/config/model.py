"""What a configuration amounts to, once read."""

from __future__ import annotations

from typing import NamedTuple

from kmsbridge.driver import KeyURI, Options
from kmsbridge.policy import AuditPolicy, CallPolicy, DataKeyPolicy


class KeyConfig(NamedTuple):
    """One key of a profile. `options` are for its driver; references in them are resolved."""

    name: str
    uri: KeyURI
    options: Options
    allow_in_production: bool = False


class Profile(NamedTuple):
    """Which keys to encrypt to and to decrypt with, and how.

    A key in both tuples is one `KeyConfig` object. `origin` says for people where this came from:
    the configuration file's path, `KMSBRIDGE_KEY` or `from_uri`.
    """

    name: str
    encrypt_to: tuple[KeyConfig, ...] = ()
    decrypt_with: tuple[KeyConfig, ...] = ()
    data_keys: DataKeyPolicy = DataKeyPolicy()
    calls: CallPolicy = CallPolicy()
    audit: AuditPolicy = AuditPolicy()
    production: bool = False
    direct: bool = False
    origin: str = ""


class Setting(NamedTuple):
    """One effective value: its dotted name, what of it may be shown, and where it came from."""

    name: str
    value: str
    origin: str
