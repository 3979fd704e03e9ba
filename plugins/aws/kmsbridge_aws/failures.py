"""Classifies failures of AWS: by code, by HTTP status if the code is unknown, or by the type of botocore's error."""

from __future__ import annotations

import shlex
from http import HTTPStatus
from typing import Any, Final

from kmsbridge.driver import DriverError, ErrorDetails, ErrorKind
from kmsbridge_aws import mfa

_K = ErrorKind

# KMS, STS and the errors common to all of AWS, from their API references.
KIND_OF_CODE: Final[dict[str, ErrorKind]] = {
    **dict.fromkeys(
        (
            "AccessDenied",
            "AccessDeniedException",
            "NotAuthorized",
            "OptInRequired",
            "SubscriptionRequiredException",
        ),
        _K.ACCESS_DENIED,
    ),
    "NotFoundException": _K.KEY_NOT_FOUND,
    "DisabledException": _K.KEY_DISABLED,
    "InvalidCiphertextException": _K.NOT_AUTHENTIC,
    "IncorrectKeyException": _K.NOT_AUTHENTIC,
    **dict.fromkeys(
        (
            "CloudHsmClusterInvalidConfigurationException",
            "CloudHsmClusterNotActiveException",
            "CloudHsmClusterNotFoundException",
            "CloudHsmClusterNotRelatedException",
            "CustomKeyStoreInvalidStateException",
            "CustomKeyStoreNotFoundException",
            "DependencyTimeoutException",
            "IDPCommunicationError",
            "InternalError",
            "InternalFailure",
            "InternalServerError",
            "KMSInternalException",
            "KMSInvalidStateException",  # unless its text says otherwise, see KIND_OF_STATE
            "KeyUnavailableException",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "XksProxyIncorrectAuthenticationCredentialException",
            "XksProxyInvalidConfigurationException",
            "XksProxyInvalidResponseException",
            "XksProxyUriUnreachableException",
            "XksProxyVpcEndpointServiceInvalidConfigurationException",
            "XksProxyVpcEndpointServiceNotFoundException",
        ),
        _K.UNAVAILABLE,
    ),
    **dict.fromkeys(
        (
            "BandwidthLimitExceeded",
            "PriorRequestNotComplete",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "ThrottledException",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
        ),
        _K.THROTTLED,
    ),
    "RequestTimeout": _K.TIMEOUT,
    "RequestTimeoutException": _K.TIMEOUT,
    **dict.fromkeys(
        (
            "AuthFailure",
            "ExpiredToken",
            "ExpiredTokenException",
            "IDPRejectedClaim",
            "IncompleteSignature",
            "IncompleteSignatureException",
            "InvalidAccessKeyId",
            "InvalidClientTokenId",
            "InvalidIdentityToken",
            "InvalidSignatureException",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
            "RegionDisabledException",
            "RequestExpired",
            "SignatureDoesNotMatch",
            "UnrecognizedClientException",
        ),
        _K.UNAUTHENTICATED,
    ),
    **dict.fromkeys(
        (
            "ConflictException",
            "DryRunOperationException",
            "InvalidAction",
            "InvalidArnException",
            "InvalidGrantTokenException",
            "InvalidKeyUsageException",
            "InvalidParameterCombination",
            "InvalidParameterValue",
            "LimitExceededException",
            "MalformedPolicyDocument",
            "PackedPolicyTooLarge",
            "SerializationException",
            "UnknownOperationException",
            "UnsupportedOperationException",
            "ValidationError",
            "ValidationException",
        ),
        _K.INVALID_REQUEST,
    ),
}

# KMSInvalidStateException has many causes, which AWS documents as told apart by its text alone: a key's own state, and
# every failure of a custom key store, of its proxy and of the external key manager behind it.
KIND_OF_STATE: Final[dict[str, ErrorKind]] = {
    "is disabled": _K.KEY_DISABLED,
    "is pending deletion": _K.KEY_DISABLED,
    "is pending replica deletion": _K.KEY_DISABLED,
    "is pending import": _K.KEY_DISABLED,
    "is creating": _K.KEY_DISABLED,
    "external key is not enabled": _K.KEY_DISABLED,
    "could not find the external key": _K.KEY_NOT_FOUND,
    "proxy denied access": _K.ACCESS_DENIED,
    "external key does not support the requested operation": _K.INVALID_REQUEST,
    "is corrupted, missing, or otherwise invalid": _K.NOT_AUTHENTIC,
}
"""What a part of the text of KMSInvalidStateException says. A text with none of them is an outage."""
_INVALID_STATE: Final = "KMSInvalidStateException"

