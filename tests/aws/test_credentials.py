"""Whose credentials a call is signed with, and that fetching them has an end."""

import json
import re
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ProfileNotFound,
    UnauthorizedSSOTokenError,
)
from kmsbridge_aws import AwsKmsDriver
from kmsbridge_aws.failures import details

from kmsbridge.driver import EncryptionContext, ErrorKind, KeyURI, Options
from kmsbridge.errors import ConfigError
from tests.backends.aws import REGION, AwsHarness

BOUND = EncryptionContext.of({}).with_reserved(kmsbridge="dek")
ROLE = "arn:aws:iam::000000000000:role/kms-user"


class Callers:
    """The access key ids that the front was called with, by service."""

    def __init__(self, front):
        self.seen = []
        self._answer = front.answer
        front.answer = self

    def __call__(self, body, headers):
        found = re.search(r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/", headers["authorization"])
        self.seen.append((found[2], found[1], body))
        if "x-amz-target" in headers:
            return 200, b'{"__type": "", "KeyId": ""}', "id"
        return self._answer(body, headers)


@pytest.fixture
def callers(front):
    return Callers(front)


@pytest.fixture
def uri(front):
    return f"aws-kms://alias/a?region={REGION}&endpoint_url=http://{front.address[0]}:{front.address[1]}"


def call(driver, timeout=10):
    """One call, whose answer is of no interest."""
    with pytest.raises(Exception, match="does not describe a key"):
        driver.resolve(timeout=timeout)


def test_standard_chain_is_used(driver_of, callers, uri, monkeypatch):
    """AWS's own variables."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    call(driver_of(uri))
    assert [caller[:2] for caller in callers.seen] == [("kms", "AKIAENVIRONMENT")]


def test_named_profile_is_used(driver_of, callers, uri, monkeypatch, tmp_path):
    """Of AWS's files, before the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    (tmp_path / "config").write_text(
        "[profile payments]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = s\n"
    )
    call(driver_of(f"{uri}&profile=payments"))
    assert [caller[:2] for caller in callers.seen] == [("kms", "AKIAPROFILE")]


def test_profiles_region_is_used(driver_of, callers, uri, tmp_path):
    """Where the URI names none."""
    (tmp_path / "config").write_text(
        "[profile p]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = s\nregion = eu-west-1\n"
    )
    call(driver_of(f"{uri.replace(f'region={REGION}&', '')}&profile=p"))
    assert callers.seen


def test_access_key_of_the_options_is_used(driver_of, callers, uri, monkeypatch):
    """Before everything else."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    call(driver_of(uri, access_key_id="AKIAOPTION", secret_access_key="s"))
    assert [caller[:2] for caller in callers.seen] == [("kms", "AKIAOPTION")]


def assuming(front, **more):
    """Options for a role, with LocalStack's STS."""
    role = {"role_arn": ROLE, "endpoint_url": "http://{}:{}".format(*front.address), **more}
    return {"access_key_id": "AKIASOURCE", "secret_access_key": "s", "assume_role": role}


def test_role_is_assumed_once_with_the_external_id(driver_of, front, callers, uri):
    """The source's key asks STS, the role's asks KMS; STS is not asked again for each call."""
    driver = driver_of(uri, **assuming(front, external_id="external-1", session_name="host-7", duration=3600))
    call(driver)
    call(driver)
    services = [(service, key) for service, key, _ in callers.seen]
    assert services[0] == ("sts", "AKIASOURCE")
    assert [service for service, _ in services] == ["sts", "kms", "kms"]
    assert "AKIASOURCE" not in {key for service, key in services if service == "kms"}
    asked = callers.seen[0][2]
    for part in (
        b"Action=AssumeRole",
        b"ExternalId=external-1",
        b"RoleSessionName=host-7",
        b"DurationSeconds=3600",
    ):
        assert part in asked


def test_role_works_to_the_end(end):
    """A data key wrapped and unwrapped by an assumed role, at LocalStack itself."""
    harness = AwsHarness()
    end.callback(harness.close)
    from kmsbridge_testing.contract.base import Keys

    from tests.backends import facts

    endpoint = facts("aws")["endpoint"]
    address = harness.at(
        harness.arn("first"), endpoint=endpoint, assume_role={"role_arn": ROLE, "endpoint_url": endpoint}
    )
    options = {name: value for name, value in address.options.items() if name != "session_token"}
    key = Keys(harness, end).at(type(address)(address.uri, options))
    assert key.unwrap(key.wrap(b"x" * 32, BOUND), BOUND) == b"x" * 32


