"""The emulator's permissions, as a stock client sets and meets them."""

import pytest
from google.api_core import exceptions
from google.iam.v1 import policy_pb2  # type: ignore[import-untyped]

ENCRYPT, DECRYPT = "cloudkms.cryptoKeyVersions.useToEncrypt", "cloudkms.cryptoKeyVersions.useToDecrypt"


def as_(principal):
    return [("authorization", f"Bearer {principal}")]


def set_policy(client, resource, role, *members):
    binding = {"role": f"roles/cloudkms.{role}", "members": [f"user:{each}" for each in members]}
    return client.set_iam_policy(request={"resource": resource, "policy": {"bindings": [binding]}})


@pytest.mark.parametrize(
    ("role", "may"),
    [
        ("cryptoKeyEncrypter", {"encrypt"}),
        ("cryptoKeyDecrypter", {"decrypt"}),
        ("cryptoKeyEncrypterDecrypter", {"encrypt", "decrypt"}),
        ("viewer", {"get", "list"}),
        ("admin", {"get", "list", "version", "policy"}),
        ("publicKeyViewer", set()),
    ],
)
def test_role_allows_what_it_says_and_nothing_else(client, key, role, may):
    """Each call of each role."""
    ciphertext = client.encrypt(name=key, plaintext=b"x").ciphertext
    set_policy(client, key, role, "alice")
    calls = {
        "encrypt": lambda: client.encrypt(name=key, plaintext=b"x", metadata=as_("alice")),
        "decrypt": lambda: client.decrypt(name=key, ciphertext=ciphertext, metadata=as_("alice")),
        "get": lambda: client.get_crypto_key(name=key, metadata=as_("alice")),
        "list": lambda: list(client.list_crypto_key_versions(parent=key, metadata=as_("alice"))),
        "version": lambda: client.create_crypto_key_version(parent=key, metadata=as_("alice")),
        "policy": lambda: client.get_iam_policy(request={"resource": key}, metadata=as_("alice")),
    }
    for name, call in calls.items():
        if name in may:
            call()
        else:
            with pytest.raises(exceptions.PermissionDenied):
                call()


def test_denial_is_in_cloud_kms_words(client, key):
    """Permission and resource, and no word on whether it exists."""
    for name in (key, f"{key}-that-is-not-there"):
        with pytest.raises(exceptions.PermissionDenied) as caught:
            client.decrypt(name=name, ciphertext=b"x", metadata=as_("alice"))
        assert caught.value.message == (
            f"Permission '{DECRYPT}' denied on resource '{name}' (or it may not exist)."
        )


@pytest.mark.parametrize("level", ["key", "key ring", "project"])
def test_role_holds_for_what_is_below(client, emulator, ring, key, level):
    """On a key, its ring or its project; another principal has nothing of it."""
    principal = f"alice-{ring[-8:]}"
    resource = {"key": key, "key ring": ring, "project": "projects/test"}[level]
    emulator.grant(principal, "roles/cloudkms.cryptoKeyEncrypter", resource)
    client.encrypt(name=key, plaintext=b"x", metadata=as_(principal))
    with pytest.raises(exceptions.PermissionDenied):
        client.encrypt(name=key, plaintext=b"x", metadata=as_("somebody"))


def test_permissions_are_tested(client, key):
    """TestIamPermissions tells those that the caller has; none of a key that is not there."""
    set_policy(client, key, "cryptoKeyEncrypter", "alice")
    asked = {"resource": key, "permissions": [ENCRYPT, DECRYPT]}
    assert list(client.test_iam_permissions(request=asked, metadata=as_("alice")).permissions) == [ENCRYPT]
    assert list(client.test_iam_permissions(request=asked).permissions) == [ENCRYPT, DECRYPT]
    asked["resource"] = f"{key}-that-is-not-there"
    assert not client.test_iam_permissions(request=asked).permissions


def test_policy_is_replaced_by_who_knows_the_last_one(client, key):
    """The etag of a policy that was replaced meanwhile is refused."""
    first = set_policy(client, key, "viewer", "alice")
    assert client.get_iam_policy(request={"resource": key}) == first
    set_policy(client, key, "viewer", "bob")
    with pytest.raises(exceptions.InvalidArgument):
        client.set_iam_policy(request={"resource": key, "policy": first})


def test_unknown_role_is_refused(client, key):
    """A misspelt role does not pass for one that gives nothing."""
    policy = policy_pb2.Policy(bindings=[policy_pb2.Binding(role="roles/cloudkms.none", members=["user:a"])])
    with pytest.raises(exceptions.InvalidArgument, match="roles/cloudkms.none"):
        client.set_iam_policy(request={"resource": key, "policy": policy})


def test_revoked_principal_is_unauthenticated(client, emulator, ring, key):
    """As with an expired token."""
    principal = f"alice-{ring[-8:]}"
    emulator.grant(principal, "roles/cloudkms.admin", ring)
    emulator.revoke(principal)
    with pytest.raises(exceptions.Unauthenticated):
        client.get_crypto_key(name=key, metadata=as_(principal))
    with pytest.raises(exceptions.Unauthenticated):
        client.get_crypto_key(name=key, metadata=[("authorization", "Basic eA==")])
