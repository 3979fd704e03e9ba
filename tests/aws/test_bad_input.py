"""What cannot be right is refused when the key is opened, or at its first use, and says what to do."""

import pytest
from botocore.exceptions import ClientError, NoRegionError
from kmsbridge_aws import AwsKmsDriver
from kmsbridge_testing.contract.base import Keys

from kmsbridge import Encryptor, config
from kmsbridge.driver import EncryptionContext, KeyURI, Options
from kmsbridge.errors import ConfigError, KmsInvalidRequest, KmsKeyNotFound
from tests.backends.aws import REGION

KEY = "12345678-1234-1234-1234-123456789012"
ARN = f"arn:aws:kms:eu-west-1:111122223333:key/{KEY}"
BOUND = EncryptionContext.of({"tenant": "acme"}).with_reserved(kmsbridge="dek")

ACCESS = {"access_key_id": "test", "secret_access_key": "test"}

BAD_URIS = {
    "no name": "aws-kms://",
    "name alone": "aws-kms://payments",
    "capitals in a key id": f"aws-kms://{KEY[:-1]}A",
    "key id cut short": f"aws-kms://{KEY[:-1]}",
    "multi-region id cut short": "aws-kms://mrk-1234abcd",
    "alias without a name": "aws-kms://alias/",
    "alias with two slashes": "aws-kms://alias/a//b",
    "alias with a slash at the end": "aws-kms://alias/a/",
    "alias with two dots": "aws-kms://alias/..",
    "alias with parent amid": "aws-kms://alias/a/../b",
    "alias too long": f"aws-kms://alias/{'n' * 251}",
    "alias with a space": "aws-kms://alias/a%20b",
    "alias that is escaped twice": "aws-kms://alias/a%252fb",
    "ARN of another service": f"aws-kms://arn:aws:s3:eu-west-1:111122223333:key/{KEY}",
    "ARN without a region": f"aws-kms://arn:aws:kms::111122223333:key/{KEY}",
    "ARN of any region": f"aws-kms://arn:aws:kms:*:111122223333:key/mrk-{'0' * 32}",
    "ARN of eleven digits": f"aws-kms://arn:aws:kms:eu-west-1:11112222333:key/{KEY}",
    "ARN of a name": "aws-kms://arn:aws:kms:eu-west-1:111122223333:key/payments",
    "ARN with more behind": f"aws-kms://{ARN}/more",
    "ARN with a line end": f"aws-kms://{ARN}%0a",
    "fragment": f"aws-kms://{ARN}#1",
    "unknown parameter": f"aws-kms://{ARN}?regoin=eu-west-1",
    "credentials in the query": f"aws-kms://{ARN}?access_key_id=A",
    "two regions": f"aws-kms://{ARN}?region=us-east-1",
    "region that is none": "aws-kms://alias/a?region=europe",
    "region with a host": "aws-kms://alias/a?region=eu-west-1.evil.example/",
    "endpoint without a scheme": "aws-kms://alias/a?endpoint_url=localhost:4566",
    "endpoint of another scheme": "aws-kms://alias/a?endpoint_url=ftp://localhost",
    "endpoint with a path": "aws-kms://alias/a?endpoint_url=https://kms.example/a",
    "endpoint with a password": "aws-kms://alias/a?endpoint_url=https://a:b%40kms.example",
    "endpoint with a bad port": "aws-kms://alias/a?endpoint_url=https://kms.example:99999",
    "plain http to another host": "aws-kms://alias/a?endpoint_url=http://kms.example",
    "plain http to a name like the loopback's": "aws-kms://alias/a?endpoint_url=http://localhost.example",
    "plain http to an address like the loopback's": "aws-kms://alias/a?endpoint_url=http://127.0.0.1.example",
    "empty profile": "aws-kms://alias/a?profile=",
}
ROLE = "arn:aws:iam::111122223333:role/kms"
BAD_OPTIONS = {
    "key without a secret": {"access_key_id": "AKIA"},
    "secret without a key": {"secret_access_key": "s"},
    "token alone": {"session_token": "t"},
    "role that is none": {"assume_role": {"role_arn": "kms"}},
    "external id without a role": {"assume_role": {"external_id": "e-1"}},
    "external id with a space": {"assume_role": {"role_arn": ROLE, "external_id": "a b"}},
    "session name too short": {"assume_role": {"role_arn": ROLE, "session_name": "a"}},
    "duration too short": {"assume_role": {"role_arn": ROLE, "duration": 900}},
    "STS over plain http": {"assume_role": {"role_arn": ROLE, "endpoint_url": "http://sts.example"}},
    "algorithm that is unknown": {"algorithm": "RSA-OAEP-SHA-1"},
    "public key without an algorithm": {"public_key": "-----BEGIN PUBLIC KEY-----"},
    "public key that is none": {"algorithm": "RSA-OAEP-SHA-256", "public_key": "nonsense"},
    "CA file of the wrong type": {"ca_file": 1},
}


