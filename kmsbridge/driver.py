"""The interface that a driver implements: one class that talks to one key service.

A driver is small and synchronous. It does not cache, retry, log or audit, and it does not know the
message format. It translates the library's calls into calls of its provider, and the provider's errors
into an `ErrorKind`; the library does everything else. The contract suite in `kmsbridge.testing` checks
that a driver keeps to this interface.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar, Final, Literal, NamedTuple, Self

from kmsbridge.context import EncryptionContext
from kmsbridge.drivererrors import DriverError, ErrorDetails, ErrorKind
from kmsbridge.keyuri import KeyURI
from kmsbridge.options import Options
from kmsbridge.reports import Operation, OtherCall, report_call, report_request_id
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
    "OtherCall",
    "PolicyRole",
    "Secret",
    "WrappedKey",
    "report_call",
    "report_request_id",
]

ENTRY_POINT_GROUP: Final = "kmsbridge.drivers"

INTERFACE: Final = 1
"""The version of this interface. It is raised when a change would make existing drivers fail."""

PolicyRole = Literal["encryptor", "decryptor", "rewrapper", "admin"]
"""The caller that `KeyDriver.policy` writes permissions for.

An encryptor wraps, a decryptor unwraps, a rewrapper moves messages to another key or version, and an admin
manages the key.
"""


class Capability(enum.Enum):
    """What a driver can do beyond wrapping and unwrapping one data key."""

    BINDS_CONTEXT = enum.auto()
    """The service authenticates the encryption context. Without this, the library binds a hash of it."""
    BATCH_WRAP = enum.auto()
    """`wrap_many` wraps up to `batch_limit` payloads in one call."""
    BATCH_UNWRAP = enum.auto()
    """`unwrap_many` unwraps up to `batch_limit` wrapped keys in one call."""
    SERVER_REWRAP = enum.auto()
    """The service itself rewraps, so that the data key does not reach this process. See `rewraps_from`."""
    REPORTS_VERSION = enum.auto()
    """`WrappedKey.version` and `KeyDescription.version` say which version of the key was used."""
    LOCAL_WRAP = enum.auto()
    """`wrap` needs no network: it uses a public key from the configuration or a file."""
    ROTATE = enum.auto()
    """`rotate` makes a new version of the key."""
    CHECKS_VERSION = enum.auto()
    """`is_current` asks the service whether the key's current version made a wrapped key."""