# By name, so that classifying an error imports no SDK. The first class in the error's MRO that is listed decides.
KIND_OF_TYPE: Final[dict[str, ErrorKind]] = {
    "ConnectTimeoutError": _K.TIMEOUT,
    "ReadTimeoutError": _K.TIMEOUT,
    "HTTPClientError": _K.UNAVAILABLE,
    "ConnectionError": _K.UNAVAILABLE,
    "IncompleteReadError": _K.UNAVAILABLE,
    "ResponseParserError": _K.UNAVAILABLE,
    "ResponseStreamingError": _K.UNAVAILABLE,
    "MetadataRetrievalError": _K.UNAVAILABLE,
    **dict.fromkeys(
        (
            "ConfigNotFound",
            "ConfigParseError",
            "CredentialRetrievalError",
            "InfiniteLoopConfigError",
            "InvalidConfigError",
            "LoginError",
            "NoAuthTokenError",
            "NoCredentialsError",
            "PartialCredentialsError",
            "ProfileNotFound",
            "RefreshWithMFAUnsupportedError",
            "SSOError",
            "TokenRetrievalError",
            "UnauthorizedSSOTokenError",
            "UnknownCredentialError",
        ),
        _K.UNAUTHENTICATED,
    ),
    "BotoCoreError": _K.INVALID_REQUEST,
}

# Of credentials that ended or were deleted, so that others may stand in their place by now.
_REPLACEABLE: Final = frozenset(
    {
        *("ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId"),
        "UnrecognizedClientException",
    }
)

_KEY_TYPE: Final = (
    "use a key of spec SYMMETRIC_DEFAULT and usage ENCRYPT_DECRYPT, "
    'or for an RSA key set algorithm = "RSA-OAEP-SHA-256"'
)
_CREDENTIALS: Final = (
    "give this host credentials, by environment variables, a profile, the instance's role or an access key"
)
_CLOCK: Final = "check the secret access key, and this host's clock"
_REMEDIES: Final[dict[str, str]] = {
    "NotFoundException": "check the key's name, account and region: a key exists in its own region only",
    "InvalidArnException": "check the key's ARN and region: a key exists in its own region only",
    "InvalidKeyUsageException": _KEY_TYPE,
    "UnsupportedOperationException": _KEY_TYPE,
    "LimitExceededException": "have the used-up quota of AWS KMS raised in Service Quotas",
    "InvalidSignatureException": _CLOCK,
    "SignatureDoesNotMatch": _CLOCK,
    "RequestExpired": _CLOCK,
    "RegionDisabledException": "enable the region in this account, or STS in it",
    "NoCredentialsError": _CREDENTIALS,
    "RefreshWithMFAUnsupportedError": mfa.REMEDY,
    "PartialCredentialsError": _CREDENTIALS,
    "ProfileNotFound": "name a profile of ~/.aws/config, or of the file that AWS_CONFIG_FILE names",
    "NoRegionError": "add ?region=eu-west-1 to the key's URI, give its ARN, or set AWS_DEFAULT_REGION",
    "SSLError": "check the service's certificate; if a private CA issued it, set ca_file to that CA's certificate",
    "EndpointConnectionError": "check the region and endpoint_url, and that this host may connect there",
    "ProxyConnectionError": "check the proxy in HTTPS_PROXY; NO_PROXY lists addresses that need none",
}
_STATE_REMEDIES: Final[dict[ErrorKind, str]] = {
    _K.KEY_DISABLED: "look at its state with DescribeKey, then enable it, cancel its deletion or import its key "
    "material; of an external key store, enable the external key",
    _K.KEY_NOT_FOUND: "restore the external key in its key manager",
    _K.ACCESS_DENIED: "allow this caller and operation in the external key store's proxy",
    _K.INVALID_REQUEST: "allow the external key to encrypt and decrypt",
    _K.UNAVAILABLE: "check the custom key store: its connection state, its cluster or proxy, and the external key "
    "manager",
}
# The commands that renew the sessions that these types say to have ended.
_LOGINS: Final = {
    "SSOError": "aws sso login",
    "TokenRetrievalError": "aws sso login",
    "LoginError": "aws login",
}
_ROLE_REMEDY: Final = "allow this caller to assume the role: check the role's trust policy and external_id"


