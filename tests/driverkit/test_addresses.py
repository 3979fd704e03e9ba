"""Addresses of services: what is one, and what would go there in the clear."""

import pytest

from kmsbridge.driverkit.addresses import is_loopback, refuse_plain_http, service_url
from kmsbridge.errors import ConfigError


@pytest.mark.parametrize("host", ("localhost", "127.0.0.1", "127.1.2.3", "::1"))
def test_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ("", "localhost.example", "127.0.0.1.example", "10.0.0.1", "::2", "0.0.0.0"))
def test_another_host(host):
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("given", "url"),
    (
        ("https://kms.example", "https://kms.example"),
        ("https://kms.example:8443/", "https://kms.example:8443"),
        ("http://127.0.0.1:4566", "http://127.0.0.1:4566"),
        ("https://[2001:db8::1]:1", "https://[2001:db8::1]:1"),
    ),
)
def test_address_of_a_service(given, url):
    assert service_url(given, "keys.app.address", plain=False) == url


@pytest.mark.parametrize(
    "given",
    (
        "",
        "kms.example",
        "ftp://kms.example",
        "https://",
        "https://kms.example:0",
        "https://kms.example:port",
        "https://kms.example:99999",
        "https://[::1",
        "https://user@kms.example",
        "https://user:canary@kms.example",
        "https://@kms.example",
        "https://kms.example?canary",
        "https://kms.example#canary",
        "https://kms.example/path",
        "https://kms.example\n",
        "https://kms\u200b.example",
    ),
)
def test_what_is_no_address_is_refused_and_not_quoted(given):
    with pytest.raises(ConfigError, match=r"keys\.app\.address") as caught:
        service_url(given, "keys.app.address", plain=True)
    assert "canary" not in str(caught.value)


def test_path_is_for_those_who_take_one():
    assert service_url("https://gate.example/kms/", "address", plain=False, with_path=True).endswith("/kms")


def test_plain_http_is_for_this_machine_or_who_allows_it():
    with pytest.raises(ConfigError, match="plain http"):
        service_url("http://kms.example", "address", plain=False)
    assert service_url("http://kms.example", "address", plain=True) == "http://kms.example"
    refuse_plain_http("http://localhost:1", "address", plain=False)
    with pytest.raises(ConfigError, match="plain http"):
        refuse_plain_http("http://169.254.169.254", "address", plain=False)
