"""gRPC for google-cloud-kms: a channel made from the options, and methods that log nothing."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Final

import grpc
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport
from google.cloud.kms_v1.types import resources, service
from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]

from kmsbridge.errors import ConfigError
from kmsbridge_gcp.settings import Access

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    # A shared connection would make this channel wait after another channel's failures.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.primary_user_agent", "kmsbridge-gcp"),
)


def _unlogged(method: str, request: Any, response: Any) -> cached_property[Any]:
    return cached_property(
        lambda transport: transport.grpc_channel.unary_unary(
            f"/google.cloud.kms.v1.KeyManagementService/{method}",
            request_serializer=request.serialize,
            response_deserializer=response.deserialize,
        )
    )


class Transport(KeyManagementServiceGrpcTransport):
    """The transport of google-cloud-kms without its debug log, which contains plaintexts and the caller's token."""

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


def open_channel(access: Access) -> grpc.Channel:
    """Return a channel to the endpoint, which connects on first use.

    Raises `ConfigError` if the ca_file cannot be read.
    """
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
