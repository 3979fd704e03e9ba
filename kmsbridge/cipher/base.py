"""The base class of the ciphers: making and closing them, and the guard around their methods."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, Protocol, Self, TypeVar, cast

from kmsbridge import config, message
from kmsbridge.atomic import PathLike
from kmsbridge.cipher.driver_objects import CipherOptions, check_drivers, check_observers, profile_of
from kmsbridge.cipher.session import Session
from kmsbridge.config import Profile
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import Pairs
from kmsbridge.driver import KeyDriver
from kmsbridge.errors import RoleError, discreet, forget_locals
from kmsbridge.observer import Observer
from kmsbridge.registry import SEPARATE_DATA_KEYS

if TYPE_CHECKING:
    from kmsbridge.cipher.health import Health

MethodT = TypeVar("MethodT", bound=Callable[..., Any])
CipherT = TypeVar("CipherT", bound="Cipher")


_CORES: Final = {"encrypt_to": "_encryption", "decrypt_with": "_decryption"}
"""The attribute that holds the core for each list of a profile that a class uses."""


class Closable(Protocol):
    """An object that a cipher's `close` closes: its session, or the core of one half of an `EnvelopeCipher`."""

    def close(self) -> None: ...


def guarded(method: MethodT) -> MethodT:
    """Have an error that leaves a public method recorded, where it is a refusal, and show no local variables.

    As `errors.discreet`, whose reasons hold here: the exception of a signal handler can arrive at any line.
    """

    @functools.wraps(method)
    def guard(self: Cipher, *args: Any, **kwargs: Any) -> Any:
        try:
            try:
                return method(self, *args, **kwargs)
            except BaseException as error:
                self._session.failed(error, context_of(error, kwargs))
                raise
        except BaseException as error:
            del args, kwargs
            forget_locals(error)
            raise

    return cast("MethodT", guard)


def context_of(error: BaseException, arguments: Mapping[str, Any]) -> Any:
    """Return the context that an error is about, of the arguments of a public method: its item's among many."""
    contexts, place = arguments.get("contexts"), getattr(error, "index", None)
    return arguments.get("context") if contexts is None or place is None else contexts[place]


class Cipher:
    """The base class of the three ciphers and of their namesakes for asyncio."""

    _uses: ClassVar[tuple[str, ...]]
    """The lists of a profile that it has keys of: `encrypt_to`, `decrypt_with`."""
    _session: Session
    _closes: Closable

    @classmethod
    @discreet
    def from_config(
        cls,
        path: PathLike | None = None,
        *,
        profile: str | None = None,
        env: Mapping[str, str] | None = None,
        observers: Sequence[Observer] = (),
    ) -> Self:
        """Return one for a profile of a configuration file; touches no network.

        `path=None` looks at `KMSBRIDGE_CONFIG`, `KMSBRIDGE_KEY`, then `./kmsbridge.toml`; `profile=None` at
        `KMSBRIDGE_PROFILE`, then `default_profile`; `env=None` means the process's environment. `observers`
        are told of every call to a key service (see `kmsbridge.observer`), beside the audit trail. Raises
        `ConfigError`, and `RoleError` where the profile does not allow this class.
        """
        check_observers(observers)
        return from_profile(cls, config.load(path, profile=profile, env=env), observers)

    @classmethod
    @discreet
    def from_mapping(
        cls,
        settings: Mapping[str, Any],
        *,
        profile: str | None = None,
        env: Mapping[str, str] | None = None,
        observers: Sequence[Observer] = (),
    ) -> Self:
        """Return one for a profile of a mapping that holds what a configuration file would; touches no
        network.

        For the settings of a web framework. Lists may be tuples, a path an `os.PathLike`, a duration a
        `datetime.timedelta`; relative paths start from the current folder. The mapping is neither changed nor
        kept. `profile`, `env` and `observers` as for `from_config`. Raises `ConfigError`, `RoleError` where
        the profile does not allow this class, and `TypeError` for what is no mapping.
        """
        check_observers(observers)
        return from_profile(cls, config.from_mapping(settings, profile=profile, env=env), observers)

    @classmethod
    @discreet
    def from_uri(
        cls,
        uri: str,
        *,
        decrypt_uris: Sequence[str] = (),
        observers: Sequence[Observer] = (),
        **options: Any,
    ) -> Self:
        """Return one for the key that `uri` names; `decrypt_uris` name more to decrypt with. Touches no
        network.

        `options` are what a key's table, or a profile's, would hold; `observers` as for `from_config`. Raises
        `ConfigError`.
        """
        check_observers(observers)
        found = config.from_uri(uri, decrypt_uris=decrypt_uris, options=options)
        return from_profile(cls, found, observers)

    def _health(self, *, probe: bool, context: Pairs) -> Health:
        from kmsbridge.cipher import health

        keys = {setting: getattr(self, _CORES[setting]).data_keys for setting in self._uses}
        for each in keys.values():
            each.check_open()
        caches = {setting: each.cache for setting, each in keys.items()}
        return health.check(self._session, caches, probe=probe, context=EncryptionContext.of(context))

    def _begin(self, session: Session) -> None:
        """Begin to work with the keys of `session`."""
        raise NotImplementedError

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} cannot be pickled or copied: open one in each process")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(profile={self._session.profile.name!r})"


