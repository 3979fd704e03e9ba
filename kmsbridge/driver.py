"""What the author of a driver implements: one class that talks to one key service.

A driver is small, synchronous and free of policy. It does not cache, retry, log or audit; it does not
know the message format. It translates calls into its provider's, and its provider's errors into an
`ErrorKind`, and leaves everything else to the library. `kmsbridge.testing` holds the contract suite
that says whether it does so.
"""

from __future__ import annotations

import enum
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, NoReturn, Self

from kmsbridge.context import EncryptionContext
from kmsbridge.errors import ConfigError
from kmsbridge.keyuri import KeyURI
from kmsbridge.secret import Secret

__all__ = [
    "ENTRY_POINT_GROUP",
    "Capability",
    "EncryptionContext",
    "ErrorDetails",
    "ErrorKind",
    "KeyDescription",
    "KeyDriver",
    "KeyState",
    "KeyURI",
    "Options",
    "PolicyRole",
    "Secret",
    "WrappedKey",
    "report_request_id",
]

ENTRY_POINT_GROUP: Final = "kmsbridge.drivers"

PolicyRole = Literal["encryptor", "decryptor", "rewrapper", "admin"]
"""Whom `KeyDriver.policy` is for: who wraps, who unwraps, who moves messages, who looks after the key."""


class Capability(enum.Enum):
    """What a driver can do beyond wrapping and unwrapping one data key."""

    BINDS_CONTEXT = enum.auto()
    """The service authenticates the encryption context. Without it the library binds a hash."""
    BATCH_UNWRAP = enum.auto()
    """`unwrap_many` is one call, or few, for many wrapped keys."""
    SERVER_REWRAP = enum.auto()
    """`rewrap` is done by the service; the data key is never seen here. See `rewraps_from`."""
    REPORTS_VERSION = enum.auto()
    """`WrappedKey.version` and `KeyDescription.version` say which version of the key was used."""
    LOCAL_WRAP = enum.auto()
    """`wrap` needs no network: it uses a public key held here."""
    ROTATE = enum.auto()
    """`rotate` makes a new version."""


class ErrorKind(enum.Enum):
    """What a failure means to the library. The first three are retried, the others never."""

    UNAVAILABLE = enum.auto()
    THROTTLED = enum.auto()
    TIMEOUT = enum.auto()
    ACCESS_DENIED = enum.auto()
    KEY_NOT_FOUND = enum.auto()
    KEY_DISABLED = enum.auto()
    INVALID_REQUEST = enum.auto()
    UNAUTHENTICATED = enum.auto()
    CREDENTIAL_MISUSED = enum.auto()
    """A one-time credential was used before, or comes from where it should not: someone else has it."""
    NOT_AUTHENTIC = enum.auto()
    """The wrapped key is not authentic in this context: changed, of another key or context."""
    TOO_LARGE = enum.auto()
    """The payload is longer than `max_plaintext`."""


@dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What a provider says of an error besides its kind; each part may be empty.

    `remedy` is the driver's own advice where it knows better than the library's general one. None of
    it may quote the provider's text: that can contain secrets.
    """

    code: str = ""
    request_id: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """An encrypted data key as the provider returned it: 1 to 16384 bytes of ciphertext.

    `key_id` is the driver's `key_id`; `version` is empty where the provider reports none.
    """

    key_id: str
    version: str
    ciphertext: bytes


class KeyState(enum.Enum):
    """Whether a key can be used."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    PENDING_DELETION = "pending deletion"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class KeyDescription:
    """What a provider tells of a key.

    `version` is the one that a wrap would use now. `rotation` says in words how the key is rotated.
    `may_wrap` and `may_unwrap` are None where the provider cannot tell without trying.
    """

    key_id: str
    state: KeyState
    version: str = ""
    rotation: str = ""
    may_wrap: bool | None = None
    may_unwrap: bool | None = None


class Options:
    """A key's options from the configuration, with `env:` and `file:` values resolved.

    A driver asks for what it knows with `text`, `secret`, `flag`, `number` and `table`; what nobody
    asked for is an error that the library raises after `open`, so a misspelt option never passes
    silently. `folder` is where a relative path starts: the folder of the configuration file.
    """

    def __init__(self, values: Mapping[str, Any], *, name: str = "options", folder: str = "") -> None:
        self._values = dict(values)
        self._asked: set[str] = set()
        self._tables: list[Options] = []
        self.name = name
        self.folder = folder

    def text(self, option: str, default: str | None = None) -> str | None:
        """The option as text that may be shown."""
        value = self._take(option, str, "text")
        return default if value is None else value

    def secret(self, option: str) -> Secret | None:
        """The option as a `Secret`: not shown in any repr or error."""
        value = self._take(option, str, "text")
        return None if value is None else Secret.of_text(value)

    def flag(self, option: str, default: bool = False) -> bool:
        """The option as true or false."""
        value = self._take(option, bool, "true or false")
        return default if value is None else bool(value)

    def number(self, option: str, default: float | None = None) -> float | None:
        """The option as a number."""
        value = self._take(option, (int, float), "a number")
        return default if value is None else value

    def table(self, option: str) -> Options:
        """The option as a table of options; empty where it is not given."""
        value = self._take(option, Mapping, "a table")
        table = Options(value or {}, name=f"{self.name}.{option}", folder=self.folder)
        self._tables.append(table)
        return table

    def known(self) -> list[str]:
        """The names asked for so far."""
        return sorted(self._asked)

    def unknown(self) -> list[tuple[Options, str]]:
        """What was given and never asked for, with the table it stands in."""
        own = [(self, name) for name in self._values if name not in self._asked]
        return own + [entry for table in self._tables for entry in table.unknown()]

    def _take(self, option: str, kind: Any, word: str) -> Any:
        self._asked.add(option)
        value = self._values.get(option)
        wrong_flag = isinstance(value, bool) and kind is not bool
        if value is not None and (wrong_flag or not isinstance(value, kind)):
            # The value itself is not quoted: it may be a secret in the wrong place.
            raise ConfigError(
                f"{self.name}.{option} is of the wrong type ({type(value).__name__})",
                remedy=f"give {word}",
            )
        return value

    def __reduce__(self) -> NoReturn:
        raise TypeError("options cannot be pickled or copied: they may hold secrets")

    def __repr__(self) -> str:
        return f"Options({self.name}: {', '.join(sorted(self._values))})"


