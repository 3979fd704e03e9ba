"""What a call costs, sends and says."""

import contextlib
import json
import logging
import subprocess
import sys

import pytest
from kmsbridge_testing.contract.base import Keys, bound, driver_of, profile_of

from kmsbridge import EnvelopeCipher
from kmsbridge.cipher.base import from_profile
from kmsbridge.errors import AuthenticationError, KmsUnavailable
from kmsbridge.observer import Observer
from kmsbridge.reports import take_request_id
from kmsbridge.testing import FaultProxy
from tests.backends.aws import plain_client

CANARY = b"canary-of-the-payload-0123456789"


class Log(Observer):
    """Every rewrap that has ended, and its outcome."""

    def __init__(self):
        self.rewraps = []

    def call_finished(self, call, result):
        if call.operation == "rewrap":
            self.rewraps.append((call, result.outcome))


def test_each_operation_is_one_request(harness):
    """The SDK repeats nothing, and asks nothing beforehand, but for a look at the key before it is rotated."""
    driver = driver_of(harness.address("first"))
    wrapped = driver.wrap(bytes(32), bound(), timeout=10)
    driver.unwrap(wrapped, bound(), timeout=10)
    driver.rewrap(wrapped, bound(), timeout=10)
    driver.rotate(timeout=10)
    driver.describe(timeout=10)
    asked = {action: count for (action, _), count in harness.front.counts.items()}
    driver.close()
    once = ("Encrypt", "Decrypt", "ReEncrypt", "RotateKeyOnDemand", "DescribeKey", "GetKeyRotationStatus")
    assert asked == {**dict.fromkeys(once, 1), "DescribeKey": 2, "GetKeyRotationStatus": 2}


def test_request_id_is_reported(harness):
    """What CloudTrail shows too."""
    driver = driver_of(harness.address("first"))
    driver.wrap(bytes(32), bound(), timeout=10)
    driver.close()
    assert len(take_request_id()) == 36


def test_connection_is_kept(harness, end):
    """Calls one after another share one, as with the SDK alone."""
    proxy = end.enter_context(FaultProxy(*harness.front.address))
    driver = driver_of(harness.at(harness.arn("first"), endpoint="http://{}:{}".format(*proxy.address)))
    for _ in range(5):
        driver.wrap(bytes(32), bound(), timeout=10)
    driver.close()
    assert proxy.connections == 1


def test_sdk_is_not_retrying_on_its_own_settings(harness, end, monkeypatch):
    """Not even where AWS's variables say so."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    key = Keys(harness, end).open()
    harness.front.play("KMSInternalException")
    with pytest.raises(KmsUnavailable):
        key.wrap(bytes(32), bound())
    assert harness.front.counts.total() == 3


def test_sdks_own_log_says_nothing_of_our_calls(harness, caplog):
    """At DEBUG it would have each payload in base64; from the very first call on, in a fresh process too."""
    program = """
import json, logging, sys
records = []
class Keep(logging.Handler):
    def emit(self, record): records.append(record.name)
logging.basicConfig(level=logging.DEBUG, handlers=[Keep()])
from kmsbridge.driver import KeyURI, Options, EncryptionContext
from kmsbridge_aws import AwsKmsDriver
asked = json.load(sys.stdin)
driver = AwsKmsDriver.open(KeyURI.parse(asked["uri"]), Options(asked["options"]))
context = EncryptionContext.of({})
driver.unwrap(driver.wrap(b"x" * 32, context, timeout=10), context, timeout=10)
driver.close()
print(sorted({name for name in records if name.split(".")[0] in ("botocore", "boto3", "urllib3")}))
"""
    address = harness.address("first")
    asked = json.dumps({"uri": address.uri, "options": dict(address.options)})
    done = subprocess.run(
        [sys.executable, "-c", program], input=asked, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_sdks_log_of_the_users_own_calls_goes_on(harness, caplog):
    """What is kept quiet is this driver's alone."""
    driver = driver_of(harness.address("first"))
    driver.wrap(CANARY, bound(), timeout=10)
    driver.close()
    caplog.set_level(logging.DEBUG)
    harness.kms.describe_key(KeyId=harness.arn("first"))
    assert [record for record in caplog.records if record.name.startswith("botocore")]