@pytest.mark.parametrize("uri", BAD_URIS.values(), ids=BAD_URIS)
def test_bad_uri_is_refused_when_opened(driver_of, uri):
    """`ConfigError` with a remedy, before botocore is asked."""
    with pytest.raises(ConfigError) as caught:
        driver_of(uri)
    assert caught.value.remedy


@pytest.mark.parametrize("options", BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_option_is_refused_when_opened(driver_of, options):
    """`ConfigError` that does not quote what was given."""
    with pytest.raises(ConfigError) as caught:
        driver_of(f"aws-kms://{ARN}", **options)
    assert "nonsense" not in str(caught.value)
    assert caught.value.remedy


def test_access_key_and_profile_are_refused(driver_of):
    """Both are credentials, and neither may win silently."""
    with pytest.raises(ConfigError, match="profile"):
        driver_of(f"aws-kms://{ARN}?profile=p", access_key_id="a", secret_access_key="s")


def test_public_key_needs_the_keys_arn(driver_of):
    """An alias would cost a call, and a permission, to tell the key's id."""
    with pytest.raises(ConfigError, match="ARN"):
        driver_of("aws-kms://alias/a", algorithm="RSA-OAEP-SHA-256", public_key="-----BEGIN")


def test_misspelt_option_is_not_asked_for():
    """The library then refuses it, and names the nearest one."""
    options = Options({"acces_key_id": "a", "assume_role": {"role": "r"}})
    AwsKmsDriver.open(KeyURI.parse(f"aws-kms://{ARN}"), options).close()
    assert [name for _, name in options.unknown()] == ["acces_key_id", "role"]


def test_plain_http_may_be_allowed(driver_of):
    """For LocalStack in another container."""
    driver_of("aws-kms://alias/a?endpoint_url=http://localstack:4566", allow_plain_http=True)


def test_plain_http_of_the_environment_is_refused(driver_of, monkeypatch):
    """An endpoint from AWS's own variables is held to the same."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://kms.example")
    driver = driver_of(f"aws-kms://{ARN}", access_key_id="a", secret_access_key="s")
    with pytest.raises(ConfigError, match="plain http"):
        driver.wrap(bytes(32), BOUND, timeout=5)


@pytest.mark.parametrize(
    "name", ["alias/no-such-key", KEY, f"arn:aws:kms:{REGION}:000000000000:alias/no-such"]
)
def test_key_that_does_not_exist_is_told_at_first_use(driver_of, endpoint, name):
    """`KEY_NOT_FOUND`, whatever form the name has; the remedy speaks of the region."""
    region = "" if name.startswith("arn:") else f"&region={REGION}"
    driver = driver_of(f"aws-kms://{name}?endpoint_url={endpoint}{region}", **ACCESS)
    with pytest.raises(ClientError) as caught:
        driver.resolve(timeout=10)
    assert driver.classify(caught.value, "wrap").name == "KEY_NOT_FOUND"
    assert "region" in driver.error_details(caught.value).remedy


WRONG_KEYS = {
    "RSA key for a symmetric one": ({"KeySpec": "RSA_2048", "KeyUsage": "ENCRYPT_DECRYPT"}, {}),
    "key that signs": ({"KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"}, {"algorithm": "RSA-OAEP-SHA-256"}),
    "HMAC key": ({"KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC"}, {}),
    "symmetric key for an RSA one": ({}, {"algorithm": "RSA-OAEP-SHA-256"}),
}


@pytest.mark.parametrize(("made", "options"), WRONG_KEYS.values(), ids=WRONG_KEYS)
def test_key_of_the_wrong_type_is_told_at_first_use(harness, end, made, options):
    """`KmsInvalidRequest`, with what to use instead, whether the first use looks at the key or encrypts."""
    name = harness.kms.create_key(**made)["KeyMetadata"]["KeyId"]
    for use in (lambda key: key.wrap(bytes(32), BOUND), lambda key: key.identify()):
        key = Keys(harness, end).at(harness.at(name, **options))
        with pytest.raises(KmsInvalidRequest, match="SYMMETRIC_DEFAULT"):
            use(key)


def test_key_of_the_wrong_type_is_refused_by_aws(harness, end):
    """By its ARN no call tells the type beforehand; AWS's own refusal has the same remedy."""
    made = harness.kms.create_key(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
    key = Keys(harness, end).at(harness.at(made["KeyMetadata"]["Arn"]))
    with pytest.raises(KmsInvalidRequest, match="SYMMETRIC_DEFAULT"):
        key.wrap(bytes(32), BOUND)


def test_no_region_is_told_with_the_remedy(driver_of):
    """Neither in the URI nor in AWS's own variables."""
    driver = driver_of("aws-kms://alias/a", **ACCESS)
    with pytest.raises(NoRegionError) as caught:
        driver.resolve(timeout=5)
    assert driver.classify(caught.value, "wrap").name == "INVALID_REQUEST"
    assert "?region=" in driver.error_details(caught.value).remedy


def test_wrong_region_is_told_with_the_remedy(harness, end):
    """A key is known in its own region alone."""
    elsewhere = harness.arn("first").replace(REGION, "us-east-1")
    with pytest.raises(KmsKeyNotFound, match="region"):
        Keys(harness, end).at(harness.at(elsewhere)).wrap(bytes(32), BOUND)


LOCAL = "endpoint_url points at http://127.0.0.1, which is this machine"


@pytest.mark.parametrize(
    ("query", "options", "settings"),
    [
        ("", {}, []),
        ("?endpoint_url=https://vpce-1.kms.eu-west-1.vpce.amazonaws.com", {}, []),
        ("?endpoint_url=http://127.0.0.1:4566", {}, [LOCAL]),
        (
            "?endpoint_url=http://kms.test",
            {"allow_plain_http": True},
            ["endpoint_url points at http://kms.test, which is not https", "allow_plain_http is true"],
        ),
        (
            "",
            {
                "assume_role": {
                    "role_arn": "arn:aws:iam::111122223333:role/a",
                    "endpoint_url": "https://localhost:1",
                }
            },
            ["assume_role.endpoint_url points at https://localhost, which is this machine"],
        ),
    ],
    ids=["nothing", "interface endpoint", "emulator", "plain http elsewhere", "STS on this machine"],
)
def test_what_is_for_emulators_is_not_for_production(driver_of, query, options, settings):
    """In words."""
    assert driver_of(f"aws-kms://{ARN}{query}", **options).development_settings() == settings


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"])
@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("http://user:canary@127.0.0.1:4566", ["{} points at http://127.0.0.1, which is this machine"]),
        ("https://kms.eu-west-1.amazonaws.com", ["{} takes the endpoint from the environment"]),
        ("http://[", ["{} takes the endpoint from the environment"]),
    ],
    ids=["emulator", "service", "no URL"],
)
def test_endpoint_of_the_standard_variables_counts(driver_of, monkeypatch, name, url, settings):
    """Where the URI has none; nothing secret of it shows."""
    monkeypatch.setenv(name, url)
    expected = [each.format(name) for each in settings]
    assert driver_of(f"aws-kms://{ARN}").development_settings() == expected
    given = "?endpoint_url=https://kms.eu-west-1.amazonaws.com"
    assert driver_of(f"aws-kms://{ARN}{given}").development_settings() == []
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert driver_of(f"aws-kms://{ARN}").development_settings() == []


