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
"""Bytes that the smallest RSA key of Cloud KMS, 2048 bits, wraps: which one this is, is not known yet."""
_SYMMETRIC: Final = frozenset({Capability.BINDS_CONTEXT, Capability.REPORTS_VERSION, Capability.ROTATE})
_LEAST: Final = 0.001
# What a ciphertext of a symmetric key begins with, and about as many bytes as follow for a data key.
_CIPHERTEXT: Final = b"\n$\0", 110
_OAEP: Final = b"\0", 255


class GcpKmsDriver(KeyDriver):
    """A key of Cloud KMS. Its id is `gcp-kms:` and the key's name, without a version.

    A program that makes its own clients sets `make_client`, which is called with the key's name when a
    driver first needs one; options that say where and as whom to call are not used then.
    """

    scheme: ClassVar[str] = "gcp-kms"
    capabilities: frozenset[Capability] = _SYMMETRIC
    # As AWS KMS, so that what fits one fits the other; an HSM key takes 8192 with the context.
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
            self.reads_version = True  # for Cloud KMS does not find it by itself
            self.max_plaintext = _SMALLEST
            if pinned is not None:
                self.capabilities |= {Capability.LOCAL_WRAP}
                self.max_plaintext = pinned.max_plaintext
        self._lock = threading.Lock()
        self._connection: Client | _Injected | None = None
        self._last = threading.local()

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """Reads no file and connects to nothing."""
        name, version = key_name(uri)
        return cls(name, settings.access(options), settings.asymmetric(options, version))

    def resolve(self, *, timeout: float) -> str:
        """`gcp-kms:projects/P/locations/L/keyRings/R/cryptoKeys/K`, without a call."""
        return self._key_id

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt under the primary version; with an asymmetric key, by its public key."""
        version, ciphertext = self._key.wrap(plaintext, context, timeout)
        return WrappedKey(self._key_id, version, ciphertext)

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """Decrypt; Cloud KMS finds the version of a symmetric key by itself."""
        try:
            return self._key.unwrap(wrapped.version, wrapped.ciphertext, context, timeout)
        except Exception as error:
            if not failures.is_refused_ciphertext(error):
                raise
        # Raised here, for its cause would be Google's text.
        raise DriverError(ErrorKind.NOT_AUTHENTIC, code="INVALID_ARGUMENT")

    def describe(self, *, timeout: float) -> KeyDescription:
        """Two calls: what the caller may do, then the state, which is UNKNOWN to who may not ask for it."""
        return self._key.describe(self._key_id, timeout)

    def rotate(self, *, timeout: float) -> None:
        """Make a version and have it be the primary one: two calls."""
        if not isinstance(self._key, SymmetricKey):
            raise NotImplementedError
        self._key.rotate(timeout)

    def policy(self, role: PolicyRole) -> str:
        """The IAM policy of the key, as `gcloud kms keys set-iam-policy` takes it."""
        asymmetric = self._asymmetric
        pinned = asymmetric is not None and asymmetric.public_key is not None
        return policy(self._name, role, asymmetric=asymmetric is not None, pinned=pinned)

    def forgeries(self) -> Sequence[WrappedKey]:
        """One of a form that Cloud KMS does not refuse at sight."""
        version = self._asymmetric.version if self._asymmetric else ""
        start, length = _OAEP if self._asymmetric else _CIPHERTEXT
        return (WrappedKey(self._key_id, version, start + os.urandom(length)),)

    def development_settings(self) -> Sequence[str]:
        """What is for emulators."""
        return settings.for_development(self._access)

    def classify(self, error: BaseException, operation: Operation) -> ErrorKind:
        """From the gRPC status code, and the type of google-auth's errors."""
        return failures.kind_of(error)

    def error_details(self, error: BaseException) -> ErrorDetails:
        """The name of the status code; the request id is the one that this thread's last call was sent with."""
        return failures.details_of(error, getattr(self._last, "reason", ""))

    def close(self) -> None:
        """Let go of the connection when the calls under way are done."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __repr__(self) -> str:
        return f"GcpKmsDriver({self._key_id!r})"

    def _call(self, method: str, request: Any, timeout: float) -> Any:
        """One request, under an id that Cloud Audit Logs show as the reason of the request."""
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
    """A client that the program made, and that it closes itself."""

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
        """Leave it to who made it."""
