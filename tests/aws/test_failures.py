"""Every documented refusal and every failure of the SDK has its kind, and costs one request."""

import botocore.exceptions
import botocore.parsers
import pytest
from botocore.exceptions import ClientError
from kmsbridge_aws.failures import KIND_OF_CODE, KIND_OF_TYPE, UnreadableAnswer, classify, details
from kmsbridge_testing.contract.base import Keys, bound

from kmsbridge import errors
from kmsbridge.driver import ErrorKind

CLASSES = {
    ErrorKind.UNAVAILABLE: errors.KmsUnavailable,
    ErrorKind.THROTTLED: errors.KmsThrottled,
    ErrorKind.TIMEOUT: errors.KmsTimeout,
    ErrorKind.ACCESS_DENIED: errors.KmsAccessDenied,
    ErrorKind.KEY_NOT_FOUND: errors.KmsKeyNotFound,
    ErrorKind.KEY_DISABLED: errors.KmsKeyDisabled,
    ErrorKind.INVALID_REQUEST: errors.KmsInvalidRequest,
    ErrorKind.UNAUTHENTICATED: errors.KmsUnauthenticated,
    ErrorKind.NOT_AUTHENTIC: errors.AuthenticationError,
}
EXPECTED = {
    "AccessDeniedException": ErrorKind.ACCESS_DENIED,
    "NotFoundException": ErrorKind.KEY_NOT_FOUND,
    "DisabledException": ErrorKind.KEY_DISABLED,
    "KMSInvalidStateException": ErrorKind.KEY_DISABLED,
    "KeyUnavailableException": ErrorKind.UNAVAILABLE,
    "InvalidCiphertextException": ErrorKind.NOT_AUTHENTIC,
    "IncorrectKeyException": ErrorKind.NOT_AUTHENTIC,
    "InvalidKeyUsageException": ErrorKind.INVALID_REQUEST,
    "ThrottlingException": ErrorKind.THROTTLED,
    "RequestLimitExceeded": ErrorKind.THROTTLED,
    "LimitExceededException": ErrorKind.INVALID_REQUEST,
    "DependencyTimeoutException": ErrorKind.UNAVAILABLE,
    "KMSInternalException": ErrorKind.UNAVAILABLE,
    "ExpiredTokenException": ErrorKind.UNAUTHENTICATED,
    "UnrecognizedClientException": ErrorKind.UNAUTHENTICATED,
    "InvalidClientTokenId": ErrorKind.UNAUTHENTICATED,
    "InvalidSignatureException": ErrorKind.UNAUTHENTICATED,
    "IncompleteSignature": ErrorKind.UNAUTHENTICATED,
    "MissingAuthenticationToken": ErrorKind.UNAUTHENTICATED,
    "ValidationException": ErrorKind.INVALID_REQUEST,
    "DryRunOperationException": ErrorKind.INVALID_REQUEST,
}
RETRIED = {ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT}


def attempts_of(kind):
    return 5 if kind is ErrorKind.THROTTLED else 3 if kind in RETRIED else 1


@pytest.mark.parametrize("code", sorted(KIND_OF_CODE))
def test_every_code_of_the_table_is_told(harness, end, code):
    """The class, the code and the request id, through the SDK; attempts are the library's alone."""
    key = Keys(harness, end).open()
    harness.front.play(code)
    with pytest.raises(errors.KmsBridgeError) as caught:
        key.wrap(bytes(32), bound())
    kind = KIND_OF_CODE[code]
    assert type(caught.value) is CLASSES[kind]
    if isinstance(caught.value, errors.KmsError):
        assert caught.value.provider_code == code
        assert caught.value.request_id
        assert caught.value.remedy
        assert caught.value.attempts == attempts_of(kind)
    assert harness.front.counts.total() == attempts_of(kind)


@pytest.mark.parametrize(("code", "kind"), EXPECTED.items(), ids=EXPECTED)
def test_code_means_what_aws_documents(code, kind):
    """Held apart from the table, so that a slip in it shows."""
    assert KIND_OF_CODE[code] is kind