def test_refused_role_is_told(driver_of, front, uri):
    """As STS's refusal, with its code and request id."""
    front.answer = lambda body, headers: (
        403,
        b"<ErrorResponse><Error><Code>AccessDenied</Code></Error><RequestId>r-1</RequestId></ErrorResponse>",
        "r-1",
    )
    driver = driver_of(uri, **assuming(front))
    with pytest.raises(ClientError) as caught:
        driver.wrap(bytes(32), BOUND, timeout=10)
    assert driver.classify(caught.value, "wrap") is ErrorKind.ACCESS_DENIED
    told = driver.error_details(caught.value)
    assert (told.code, told.request_id) == ("AccessDenied", "r-1")
    assert "trust policy" in told.remedy


def test_no_credentials_are_told(driver_of, uri):
    """Unauthenticated, with what there is to give."""
    driver = driver_of(uri)
    with pytest.raises(NoCredentialsError) as caught:
        driver.resolve(timeout=10)
    assert driver.classify(caught.value, "wrap") is ErrorKind.UNAUTHENTICATED
    assert driver.error_details(caught.value).remedy


def test_unknown_profile_is_told(driver_of, uri):
    """Unauthenticated, with where profiles are."""
    driver = driver_of(f"{uri}&profile=nobody")
    with pytest.raises(ProfileNotFound) as caught:
        driver.resolve(timeout=10)
    assert driver.classify(caught.value, "wrap") is ErrorKind.UNAUTHENTICATED
    assert "profile" in driver.error_details(caught.value).remedy


@pytest.fixture
def silent(end):
    """A port that takes connections and says nothing."""
    sock = end.enter_context(socket.create_server(("127.0.0.1", 0)))
    return f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_silent_metadata_service_ends_in_time(driver_of, uri, silent, monkeypatch):
    """A timeout within that of the call, however long the SDK would go on waiting."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", silent)
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "3")
    driver = driver_of(uri)
    started = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        driver.resolve(timeout=0.5)
    assert time.monotonic() - started < 2.5
    assert driver.classify(caught.value, "wrap") is ErrorKind.TIMEOUT


def test_silent_sts_ends_in_time(driver_of, front, uri, silent):
    """Likewise."""
    options = assuming(front)
    options["assume_role"]["endpoint_url"] = silent
    driver = driver_of(uri, **options)
    with pytest.raises(TimeoutError) as caught:
        driver.resolve(timeout=0.5)
    assert driver.classify(caught.value, "wrap") is ErrorKind.TIMEOUT


def test_access_key_asks_no_metadata_service(driver_of, callers, uri, silent, monkeypatch):
    """Who has credentials waits for nobody's."""
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", silent)
    call(driver_of(uri, access_key_id="AKIAOPTION", secret_access_key="s"), timeout=2)
    assert len(callers.seen) == 1


def test_late_credentials_serve_the_next_call(driver_of, callers, uri, monkeypatch, tmp_path):
    """What came too late for one call is there for another, and is fetched once."""
    counter = tmp_path / "counter"
    script = tmp_path / "credentials.sh"
    script.write_text(
        f"#!/bin/sh\necho x >> {counter}\nsleep 1\n"
        'echo \'{"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "s"}\'\n'
    )
    script.chmod(0o700)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {script}\n")
    driver = driver_of(uri)
    with pytest.raises(TimeoutError):
        driver.resolve(timeout=0.3)
    call(driver)
    assert [key for _, key, _ in callers.seen] == ["AKIAPROCESS"]
    assert counter.read_text() == "x\n"


def test_credentials_are_renewed_in_the_background(driver_of, callers, uri, tmp_path):
    """While the old ones last, no call waits for the new ones."""
    counter = tmp_path / "counter"
    script = tmp_path / "credentials.sh"
    # The SDK asks twice while the session is opened: these are near enough to their end for that.
    script.write_text(
        f"#!/bin/sh\necho x >> {counter}\n[ $(wc -l < {counter}) -gt 2 ] && sleep 5\n"
        f"end=$(date -u -d '+12 minutes' +%Y-%m-%dT%H:%M:%SZ)\n"
        'printf \'{"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "s",\'\n'
        'printf \' "SessionToken": "t", "Expiration": "%s"}\' $end\n'
    )
    script.chmod(0o700)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {script}\n")
    driver = driver_of(uri)
    for _ in range(3):
        call(driver, timeout=2)
    assert [key for _, key, _ in callers.seen] == ["AKIAPROCESS"] * 3
    assert counter.read_text() == "x\n" * 3


