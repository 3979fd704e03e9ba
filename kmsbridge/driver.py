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
from collections.abc import Sequence
from typing import ClassVar, Final, Literal, NamedTuple, Self

from kmsbridge.context import EncryptionContext
from kmsbridge.keyuri import KeyURI
from kmsbridge.options import Options
from kmsbridge.secret import Secret

__all__ = [
    "ENTRY_POINT_GROUP",
    "INTERFACE",
    "Capability",
    "DriverError",
    "EncryptionContext",
    "ErrorDetails",
    "ErrorKind",
    "KeyDescription",
    "KeyDriver",
    "KeyState",
    "KeyURI",
    "Operation",
    "Options",
    "PolicyRole",
    "Secret",
    "WrappedKey",
    "report_request_id",
]

ENTRY_POINT_GROUP: Final = "kmsbridge.drivers"

INTERFACE: Final = 1
"""The version of this interface. It is raised where something changes that makes a driver fail."""

PolicyRole = Literal["encryptor", "decryptor", "rewrapper", "admin"]
"""Whom `KeyDriver.policy` is for: who wraps, who unwraps, who moves messages, who looks after the key."""

Operation = Literal["resolve", "wrap", "unwrap", "rewrap", "describe", "rotate"]
"""What the library asked of a driver. A batch is "wrap" or "unwrap"."""


class Capability(enum.Enum):
    """What a driver can do beyond wrapping and unwrapping one data key."""

    BINDS_CONTEXT = enum.auto()
    """The service authenticates the encryption context. Without it the library binds a hash."""
    BATCH_WRAP = enum.auto()
    """`wrap_many` wraps up to `batch_limit` payloads in one call."""
    BATCH_UNWRAP = enum.auto()
    """`unwrap_many` unwraps up to `batch_limit` wrapped keys in one call."""
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


class ErrorDetails(NamedTuple):
    """What a provider says of an error besides its kind; each part may be empty.

    `remedy` is the driver's own advice where it knows better than the library's general one. None of
    it may quote the provider's text: that can contain secrets.
    """

    code: str = ""
    request_id: str = ""
    remedy: str = ""


class DriverError(Exception):
    """For a driver to raise where it knows itself what went wrong. `classify` is not asked about it then.

    `code`, `remedy` and `request_id` are as in `ErrorDetails`; without a `request_id` the one holds that was
    last reported by `report_request_id` during the call. Raises `TypeError` if `kind` is no `ErrorKind`.
    A driver may derive classes of its own from it.
    """

    def __init__(self, kind: ErrorKind, *, code: str = "", remedy: str = "", request_id: str = "") -> None:
        if not isinstance(kind, ErrorKind):
            raise TypeError(f"the kind of a DriverError must be an ErrorKind, not {type(kind).__name__}")
        super().__init__(kind)
        self.kind = kind
        self.code = code
        self.remedy = remedy
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.kind.name} ({self.code})" if self.code else self.kind.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