class UnfitKey(DriverError):
    """The key cannot wrap data keys in the configured way, because of its type or purpose."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorKind.INVALID_REQUEST, remedy=_KEY_TYPE)
        self.text = text

    def __str__(self) -> str:
        return self.text


class UnreadableAnswer(DriverError):
    """The service reported success, but its answer does not contain what the request asked for."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorKind.UNAVAILABLE)
        self.text = text

    def __str__(self) -> str:
        return self.text


def classify(error: BaseException) -> ErrorKind:
    """Return the kind of an exception of botocore, or of the operating system."""
    if response := _response(error):
        code, status = _code(response), _status(response)
        if code == _INVALID_STATE:
            return _kind_of_state(response)
        return KIND_OF_CODE.get(code) or _kind_of_status(status, has_code=code not in ("", str(status)))
    # botocore's types first: some of them are an OSError besides.
    kinds = [KIND_OF_TYPE[name] for name in _types(error) if name in KIND_OF_TYPE]
    if kinds:
        return kinds[0]
    if isinstance(error, TimeoutError):
        return _K.TIMEOUT
    return _K.UNAVAILABLE if isinstance(error, OSError) else _K.INVALID_REQUEST


def details(error: BaseException, profile: str = "") -> ErrorDetails:
    """Return code, request id and remedy, and nothing of AWS's text.

    `profile` is the AWS profile that gives the credentials, for a remedy that names a command.
    """
    if response := _response(error):
        code = _code(response)
        assuming = getattr(error, "operation_name", "") == "AssumeRole"
        denied = assuming and KIND_OF_CODE.get(code) is _K.ACCESS_DENIED
        request_id = str(response.get("ResponseMetadata", {}).get("RequestId", ""))
        if code == _INVALID_STATE:
            return ErrorDetails(code, request_id, _STATE_REMEDIES.get(_kind_of_state(response), ""))
        return ErrorDetails(code, request_id, _ROLE_REMEDY if denied else _REMEDIES.get(code, ""))
    names = _types(error)
    login = next((command for name, command in _LOGINS.items() if name in names), "")
    if login:
        command = shlex.join([*login.split(), *(["--profile", profile] if profile else [])])
        return ErrorDetails(code=names[0], remedy=f"run '{command}', because the session has ended")
    remedies = (_REMEDIES[name] for name in names if name in _REMEDIES)
    return ErrorDetails(code=names[0] if names else "", remedy=next(remedies, ""))


def refuses_credentials(error: BaseException) -> bool:
    """Return whether AWS refused the request because its credentials have ended or do not exist."""
    response = _response(error)
    return response is not None and _code(response) in _REPLACEABLE


def _kind_of_state(response: dict[str, Any]) -> ErrorKind:
    text = str(response.get("Error", {}).get("Message", ""))
    kinds = (kind for words, kind in KIND_OF_STATE.items() if words in text)
    return next(kinds, KIND_OF_CODE[_INVALID_STATE])


def _kind_of_status(status: int, *, has_code: bool) -> ErrorKind:
    """Return the kind for a code that the table lacks. AWS always sends a code; without one, AWS did not answer."""
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return _K.THROTTLED
    if not has_code or not HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return _K.UNAVAILABLE
    if status == HTTPStatus.UNAUTHORIZED:
        return _K.UNAUTHENTICATED
    return _K.ACCESS_DENIED if status == HTTPStatus.FORBIDDEN else _K.INVALID_REQUEST


def _response(error: BaseException) -> dict[str, Any] | None:
    """Return AWS's answer if the error is a refusal by AWS, else None."""
    response = getattr(error, "response", None)
    is_refusal = "ClientError" in _types(error)
    return response if is_refusal and isinstance(response, dict) else None


def _code(response: dict[str, Any]) -> str:
    return str(response.get("Error", {}).get("Code", ""))[:128]


def _status(response: dict[str, Any]) -> int:
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else 0


def _types(error: BaseException) -> list[str]:
    """Return the names of botocore's classes among the error's, most specific first."""
    # botocore.errorfactory makes the classes of the errors in a service's model at run time.
    known = ("botocore.exceptions", "botocore.errorfactory", "botocore.parsers")
    return [cls.__name__ for cls in type(error).__mro__ if cls.__module__ in known]
