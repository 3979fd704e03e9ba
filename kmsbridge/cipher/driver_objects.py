"""Ciphers that are made from driver objects instead of a configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from kmsbridge import message
from kmsbridge.config import Profile
from kmsbridge.driver import KeyDriver
from kmsbridge.environment import environment
from kmsbridge.errors import ConfigError, RoleError
from kmsbridge.keys import ManagedKey
from kmsbridge.observer import Observer
from kmsbridge.policy import AuditPolicy, CallPolicy, DataKeyPolicy, checked

if TYPE_CHECKING:
    from datetime import date


class CipherOptions(TypedDict, total=False):
    """The options of a cipher that is made from driver objects, as a profile's table would hold them.

    `observers` are told of every call to a key service (see `kmsbridge.observer`). `name` stands in audit
    events and errors where a profile's name would.
    """

    data_keys: DataKeyPolicy
    calls: CallPolicy
    audit: AuditPolicy
    observers: Sequence[Observer]
    direct: bool
    mixed_recipients: bool
    name: str
    environment: str
    accept_unmarked_until: date | str


_POLICIES = {"data_keys": DataKeyPolicy, "calls": CallPolicy, "audit": AuditPolicy}
_TYPES = {**_POLICIES, "direct": bool, "mixed_recipients": bool, "name": str}
_ENVIRONMENT = ("environment", "accept_unmarked_until")


def profile_of(options: CipherOptions) -> Profile:
    """Return a profile of these options that names no keys. Raises `TypeError`, and `ConfigError` for bad
    values.
    """
    settings: dict[str, Any] = {option: value for option, value in options.items() if option != "observers"}
    name, until = (settings.pop(option, None) for option in _ENVIRONMENT)
    for option, value in settings.items():
        if option not in _TYPES:
            raise TypeError(
                f"{option!r} is no option: there are {', '.join((*_TYPES, *_ENVIRONMENT))} and observers"
            )
        if not isinstance(value, _TYPES[option]):
            raise TypeError(f"{option} must be of {_TYPES[option].__name__}, not of {type(value).__name__}")
        if option in _POLICIES:
            checked(value)  # type: ignore[type-var]
    return Profile("default", origin="driver objects", environment=environment(name, until))._replace(
        **settings
    )


def check_observers(observers: Sequence[Observer]) -> None:
    """Raise `TypeError` unless `observers` is a list of `Observer` objects."""
    if not isinstance(observers, (list, tuple)):
        raise TypeError(f"observers must be a list of Observer objects, not {type(observers).__name__}")
    for number, observer in enumerate(observers):
        if not isinstance(observer, Observer):
            raise TypeError(f"observers[{number}] must be an Observer object, not {type(observer).__name__}")


def check_drivers(drivers: Sequence[KeyDriver], name: str) -> None:
    """Raise `TypeError` unless `drivers` is a list of driver objects, and `RoleError` where it is empty.

    Raises `ConfigError` for more than a message has room for, and for one that is there twice.
    """
    if not isinstance(drivers, (list, tuple)):
        raise TypeError(
            f"{name} must be a list of driver objects, not {type(drivers).__name__}: "
            "use from_config for a profile and from_uri for a key URI"
        )
    for number, driver in enumerate(drivers):
        if not isinstance(driver, KeyDriver):
            what = f"the class {driver.__name__}" if isinstance(driver, type) else type(driver).__name__
            raise TypeError(f"{name}[{number}] must be a KeyDriver object, not {what}")
        if any(driver is other for other in drivers[:number]):
            raise ConfigError(f"{name}[{number}] is there twice", remedy="remove one of them")
    if not drivers:
        raise RoleError(f"{name} is empty", remedy="give it a driver object")
    if len(drivers) > message.MAX_RECIPIENTS and name == "encrypt_to":
        raise ConfigError(
            f"encrypt_to has more than {message.MAX_RECIPIENTS} keys",
            remedy="a message has no room for more; remove some",
        )


def given_key(driver: KeyDriver, name: str, profile: Profile, observer: Observer) -> ManagedKey:
    """Return the key of a driver object, which is closed with it; `observer` is told of its calls.

    In a forked child the key raises `ConfigError` at its first use: the object's connections are the
    parent's, and nobody else knows how to make another.
    """
    parent = os.getpid()

    def lend_driver() -> KeyDriver:
        if os.getpid() != parent:
            raise ConfigError(
                f"the {driver.scheme} driver of this cipher was opened before the process was forked",
                remedy="make the cipher after the fork, or from a configuration, which a child opens again",
            )
        return driver

    return ManagedKey(name, lend_driver, profile.calls, environment=profile.environment, observer=observer)
