"""The `gcp-kms` driver: `gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K`."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from kmsbridge.driver import (
    Capability,
    DriverError,
    EncryptionContext,
    ErrorDetails,
    ErrorKind,
    KeyDescription,
    KeyDriver,
    KeyURI,
    Operation,
    Options,
    PolicyRole,
    WrappedKey,
    report_request_id,
)
from kmsbridge_gcp import failures, settings
from kmsbridge_gcp.asymmetric import AsymmetricKey
from kmsbridge_gcp.naming import key_name
from kmsbridge_gcp.policies import policy
from kmsbridge_gcp.settings import Access, Asymmetric
from kmsbridge_gcp.symmetric import SymmetricKey

if TYPE_CHECKING:
    from google.cloud.kms_v1 import KeyManagementServiceClient

    from kmsbridge_gcp.client import Client

_LIMIT: Final = 4096
_SMALLEST: Final = 190
"""The most bytes that an RSA key of 2048 bits wraps, the smallest size in Cloud KMS. Used until the size is known."""
_SYMMETRIC: Final = frozenset({Capability.BINDS_CONTEXT, Capability.REPORTS_VERSION, Capability.ROTATE})
_LEAST: Final = 0.001
# The first bytes of a symmetric key's ciphertext, and about how many follow if it contains a data key.
_CIPHERTEXT: Final = b"\n$\0", 110
_OAEP: Final = b"\0", 255


class GcpKmsDriver(KeyDriver):
    """A key of Cloud KMS. Its id is `gcp-kms:` and the key's name, without a version.

    A program that makes its own clients sets `make_client` on the class. A driver calls it with the key's name when
    it first needs a client, and ignores the options for the endpoint and the credentials.
    """

    scheme: ClassVar[str] = "gcp-kms"
    capabilities: frozenset[Capability] = _SYMMETRIC
    # The limit of AWS KMS, so that a payload fits both. Cloud KMS limits HSM keys to 8192 bytes with the context.
    max_plaintext: int = _LIMIT
    make_client: ClassVar[Callable[[str], KeyManagementServiceClient] | None] = None

    def __init__(self, name: str, access: Access, asymmetric: Asymmetric | None) -> None:
        self._name, self._access, self._asymmetric = name, access, asymmetric
        self._key_id = f"{self.scheme}:{name}"
        self._key: SymmetricKey | AsymmetricKey = SymmetricKey(name, self._call)
        if asymmetric is not None:
            self._key = AsymmetricKey(name, asymmetric, self._call)
            pinned = asymmetric.public_key
            self.capabilities = frozenset({Capability.REPORTS_VERSION})
            self.reads_version = True  # Cloud KMS does not find the version by itself
            self.max_plaintext = _SMALLEST
            if pinned is not None:
                self.capabilities |= {Capability.LOCAL_WRAP}
                self.max_plaintext = pinned.max_plaintext
        self._lock = threading.Lock()
        self._connection: Client | _Injected | None = None
        self._last = threading.local()

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """Return a driver. Raises `ConfigError`; reads no file and connects to nothing."""
        name, version = key_name(uri)
        return cls(name, settings.access(options), settings.asymmetric(options, version))

    def resolve(self, *, timeout: float) -> str:
        """Return `gcp-kms:projects/P/locations/L/keyRings/R/cryptoKeys/K`, without a call."""
        return self._key_id

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt under the primary version, or with the public key of an asymmetric key."""
        version, ciphertext = self._key.wrap(plaintext, context, timeout)
        return WrappedKey(self._key_id, version, ciphertext)

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """Decrypt; Cloud KMS finds the version of a symmetric key by itself."""
        try:
            return self._key.unwrap(wrapped.version, wrapped.ciphertext, context, timeout)
        except Exception as error:
            if not failures.is_refused_ciphertext(error):
                raise
        # Raised outside the except block: Google's text must not become its cause.
        raise DriverError(ErrorKind.NOT_AUTHENTIC, code="INVALID_ARGUMENT")

    def describe(self, *, timeout: float) -> KeyDescription:
        """Describe by two calls: what the caller may do, then the state, UNKNOWN if the caller may not read it."""
        return self._key.describe(self._key_id, timeout)

    def rotate(self, *, timeout: float) -> None:
        """Make a new version and make it the primary one, by two calls."""
        if not isinstance(self._key, SymmetricKey):
            raise NotImplementedError
        self._key.rotate(timeout)

    def policy(self, role: PolicyRole) -> str:
        """Return an IAM policy of the key, in the format of `gcloud kms keys set-iam-policy`."""
        asymmetric = self._asymmetric
        pinned = asymmetric is not None and asymmetric.public_key is not None
        return policy(self._name, role, asymmetric=asymmetric is not None, pinned=pinned)

    def forgeries(self) -> Sequence[WrappedKey]:
        """Return random bytes in a form that Cloud KMS tries to decrypt."""
        version = self._asymmetric.version if self._asymmetric else ""
        start, length = _OAEP if self._asymmetric else _CIPHERTEXT
        return (WrappedKey(self._key_id, version, start + os.urandom(length)),)

    def development_settings(self) -> Sequence[str]:
        """Return the options that are for emulators, and an endpoint on this machine."""
        return settings.for_development(self._access)

    def classify(self, error: BaseException, operation: Operation) -> ErrorKind:
        """Return the kind, from the gRPC status code or the type of google-auth's error."""
        return failures.kind_of(error)

    def error_details(self, error: BaseException) -> ErrorDetails:
        """Return the name of the status code, a remedy, and the id of this thread's last request."""
        return failures.details_of(error, getattr(self._last, "reason", ""))

    def close(self) -> None:
        """Close the connection when the calls in progress are done."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __repr__(self) -> str:
        return f"GcpKmsDriver({self._key_id!r})"

    def _call(self, method: str, request: Any, timeout: float) -> Any:
        """Send one request, with an id that Cloud Audit Logs record as the reason of the request."""
        deadline = time.monotonic() + timeout
        self._last.reason = reason = secrets.token_hex(16)
        report_request_id(reason)
        connection = self._connected()
        return connection.call(method, request, max(deadline - time.monotonic(), _LEAST), reason)

    def _connected(self) -> Client | _Injected:
        with self._lock:
            if self._connection is None:
                from kmsbridge_gcp.client import Client

                make = type(self).make_client
                self._connection = Client(self._access) if make is None else _Injected(make(self._name))
            return self._connection


class _Injected:
    """A client that the program made with `make_client`, and that the program closes."""

    def __init__(self, client: KeyManagementServiceClient) -> None:
        self._client = client

    def call(self, method: str, request: Any, timeout: float, reason: str) -> Any:
        from kmsbridge_gcp.client import forks

        metadata = [("x-goog-request-reason", reason)]
        with forks.call():
            return getattr(self._client, method)(
                request=request, retry=None, timeout=timeout, metadata=metadata
            )

    def close(self) -> None:
        """Do nothing: the program closes its own client."""