class WrappedKey(NamedTuple):
    """An encrypted data key.

    `ciphertext` is what the provider returned, 1 to 16384 bytes. `key_id` is what `KeyDriver.resolve` returns.
    `version` is the version of the key that wrapped it, at most 255 bytes; empty if the provider reports none. That
    of a wrapped key out of a message is a label, which whoever can write to the storage can change.
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
    """A key's state, version and permissions, as the provider reports them.

    `version` is the one that a wrap would use now. `rotation` is a text for people, such as "every 90 days".
    `may_wrap` and `may_unwrap` say what this caller is allowed to do; None means that the driver cannot find out
    without trying.
    """

    key_id: str
    state: KeyState
    version: str = ""
    rotation: str = ""
    may_wrap: bool | None = None
    may_unwrap: bool | None = None


class KeyDriver(ABC):
    """One key of one provider.

    `kmsbridge.testing.DriverContract` checks these rules:

    - `open` uses no network and imports no SDK. It raises `ConfigError` for a URI or option that it cannot
      use.
    - All other methods may be called from many threads at once. They run on the library's own threads unless
      `may_wait` is false.
    - A method with a `timeout` ends within that many seconds and does not retry. The library waits 10 % and
      50 ms longer, so that the driver's own timeout is the one reported, and then gives up on the call.
    - A method that fails raises the provider's exception unchanged, which the library passes to `classify` on
      the same thread; or it raises a `DriverError`. A `ConfigError` that it raises reaches the user unchanged.
    - After a fork, the child process opens a new driver from the same URI and options. It does not use the
      parent's.
    - `close` may be called twice. The library calls no other method after it.

    A driver need not check that it is open, that a payload is at most `max_plaintext` bytes long, or that an
    answer names its key: the library does.
    """

    scheme: ClassVar[str]
    """The URI scheme; also the name of the entry point."""
    interface: ClassVar[int] = 1
    """The version of this interface that the driver was written for. The library refuses a newer one than it knows."""
    capabilities: frozenset[Capability] = frozenset()
    """The capabilities of the driver. `open` may set another value on an object whose key differs."""
    max_plaintext: int
    """The largest payload of one `wrap`, in bytes; at least 64. `open` may set another value on an object."""
    batch_limit: int = 1
    """The most items in one `wrap_many` or `unwrap_many`; more than 1 if the driver has `BATCH_WRAP` or
    `BATCH_UNWRAP`. `open` may set another value on an object."""
    reads_version: bool = False
    """Whether `unwrap` uses `wrapped.version`. `open` may set another value on an object.

    If false, the ciphertext or the service alone determines the version, and a wrapped key with a wrong
    `version` unwraps all the same.
    """
    wrap_tells_id: bool = False
    """Whether `wrap` may be called before `resolve`: its answer names the key. The library then asks for no id before
    the first wrap. `open` may set another value on an object."""
    rewraps_context: bool = False
    """Whether `rewrap` can bind to another context. `open` may set another value on an object."""
    environment: str = ""
    """The value of the pair `kmsbridge-environment` that every context has, for `policy`; empty where a context need
    not have the pair. The library sets it on an object before it calls `policy`."""
    purposes: tuple[str, ...] = ("dek", "direct", "probe")
    """The values that the pair `kmsbridge` has in contexts, for `policy`. Another driver that uses this one may set
    others."""
    post_quantum: bool = False
    """With `LOCAL_WRAP`: whether the public key resists quantum computers. A profile does not mix such keys in
    `encrypt_to` with others unless it is told to. `open` may set another value on an object.
    """
    may_wait: bool = True
    """Whether a method may wait for anything other than files of this machine. If false, methods run on the
    caller's thread. `open` may set another value on an object.

    Signal handlers may then raise exceptions inside the driver, which must let them pass: it does not catch
    broad classes such as `Exception`, nor an `OSError` or `TimeoutError` without an `errno`, and its `classify`
    returns None for them.
    """

    @classmethod
    @abstractmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """Return a driver for the key that `uri` names. Raises `ConfigError`.

        It asks `options` for every option that the driver knows: the library refuses any other as misspelt.
        """

    @abstractmethod
    def resolve(self, *, timeout: float) -> str:
        """Return the key's canonical, stable id, `scheme:name`, at most 1024 bytes. Messages contain it.

        This may call the service if the URI names an alias. The library calls it once for each driver object and
        remembers the result.
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
        """Return the kind of an exception that `operation` raised. Raises nothing itself.

        `error` is never a `DriverError`. A driver whose `may_wait` is false, and no other, returns None for an
        exception that it did not cause; that exception then reaches the caller unchanged.
        """

    @abstractmethod
    def close(self) -> None:
        """Close connections and drop key material. May be called twice."""

    def error_details(self, error: BaseException) -> ErrorDetails:
        """Return the provider's code and request id, and a remedy, for an exception passed to `classify` before.

        It is called on the same thread. The default returns empty details.
        """
        return ErrorDetails()

    def wrap_many(
        self, items: Sequence[tuple[bytes, EncryptionContext]], *, timeout: float
    ) -> list[WrappedKey | ErrorKind]:
        """Wrap 1 to `batch_limit` payloads in one call. Needs the capability `BATCH_WRAP`.

        Return one result for each item, in the same order; the result of an item that failed is an `ErrorKind`.
        Raise an exception, as `wrap` does, if the whole call fails.
        """
        raise NotImplementedError

    def unwrap_many(
        self, items: Sequence[tuple[WrappedKey, EncryptionContext]], *, timeout: float
    ) -> list[bytes | ErrorKind]:
        """Unwrap 1 to `batch_limit` wrapped keys in one call. Needs the capability `BATCH_UNWRAP`.

        Results and exceptions are as for `wrap_many`.
        """
        raise NotImplementedError

    def version_of(self, ciphertext: bytes) -> str | None:
        """Return the version of the key that made `ciphertext`, where its bytes tell. Makes no call.

        `ciphertext` may come from anybody. Return None where the bytes do not tell the version, or are not a
        ciphertext of this service. The library prefers this version to the one that a message names beside the
        wrapped key, which anybody can change. The default returns None.
        """
        return None

    def has_former_id(self, key_id: str) -> bool:
        """Return whether a message that names this other id may be of this key. Makes no call.

        For ids that the key had before, in an earlier version of the driver or another configuration. The library
        asks for ids that no key of the profile has now. If the message is another key's after all, `unwrap` says
        so. The default returns False.
        """
        return False

    def rewraps_from(self, key_id: str) -> bool:
        """Return whether `rewrap` accepts wrapped keys of the other key with this id. Makes no call.

        The library calls this only on a driver with `SERVER_REWRAP`, and only for keys in the caller's
        `decrypt_with`. It does not ask about the driver's own key, whose wrapped keys `rewrap` always accepts.
        The default returns False.
        """
        return False

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Have the service decrypt `wrapped` and wrap the same payload under this key's current version.

        `wrapped.key_id` may also name another key for which `rewraps_from` returns True. Needs the capability
        `SERVER_REWRAP`. The context stays the same; a driver whose `rewraps_context` is true takes a third argument,
        the context to bind the payload to instead.
        """
        raise NotImplementedError

    def is_current(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bool | None:
        """Return whether the key's current version made `wrapped`, as the service tells from the ciphertext itself.

        `wrapped.version` comes from a message and is not looked at. None if the service does not tell it of this key.
        Raises an exception, as `unwrap` does, for a wrapped key that is not authentic. Needs the capability
        `CHECKS_VERSION`.
        """
        raise NotImplementedError

    def rotate(self, *, timeout: float) -> None:
        """Make a new version of the key, which `wrap` uses from then on. Needs the capability `ROTATE`."""
        raise NotImplementedError

    def sign_in(self, ask: Callable[[str], str]) -> None:  # noqa: B027 - most drivers need nobody
        """Get credentials that take a person, such as for a one-time code; keep them for this process.

        The command line calls this in the foreground, on a terminal, on an object that it then closes, and before it
        opens any other; programs never do. `ask` shows a prompt and returns what was typed, which is not shown. There
        is no timeout. Raises the provider's exception, or a `DriverError`. The default does nothing.
        """

    def policy(self, role: PolicyRole) -> str:
        """Return the least permissions that `role` needs for this key, in the provider's policy language.

        Makes no call. The text ends with a line feed, and the provider's tools accept it unchanged. Raises
        `ConfigError` if the configuration does not contain what the policy needs, for example the account of an
        aliased key.
        """
        raise NotImplementedError

    def forgeries(self) -> Sequence[WrappedKey]:
        """Return invented wrapped keys of this key, in the provider's format, which the service refuses.

        Makes no call. `kmsbridge doctor` unwraps the first one to find out whether the caller may unwrap at all.
        By default there are none, and it sends random bytes: enough for a service whose ciphertexts have no
        recognisable format.
        """
        return ()

    def endpoint(self) -> tuple[str, str] | None:
        """Return the address of the key's service that is used, and where it came from, for people. Makes no call.

        `kmsbridge config explain` shows both. Neither contains a secret, nor the password of a URL. The default
        returns None: there is no address, or the configuration shows it.
        """
        return None

    def development_settings(self) -> Sequence[str]:
        """Return the settings of this key that are not fit for production, as texts. Makes no call.

        A profile with `production = true` refuses a key that has any, and its error lists the texts. Each is a
        short clause without a secret, such as "the key is in a file". The default returns none.
        """
        return ()
