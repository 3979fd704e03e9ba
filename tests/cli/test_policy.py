"""`policy`: the driver's policy and nothing else on stdout."""

from __future__ import annotations

import typing

import pytest

from kmsbridge.cli.policy import ROLES
from kmsbridge.driver import KeyDriver, PolicyRole
from kmsbridge.errors import ConfigError
from kmsbridge.testing.fakes.fake import FakeDriver
from tests.support import Service, install


class Fake(FakeDriver):
    """Has policies in a language of its own."""

    scheme = "fake"
    service = Service()

    def policy(self, role):
        if self.name == "alias":
            raise ConfigError("an alias does not tell the key", remedy="name the key itself")
        return f'path "{self.name}" {{\n\tmay = "{role}"\n}}\n'


@pytest.fixture
def host(empty, monkeypatch):
    """Two keys, of which one prints policies."""
    install(monkeypatch, Fake, type("Plain", (FakeDriver,), {"scheme": "plain", "policy": KeyDriver.policy}))
    empty.write(
        "kmsbridge.toml",
        '[keys.one]\nuri = "fake:app"\n[keys.two]\nuri = "plain:app"\n'
        '[profiles.p]\nencrypt_to = ["one"]\ndecrypt_with = ["two"]\n',
    )
    return empty


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("key", ("one", "fake:app"), ids=("name", "URI"))
def test_the_policy_is_printed_as_the_driver_gives_it(host, key, role):
    """Byte for byte, so that it can be piped; no call is made."""
    done = host.run("policy", key, "--role", role)
    assert (done.code, done.err) == (0, "")
    assert done.out == f'path "app" {{\n\tmay = "{role}"\n}}\n'.encode()
    assert not Fake.service.app.calls


@pytest.mark.parametrize(
    "settings, required",
    (
        ('environment = "prod"', "prod"),
        ('environment = "prod"\naccept_unmarked_until = 2000-01-01', "prod"),
        ('environment = "prod"\naccept_unmarked_until = 9999-12-31', ""),
        ("", ""),
    ),
)
def test_the_driver_is_told_of_the_environment_that_every_context_has(host, monkeypatch, settings, required):
    """While messages without one are accepted, it cannot be required."""
    monkeypatch.setattr(Fake, "policy", lambda driver, role: f"{driver.environment}\n")
    host.write(
        "kmsbridge.toml", f'[keys.one]\nuri = "fake:app"\n[profiles.p]\nencrypt_to = ["one"]\n{settings}\n'
    )
    assert host.run("policy", "one", "--role", "encryptor").out == f"{required}\n".encode()


def test_the_roles_are_the_drivers(host):
    """The list on the command line is spelt out, so that help needs no import; one must be given."""
    assert typing.get_args(PolicyRole) == ROLES
    assert host.run("policy", "one").code == 2
    assert host.run("policy", "one", "--role", "reader").code == 2


def test_a_uri_needs_no_configuration(host):
    """Whoever grants the permissions need not be a host that uses the key."""
    (host.path / "kmsbridge.toml").unlink()
    assert host.run("policy", "fake:app", "--role", "admin").code == 0
    assert host.run("policy", "one", "--role", "admin").code == 3


@pytest.mark.parametrize(
    ("key", "code", "says"),
    (
        ("two", 1, "the plain driver cannot print policies"),
        ("three", 3, "its keys: one, two"),
        ("fake:alias", 3, "name the key itself"),
        ("none:app", 3, "no driver for 'none'"),
        ("fake:app?a=b", 3, "parameter"),
    ),
)
def test_a_key_without_a_policy_is_an_error(host, one_line, key, code, says):
    """With a remedy, and nothing on stdout."""
    done = host.run("policy", key, "--role", "encryptor")
    assert (done.code, done.out) == (code, b"")
    assert says in one_line(done.err)


def test_a_local_key_has_none(home, one_line):
    """Who may read the file may do everything, and the error says where to read on."""
    done = home.run("policy", "dev", "--role", "encryptor")
    assert (done.code, done.out) == (3, b"")
    assert "whoever may read its key file may do everything" in one_line(done.err)
