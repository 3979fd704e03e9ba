"""The `fake` driver: keys in this process's memory, with every capability and with faults on demand."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Self

from kmsbridge.context import EMPTY
from kmsbridge.driver import (
    Capability,
    EncryptionContext,
    ErrorKind,
    KeyDescription,
    KeyDriver,
    KeyURI,
    Options,
    PolicyRole,
    Secret,
    WrappedKey,
    report_request_id,
)
from kmsbridge.errors import ConfigError
from kmsbridge.testing.fakes.service import (
    ALLOWED,
    BATCH_LIMIT,
    MAX_PLAINTEXT,
    Caller,
    FakeError,
    FakeService,
    Operation,
)

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
_NEEDS: Final[dict[PolicyRole, tuple[Operation, ...]]] = {
    "encryptor": ("wrap", "wrap_many", "describe"),
    "decryptor": ("unwrap", "unwrap_many", "describe"),
    "rewrapper": ("rewrap", "describe"),
    "admin": ("describe", "rotate"),
}


class FakeDriver(KeyDriver):
    """The driver for `fake:NAME`, a key that a test makes with `FakeDriver.service.create(NAME)`.

    Options: `role`, what the caller may do ("both", which is the default, "encrypt-only" or "decrypt-only"); and
    `token`, a credential that `FakeDriver.service.expire` makes invalid. It has every capability except
    `LOCAL_WRAP` and `CHECKS_VERSION`.
    """

    scheme: ClassVar[str] = "fake"
    capabilities: frozenset[Capability] = frozenset(Capability) - {
        Capability.LOCAL_WRAP,
        Capability.CHECKS_VERSION,
    }
    max_plaintext: int = MAX_PLAINTEXT
    batch_limit: int = BATCH_LIMIT
    service: ClassVar[FakeService] = FakeService()
    """The service that holds the keys; one for the whole process, because every driver must find them."""

    def __init__(self, name: str, caller: Caller) -> None:
        self.name = name
        self._caller = caller

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """Return a driver. Raises `ConfigError`; a key that does not exist fails at the first call."""
        return cls(checked_name(uri), caller_of(options))

    @property
    def key_id(self) -> str:
        """The key's id, `fake:NAME`."""
        return f"{self.scheme}:{self.name}"

    def resolve(self, *, timeout: float) -> str:
        """Return `fake:NAME`, without a call."""
        return self.key_id

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt under the current version."""
        return self._wrapped(self.call("wrap", (plaintext, self.bound(context)), timeout))

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """Decrypt under the version that the ciphertext names."""
        plaintext: bytes = self.call("unwrap", (wrapped.ciphertext, self.bound(context)), timeout)
        return plaintext

    def wrap_many(
        self, items: Sequence[tuple[bytes, EncryptionContext]], *, timeout: float
    ) -> list[WrappedKey | ErrorKind]:
        """Wrap all items in one call of the service."""
        answers = self.call(
            "wrap_many", [(plaintext, self.bound(context)) for plaintext, context in items], timeout
        )
        return [answer if isinstance(answer, ErrorKind) else self._wrapped(answer) for answer in answers]

    def unwrap_many(
        self, items: Sequence[tuple[WrappedKey, EncryptionContext]], *, timeout: float
    ) -> list[bytes | ErrorKind]:
        """Unwrap all items in one call of the service."""
        batch = [(wrapped.ciphertext, self.bound(context)) for wrapped, context in items]
        results: list[bytes | ErrorKind] = self.call("unwrap_many", batch, timeout)
        return results

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Wrap the same payload under this key's current version; the caller needs rights on both keys."""
        _, _, source = wrapped.key_id.partition(":")
        return self._wrapped(self.call("rewrap", (source, wrapped.ciphertext, self.bound(context)), timeout))

    def describe(self, *, timeout: float) -> KeyDescription:
        """Return the state, the version, and what the caller's role allows."""
        state, version = self.call("describe", None, timeout)
        allowed = ALLOWED[self._caller.role]
        return KeyDescription(
            self.key_id,
            state,
            version,
            rotation="by hand",
            may_wrap="wrap" in allowed,
            may_unwrap="unwrap" in allowed,
        )

    def rotate(self, *, timeout: float) -> None:
        """Make a new version."""
        self.call("rotate", None, timeout)

    def policy(self, role: PolicyRole) -> str:
        """Return a line for each operation that the role needs."""
        return "".join(f"allow {operation} on {self.name}\n" for operation in _NEEDS[role])

    def forgeries(self) -> Sequence[WrappedKey]:
        """Return random bytes that claim to be of the first version."""
        return (WrappedKey(self.key_id, "1", b"\x011" + os.urandom(80)),)

    def development_settings(self) -> Sequence[str]:
        """Return that the key is a fake, which protects nothing."""
        return ("the key is a fake, for tests",)

    def classify(self, error: BaseException, operation: str) -> ErrorKind:
        """Return INVALID_REQUEST: the service's own errors are a `DriverError`, so any other is a mistake here."""
        return ErrorKind.INVALID_REQUEST

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def call(self, operation: Operation, arguments: Any, timeout: float) -> Any:
        """Call the service and return its answer. Raises `FakeError`."""
        request_id = self.service.next_request()
        report_request_id(request_id)
        try:
            return self.service.perform(self.name, operation, self._caller, arguments, timeout=timeout)
        except FakeError as error:
            error.request_id = request_id
            raise

    def bound(self, context: EncryptionContext) -> bytes:
        """Return the bytes of a context that the service binds."""
        return context.canonical()

    def _wrapped(self, answer: tuple[str, bytes]) -> WrappedKey:
        return WrappedKey(self.key_id, *answer)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class UnboundFakeDriver(FakeDriver):
    """The driver for `fake-unbound:NAME`: the same service, without `BINDS_CONTEXT`, so that the library binds it."""

    scheme: ClassVar[str] = "fake-unbound"
    capabilities: frozenset[Capability] = FakeDriver.capabilities - {Capability.BINDS_CONTEXT}

    def bound(self, context: EncryptionContext) -> bytes:
        """Return an empty context's bytes, whatever the context is."""
        return EMPTY.canonical()


def checked_name(uri: KeyURI) -> str:
    """Return the key's name in `uri`. Raises `ConfigError`."""
    uri.parameters()
    if uri.fragment or not _NAME.fullmatch(uri.path):
        raise ConfigError(
            f"a {uri.scheme} URI has no valid key name",
            remedy=f"write {uri.scheme}:NAME; NAME is 1 to 128 of A-Z a-z 0-9 _ -, beginning with a letter or digit",
        )
    return uri.path


def caller_of(options: Options) -> Caller:
    """Return the role and credential in a key's options. Raises `ConfigError`."""
    role = options.text("role", "both")
    if role not in ALLOWED:
        raise ConfigError(f"{options.name}.role is unknown", remedy=f"give one of {', '.join(ALLOWED)}")
    return Caller(role, options.secret("token") or Secret(b""))  # type: ignore[arg-type]