def written(path, access_key_id):
    path.write_text(f"[default]\naws_access_key_id = {access_key_id}\naws_secret_access_key = s\n")


@pytest.fixture
def refusing(callers, front):
    """Has the front refuse the callers that are added to it, with a code."""
    refused = {}
    answer = front.answer

    def refusing(body, headers):
        status, content, request_id = answer(body, headers)
        code = refused.get(callers.seen[-1][1])
        if code is None:
            return status, content, request_id
        if "x-amz-target" in headers:
            return 400, f'{{"__type": "{code}"}}'.encode(), "r-1"
        error = f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>"
        return 403, error.encode(), "r-1"

    front.answer = refusing
    return refused


@pytest.mark.parametrize(
    "code", ["ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"]
)
def test_replaced_credentials_file_is_read_again(driver_of, callers, refusing, uri, tmp_path, code):
    """The call in which AWS refuses the old ones succeeds, and those after it use the new ones."""
    written(tmp_path / "credentials", "AKIAOLD")
    driver = driver_of(uri)
    call(driver)
    refusing["AKIAOLD"] = code
    written(tmp_path / "credentials", "AKIANEW")
    call(driver)
    call(driver)
    assert [key for _, key, _ in callers.seen] == ["AKIAOLD", "AKIAOLD", "AKIANEW", "AKIANEW"]


def test_file_with_the_same_credentials_is_read_again_once(driver_of, callers, refusing, uri, tmp_path):
    """AWS is not asked a second time with what it has just refused."""
    written(tmp_path / "credentials", "AKIAOLD")
    driver = driver_of(uri)
    call(driver)
    refusing["AKIAOLD"] = "ExpiredTokenException"
    with pytest.raises(ClientError) as caught:
        driver.resolve(timeout=10)
    assert driver.classify(caught.value, "resolve") is ErrorKind.UNAUTHENTICATED
    assert len(callers.seen) == 2


def test_other_refusals_do_not_read_the_file_again(driver_of, callers, refusing, uri, tmp_path):
    """A wrong clock or a missing permission is not cured by other credentials."""
    written(tmp_path / "credentials", "AKIAOLD")
    driver = driver_of(uri)
    call(driver)
    refusing["AKIAOLD"] = "AccessDeniedException"
    written(tmp_path / "credentials", "AKIANEW")
    with pytest.raises(ClientError):
        driver.resolve(timeout=10)
    assert [key for _, key, _ in callers.seen] == ["AKIAOLD", "AKIAOLD"]


def test_role_is_assumed_again_with_replaced_credentials(driver_of, front, callers, refusing, uri, tmp_path):
    """If AWS refuses the role's credentials, the source's file is read again, too."""
    written(tmp_path / "credentials", "AKIAOLD")
    driver = driver_of(
        uri, assume_role={"role_arn": ROLE, "endpoint_url": "http://{}:{}".format(*front.address)}
    )
    call(driver)
    refusing[callers.seen[-1][1]] = "ExpiredTokenException"
    written(tmp_path / "credentials", "AKIANEW")
    call(driver)
    assert [key for service, key, _ in callers.seen if service == "sts"] == ["AKIAOLD", "AKIANEW"]