class KeyDriver(ABC):
    """One key of one provider.

    The contract, which `kmsbridge.testing.DriverContract` checks:

    - `open` touches no network and imports no SDK; it raises `ConfigError` for a URI or option it
      cannot use.
    - Every other method may be called from many threads at once, on threads of the library's own unless
      `may_wait` is false. Each keeps within `timeout` seconds, retries nothing, and lets the provider's
      exception out as it is: the library asks `classify` what it means, on the thread of the call. A
      `ConfigError` of its own passes through unchanged. The library waits a tenth and 50 ms more than
      `timeout`, so that a driver's own timeout is what is told, and then gives up on the call.
    - After `fork` the child opens a new driver from the same URI and options; the parent's is not used.
    - `close` may be called twice.
    """

    scheme: ClassVar[str]
    """The URI scheme; also the name of the entry point."""
    capabilities: frozenset[Capability] = frozenset()
    """What every key of the class can do; `open` may set another on an object whose key differs."""
    max_plaintext: int
    """The largest payload of one `wrap`, in bytes; at least 64. As `capabilities`, per class or object."""
    reads_version: bool = False
    """True where `unwrap` goes by `wrapped.version`, and not by what the ciphertext or the service says alone.

    Per class or object. Elsewhere a wrapped key under another version's label is the same wrapped key.
    """
    development_only: ClassVar[bool] = False
    """True where the key does not live in a service: a profile with `production = true` refuses it."""
    may_wait: ClassVar[bool] = True
    """False where no method waits for anything but this machine's files: then it runs on the caller's thread.

    Exceptions of signal handlers arise inside such a driver, so it passes on what it did not cause: it catches
    no broad class, no `OSError` or `TimeoutError` without an `errno`, and `classify` gives None for them.
    """

    @classmethod
    @abstractmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """A driver for the key that `uri` names."""

    @property
    @abstractmethod
    def key_id(self) -> str:
        """The key's canonical, stable name: `scheme:name`, at most 1024 bytes. It goes into messages.

        It may cost a call where the URI names an alias; then it is remembered, and `resolve` is written.
        """

    def resolve(self, *, timeout: float) -> str:
        """`key_id`, within `timeout` seconds. To be written where it costs a call."""
        return self.key_id

    @abstractmethod
    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt up to `max_plaintext` bytes under the key's current version, bound to `context`."""

    @abstractmethod
    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """The plaintext of `wrapped`, whatever version of the key wrapped it."""

    @abstractmethod
    def describe(self, *, timeout: float) -> KeyDescription:
        """The key's state and current version."""

    @abstractmethod
    def classify(self, error: BaseException) -> ErrorKind | None:
        """What an exception from this driver means. Called with whatever a method let out; raises nothing.

        None, which is for drivers with `may_wait` false alone: the driver did not cause it, and it goes out to
        the caller unchanged.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and key material."""

    def error_details(self, error: BaseException) -> ErrorDetails:
        """The provider's code and request id for an exception from this driver."""
        return ErrorDetails()

    def unwrap_many(
        self, items: Sequence[tuple[WrappedKey, EncryptionContext]], *, timeout: float
    ) -> list[bytes | ErrorKind]:
        """Unwrap many at once, results in the order of `items`. Needs `BATCH_UNWRAP`."""
        raise NotImplementedError

    def rewraps_from(self, key_id: str) -> bool:
        """Whether `rewrap` takes what the key of this id wrapped. No call; by default, this key alone.

        Asked where `SERVER_REWRAP` is there, and for keys of the caller's `decrypt_with` only.
        """
        return key_id == self.key_id

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Have the service wrap anew, by this key's current version, what `wrapped` holds.

        `wrapped.key_id` may be another key's for which `rewraps_from` is true. Needs `SERVER_REWRAP`.
        """
        raise NotImplementedError

    def rotate(self, *, timeout: float) -> None:
        """Make a new version and use it from now on. Needs `ROTATE`."""
        raise NotImplementedError

    def policy(self, role: PolicyRole) -> str:
        """The least that `role` needs for this key, in the provider's own language for permissions.

        No call. The text ends with a line feed and can be handed to the provider's tools as it is.
        A `ConfigError` says what is missing, as where an alias does not tell the key's account.
        """
        raise NotImplementedError


_request = threading.local()


def report_request_id(request_id: str) -> None:
    """Called by a driver during a call: the provider's id for it, which the audit trail records."""
    _request.id = request_id


def take_request_id() -> str:
    """The id reported on this thread since the last call, and forget it."""
    request_id: str = getattr(_request, "id", "")
    _request.id = ""
    return request_id
