"""The commands on hosts with a public key, with a private file, and with a private file that they cannot use."""

import json
import sys

import pytest

from kmsbridge.cli.doctor import EXPECTATIONS
from kmsbridge.driver import ErrorKind
from kmsbridge.drivers.hpke.publickey import PublicKey
from kmsbridge.testing.fakes.fake import FakeDriver
from tests.support import Service, install

HOSTS = {"web": "encrypt-only", "worker": "full", "mover": "full"}


@pytest.fixture
def service(monkeypatch):
    """The fake key service behind `fake:app`, whose keys protect seeds."""
    service = Service()
    install(monkeypatch, type("Fake", (FakeDriver,), {"service": service}))
    return service


def hosts(home, protect_with, **settings):
    """Adds the keys and profiles of a web server, of a worker, and of a host that rewraps."""
    line = home.ok("keygen", "customer", "--protect-with", protect_with, "-q", *settings.get("keygen", ()))
    home.write("customer.pub", line)
    config = home.path / "kmsbridge.toml"
    more = settings.get("profile", "")
    config.write_text(
        config.read_text()
        + '[keys.public]\nuri = "hpke:customer"\npublic_key = "file:customer.pub"\n'
        + '[keys.private]\nuri = "hpke:customer"\nprivate_file = "customer.hpke.toml"\n'
        + f'protect_with = "{protect_with}"\n'
        + f'[profiles.web]\nencrypt_to = ["public"]\n{more}'
        + f'[profiles.worker]\ndecrypt_with = ["private"]\n{more}'
        + f'[profiles.mover]\nencrypt_to = ["private"]\ndecrypt_with = ["private"]\n{more}'
    )
    return PublicKey.parse(line.decode())


@pytest.fixture
def seeds(empty, service):
    """Three hosts, of which the seed is protected by a key of the fake service."""
    empty.write("kmsbridge.toml", '[keys.kms]\nuri = "fake:app"\n[profiles.kms]\nencrypt_to = ["kms"]\n')
    hosts(empty, "kms")
    return empty


# --- doctor ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("expect", EXPECTATIONS)
@pytest.mark.parametrize("profile", HOSTS)
def test_doctor_knows_each_host(seeds, profile, expect):
    """A host with the private file can always wrap as well: it has the public key."""
    done = seeds.run("doctor", "--profile", profile, "--expect", expect)
    assert done.code == (0 if HOSTS[profile] == expect else 12), done.text
    if expect == "decrypt-only":
        assert "which no permission prevents" in done.text
    # No command is named that would print nothing.
    assert "kmsbridge policy" not in done.text.replace("policy private --role decryptor", "")


def test_an_encrypting_host_is_shown_to_have_no_private_half(seeds, service):
    """And no call is made, nor a socket: all of it is known here."""
    made, watching = [], True

    def watch(event, arguments):
        if watching and event.startswith("socket."):
            made.append(event)

    sys.addaudithook(watch)
    before = service.app.calls.total()
    done = seeds.run("doctor", "--profile", "web", "--expect", "encrypt-only")
    watching = False
    assert done.code == 0
    assert (made, service.app.calls.total()) == ([], before)
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in done.text.splitlines()}
    assert lines["wrap"].startswith("yes, wrapped by this host itself with the public key")
    assert lines["unwrap"].startswith("no: access denied (no private_file)")


def test_a_host_that_ought_to_decrypt_is_told_what_it_lacks(seeds):
    told = seeds.run("doctor", "--profile", "web", "--expect", "full").text
    assert (
        "access denied (no private_file); set private_file and protect_with on a host that is to decrypt"
        in told
    )


def test_a_private_file_whose_protecting_key_denies_is_no_private_half(seeds):
    """The host has the file, and can only encrypt; what it lacks is a permission for the other key."""
    config = seeds.path / "kmsbridge.toml"
    config.write_text(
        config.read_text().replace('uri = "fake:app"', 'uri = "fake:app"\nrole = "encrypt-only"')
    )
    assert seeds.run("doctor", "--profile", "worker", "--expect", "encrypt-only").code == 0
    done = seeds.run("doctor", "--profile", "worker")
    assert done.code == 12
    told = done.text
    assert "it is the key that protects the seed, of fake, that failed" in told
    assert "as printed by 'kmsbridge policy private --role decryptor'" in told


@pytest.mark.parametrize(
    "change, problem",
    (
        (('protect_with = "kms"\n', ""), "only one of private_file and protect_with"),
        (('private_file = "customer.hpke.toml"\n', ""), "neither public_key nor private_file"),
        (
            ('uri = "fake:app"', 'uri = "fake:other"'),
            "is protected by fake:app, and protect_with is fake:other",
        ),
    ),
    ids=("no protecting key", "no private file", "another protecting key"),
)
def test_a_private_half_that_cannot_be_used_is_no_expectation_met(seeds, change, problem):
    """Neither to decrypt nor not to: it is not known what the host could do with the rest."""
    config = seeds.path / "kmsbridge.toml"
    assert change[0] in config.read_text()
    config.write_text(config.read_text().replace(*change))
    for expect in EXPECTATIONS:
        done = seeds.run("doctor", "--profile", "worker", "--expect", expect)
        assert done.code != 0
        assert problem in done.text + done.err