def test_endpoint_of_sts_counts_where_a_role_is_assumed(driver_of, monkeypatch):
    """STS is given the credentials' signature, and its answer decides who signs."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "https://sts.example")
    role = {"role_arn": "arn:aws:iam::111122223333:role/a"}
    assert driver_of(f"aws-kms://{ARN}").development_settings() == []
    told = ["AWS_ENDPOINT_URL_STS takes the endpoint from the environment"]
    assert driver_of(f"aws-kms://{ARN}", assume_role=role).development_settings() == told


def test_production_refuses_an_endpoint_from_the_environment(monkeypatch):
    """Which whoever starts the program chooses; the configuration may allow it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://kms.example")
    key = {"uri": f"aws-kms://{ARN}"}
    settings = {"keys": {"aws": key}, "profiles": {"prod": {"encrypt_to": ["aws"], "production": True}}}
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL takes the endpoint from the environment"):
        Encryptor.from_mapping(settings)
    key["allow_in_production"] = True
    Encryptor.from_mapping(settings).close()


ENDPOINTS = {
    "default": ("", {}, "that of AWS KMS in eu-west-1", "default"),
    "URI": (
        "?endpoint_url=https://kms.internal:8443",
        {},
        "https://kms.internal:8443",
        "endpoint_url of the URI",
    ),
    "environment": (
        "",
        {"AWS_ENDPOINT_URL": "http://user:canary@127.0.0.1:4566/x"},
        "http://127.0.0.1:4566",
        "environment variable AWS_ENDPOINT_URL",
    ),
    "environment for KMS": (
        "",
        {"AWS_ENDPOINT_URL_KMS": "https://a.example", "AWS_ENDPOINT_URL": "https://b.example"},
        "https://a.example",
        "environment variable AWS_ENDPOINT_URL_KMS",
    ),
}


