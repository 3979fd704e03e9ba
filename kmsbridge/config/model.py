"""The types that a configuration is read into."""

from __future__ import annotations

from typing import NamedTuple

from kmsbridge.driver import KeyURI, Options
from kmsbridge.environment import NO_ENVIRONMENT, Environment
from kmsbridge.policy import AuditPolicy, CallPolicy, DataKeyPolicy


class KeyConfig(NamedTuple):
    """One key of a profile. `options` are for its driver, with all references resolved."""

    name: str
    uri: KeyURI
    options: Options
    allow_in_production: bool = False


class Profile(NamedTuple):
    """The keys to encrypt to and to decrypt with, and the settings for using them.

    A key that is in both tuples is the same `KeyConfig` object. `origin` is where the profile came from, for people
    to read: the configuration file's path, `KMSBRIDGE_KEY` or `from_uri`. With `mixed_recipients`, some public keys in
    `encrypt_to` may resist quantum computers and others not.
    """

    name: str
    encrypt_to: tuple[KeyConfig, ...] = ()
    decrypt_with: tuple[KeyConfig, ...] = ()
    data_keys: DataKeyPolicy = DataKeyPolicy()
    calls: CallPolicy = CallPolicy()
    audit: AuditPolicy = AuditPolicy()
    production: bool = False
    direct: bool = False
    mixed_recipients: bool = False
    environment: Environment = NO_ENVIRONMENT
    origin: str = ""


class IndexConfig(NamedTuple):
    """The keys of a blind index, each as an armored message, and the profile that decrypts them."""

    name: str
    keys: tuple[str, ...]
    profile: Profile


class Setting(NamedTuple):
    """One value in effect: its dotted name, its text with secrets masked, and where it came from."""

    name: str
    value: str
    origin: str