STATUSES = {
    "401": (401, "Unauthorized", ErrorKind.UNAUTHENTICATED),
    "403": (403, "Blocked", ErrorKind.ACCESS_DENIED),
    "new refusal": (400, "NewException", ErrorKind.INVALID_REQUEST),
    "429": (429, "Slow", ErrorKind.THROTTLED),
    "500": (500, "NewFailure", ErrorKind.UNAVAILABLE),
    "redirect": (302, "302", ErrorKind.UNAVAILABLE),
    "refusal without a code": (403, "403", ErrorKind.UNAVAILABLE),
    "nothing at all": (0, "", ErrorKind.UNAVAILABLE),
}


@pytest.mark.parametrize(("status", "code", "kind"), STATUSES.values(), ids=STATUSES)
def test_unknown_code_is_told_by_its_status(status, code, kind):
    """AWS makes new codes; what has none at all is not AWS."""
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert classify(ClientError(answer, "Encrypt")) is kind


TYPES = {
    botocore.exceptions.EndpointConnectionError(endpoint_url="u", error="e"): ErrorKind.UNAVAILABLE,
    botocore.exceptions.ConnectTimeoutError(endpoint_url="u"): ErrorKind.TIMEOUT,
    botocore.exceptions.ReadTimeoutError(endpoint_url="u"): ErrorKind.TIMEOUT,
    botocore.exceptions.ConnectionClosedError(endpoint_url="u"): ErrorKind.UNAVAILABLE,
    botocore.exceptions.SSLError(endpoint_url="u", error="e"): ErrorKind.UNAVAILABLE,
    botocore.exceptions.ProxyConnectionError(proxy_url="u", error="e"): ErrorKind.UNAVAILABLE,
    botocore.exceptions.HTTPClientError(error="e"): ErrorKind.UNAVAILABLE,
    botocore.exceptions.NoCredentialsError(): ErrorKind.UNAUTHENTICATED,
    botocore.exceptions.PartialCredentialsError(provider="p", cred_var="c"): ErrorKind.UNAUTHENTICATED,
    botocore.exceptions.ProfileNotFound(profile="p"): ErrorKind.UNAUTHENTICATED,
    botocore.exceptions.TokenRetrievalError(provider="p", error_msg="m"): ErrorKind.UNAUTHENTICATED,
    botocore.exceptions.CredentialRetrievalError(provider="p", error_msg="m"): ErrorKind.UNAUTHENTICATED,
    botocore.exceptions.NoRegionError(): ErrorKind.INVALID_REQUEST,
    botocore.exceptions.ParamValidationError(report="r"): ErrorKind.INVALID_REQUEST,
    botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2): ErrorKind.UNAVAILABLE,
    botocore.parsers.ResponseParserError("e"): ErrorKind.UNAVAILABLE,
    TimeoutError(): ErrorKind.TIMEOUT,
    ConnectionResetError(): ErrorKind.UNAVAILABLE,
    RuntimeError(): ErrorKind.INVALID_REQUEST,
}


@pytest.mark.parametrize(("error", "kind"), TYPES.items(), ids=lambda each: type(each).__name__)
def test_failure_of_the_sdk_is_told_by_its_type(error, kind):
    """And its details quote nothing of it."""
    assert classify(error) is kind
    assert details(error).code in ("", type(error).__name__)


def test_answer_that_does_not_fit_is_an_outage():
    """It may be repeated."""
    assert UnreadableAnswer("u").kind is ErrorKind.UNAVAILABLE


def test_every_type_of_the_table_exists():
    """The table has names, so that telling an error imports no SDK."""
    known = {**vars(botocore.exceptions), **vars(botocore.parsers)}
    assert not [name for name in KIND_OF_TYPE if name not in known]


def test_denied_role_is_told_as_that():
    """Not as a missing permission for the key."""
    answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    assert "trust policy" in details(ClientError(answer, "AssumeRole")).remedy