@pytest.mark.parametrize(("query", "variables", "url", "origin"), ENDPOINTS.values(), ids=ENDPOINTS)
def test_endpoint_in_force_is_explained(monkeypatch, query, variables, url, origin):
    """With where it came from, and without a password."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told = config.explain(env={"KMSBRIDGE_KEY": f"aws-kms://{ARN}{query}"})
    (setting,) = [each for each in told if each.name.endswith("(endpoint)")]
    assert (setting.value, setting.origin) == (url, origin)


def test_endpoint_that_a_profile_may_replace_is_explained(monkeypatch, tmp_path):
    """The SDK reads it when the key is used; this says where to look."""
    (tmp_path / "config").write_text("[default]\nendpoint_url = https://kms.internal\n")

    def origin():
        told = config.explain(env={"KMSBRIDGE_KEY": f"aws-kms://{ARN}"})
        return next(each.origin for each in told if each.name.endswith("(endpoint)"))

    assert origin() == "default, unless the AWS profile has an endpoint_url"
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
    assert origin() == "default"


def test_forgery_is_there_when_the_keys_arn_is_known(driver_of):
    """Else there is no id to put on it."""
    assert driver_of("aws-kms://alias/a?region=eu-west-1").forgeries() == ()
    driver = driver_of(f"aws-kms://{ARN}")
    (one,), (other,) = driver.forgeries(), driver.forgeries()
    assert (one.key_id, one.version, len(one.ciphertext)) == (f"aws-kms:{ARN}", "", 184)
    assert one != other
