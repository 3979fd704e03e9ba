"""The printed policies, set with a stock client, allow what the role needs and nothing else."""

import json

import pytest
from kmsbridge_gcp.policies import MEMBER

from kmsbridge.errors import KmsAccessDenied
from kmsbridge.keys import ManagedKey
from tests.backends.gcp import open_one

RSA = {"algorithm": "RSA-OAEP-SHA-256", "version": "1"}
ROLES = {
    "encryptor": {"wrap"},
    "decryptor": {"unwrap"},
    "rewrapper": {"wrap", "unwrap"},
    "admin": {"describe", "rotate"},
}


def parsed(text):
    """YAML whose only lines that are no JSON are comments."""
    return json.loads("".join(line for line in text.splitlines(True) if not line.startswith("#")))


@pytest.fixture
def as_role(client, opened, ring):
    """Opens a key as a caller to whom the printed policy of a role was given."""

    def open_as(role, name, **options):
        principal = f"{role}-{ring[-8:]}"
        text = opened(name, **options).policy(role).replace(MEMBER, f"serviceAccount:{principal}")
        client.set_iam_policy(request={"resource": name, "policy": parsed(text)})
        return ManagedKey(role, lambda: opened(name, access_token=principal, **options))

    return open_as


@pytest.mark.parametrize("role", ROLES)
def test_role_of_a_symmetric_key_may_do_its_work_alone(opened, as_role, key, context, role):
    """Each call, allowed or `KmsAccessDenied`."""
    wrapped = opened(key).wrap(b"payload", context, timeout=10)
    app = as_role(role, key)
    calls = {
        "wrap": lambda: app.wrap(b"payload", context),
        "unwrap": lambda: app.unwrap(wrapped, context),
        "rotate": app.rotate,
    }
    for name, call in calls.items():
        if name in ROLES[role]:
            call()
        else:
            with pytest.raises(KmsAccessDenied):
                call()
    description = app.describe()
    assert description.may_wrap is ("wrap" in ROLES[role])
    assert description.may_unwrap is ("unwrap" in ROLES[role])


@pytest.mark.parametrize("role", ["encryptor", "decryptor", "rewrapper"])
def test_role_of_an_asymmetric_key_may_do_its_work_alone(opened, as_role, decrypting, context, role):
    """With a public key that is fetched."""
    wrapped = ManagedKey("owner", lambda: opened(decrypting, **RSA)).wrap(b"payload", context)
    app = as_role(role, decrypting, **RSA)
    for name, call in {
        "wrap": lambda: app.wrap(b"payload", context),
        "unwrap": lambda: app.unwrap(wrapped, context),
    }.items():
        if name in ROLES[role]:
            call()
        else:
            with pytest.raises(KmsAccessDenied):
                call()


def test_pinned_public_key_needs_no_role(client, opened, decrypting, context):
    """The encryptor's policy is empty, and says why; it wraps as nobody."""
    pem = client.get_public_key(name=f"{decrypting}/cryptoKeyVersions/1").pem
    options = {**RSA, "public_key": pem}
    text = opened(decrypting, **options).policy("encryptor")
    assert parsed(text) == {"bindings": []}
    assert "No role is needed" in text
    opened(decrypting, **options, access_token="nobody").wrap(b"payload", context, timeout=10)
    assert [
        each["role"] for each in parsed(opened(decrypting, **options).policy("rewrapper"))["bindings"]
    ] == ["roles/cloudkms.cryptoKeyDecrypter"]


@pytest.mark.parametrize("role", ROLES)
def test_policy_names_its_key_and_takes_no_call(role):
    """It can be printed with no service in reach, and ends with a line feed."""
    name = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k"
    text = open_one(f"gcp-kms://{name}", {"endpoint": "localhost:1", "insecure": True}).policy(role)
    assert text.endswith("\n")
    assert "gcloud kms keys add-iam-policy-binding k --keyring=r --location=europe-west1 --project=p" in text
    assert "gcloud kms keys set-iam-policy k FILE --keyring=r --location=europe-west1 --project=p" in text
