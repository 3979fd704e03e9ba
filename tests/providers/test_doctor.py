"""The policies that the command prints, given to a principal, and what `doctor` says of a host that is that principal."""

import contextlib
import json
import secrets
import subprocess

import pytest
from click.testing import CliRunner
from kmsbridge_gcp.policies import MEMBER
from kmsbridge_gcp_emulator import Emulator

from kmsbridge import Decryptor, Encryptor, EnvelopeCipher
from kmsbridge.cli.app import app
from kmsbridge.cli.doctor import EXPECTATIONS
from kmsbridge.errors import KmsAccessDenied
from kmsbridge.testing import KeyAddress
from localstack.aws_front import AwsFront
from localstack.openbao import program
from tests.backends import facts
from tests.backends.aws import AsymmetricAwsHarness, plain_client
from tests.backends.every import configuration
from tests.backends.gcp import AsymmetricGcpHarness, stock_client
from tests.backends.vault import Vault

# Whose permissions a host has -> what it then is, where the service rewraps by itself and where it does not.
HOSTS = {"encryptor": "encrypt-only", "decryptor": "decrypt-only", "rewrapper": "", "both": "full"}
PROFILES = {
    "web": {"encrypt_to": ["app"]},
    "worker": {"decrypt_with": ["app"]},
    "mover": {"encrypt_to": ["app"], "decrypt_with": ["app"]},
}
CONTEXT = {"tenant": "acme"}


class OpenBaoKey:
    """A key of OpenBao. A principal is a token, its policies are written by `bao` itself."""

    rewraps = False
    options = {}

    def __init__(self, _end):
        self.vault = Vault()
        self.name = self.vault.key(**self.options)

    def at(self, token):
        auth = {"method": "token", "token": token}
        return KeyAddress(
            f"vault-transit://transit/{self.name}",
            {"address": self.vault.address, "auth": auth, **self.options},
        )

    def owner(self):
        return self.at(self.vault.token)

    def principal(self, texts):
        return self.at(self.vault.new_token(*map(self._policy, texts), ttl="10m"))

    def rotate(self):
        self.vault.ask("POST", f"transit/keys/{self.name}/rotate")

    def _policy(self, text):
        name = f"policy-{secrets.token_hex(6)}"
        subprocess.run(
            [program(), "policy", "write", name, "-"],
            input=text,
            text=True,
            check=True,
            capture_output=True,
            env={"BAO_ADDR": self.vault.address, "BAO_TOKEN": self.vault.token},
        )
        return name


class DerivedOpenBaoKey(OpenBaoKey):
    """A key made for derivation."""

    rewraps = True
    options = {"derived": True}


class EmulatedKey:
    """A key of Google Cloud KMS. A principal is an access token, its policy is set by the stock client."""

    rewraps = False

    def __init__(self, _end):
        self.endpoint = facts("gcp")["endpoint"]
        self.name = Emulator.at(self.endpoint).create_key()

    def at(self, token):
        options = {"endpoint": self.endpoint, "insecure": True}
        return KeyAddress(f"gcp-kms://{self.name}", options | ({"access_token": token} if token else {}))

    def owner(self):
        return self.at("")

    def principal(self, texts):
        name = f"host-{secrets.token_hex(6)}"
        policies = [
            json.loads("".join(line for line in text.splitlines() if not line.startswith("#")))
            for text in texts
        ]
        bindings = [each for policy in policies for each in policy["bindings"]]
        for each in bindings:
            assert each["members"] == [MEMBER]
            each["members"] = [f"serviceAccount:{name}"]
        with stock_client(self.endpoint) as client:  # beside what others were given
            policy = client.get_iam_policy(request={"resource": self.name})
            for each in bindings:
                policy.bindings.add(**each)
            client.set_iam_policy(request={"resource": self.name, "policy": policy})
        return self.at(name)


class AwsKey:
    """A key of AWS KMS. A principal is an access key, its actions are enforced in front of LocalStack."""

    rewraps = True

    def __init__(self, end):
        self.front = end.enter_context(AwsFront(facts("aws")["endpoint"]))
        self.kms = end.enter_context(contextlib.closing(plain_client()))
        self.arn = self.kms.create_key()["KeyMetadata"]["Arn"]

    def at(self, access_key_id):
        endpoint = "http://{}:{}".format(*self.front.address)
        credentials = {"access_key_id": access_key_id, "secret_access_key": "none"}
        return KeyAddress(f"aws-kms://{self.arn}?endpoint_url={endpoint}", credentials)

    def owner(self):
        self.front.allow("AKIAOWNER")
        return self.at("AKIAOWNER")

    def principal(self, texts):
        statements = [each for text in texts for each in json.loads(text)["Statement"]]
        assert {each["Resource"] for each in statements} == {self.arn}
        actions = {action.removeprefix("kms:") for each in statements for action in each["Action"]}
        if {"ReEncryptFrom", "ReEncryptTo"} <= actions:  # permissions of one request
            actions.add("ReEncrypt")
        access_key_id = f"AKIA{secrets.token_hex(8).upper()}"
        self.front.allow(access_key_id, actions)
        return self.at(access_key_id)

    def rotate(self):
        self.kms.rotate_key_on_demand(KeyId=self.arn)


KEYS = {
    "OpenBao, AEAD key": OpenBaoKey,
    "OpenBao, derived key": DerivedOpenBaoKey,
    "Cloud KMS emulator": EmulatedKey,
    "AWS behind the front": AwsKey,
}
REWRAPPING = {name: key for name, key in KEYS.items() if key.rewraps}


def run(path, *args):
    """The command, in this process."""
    return CliRunner().invoke(app, ["--config", str(path), *map(str, args)])


