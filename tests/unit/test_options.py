"""What a driver asks its options for."""

import os

import pytest

from kmsbridge.errors import ConfigError
from kmsbridge.options import Options

CANARY = "canary-value"


@pytest.fixture
def options():
    return Options(
        {
            "address": "here",
            "ca_file": "certs/ca.pem",
            "root": "/etc/ca.pem",
            "home": "~/ca.pem",
            "empty": "",
        },
        name="keys.app",
        folder="/etc/app",
    )


@pytest.mark.parametrize("method", ("text", "path", "secret"))
@pytest.mark.parametrize("option", ("token", "empty"))
def test_an_option_that_is_required_and_missing_is_named(options, method, option):
    """As is one that is there and empty."""
    with pytest.raises(ConfigError, match=f"keys.app has no {option}.*set keys.app.{option}"):
        getattr(options, method)(option, required=True)


def test_an_option_that_is_required_and_given_is_returned(options):
    """As text, as a path, as a secret."""
    assert options.text("address", required=True) == "here"
    assert options.path("root", required=True) == "/etc/ca.pem"
    assert options.secret("address", required=True).reveal_text() == "here"


def test_a_default_stands_in(options):
    """For what is missing; an empty text is given."""
    assert options.text("token") is None
    assert options.text("token", "none") == "none"
    assert options.text("empty", "none") == ""
    assert options.path("token", "") == ""
    assert options.path("token") is None
    assert options.secret("token") is None


@pytest.mark.parametrize(
    ("option", "path"),
    (
        ("ca_file", "/etc/app/certs/ca.pem"),
        ("root", "/etc/ca.pem"),
        ("home", "/etc/app/~/ca.pem"),
        ("empty", None),
    ),
)
def test_a_path_starts_at_the_configurations_folder(options, option, path):
    """And is taken as it stands otherwise."""
    assert options.path(option) == path


def test_the_default_of_a_path_starts_there_too(options):
    """A relative one."""
    assert options.path("other", "ca.pem") == "/etc/app/ca.pem"
    assert options.path("other", "/ca.pem") == "/ca.pem"


def test_a_path_is_absolute_without_a_configuration_file(monkeypatch, tmp_path):
    """So that it stays the same when the program changes its folder."""
    monkeypatch.chdir(tmp_path)
    assert Options({"ca_file": "ca.pem"}).path("ca_file") == os.path.join(os.getcwd(), "ca.pem")


@pytest.mark.parametrize("method", ("text", "path", "secret"))
def test_a_value_of_another_type_is_not_quoted(method):
    """Whichever way it is asked for."""
    with pytest.raises(ConfigError, match=r"keys.app.ca_file is of the wrong type \(list\)") as caught:
        getattr(Options({"ca_file": [CANARY]}, name="keys.app"), method)("ca_file", required=True)
    assert CANARY not in str(caught.value)


def test_what_was_asked_for_is_known(options):
    """However it was asked for."""
    options.text("address")
    options.path("ca_file")
    options.secret("root")
    assert options.known() == ["address", "ca_file", "root"]
    assert [name for _, name in options.unknown()] == ["home", "empty"]
