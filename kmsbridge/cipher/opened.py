"""What encryptors and decryptors have in common: opening from a configuration, and closing."""

from __future__ import annotations

import atexit
import contextlib
import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, cast

from kmsbridge import config
from kmsbridge.atomic import PathLike
from kmsbridge.audit import AuditTrail
from kmsbridge.config import KeyConfig, Profile
from kmsbridge.driver import KeyDriver
from kmsbridge.errors import AuthenticationError, ConfigError, NoMatchingKey, discreet, forget_locals
from kmsbridge.keys import ManagedKey
from kmsbridge.observer import NOBODY, Event, Observer

MethodT = TypeVar("MethodT", bound=Callable[..., Any])

_open: weakref.WeakSet[Opened] = weakref.WeakSet()


@atexit.register
def _report_all() -> None:
    """At a program's end the audit trail gets the counts of what was left open.

    It stays open: logging handlers that encrypt flush their last records later than this.
    """
    with contextlib.ExitStack() as stack:  # each reports, whatever becomes of the others
        for opened in list(_open):
            stack.callback(opened._report)  # noqa: SLF001 - of this module


def entry_point(method: MethodT) -> MethodT:
    """Have an error that leaves a public method audited, where it is a refusal, and show no local variables.

    As `errors.discreet`, whose reasons hold here: the exception of a signal handler can arrive at any line.
    """

    @functools.wraps(method)
    def guarded(self: Opened, *args: Any, **kwargs: Any) -> Any:
        try:
            try:
                return method(self, *args, **kwargs)
            except BaseException as error:
                self._failed(error, kwargs.get("context"))
                raise
        except BaseException as error:
            del args, kwargs
            forget_locals(error)
            raise

    return cast("MethodT", guarded)


class Opened:
    """Safe to share between threads, and to use in forked children. Close it, or use it with `with`."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile
        self._observer: Observer = AuditTrail(profile.audit, profile=profile.name)
        self._keys: dict[str, ManagedKey] = {}
        _open.add(self)
        try:
            self._open_role(profile)
        except BaseException:
            self.close()
            raise

    @classmethod
    @discreet
    def from_config(
        cls, path: PathLike | None = None, *, profile: str | None = None, env: Mapping[str, str] | None = None
    ) -> Self:
        """Open with a profile of a configuration file.

        `path=None` looks at `KMSBRIDGE_CONFIG`, `KMSBRIDGE_KEY`, then `./kmsbridge.toml`;
        `profile=None` at `KMSBRIDGE_PROFILE`, then `default_profile`; `env=None` means the process's
        environment. Raises `ConfigError`, and `RoleError` where the profile does not allow this role.
        """
        return cls(config.load(path, profile=profile, env=env))

    @classmethod
    @discreet
    def from_uri(cls, uri: str, *, decrypt_uris: Sequence[str] = (), **options: Any) -> Self:
        """Open with the key that `uri` names; `decrypt_uris` name more to decrypt with.

        `options` are what a key's table, or a profile's, would hold. Raises `ConfigError`.
        """
        return cls(config.from_uri(uri, decrypt_uris=decrypt_uris, options=options))

    def _report(self) -> None:
        """Tell the audit trail how many messages each data key has served since it was last told."""

    def close(self) -> None:
        """Drop every data key and connection; may be repeated. Any other use afterwards raises."""
        _open.discard(self)
        try:
            self._close_role()
        finally:
            for key in self._keys.values():
                key.close()
            self._observer.close()

    def _close_role(self) -> None:
        """Drop what `_open_role` made; each calls the next. May find it half made."""

    def _failed(self, error: BaseException, pairs: Any) -> None:
        """What every public operation does with an error on its way out; once for each error."""
        try:
            if isinstance(error, (AuthenticationError, NoMatchingKey)):
                self._observer.event(Event("refusal", type(error).__name__, context=pairs or {}))
        finally:
            forget_locals(error)

    def _open_role(self, profile: Profile) -> None:
        """Open the keys that a subclass needs; each calls the next, for the one that is both."""

    def _open_keys(self, configs: Sequence[KeyConfig]) -> list[ManagedKey]:
        return [self._open_key(each) for each in configs]

    def _open_key(self, each: KeyConfig) -> ManagedKey:
        if each.name not in self._keys:
            self._keys[each.name] = open_key(each, self._profile, self._observer)
        return self._keys[each.name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be pickled or copied: open one in each process")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(profile={self._profile.name!r})"


def open_key(each: KeyConfig, profile: Profile, observer: Observer = NOBODY) -> ManagedKey:
    """The configured key behind its driver. Raises `ConfigError`."""
    from kmsbridge import registry

    driver = registry.driver_class(each.uri.scheme)

    def open_driver() -> KeyDriver:
        return driver.open(each.uri, each.options)

    key = ManagedKey(each.name, open_driver, profile.calls, observer=observer)
    for table, name in each.options.unknown():
        key.close()
        raise config.unknown_option_error(table, table.known(), name)
    settings = () if each.allow_in_production or not profile.production else key.driver.development_settings()
    if settings:
        key.close()
        raise ConfigError(
            f"the {driver.scheme} key keys.{each.name} is not for profile {profile.name!r}, which is for "
            f"production: {'; '.join(settings)}",
            remedy=f"change its configuration, or set keys.{each.name}.allow_in_production = true",
        )
    return key