class SyncCipher(Cipher):
    """Checking and closing, for the classes that are not for asyncio."""

    @guarded
    def check(self, *, probe: bool = False, context: Pairs = None) -> Health:
        """Return how the keys and caches do, for a readiness probe: what `kmsbridge doctor` says of them.

        Without `probe` it says what earlier calls have told: no call, no waiting. With it each key is tried,
        up to 16 at a time and within the profile's deadline for all of it: a probe, 32 random bytes that are
        bound to `context` and to the reserved pair `kmsbridge` = `probe`, is wrapped and unwrapped, as far as
        the key is for that. What does not work is in the result, and not raised. Raises `ClosedError`, and
        `AuditError`.
        """
        return self._health(probe=probe, context=context)

    def close(self) -> None:
        """Drop every data key and connection; may be repeated. Any other use afterwards raises
        `ClosedError`.
        """
        self._closes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def from_profile(cls: type[CipherT], profile: Profile, observers: Sequence[Observer] = ()) -> CipherT:
    """Return a `cls` for `profile`. Raises `RoleError` where the profile does not allow it, and
    `ConfigError`.
    """
    return make_cipher(cls, profile_session(cls, profile, observers))


def profile_session(cls: type[Cipher], profile: Profile, observers: Sequence[Observer] = ()) -> Session:
    """Return a session with the keys of `profile` that a `cls` uses. Raises `RoleError` and `ConfigError`."""
    for setting in cls._uses:
        if not getattr(profile, setting):
            raise RoleError(
                f"profile {profile.name!r} has no {setting}",
                remedy=f"use another profile, or add {setting}",
            )
    keys = {setting: getattr(profile, setting) for setting in cls._uses}
    return Session(profile, **keys, observers=observers)


def driver_session(options: CipherOptions, **drivers: Sequence[KeyDriver]) -> Session:
    """Return a session with these driver objects, by the names of the lists that they are for.

    Raises `TypeError`, `RoleError` or `ConfigError` for what cannot be; then no driver was touched.
    """
    profile, observers = profile_of(options), options.get("observers", ())
    check_observers(observers)
    for name, given in drivers.items():
        check_drivers(given, name)
    encrypt_to = {driver.scheme for driver in drivers.get("encrypt_to", ())}
    if "data_keys" not in options and encrypt_to and encrypt_to <= SEPARATE_DATA_KEYS:
        profile = profile._replace(data_keys=profile.data_keys._replace(max_messages=1))
    if profile.direct and "encrypt_to" in drivers:
        message.check_direct(len(drivers["encrypt_to"]))
    return Session(profile, **drivers, observers=observers)


def make_cipher(cls: type[CipherT], session: Session, *parts: Any) -> CipherT:
    """Return a `cls` over `session`, or over these parts of one."""
    cipher = cls.__new__(cls)
    cls._begin(cipher, session, *parts)
    return cipher