class Place:
    """A key, its owner's configuration, and those of hosts with the policies that the command prints."""

    def __init__(self, key, folder):
        self.key, self.folder = key, folder
        self.path = self._written("owner", key.owner())

    def host(self, who):
        """The configuration of a host to which the policy of this role was given, or of two roles."""
        roles = ("encryptor", "decryptor") if who == "both" else (who,)
        printed = [run(self.path, "--profile", "mover", "policy", "app", "--role", role) for role in roles]
        assert [each.exit_code for each in printed] == [0] * len(roles)
        return self._written(who, self.key.principal([each.stdout for each in printed]))

    def message(self):
        """The path of a message of the owner's."""
        path = self.folder / "canary.kmsb"
        with Encryptor.from_config(self.path, profile="web") as encryptor:
            path.write_bytes(encryptor.encrypt(b"canary", context=CONTEXT))
        return path

    def _written(self, name, address):
        path = self.folder / f"{name}.toml"
        path.write_text(configuration({"app": address}, PROFILES))
        return path


@pytest.fixture
def at(tmp_path):
    """Makes a key of this kind."""
    with contextlib.ExitStack() as end:
        yield lambda kind: Place(kind(end), tmp_path)


def right_for(kind, who):
    return HOSTS[who] or ("rewrap-only" if kind.rewraps else "full")


@pytest.mark.parametrize("who", HOSTS)
@pytest.mark.parametrize("kind", KEYS.values(), ids=KEYS)
def test_doctor_knows_a_host_by_what_it_may_do(at, kind, who):
    """The one expectation that is right is met; whoever can do more or less than another gets exit code 12."""
    host = at(kind).host(who)
    codes = {
        expect: run(host, "--profile", "mover", "doctor", "--expect", expect).exit_code
        for expect in EXPECTATIONS
    }
    assert codes == {expect: 0 if expect == right_for(kind, who) else 12 for expect in EXPECTATIONS}


@pytest.mark.parametrize("who", ["decryptor", "rewrapper"])
@pytest.mark.parametrize("kind", KEYS.values(), ids=KEYS)
def test_a_message_proves_what_a_probe_cannot(at, kind, who):
    """Of who may not wrap; a host that may needs none."""
    place = at(kind)
    args = ("doctor", "--json", "--expect", right_for(kind, who), "--message", place.message())
    done = run(place.host(who), "--profile", "mover", *args, "-c", "tenant=acme")
    assert done.exit_code == 0, done.stdout
    (key,) = json.loads(done.stdout)["keys"]
    tried = key["rewrap" if right_for(kind, who) == "rewrap-only" else "unwrap"]
    wraps = right_for(kind, who) == "full"
    assert (tried["may"], tried["proven"], tried["measured"]) == (True, True, "probe" if wraps else "message")


@pytest.mark.parametrize("kind", KEYS.values(), ids=KEYS)
def test_each_side_is_refused_on_the_other(at, kind):
    """An encrypting host cannot decrypt its own message, a decrypting one cannot write any."""
    place = at(kind)
    web, worker = place.host("encryptor"), place.host("decryptor")
    with Encryptor.from_config(web, profile="web") as encryptor:
        message = encryptor.encrypt(b"payload", context=CONTEXT)
    with (
        Decryptor.from_config(web, profile="worker") as decryptor,
        pytest.raises(KmsAccessDenied) as caught,
    ):
        decryptor.decrypt(message, context=CONTEXT)
    assert caught.value.operation == "unwrap"
    assert caught.value.attempts == 1
    with Decryptor.from_config(worker, profile="worker") as decryptor:
        assert decryptor.decrypt(message, context=CONTEXT) == b"payload"
    with (
        Encryptor.from_config(worker, profile="web") as encryptor,
        pytest.raises(KmsAccessDenied) as caught,
    ):
        encryptor.encrypt(b"payload", context=CONTEXT)
    assert caught.value.operation == "wrap"
    assert caught.value.attempts == 1


@pytest.mark.parametrize("kind", REWRAPPING.values(), ids=REWRAPPING)
def test_a_rewrapper_rewraps_what_it_cannot_read(at, kind):
    """By the service, to the key's new version; the body is the same and opens for who may decrypt."""
    place = at(kind)
    mover, worker = place.host("rewrapper"), place.host("decryptor")
    message = place.message().read_bytes()
    place.key.rotate()
    with EnvelopeCipher.from_config(mover, profile="mover") as cipher:
        again = cipher.rewrap(message, context=CONTEXT)
        with pytest.raises(KmsAccessDenied):
            cipher.decrypt(message, context=CONTEXT)
        with pytest.raises(KmsAccessDenied):
            cipher.encrypt(b"payload", context=CONTEXT)
    assert again != message
    assert again.endswith(message[int.from_bytes(message[6:8], "big") :])
    with Decryptor.from_config(worker, profile="worker") as decryptor:
        assert decryptor.decrypt(again, context=CONTEXT) == b"canary"


@pytest.mark.parametrize("kind", [AsymmetricAwsHarness, AsymmetricGcpHarness], ids=["AWS", "Cloud KMS"])
def test_a_pinned_public_key_makes_a_host_encrypt_only(kind, tmp_path):
    """Without a permission that it could lose; and no other host can be kept from wrapping."""
    with contextlib.closing(kind()) as harness:
        done = {}
        for role in ("encrypt-only", "decrypt-only"):
            path = tmp_path / f"{role}.toml"
            path.write_text(configuration({"app": harness.address("first", role)}, PROFILES))
            done[role] = run(path, "--profile", "mover", "doctor", "--expect", role)
            assert "wrapped by this host itself with the public key" in done[role].stdout
    assert {role: each.exit_code for role, each in done.items()} == {"encrypt-only": 0, "decrypt-only": 12}
    assert "which no permission prevents" in done["decrypt-only"].stdout
