"""The IAM policies that `kmsbridge policy` prints."""

import json

import pytest

from kmsbridge.errors import ConfigError

KEY = "12345678-1234-1234-1234-123456789012"
ARN = f"arn:aws:kms:eu-west-1:111122223333:key/{KEY}"
OURS = {"StringEquals": {"kms:EncryptionContext:kmsbridge": ["dek", "direct", "probe"]}}
CRYPTOGRAPHIC = {"Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "ReEncrypt*", "GenerateDataKey", "*"}
SELF_SERVICE = {"PutKeyPolicy", "CreateGrant"}
ASYMMETRIC = {"algorithm": "RSA-OAEP-SHA-256"}


def statements_of(driver, role):
    """The statements by name, after what IAM demands of a policy was checked."""
    text = driver.policy(role)
    document = json.loads(text)
    assert text.endswith("}\n")
    assert set(document) == {"Version", "Statement"}
    assert document["Version"] == "2012-10-17"
    for statement in document["Statement"]:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        assert statement["Sid"].isalnum()
        assert all(action.startswith("kms:") for action in statement["Action"])
    return {statement["Sid"]: statement for statement in document["Statement"]}


USES = {
    "encryptor": ["kms:Encrypt"],
    "decryptor": ["kms:Decrypt"],
    "rewrapper": ["kms:ReEncryptFrom", "kms:ReEncryptTo"],
}


@pytest.mark.parametrize(("role", "actions"), USES.items(), ids=USES)
def test_role_gets_the_least_it_needs(driver_of, role, actions):
    """For this key, and for what this library wraps."""
    statements = statements_of(driver_of(f"aws-kms://{ARN}"), role)
    assert statements["KmsbridgeUse"]["Action"] == actions
    assert statements["KmsbridgeUse"]["Condition"] == OURS
    assert statements["KmsbridgeLook"]["Action"] == ["kms:DescribeKey"]
    assert {statement["Resource"] for statement in statements.values()} == {ARN}


@pytest.mark.parametrize("role", USES)
def test_an_environment_is_required(driver_of, role):
    """Of every use; an RSA key binds no context."""
    driver, rsa = driver_of(f"aws-kms://{ARN}"), driver_of(f"aws-kms://{ARN}", **ASYMMETRIC)
    driver.environment = "prod"
    required = {**OURS["StringEquals"], "kms:EncryptionContext:kmsbridge-environment": "prod"}
    assert statements_of(driver, role)["KmsbridgeUse"]["Condition"] == {"StringEquals": required}
    before = statements_of(rsa, role)
    rsa.environment = "prod"
    assert statements_of(rsa, role) == before


@pytest.mark.parametrize("options", [{}, ASYMMETRIC], ids=["symmetric", "asymmetric"])
def test_admin_cannot_use_the_key(driver_of, options):
    """Nor give itself the right to."""
    (statement,) = statements_of(driver_of(f"aws-kms://{ARN}", **options), "admin").values()
    actions = {action.removeprefix("kms:") for action in statement["Action"]}
    assert not actions & (CRYPTOGRAPHIC | SELF_SERVICE)
    assert {"DisableKey", "EnableKey", "RotateKeyOnDemand", "ScheduleKeyDeletion"} <= actions


def test_asymmetric_key_has_policies_of_its_own(driver_of):
    """Who encrypts needs the public key at most; no context is bound by AWS KMS."""
    driver = driver_of(f"aws-kms://{ARN}", **ASYMMETRIC)
    assert set(statements_of(driver, "encryptor")) == {"KmsbridgeLook"}
    use = statements_of(driver, "decryptor")["KmsbridgeUse"]
    assert use["Action"] == ["kms:Decrypt"]
    assert use["Condition"] == {"StringEquals": {"kms:EncryptionAlgorithm": "RSAES_OAEP_SHA_256"}}


def test_alias_arn_is_named_by_a_condition(driver_of):
    """IAM takes no alias for a resource of a key's operations."""
    driver = driver_of("aws-kms://arn:aws:kms:eu-west-1:111122223333:alias/payments")
    use = statements_of(driver, "encryptor")["KmsbridgeUse"]
    assert use["Resource"] == "arn:aws:kms:eu-west-1:111122223333:key/*"
    assert use["Condition"] == {**OURS, "ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/payments"}}


@pytest.mark.parametrize("name", ["alias/payments", KEY, f"mrk-{'0' * 32}"])
def test_unknown_account_is_told(driver_of, name):
    """No call is made to find it out."""
    with pytest.raises(ConfigError, match="ARN"):
        driver_of(f"aws-kms://{name}?region=eu-west-1").policy("encryptor")