class WrappedKey(NamedTuple):
    """An encrypted data key as the provider returned it: 1 to 16384 bytes of ciphertext.

    `key_id` is what `KeyDriver.resolve` returns. `version` is empty where the provider reports none.
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


class KeyDescription(NamedTuple):
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


class KeyDriver(ABC):
    """One key of one provider.

    The contract, which `kmsbridge.testing.DriverContract` checks:

    - `open` touches no network and imports no SDK. It raises `ConfigError` for a URI or option that it
      cannot use.
    - Every other method may be called from many threads at once, on threads of the library's own unless
      `may_wait` is false. Each keeps within `timeout` seconds and retries nothing. Where it fails it lets the
      provider's exception out as it is, and the library asks `classify` what it means, on the thread of the
      call; or it raises a `DriverError`. A `ConfigError` of its own passes through unchanged. The library
      waits a tenth and 50 ms more than `timeout`, so that a driver's own timeout is what is reported, and then
      gives up on the call.
    - After `fork` the child opens a new driver from the same URI and options. The parent's is not used there.
    - `close` may be called twice. The library calls nothing else afterwards.

    The library checks before a call that the key is not closed and that no payload is longer than
    `max_plaintext`, and after it that the answer names this key. A driver need not.
    """

    scheme: ClassVar[str]
    """The URI scheme; also the name of the entry point."""
    interface: ClassVar[int] = 1
    """The version of this interface that the driver was written for. A library that knows only older ones refuses it."""
    capabilities: frozenset[Capability] = frozenset()
    """What every key of the class can do; `open` may set another on an object whose key differs."""
    max_plaintext: int
    """The largest payload of one `wrap`, in bytes; at least 64. As `capabilities`, per class or object."""
    batch_limit: int = 1
    """The most items of one `wrap_many` or `unwrap_many`. Per class or object; needed with either capability."""
    reads_version: bool = False
    """True where `unwrap` goes by `wrapped.version`, and not by what the ciphertext or the service says alone.

    Per class or object. Elsewhere a wrapped key under another version's label is the same wrapped key.
    """
    may_wait: ClassVar[bool] = True
    """False where no method waits for anything but this machine's files: then it runs on the caller's thread.

    Exceptions of signal handlers arise inside such a driver, so it passes on what it did not cause: it catches
    no broad class, no `OSError` or `TimeoutError` without an `errno`, and `classify` gives None for them.
    """

    @classmethod
    @abstractmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """Return a driver for the key that `uri` names."""

    @abstractmethod
    def resolve(self, *, timeout: float) -> str:
        """Return the key's canonical, stable id: `scheme:name`, at most 1024 bytes. It goes into messages.

        It may cost a call where the URI names an alias. The library asks once for each driver and remembers
        the answer.
        """

    @abstractmethod
    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt up to `max_plaintext` bytes under the key's current version, bound to `context`."""

    @abstractmethod
    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """Return the plaintext of `wrapped`, whatever version of the key wrapped it."""

    @abstractmethod
    def describe(self, *, timeout: float) -> KeyDescription:
        """Return the key's state and current version."""

    @abstractmethod
    def classify(self, error: BaseException, operation: Operation) -> ErrorKind | None:
        """Return what an exception means that `operation` let out; it is never a `DriverError`. Raises nothing.

        None, which is for drivers with `may_wait` false alone: the driver did not cause it, and it goes out to
        the caller unchanged.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and key material."""

    def error_details(self, error: BaseException) -> ErrorDetails:
        """Return the provider's code and request id for an exception that `classify` was asked about."""
        return ErrorDetails()

    def wrap_many(
        self, items: Sequence[tuple[bytes, EncryptionContext]], *, timeout: float
    ) -> list[WrappedKey | ErrorKind]:
        """Wrap 1 to `batch_limit` payloads in one call. Needs `BATCH_WRAP`.

        Return the results in the order of `items`, an `ErrorKind` in the place of each that failed. Raise
        what made all of them fail.
        """
        raise NotImplementedError

    def unwrap_many(
        self, items: Sequence[tuple[WrappedKey, EncryptionContext]], *, timeout: float
    ) -> list[bytes | ErrorKind]:
        """Unwrap 1 to `batch_limit` wrapped keys in one call, with results as of `wrap_many`. Needs `BATCH_UNWRAP`."""
        raise NotImplementedError

    def rewraps_from(self, key_id: str) -> bool:
        """Return whether `rewrap` takes what the other key of this id wrapped. No call; by default, no other's.

        Asked where `SERVER_REWRAP` is there, and for keys of the caller's `decrypt_with` only. What this key
        wrapped itself is rewrapped without asking.
        """
        return False

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Have the service wrap anew, by this key's current version, what `wrapped` holds.

        `wrapped.key_id` may be another key's for which `rewraps_from` is true. Needs `SERVER_REWRAP`.
        """
        raise NotImplementedError

    def rotate(self, *, timeout: float) -> None:
        """Make a new version and use it from now on. Needs `ROTATE`."""
        raise NotImplementedError

    def policy(self, role: PolicyRole) -> str:
        """Return the least that `role` needs for this key, in the provider's own language for permissions.

        No call. The text ends with a line feed and can be handed to the provider's tools as it is.
        A `ConfigError` says what is missing, as where an alias does not tell the key's account.
        """
        raise NotImplementedError

    def forgeries(self) -> Sequence[WrappedKey]:
        """Return wrapped keys of this key in the provider's form that nobody wrapped: all are refused. No call.

        `kmsbridge doctor` unwraps the first of them to see whether the caller may unwrap at all. Without any
        it sends random bytes, which is enough where the provider's form is nothing else.
        """
        return ()

    def development_settings(self) -> Sequence[str]:
        """Return what of this key's configuration is not for production, in words. No call.

        A profile with `production = true` refuses a key with any. Each text is a short clause without a
        secret, such as "the key is in a file".
        """
        return ()


_request = threading.local()


def report_request_id(request_id: str) -> None:
    """Called by a driver during a call: the provider's id for it, which the audit trail records."""
    _request.id = request_id


def take_request_id() -> str:
    """The id reported on this thread since the last call, and forget it."""
    request_id: str = getattr(_request, "id", "")
    _request.id = ""
    return request_id
