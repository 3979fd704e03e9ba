"""Key pairs whose seeds a key of each provider protects: made, used by hosts of three kinds, and rotated."""

import json
from collections import Counter

import pytest
from click.testing import CliRunner

from kmsbridge import Decryptor, Encryptor, EnvelopeCipher, inspect
from kmsbridge.cli.app import app
from kmsbridge.drivers.hpke.publickey import PublicKey
from kmsbridge.errors import KmsAccessDenied, KmsInvalidRequest
from kmsbridge.testing import KeyAddress
from tests.backends.every import HARNESSES, configuration, harness
from tests.providers.test_audit import written_by_openbao

CONTEXT = {"tenant": "acme"}
SERVICES = [name for name in HARNESSES if name != "local"]


class Hosts:
    """A folder in which keygen was run, with the configurations of a web server and of workers.

    Of the workers, `worker` may unwrap with the protecting key, and `stranger` may only wrap.
    """

    def __init__(self, folder, service, environment):
        self.folder, self.service = folder, service
        self.audit = folder / "audit.jsonl"
        self.keys = {
            f"kms-{role}": service.address("first", role) for role in ("both", "encrypt-only", "decrypt-only")
        }
        self.environment = environment
        self.path = folder / "kmsbridge.toml"
        self._write({})
        self.keygen()

    def keygen(self, *more):
        """Makes a pair with the full role; the web server gets the public key."""
        done = self.run(
            *("keygen", "customer", "--protect-with", "kms-both", "--quiet", *more),
            *(("--environment", self.environment) if self.environment else ()),
            *("--output", str(self.folder / "customer.toml")),
        )
        assert done.exit_code == 0, done.output
        self.public_key = PublicKey.parse(done.stdout)
        pair = {"private_file": str(self.folder / "customer.toml")}
        uri = self.public_key.key_id
        self._write(
            {
                "web": KeyAddress(uri, {"public_key": self.public_key.line()}),
                "worker": KeyAddress(uri, {**pair, "protect_with": "kms-decrypt-only"}),
                "stranger": KeyAddress(uri, {**pair, "protect_with": "kms-encrypt-only"}),
            }
        )

    def _write(self, keys):
        more = {"audit": {"file": str(self.audit)}}
        profiles = {
            "kms": {"decrypt_with": ["kms-both"]},
            "web": {"encrypt_to": ["web"]},
            "worker": {"decrypt_with": ["worker"], **more},
            "stranger": {"decrypt_with": ["stranger"]},
            "mover": {"encrypt_to": ["web"], "decrypt_with": ["worker"]},
            "doctor": {"encrypt_to": ["worker"], "decrypt_with": ["worker"]},
        }
        if self.environment:
            for profile in profiles.values():
                profile["environment"] = self.environment
        if keys:
            profiles["elsewhere"] = {"decrypt_with": ["worker"], "environment": "staging"}
        else:
            profiles = {"kms": profiles["kms"]}
        self.path.write_text(configuration({**self.keys, **keys}, profiles))

    def run(self, *args):
        return CliRunner().invoke(app, ["--config", str(self.path), *args])

    def encrypt(self, payload):
        with Encryptor.from_config(self.path, profile="web") as web:
            return web.encrypt(payload, context=CONTEXT)

    def decrypt(self, message, profile="worker"):
        with Decryptor.from_config(self.path, profile=profile) as worker:
            worker.decrypt(message, context=CONTEXT)
            return worker.decrypt(message, context=CONTEXT)

    def events(self):
        """Operation and scheme of the key of each call in the worker's audit file, with its request id."""
        events = [json.loads(line) for line in self.audit.read_text().splitlines()]
        return [
            (each["operation"], each["key_id"].partition(":")[0], each["request_id"])
            for each in events
            if each.get("source") == "call"
        ]


@pytest.fixture(scope="module", params=SERVICES)
def service(request):
    service = harness(request.param)
    yield service
    service.close()


@pytest.fixture
def hosts(service, tmp_path, request):
    return Hosts(tmp_path, service, getattr(request, "param", ""))


environments = pytest.mark.parametrize("hosts", ("", "prod"), ids=("no environment", "prod"), indirect=True)


@environments
def test_hosts_use_a_pair_whose_seed_the_service_protects(hosts, service):
    """The web server asks nobody; each start of a worker costs one call, whatever it reads."""
    before = service.calls("first")
    message = hosts.encrypt(b"payload")
    assert service.calls("first") == before
    for start in range(1, 3):
        assert hosts.decrypt(message) == b"payload"
        assert service.calls("first") - before == start
    scheme = service.address("first").uri.partition(":")[0]
    assert Counter(each[:2] for each in hosts.events()) == {("unwrap", scheme): 2, ("unwrap", "hpke"): 2}
    ids = [request_id for _, key, request_id in hosts.events() if key == scheme]
    assert len({*ids, ""}) == 3
    assert {request_id for _, key, request_id in hosts.events() if key == "hpke"} == {""}


def test_a_worker_that_the_service_denies_opens_nothing(hosts):
    """It has the private file, and may only wrap with the protecting key."""
    message = hosts.encrypt(b"payload")
    with pytest.raises(KmsAccessDenied) as caught:
        hosts.decrypt(message, "stranger")
    assert "it is the key that protects the seed" in caught.value.remedy
    done = {
        profile: hosts.run("--profile", profile, "doctor", "--expect", "full")
        for profile in ("web", "doctor")
    }
    assert {profile: each.exit_code for profile, each in done.items()} == {"web": 12, "doctor": 0}


@pytest.mark.parametrize("hosts", ("prod",), indirect=True)
def test_a_worker_of_another_environment_is_refused_by_the_service(hosts):
    """With the same files and permissions: the seed itself does not open there."""
    with pytest.raises(KmsInvalidRequest) as caught:
        hosts.decrypt(hosts.encrypt(b"payload"), "elsewhere")
    assert "use that of this host's environment" in caught.value.remedy
    assert "prod" not in str(caught.value)


@environments
def test_a_rotated_pair_takes_over(hosts):
    """What the older one sealed still opens, and is moved; the key's id stays."""
    old, first = hosts.encrypt(b"old"), hosts.public_key
    hosts.keygen("--rotate")
    new, second = hosts.encrypt(b"new"), hosts.public_key
    assert (first.key_id, first.version != second.version) == (second.key_id, True)
    assert (hosts.decrypt(old), hosts.decrypt(new)) == (b"old", b"new")
    with EnvelopeCipher.from_config(hosts.path, profile="mover") as mover:
        assert [mover.needs_rewrap(message) for message in (old, new)] == [True, False]
        moved = mover.rewrap(old, context=CONTEXT)
    assert inspect(moved).recipients[0].key_version == second.version
    assert hosts.decrypt(moved) == b"old"


def test_the_unwrap_of_a_seed_is_the_same_request_in_openbaos_audit_file(tmp_path):
    """So both trails can be joined."""
    service = harness("vault")
    hosts = Hosts(tmp_path, service, "")
    message, since = hosts.encrypt(b"payload"), service.vault.audit_file.stat().st_size
    hosts.decrypt(message)
    ((used, ids),) = written_by_openbao(service, since)
    ((operation, _, request_id),) = [each for each in hosts.events() if each[1] != "hpke"]
    assert operation == used == "unwrap"
    assert request_id in ids
    service.close()
