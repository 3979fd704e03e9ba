"""The keys and observers of a profile in use, and the order in which they are closed."""

from __future__ import annotations

import atexit
import contextlib
import weakref
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from kmsbridge import config
from kmsbridge.audit import AuditTrail
from kmsbridge.cipher.driver_objects import given_key
from kmsbridge.config import KeyConfig, Profile
from kmsbridge.driver import Capability, KeyDriver
from kmsbridge.errors import (
    MAX_REMEDY,
    AuthenticationError,
    ConfigError,
    NoMatchingKey,
    forget_locals,
    listed,
    shortened,
)
from kmsbridge.keys import ManagedKey
from kmsbridge.observer import NOBODY, Event, Observer, Observers


class Part(Protocol):
    """A core that uses a session's keys, counts messages, and is closed with the session."""

    def report(self) -> None:
        """Tell the audit trail how many messages each data key has served since it was last told."""

    def close(self) -> None:
        """Report, and drop every data key; may be repeated."""


P = ParamSpec("P")
PartT = TypeVar("PartT", bound=Part)

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


@atexit.register
def _report_all() -> None:
    """At a program's end the audit trail gets the counts of what was left open.

    It stays open: logging handlers that encrypt flush their last records later than this.
    """
    with contextlib.ExitStack() as stack:  # each reports, whatever becomes of the others
        for session in list(_sessions):
            stack.callback(session.report)


class Session:
    """The keys of a profile, each opened once, and its observers; whatever uses them is closed before them.

    A key is given as its configuration or as a driver object. One that is in both lists is one `ManagedKey`.
    Raises `ConfigError`, and `AuditError` for a required audit file that cannot be written.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        encrypt_to: Sequence[KeyConfig | KeyDriver] = (),
        decrypt_with: Sequence[KeyConfig | KeyDriver] = (),
        observers: Sequence[Observer] = (),
    ) -> None:
        self.profile = profile
        self.observer: Observer = AuditTrail(profile.audit, profile=profile.name)
        """The audit trail, and the caller's own observers if there are any."""
        if observers:
            self.observer = Observers([self.observer, *observers])
        self.keys: dict[Hashable, ManagedKey] = {}
        self._parts: list[Part] = []
        self._closed = False
        _sessions.add(self)
        try:
            self.encrypt_to = [self._managed(key) for key in encrypt_to]
            self.decrypt_with = [self._managed(key) for key in decrypt_with]
            _check_mixture(self.encrypt_to, profile)
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """Return whether `close` has ended."""
        return self._closed

    def add_part(
        self, kind: Callable[Concatenate[Session, P], PartT], *args: P.args, **kwargs: P.kwargs
    ) -> PartT:
        """Return `kind(self, ...)`, which reports and is closed with this session; all is closed where it
        fails.
        """
        try:
            part = kind(self, *args, **kwargs)
        except BaseException:
            self.close()
            raise
        self._parts.append(part)
        return part

    def failed(self, error: BaseException, context: Any) -> None:
        """Tell the observer of `error` if it is a refusal, and clear the local variables that it holds.

        For every error that leaves a public method, once.
        """
        if isinstance(error, AuthenticationError):
            self._name_environment(error)
        try:
            if isinstance(error, (AuthenticationError, NoMatchingKey)):
                self.observer.event(Event("refusal", type(error).__name__, context=context or {}))
        finally:
            forget_locals(error)

    def report(self) -> None:
        """Tell the audit trail how many messages each data key has served since it was last told."""
        for part in reversed(self._parts):
            part.report()

    def close(self) -> None:
        """Drop every data key, then close the keys and the observers; may be repeated."""
        if self._closed:
            return
        _sessions.discard(self)
        # What was put on the stack last is closed first, and all of it whatever becomes of the others.
        with contextlib.ExitStack() as stack:
            stack.callback(self.observer.close)
            for key in self.keys.values():
                stack.callback(key.close)
            for part in self._parts:
                stack.callback(part.close)
        self._closed = True  # here, so that closing can be repeated where something broke it off

    def _name_environment(self, error: AuthenticationError) -> None:
        """Add the name of this host's environment to the remedy, whatever the cause, so that it tells nothing."""
        name = self.profile.environment.name
        told = f"; this host is in the environment {name!r} and reads no message of another"
        if name and told not in error.remedy:
            error.remedy = shortened(error.remedy + told, MAX_REMEDY)

    def _managed(self, key: KeyConfig | KeyDriver) -> ManagedKey:
        identity: Hashable = key.name if isinstance(key, KeyConfig) else id(key)
        if identity not in self.keys:
            self.keys[identity] = (
                configured_key(key, self.profile, self.observer)
                if isinstance(key, KeyConfig)
                else given_key(key, f"driver object {len(self.keys) + 1}", self.profile, self.observer)
            )
        return self.keys[identity]


def _check_mixture(keys: Sequence[ManagedKey], profile: Profile) -> None:
    """Raise `ConfigError` where a message would be only as strong as the weaker of two sorts of public keys."""
    public = [key for key in keys if Capability.LOCAL_WRAP in key.capabilities]
    if profile.mixed_recipients or len({key.driver.post_quantum for key in public}) <= 1:
        return
    weaker = listed([key.name for key in public if not key.driver.post_quantum])
    raise ConfigError(
        f"encrypt_to has public keys that resist quantum computers, and others that do not: {weaker}",
        remedy="replace those, or set mixed_recipients = true in the profile",
    )


def configured_key(key: KeyConfig, profile: Profile, observer: Observer = NOBODY) -> ManagedKey:
    """Return the configured key behind its driver; `observer` is told of its calls. Raises `ConfigError`."""
    from kmsbridge import registry

    driver = registry.driver_class(key.uri.scheme)

    def open_driver() -> KeyDriver:
        return driver.open(key.uri, key.options)

    managed = ManagedKey(
        key.name, open_driver, profile.calls, environment=profile.environment, observer=observer
    )
    for table, name in key.options.unknown():
        managed.close()
        raise config.unknown_option_error(table, table.known(), name)
    if profile.production and not key.allow_in_production:
        settings = managed.driver.development_settings()
        if settings:
            managed.close()
            raise ConfigError(
                f"the {driver.scheme} key keys.{key.name} is not for profile {profile.name!r}, which is for "
                f"production: {'; '.join(settings)}",
                remedy=f"change its configuration, or set keys.{key.name}.allow_in_production = true",
            )
    return managed