def test_a_service_that_is_down_is_no_expectation_met(seeds, service):
    """The seed might open when it is back."""
    service.app.fail("unwrap", ErrorKind.UNAVAILABLE)
    for expect in EXPECTATIONS:
        assert seeds.run("doctor", "--profile", "worker", "--expect", expect).code == 12


# --- rotate ---------------------------------------------------------------------------------------------


def test_rotate_says_which_command_rotates_a_key_pair(home, one_line):
    hosts(home, "dev")
    before = home.files()
    done = home.run("rotate", "private", "--profile", "worker")
    assert done.code == 3
    assert "kmsbridge keygen customer --rotate --protect-with KEY --output FILE" in one_line(done.err)
    assert home.files() == before


# --- environments ---------------------------------------------------------------------------------------


def test_a_pair_of_an_environment_is_used_there(home):
    hosts(home, "dev", keygen=("--environment", "prod"), profile='environment = "prod"\n')
    message = home.ok("encrypt", "--profile", "web", stdin=b"x")
    assert home.ok("decrypt", "--profile", "worker", stdin=message) == b"x"


def test_a_worker_of_another_environment_is_refused_by_the_key_that_protects_it(home, one_line):
    """Also a worker without one; and the message's environment is not what fails."""
    hosts(home, "dev", keygen=("--environment", "prod"), profile='environment = "prod"\n')
    config = home.path / "kmsbridge.toml"
    for line in ('environment = "staging"\n', ""):
        config.write_text(config.read_text().replace('environment = "prod"\n', line))
        message = home.ok("encrypt", "--profile", "web", stdin=b"x")
        done = home.run("decrypt", "--profile", "worker", stdin=message)
        assert (done.code, done.out) == (3, b"")
        assert "or use that of this host's environment" in one_line(done.err)
        config.write_text(config.read_text().replace('environment = "staging"\n', 'environment = "prod"\n'))


def test_a_later_pair_can_be_bound_too(home):
    """`--rotate` takes the environment again: each pair has its own."""
    hosts(home, "dev", profile='environment = "prod"\n')
    line = home.ok("keygen", "customer", "--protect-with", "dev", "-q", "--rotate", "--environment", "prod")
    old = home.ok("encrypt", "--profile", "web", stdin=b"old")
    home.write("customer.pub", line)
    new = home.ok("encrypt", "--profile", "web", stdin=b"new")
    for message, payload in ((old, b"old"), (new, b"new")):
        assert home.ok("decrypt", "--profile", "worker", stdin=message) == payload


@pytest.mark.parametrize("name", ("", " prod", "a" * 65))
def test_an_environment_that_is_none_is_refused(home, name):
    done = home.run("keygen", "customer", "--protect-with", "dev", "--environment", name)
    assert (done.code, done.out) == (3, b"")
    assert "environment" in done.err
    assert not [*home.path.glob("*.hpke.toml")]


# --- policy ---------------------------------------------------------------------------------------------

ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.fixture
def at_aws(home):
    """The hosts' configuration says that a key of AWS KMS protects the seed; nothing is called."""
    hosts(home, "dev", profile='environment = "prod"\n')
    config = home.path / "kmsbridge.toml"
    config.write_text(
        config.read_text().replace('protect_with = "dev"', 'protect_with = "kms"')
        + f'[keys.kms]\nuri = "aws-kms://{ARN}"\n'
    )
    return home


def test_a_workers_policy_is_for_the_seed_and_nothing_else(at_aws):
    """At AWS KMS the condition names what a seed is bound to, not what messages are."""
    text = at_aws.ok("policy", "private", "--role", "decryptor", "--profile", "worker")
    use = json.loads(text)["Statement"][0]
    assert (use["Action"], use["Resource"]) == (["kms:Decrypt"], ARN)
    assert use["Condition"]["StringEquals"] == {
        "kms:EncryptionContext:kmsbridge": ["hpke-private"],
        "kms:EncryptionContext:kmsbridge-environment": "prod",
    }


@pytest.mark.parametrize("role", ("encryptor", "rewrapper", "admin"))
def test_there_is_no_policy_where_none_would_do(at_aws, role):
    """keygen wraps and unwraps, which no role at AWS KMS allows."""
    done = at_aws.run("policy", "private", "--role", role, "--profile", "worker")
    assert (done.code, done.out) == (3, b"")
    assert "no policy" in done.err or "no single policy" in done.err
