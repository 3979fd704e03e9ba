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
    "KMSInvalidStateException": ErrorKind.UNAVAILABLE,  # unless its text says otherwise
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


STATES = {
    "arn:aws:kms:eu-west-1:111122223333:key/k is pending deletion.": ErrorKind.KEY_DISABLED,
    "arn:aws:kms:eu-west-1:111122223333:key/k is pending import.": ErrorKind.KEY_DISABLED,
    "arn:aws:kms:eu-west-1:111122223333:key/k is pending replica deletion.": ErrorKind.KEY_DISABLED,
    "arn:aws:kms:eu-west-1:111122223333:key/k is unavailable.": ErrorKind.UNAVAILABLE,
    "AWS KMS rejected the request because the external key store proxy did not respond in time. Retry the "
    "request.": ErrorKind.UNAVAILABLE,
    "AWS KMS cannot communicate with the external key store proxy.": ErrorKind.UNAVAILABLE,
    "AWS KMS cannot interpret the response from the external key store proxy.": ErrorKind.UNAVAILABLE,
    "The external key store proxy is in an unhealthy state.": ErrorKind.UNAVAILABLE,
    "The external key store proxy rejected the request because it could not authenticate AWS KMS.": (
        ErrorKind.UNAVAILABLE
    ),
    "The external key store proxy rejected the request because the external key is not enabled in the external key "
    "manager.": ErrorKind.KEY_DISABLED,
    "The external key store proxy rejected the request because it could not find the external key.": (
        ErrorKind.KEY_NOT_FOUND
    ),
    "The external key store proxy denied access to the operation.": ErrorKind.ACCESS_DENIED,
    "The external key store proxy rejected the request because the specified ciphertext or additional authenticated "
    "data is corrupted, missing, or otherwise invalid.": ErrorKind.NOT_AUTHENTIC,
    "A text that AWS will write one day.": ErrorKind.UNAVAILABLE,
}


@pytest.mark.parametrize(("text", "kind"), STATES.items(), ids=range(len(STATES)))
def test_invalid_state_is_a_disabled_key_only_if_its_text_says_so(text, kind):
    """AWS uses the one code for a key's state and for every failure of a custom key store."""
    answer = {"Error": {"Code": "KMSInvalidStateException", "Message": text}}
    error = ClientError({**answer, "ResponseMetadata": {"HTTPStatusCode": 400}}, "Decrypt")
    assert classify(error) is kind
    assert bool(details(error).remedy) is (kind is not ErrorKind.NOT_AUTHENTIC)


def test_failing_external_key_store_is_an_outage(harness, end):
    """It is retried, its remedy names the key store, and the key works as soon as the store is back."""
    key = Keys(harness, end).open()
    wrapped = key.wrap(bytes(32), bound())
    text = "AWS KMS rejected the request because the external key store proxy did not respond in time."
    harness.front.play("KMSInvalidStateException", text=text)
    with pytest.raises(errors.KmsUnavailable, match="check the custom key store") as caught:
        key.unwrap(wrapped, bound())
    assert caught.value.attempts == 3
    harness.front.heal()
    assert key.unwrap(wrapped, bound()) == bytes(32)


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
