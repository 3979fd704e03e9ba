"""What a driver refuses when it is opened, with what to do about it."""

import os

import pytest

from kmsbridge import EnvelopeCipher
from kmsbridge.errors import ConfigError
from tests.backends.gcp import open_one

KEY = "projects/p/locations/global/keyRings/r/cryptoKeys/k"
URI = f"gcp-kms://{KEY}"
RSA = {"algorithm": "RSA-OAEP-SHA-256"}
LOOPBACK = {"endpoint": "127.0.0.1:8080", "insecure": True}

BAD_URIS = {
    "no key": "gcp-kms://projects/p/locations/global/keyRings/r",
    "only a name": "gcp-kms:k",
    "no scheme's slashes and a slash too many": f"gcp-kms:/{KEY}",
    "slash at the end": f"{URI}/",
    "version that is no number": f"{URI}/cryptoKeyVersions/latest",
    "version zero": f"{URI}/cryptoKeyVersions/0",
    "64 characters": f"{URI}{'k' * 63}",
    "not ASCII": f"{URI}ü",
    "two dots as project": URI.replace("projects/p", "projects/.."),
    "two dots amid a project": URI.replace("projects/p", "projects/a..b"),
    "fragment": f"{URI}#1",
    "parameter": f"{URI}?region=europe-west1",
    "endpoint as a parameter": f"{URI}?endpoint=localhost:1",
}
BAD_OPTIONS = {
    "endpoint that is a URL": {"endpoint": "https://cloudkms.googleapis.com"},
    "endpoint with a path": {"endpoint": "localhost:1/kms"},
    "empty endpoint": {"endpoint": ""},
    "endpoint with a target's scheme": {"endpoint": "unix:/run/kms"},
    "port that is none": {"endpoint": "localhost:99999"},
    "insecure without endpoint": {"insecure": True},
    "anonymous without endpoint": {"anonymous": True},
    "insecure elsewhere": {"endpoint": "cloudkms.googleapis.com:443", "insecure": True},
    "insecure at an address that looks like this machine": {
        "endpoint": "127.0.0.1.nip.io:1",
        "insecure": True,
    },
    "insecure with a CA": {**LOOPBACK, "ca_file": "ca.pem"},
    "insecure with real credentials": {**LOOPBACK, "credentials_file": "sa.json"},
    "insecure with impersonation": {**LOOPBACK, "impersonate_service_account": "a@p.iam.gserviceaccount.com"},
    "two kinds of credentials": {"credentials_file": "sa.json", "access_token": "token"},
    "anonymous with credentials": {**LOOPBACK, "anonymous": True, "access_token": "token"},
    "impersonation with a token": {"access_token": "t", "impersonate_service_account": "a@p.example"},
    "service account that is none": {"impersonate_service_account": "app"},
    "other algorithm": {"algorithm": "RSA-OAEP-SHA-1"},
    "asymmetric without a version": RSA,
    "version that is no number": {**RSA, "version": "latest"},
    "public key that is none": {**RSA, "version": "1", "public_key": "-----BEGIN PUBLIC KEY-----"},
    "version of a symmetric key": {"version": "1"},
    "public key of a symmetric key": {"public_key": "-----BEGIN PUBLIC KEY-----"},
    "flag of the wrong type": {"insecure": "yes"},
}


@pytest.mark.parametrize("uri", BAD_URIS.values(), ids=BAD_URIS)
def test_bad_uri_is_refused(uri):
    """`ConfigError` that says how to write it."""
    with pytest.raises(ConfigError) as caught:
        open_one(uri, {})
    assert caught.value.remedy


@pytest.mark.parametrize("options", BAD_OPTIONS.values(), ids=BAD_OPTIONS)
def test_bad_options_are_refused(options):
    """`ConfigError` that names the option and says what to do, and quotes no token."""
    with pytest.raises(ConfigError) as caught:
        open_one(URI, options)
    assert "keys.app" in caught.value.message
    assert caught.value.remedy


def test_versions_that_contradict_are_refused():
    """The URI's and the option's."""
    with pytest.raises(ConfigError):
        open_one(f"{URI}/cryptoKeyVersions/2", {**RSA, "version": "1"})
    with pytest.raises(ConfigError, match="algorithm"):
        open_one(f"{URI}/cryptoKeyVersions/2", {})


def test_unknown_option_is_refused():
    """By the library, with the nearest that is known."""
    with pytest.raises(ConfigError, match="endpoint"):
        EnvelopeCipher.from_uri(URI, endpiont="localhost:1")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"endpoint": "cloudkms.europe-west1.rep.googleapis.com"},
        {"endpoint": "localhost:1", "insecure": True},
        {"endpoint": "[::1]:1", "insecure": True, "anonymous": True},
        {"endpoint": "10.0.0.1:1", "anonymous": True, "ca_file": "ca.pem"},
        {"credentials_file": "sa.json", "quota_project": "billing"},
        {"impersonate_service_account": "app@p.iam.gserviceaccount.com"},
    ],
    ids=["nothing", "regional endpoint", "localhost", "IPv6", "anonymous with TLS", "file", "impersonation"],
)
def test_what_goes_together_opens(options):
    """Without a connection, and without reading the files."""
    open_one(URI, options).close()


@pytest.mark.parametrize("project", ["p", "my-project-1", "123456789012", "example.com:my-project"])
def test_every_form_of_a_project_is_taken(project):
    """Ids, numbers, and those of a domain."""
    name = URI.replace("projects/p", f"projects/{project}")
    assert open_one(name, {}).resolve(timeout=1) == name.replace("://", ":")


def test_repr_shows_no_token():
    """Nor does any frame that an error keeps."""
    driver = open_one(URI, {**LOOPBACK, "access_token": "canary"})
    assert "canary" not in repr(driver) + repr(vars(driver))
    driver.close()


def test_ca_file_that_is_not_there_is_told_at_first_use(context):
    """`ConfigError` with its path; nothing is connected."""
    driver = open_one(URI, {"endpoint": "localhost:1", "anonymous": True, "ca_file": "/nowhere/ca.pem"})
    with pytest.raises(ConfigError, match="/nowhere/ca.pem"):
        driver.wrap(b"x", context, timeout=1)
    driver.close()
    assert not os.path.exists("/nowhere")


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, []),
        ({"endpoint": "cloudkms-europe-west1.p.googleapis.com"}, []),
        (
            {**LOOPBACK, "access_token": "canary"},
            ["insecure is true", "endpoint is 127.0.0.1:8080, which is on this machine"],
        ),
        ({"endpoint": "kms.example:443", "anonymous": True}, ["anonymous is true"]),
        ({"endpoint": "localhost:443"}, ["endpoint is localhost:443, which is on this machine"]),
    ],
    ids=["nothing", "private endpoint", "emulator", "anonymous", "localhost with TLS"],
)
def test_what_is_for_emulators_is_not_for_production(options, settings):
    """In words, without a token."""
    assert open_one(URI, options).development_settings() == settings


@pytest.mark.parametrize(
    ("options", "version", "length"),
    [({}, "", 113), ({**RSA, "version": "7"}, "7", 256)],
    ids=["symmetric", "asymmetric"],
)
def test_forgery_has_the_form_of_what_the_key_wraps(options, version, length):
    """With the version that Cloud KMS must be told, and another each time."""
    driver = open_one(URI, options)
    (one,), (other,) = driver.forgeries(), driver.forgeries()
    assert (one.key_id, one.version, len(one.ciphertext)) == (driver.resolve(timeout=1), version, length)
    assert one != other