def test_empty_payload_is_carried(harness, end):
    """AWS KMS encrypts nothing empty, so something stands for it; what looks like that is told apart."""
    from kmsbridge_aws.driver import _EMPTY

    key = Keys(harness, end).open()
    for payload in (b"", _EMPTY, _EMPTY + b"more", _EMPTY * 2, _EMPTY[:-1], b"\0"):
        assert key.unwrap(key.wrap(payload, bound()), bound()) == payload


def test_context_reaches_aws_pair_by_pair(harness, end):
    """As CloudTrail is to show it, and policies to see it."""
    wrapped = Keys(harness, end).open().wrap(CANARY, bound({"tenant": "größe"}))
    context = {"tenant": "größe", "kmsbridge": "dek"}
    opened = harness.kms.decrypt(CiphertextBlob=wrapped.ciphertext, EncryptionContext=context)
    assert opened["Plaintext"] == CANARY


def test_rotation_is_described(harness):
    """In words, and told anew."""
    driver = driver_of(harness.address("first"))
    assert driver.describe(timeout=10).rotation == "on demand"
    harness.kms.enable_key_rotation(KeyId=harness.arn("first"), RotationPeriodInDays=180)
    assert driver.describe(timeout=10).rotation.startswith("every 180 days, next on 20")
    driver.close()


def test_service_rewraps_between_two_keys(harness, end):
    """ReEncrypt, through the portable API: no data key is unwrapped here."""
    first, second = (harness.address(which) for which in ("first", "second"))
    cipher = end.enter_context(from_profile(EnvelopeCipher, profile_of([first])))
    message = cipher.encrypt(b"payload", context={"tenant": "acme"})
    harness.front.counts.clear()
    with from_profile(EnvelopeCipher, profile_of([second], [first])) as moving:
        moved = moving.rewrap(message, context={"tenant": "acme"})
    assert {action for action, _ in harness.front.counts} == {"ReEncrypt"}
    with from_profile(EnvelopeCipher, profile_of([second])) as there:
        assert there.decrypt(moved, context={"tenant": "acme"}) == b"payload"


@pytest.mark.parametrize("direct", (False, True), ids=("data key", "direct"))
@pytest.mark.parametrize("target", ("first", "second"))
def test_service_moves_a_message_into_an_environment(harness, end, direct, target):
    """ReEncrypt with two contexts: no data key is unwrapped here, and both contexts are in the service's log."""
    first, other = (harness.address(which) for which in ("first", target))
    prod, log = {"environment": "prod", "direct": direct}, Log()
    with EnvelopeCipher.from_uri(first.uri, **first.options, direct=direct) as before:
        message = before.encrypt(b"payload", context={"tenant": "acme"}, aad=b"1" if direct else b"")
    moving = EnvelopeCipher.from_mapping(
        {
            "keys": {"old": {"uri": first.uri, **first.options}, "new": {"uri": other.uri, **other.options}},
            "profiles": {
                "p": {
                    "encrypt_to": ["new"],
                    "decrypt_with": ["old", "new"] if target == "second" else ["new"],
                    "accept_unmarked_until": "9999-12-31",
                    **prod,
                }
            },
        },
        observers=[log],
    )
    harness.front.counts.clear()
    with moving as cipher:
        moved = cipher.rewrap(message, context={"tenant": "acme"}, aad=b"1" if direct else b"")
        assert {action for action, _ in harness.front.counts} <= {"ReEncrypt", "DescribeKey"}
        assert sum(count for (action, _), count in harness.front.counts.items() if action == "ReEncrypt") == 2
    assert [(call.context.get("kmsbridge-environment"), outcome) for call, outcome in log.rewraps] == [
        ("prod", "AuthenticationError"),
        (None, "ok"),
    ]
    with EnvelopeCipher.from_uri(other.uri, **other.options, environment="prod") as there:
        assert there.decrypt(moved, context={"tenant": "acme"}, aad=b"1" if direct else b"") == b"payload"
    with (
        EnvelopeCipher.from_uri(other.uri, **other.options) as without,
        pytest.raises(AuthenticationError),
    ):
        without.decrypt(moved, context={"tenant": "acme"}, aad=b"1" if direct else b"")


