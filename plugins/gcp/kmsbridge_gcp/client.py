"""The client of one driver: made when it is first needed, and anew after a failure of the network."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import grpc
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.kms_v1 import KeyManagementServiceClient
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport
from google.cloud.kms_v1.types import resources, service
from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]

from kmsbridge.errors import ClosedError, ConfigError
from kmsbridge_gcp.credentials import Caller
from kmsbridge_gcp.forks import amid_call
from kmsbridge_gcp.settings import Access

_LEAST: Final = 0.001
_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    # Connections of its own: another channel's failures would have it wait before it connects.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.primary_user_agent", "kmsbridge-gcp"),
)
_ANSWERS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
"""Codes that only a service which was reached gives; after any other the channel is not used again."""


def _unlogged(method: str, request: Any, response: Any) -> cached_property[Any]:
    return cached_property(
        lambda transport: transport.grpc_channel.unary_unary(
            f"/google.cloud.kms.v1.KeyManagementService/{method}",
            request_serializer=request.serialize,
            response_deserializer=response.deserialize,
        )
    )


class _Transport(KeyManagementServiceGrpcTransport):
    """Without google-cloud-kms's debug log, which shows what is encrypted and the caller's token."""

    encrypt = _unlogged("Encrypt", service.EncryptRequest, service.EncryptResponse)
    decrypt = _unlogged("Decrypt", service.DecryptRequest, service.DecryptResponse)
    asymmetric_decrypt = _unlogged(
        "AsymmetricDecrypt", service.AsymmetricDecryptRequest, service.AsymmetricDecryptResponse
    )
    get_public_key = _unlogged("GetPublicKey", service.GetPublicKeyRequest, resources.PublicKey)
    get_crypto_key = _unlogged("GetCryptoKey", service.GetCryptoKeyRequest, resources.CryptoKey)
    get_crypto_key_version = _unlogged(
        "GetCryptoKeyVersion", service.GetCryptoKeyVersionRequest, resources.CryptoKeyVersion
    )
    create_crypto_key_version = _unlogged(
        "CreateCryptoKeyVersion", service.CreateCryptoKeyVersionRequest, resources.CryptoKeyVersion
    )
    update_crypto_key_primary_version = _unlogged(
        "UpdateCryptoKeyPrimaryVersion", service.UpdateCryptoKeyPrimaryVersionRequest, resources.CryptoKey
    )
    test_iam_permissions = cached_property(
        lambda transport: transport.grpc_channel.unary_unary(
            "/google.iam.v1.IAMPolicy/TestIamPermissions",
            request_serializer=iam_policy_pb2.TestIamPermissionsRequest.SerializeToString,
            response_deserializer=iam_policy_pb2.TestIamPermissionsResponse.FromString,
        )
    )


class _Channel:
    """A channel, its client, and how many calls use it; closed when it is given up and the last is done."""

    def __init__(self, access: Access) -> None:
        self._channel = _open(access)
        self.client = KeyManagementServiceClient(transport=_Transport(channel=self._channel))
        self.users = 0
        self.given_up = False

    def close_if_done(self) -> None:
        if self.given_up and not self.users:
            self._channel.close()


class Client:
    """Makes calls, one request each. Safe for threads."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._caller = Caller(access)
        self._lock = threading.Lock()
        self._current: _Channel | None = None
        self._closed = False

    def call(self, method: str, request: Any, timeout: float, reason: str) -> Any:
        """What Cloud KMS answers. Raises google-api-core's errors, or `Caller.metadata`'s."""
        deadline = time.monotonic() + timeout
        metadata = [("x-goog-request-reason", reason), *self._caller.metadata(timeout)]
        with amid_call(), self._lent() as client:
            left = max(deadline - time.monotonic(), _LEAST)
            return getattr(client, method)(request=request, retry=None, timeout=left, metadata=metadata)

    def close(self) -> None:
        """Refuse further calls; those under way end."""
        with amid_call(), self._lock:
            self._closed = True
            channel, self._current = self._current, None
            self._give_up(channel)

    @contextlib.contextmanager
    def _lent(self) -> Iterator[Any]:
        with self._lock:
            if self._closed:
                raise ClosedError("the connection to Cloud KMS is closed", remedy="open a new driver")
            channel = self._current = self._current or _Channel(self._access)
            channel.users += 1
        try:
            yield channel.client
        except BaseException as error:
            self._consider(channel, error)
            raise
        finally:
            with self._lock:
                channel.users -= 1
                channel.close_if_done()

    def _consider(self, channel: _Channel, error: BaseException) -> None:
        """After a failure of the network the next call connects anew: gRPC itself would have it wait."""
        if isinstance(error, GoogleAPICallError) and error.grpc_status_code in _ANSWERS:
            return
        with self._lock:
            if self._current is channel:
                self._current = None
            self._give_up(channel)

    @staticmethod
    def _give_up(channel: _Channel | None) -> None:
        if channel is not None:
            channel.given_up = True
            channel.close_if_done()


def _open(access: Access) -> grpc.Channel:
    if access.insecure:
        return grpc.insecure_channel(access.endpoint, [*_OPTIONS, ("grpc.enable_http_proxy", 0)])
    roots = None
    if access.ca_file:
        try:
            roots = Path(access.ca_file).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"the ca_file {access.ca_file} cannot be read ({error.strerror})",
                remedy="give a file of PEM certificates",
            ) from None
    return grpc.secure_channel(access.endpoint, grpc.ssl_channel_credentials(roots), _OPTIONS)