def test_role_of_a_profile_is_assumed_again(driver_of, front, callers, refusing, uri, monkeypatch, tmp_path):
    """Its refused credentials, which have not expired, are not taken from a memory of this process."""
    written(tmp_path / "credentials", "AKIASOURCE")
    (tmp_path / "config").write_text(
        f"[profile user]\nrole_arn = {ROLE}\nsource_profile = default\nregion = {REGION}\n"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://{}:{}".format(*front.address))
    driver = driver_of(f"{uri}&profile=user")
    call(driver)
    refusing[callers.seen[-1][1]] = "InvalidClientTokenId"
    call(driver)
    assert [service for service, _, _ in callers.seen] == ["sts", "kms", "kms", "sts", "kms"]


def test_many_calls_read_a_replaced_file_once(driver_of, callers, refusing, uri, tmp_path):
    """Threads whose calls are refused at once wait for the same reading."""
    counter, script = tmp_path / "counter", tmp_path / "credentials.sh"
    script.write_text(
        f"#!/bin/sh\necho x >> {counter}\n[ $(wc -l < {counter}) -gt 1 ] && sleep 0.5 && new=NEW\n"
        'echo "{\\"Version\\": 1, \\"AccessKeyId\\": \\"AKIA$new\\", \\"SecretAccessKey\\": \\"s\\"}"\n'
    )
    script.chmod(0o700)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {script}\n")
    driver = driver_of(uri)
    call(driver)
    refusing["AKIA"] = "ExpiredTokenException"
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: call(driver), range(8)))
    assert counter.read_text() == "x\n" * 2
    assert [key for _, key, _ in callers.seen].count("AKIANEW") == 8


@pytest.mark.parametrize("profile", ["nobody", "other"])
def test_profile_of_the_environment_does_not_matter_to_an_access_key(
    driver_of, callers, uri, monkeypatch, tmp_path, profile
):
    """Whether it exists or not."""
    (tmp_path / "config").write_text(
        "[profile other]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = s\nca_bundle = /nowhere\n"
    )
    monkeypatch.setenv("AWS_PROFILE", profile)
    call(driver_of(uri, access_key_id="AKIAOPTION", secret_access_key="s"))
    assert [key for _, key, _ in callers.seen] == ["AKIAOPTION"]


SSO = """\
[profile payments]
sso_session = work
sso_account_id = 111122223333
sso_role_name = payments
[sso-session work]
sso_start_url = https://example.com/start
sso_region = eu-west-1
"""


@pytest.mark.parametrize("by", ["URI", "AWS_PROFILE"])
def test_session_of_single_sign_on_that_ended_is_told_with_its_command(
    driver_of, uri, monkeypatch, tmp_path, by
):
    """Which names the profile, wherever that was named."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config").write_text(SSO)
    if by == "AWS_PROFILE":
        monkeypatch.setenv("AWS_PROFILE", "payments")
    driver = driver_of(uri + ("&profile=payments" if by == "URI" else ""))
    with pytest.raises(BotoCoreError) as caught:
        driver.resolve(timeout=10)
    assert driver.classify(caught.value, "resolve") is ErrorKind.UNAUTHENTICATED
    assert "'aws sso login --profile payments'" in driver.error_details(caught.value).remedy


def test_command_of_the_default_profile_names_none():
    """And a profile with a blank is quoted."""
    ended = UnauthorizedSSOTokenError()
    assert "'aws sso login'" in details(ended).remedy
    assert "--profile 'my own'" in details(ended, "my own").remedy


def test_grant_tokens_are_sent(harness, end):
    """With each operation that takes them, and the others work too."""
    seen = Counter()
    answer = harness.front.answer

    def watch(body, headers):
        action = headers["x-amz-target"].rpartition(".")[2]
        seen[action, tuple(json.loads(body).get("GrantTokens", ()))] += 1
        return answer(body, headers)

    harness.front.answer = watch
    driver = AwsKmsDriver.open(*_opened(harness, grant_tokens="YWJj, ZGVm\n"))
    end.callback(driver.close)
    wrapped = driver.wrap(bytes(32), BOUND, timeout=10)
    driver.unwrap(wrapped, BOUND, timeout=10)
    driver.rewrap(wrapped, BOUND, timeout=10)
    driver.describe(timeout=10)
    tokens = ("YWJj", "ZGVm")
    with_tokens = {(action, tokens) for action in ("Encrypt", "Decrypt", "ReEncrypt", "DescribeKey")}
    assert set(seen) == {*with_tokens, ("GetKeyRotationStatus", ())}


def _opened(harness, **options):
    address = harness.address("first")
    return KeyURI.parse(address.uri), Options({**address.options, **options})


@pytest.mark.parametrize("tokens", ["a b c d e f g h i j k", "no{token}", "x" * 8193])
def test_grant_tokens_that_are_none_are_refused(driver_of, uri, tokens):
    """When the key is opened, without quoting them."""
    with pytest.raises(ConfigError, match="grant_tokens") as caught:
        driver_of(uri, grant_tokens=tokens)
    assert tokens not in str(caught.value)