def test_service_moves_nothing_of_another_environment(harness, end):
    """Nor with a wrong context; no call unwraps it either, and none is made when the date is over."""
    address = harness.address("first")
    with EnvelopeCipher.from_uri(address.uri, **address.options, environment="staging") as staging:
        message = staging.encrypt(b"payload", context={"tenant": "acme"})
    for until in ("9999-12-31", "2000-01-31"):
        harness.front.counts.clear()
        with (
            EnvelopeCipher.from_uri(
                address.uri, **address.options, environment="prod", accept_unmarked_until=until
            ) as prod,
            pytest.raises(AuthenticationError),
        ):
            prod.rewrap(message, context={"tenant": "acme"})
        asked = {action: count for (action, _), count in harness.front.counts.items()}
        assert asked["ReEncrypt"] == (2 if until == "9999-12-31" else 1)


def test_only_keys_of_the_same_place_are_rewrapped_from(harness):
    """Of one partition, region and account; multi-region keys by their id."""
    driver = driver_of(harness.address("first"))
    own, key = driver.resolve(timeout=10), "12345678-1234-1234-1234-123456789012"
    assert driver.rewraps_from(own)
    assert driver.rewraps_from(f"aws-kms:arn:aws:kms:eu-west-1:000000000000:key/{key}")
    for other in (
        f"aws-kms:arn:aws:kms:us-east-1:000000000000:key/{key}",
        f"aws-kms:arn:aws-cn:kms:eu-west-1:000000000000:key/{key}",
        f"aws-kms:arn:aws:kms:eu-west-1:111122223333:key/{key}",
        f"aws-kms:arn:aws:kms:*:000000000000:key/mrk-{'0' * 32}",
        "aws-kms:arn:aws:kms:eu-west-1:000000000000:alias/a",
        "gcp-kms:projects/p/locations/l/keyRings/r/cryptoKeys/k",
        "aws-kms:",
        "",
    ):
        assert not driver.rewraps_from(other)
    driver.close()


def test_stock_sdk_agrees(harness, end):
    """A data key that we wrapped opens by the SDK alone, and the other way round."""
    key = Keys(harness, end).open()
    context = {"tenant": "acme", "kmsbridge": "dek"}
    wrapped = key.wrap(CANARY, bound({"tenant": "acme"}))
    arn = wrapped.key_id.removeprefix("aws-kms:")
    with contextlib.closing(plain_client()) as kms:
        opened = kms.decrypt(KeyId=arn, CiphertextBlob=wrapped.ciphertext, EncryptionContext=context)
        assert opened["Plaintext"] == CANARY
        theirs = kms.encrypt(KeyId=arn, Plaintext=CANARY, EncryptionContext=context)["CiphertextBlob"]
    assert key.unwrap(type(wrapped)(wrapped.key_id, "", theirs), bound({"tenant": "acme"})) == CANARY


def test_front_answers_as_aws(harness):
    """DryRun, and ReEncrypt without the source's id, as AWS documents them."""
    endpoint = "http://{}:{}".format(*harness.front.address)
    harness.front.allow("test")
    with contextlib.closing(plain_client(endpoint=endpoint)) as kms:
        arn = harness.arn("first")
        with pytest.raises(kms.exceptions.DryRunOperationException):
            kms.encrypt(KeyId=arn, Plaintext=b"x", DryRun=True)
        blob = kms.encrypt(KeyId=arn, Plaintext=b"x")["CiphertextBlob"]
        again = kms.re_encrypt(CiphertextBlob=blob, DestinationKeyId=harness.arn("second"))
        assert (
            kms.decrypt(CiphertextBlob=again["CiphertextBlob"], KeyId=harness.arn("second"))["Plaintext"]
            == b"x"
        )
