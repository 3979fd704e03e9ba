"""`keygen` makes a pair that works, and leaves nothing of its seed on disk."""

import json
import tomllib

import pytest

from kmsbridge import Decryptor, Encryptor, inspect
from kmsbridge.drivers.hpke import pairs
from kmsbridge.drivers.hpke.publickey import PublicKey


def opened(home, line, private):
    """A message encrypted by the public key alone, decrypted with the private file by way of dev."""
    name = PublicKey.parse(line).name
    config = home.path / "both.toml"
    config.write_text(
        (home.path / "kmsbridge.toml").read_text()
        + f'[keys.web]\nuri = "hpke:{name}"\npublic_key = "{line}"\n'
        + f'[keys.worker]\nuri = "hpke:{name}"\nprivate_file = "{private}"\nprotect_with = "dev"\n'
        + '[profiles.web]\nencrypt_to = ["web"]\n[profiles.worker]\ndecrypt_with = ["worker"]\n'
    )
    with Encryptor.from_config(config, profile="web") as encryptor:
        message = encryptor.encrypt(b"x")
    with Decryptor.from_config(config, profile="worker") as decryptor:
        assert decryptor.decrypt(message) == b"x"
    return inspect(message).recipients[0]


@pytest.mark.parametrize("suite", ("mlkem768-x25519", "x25519"))
def test_the_pair_works(home, suite):
    done = home.run("keygen", "customer", "--protect-with", "dev", "--suite", suite)
    assert done.code == 0, done.err
    line = done.text.strip()
    assert PublicKey.parse(line).suite.name == suite
    private = home.path / "customer.hpke.toml"
    assert private.stat().st_mode & 0o777 == 0o600
    recipient = opened(home, line, private)
    assert recipient.key_id in done.err
    assert recipient.key_version in done.err


def test_the_hybrid_is_the_default(home):
    line = home.ok("keygen", "customer", "--protect-with", "dev", "-q").decode()
    assert PublicKey.parse(line).suite.name == "mlkem768-x25519"


def test_a_seed_is_nowhere_on_disk_or_on_the_screen(home, monkeypatch):
    """Raw or in hex; the armored message of it is."""
    seeds = []
    random = pairs.os.urandom

    class Watching:
        @staticmethod
        def urandom(length):
            value = random(length)
            seeds.append(value)
            return value

    monkeypatch.setattr(pairs, "os", Watching)
    done = home.run("keygen", "customer", "--protect-with", "dev")
    assert done.code == 0, done.err
    seeds = [seed for seed in seeds if len(seed) == 32]
    assert seeds
    for data in (*(path.read_bytes() for path in home.path.iterdir()), done.out, done.err.encode()):
        for seed in seeds:
            assert seed not in data
            assert seed.hex().encode() not in data


def test_nothing_is_overwritten(home):
    home.ok("keygen", "customer", "--protect-with", "dev", "-q")
    before = (home.path / "customer.hpke.toml").read_bytes()
    done = home.run("keygen", "customer", "--protect-with", "dev")
    assert done.code != 0
    assert "never overwritten" in done.err
    assert not done.out
    assert (home.path / "customer.hpke.toml").read_bytes() == before


def test_rotate_adds_a_pair_of_the_same_key(home):
    first = home.ok("keygen", "customer", "--protect-with", "dev", "-q").decode().strip()
    answer = json.loads(home.ok("keygen", "customer", "--protect-with", "dev", "-q", "--rotate", "--json"))
    assert answer["public_key"] != first
    assert answer["key_id"] == PublicKey.parse(first).key_id
    for line in (first, answer["public_key"]):
        assert opened(home, line, answer["private_file"]).key_version == PublicKey.parse(line).version


def test_a_later_pair_can_wait(home):
    home.ok("keygen", "customer", "--protect-with", "dev", "-q")
    home.ok("keygen", "customer", "--protect-with", "dev", "-q", "--rotate", "--encrypt-from", "2999-01-31")
    tables = tomllib.loads((home.path / "customer.hpke.toml").read_text())["pairs"]
    assert [table["encrypt_from"].year < 2999 for table in tables] == [True, False]


@pytest.mark.parametrize(
    "arguments, problem",
    (
        (("keygen", "customer", "--protect-with", "none"), "there is no key"),
        (("keygen", "a/b", "--protect-with", "dev", "-o", "x.toml"), "not valid for a key"),
        (("keygen", "customer", "--protect-with", "dev", "--rotate"), "customer.hpke.toml"),
    ),
)
def test_what_cannot_be_is_refused_and_makes_no_file(home, arguments, problem):
    done = home.run(*arguments)
    assert done.code != 0
    assert problem in done.err
    assert not done.out
    assert not [*home.path.glob("*.hpke.toml"), *home.path.glob("x.toml")]


def test_a_pair_that_does_not_come_back_is_not_printed(home, monkeypatch):
    """As where the key service answers with something else."""
    from kmsbridge.keys import ManagedKey

    monkeypatch.setattr(ManagedKey, "unwrap", lambda *_, **__: bytes(32))
    done = home.run("keygen", "customer", "--protect-with", "dev")
    assert done.code != 0
    assert "not that of its public key" in done.err
    assert not done.out
    assert not [*home.path.glob("*.hpke.toml")]
