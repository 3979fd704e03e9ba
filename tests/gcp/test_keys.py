"""Versions, states, purposes and limits of keys, as the driver meets them."""

import pytest

from kmsbridge.context import MAX_BYTES, EncryptionContext
from kmsbridge.driver import Capability, KeyState
from kmsbridge.errors import (
    AuthenticationError,
    KmsAccessDenied,
    KmsInvalidRequest,
    KmsKeyDisabled,
    KmsKeyNotFound,
    LimitExceeded,
)
from kmsbridge.keys import ManagedKey

RSA = {"algorithm": "RSA-OAEP-SHA-256", "version": "1"}


@pytest.fixture
def behind(opened):
    """A driver behind the library's rules."""
    return lambda name, **options: ManagedKey("app", lambda: opened(name, **options))


def pem_of(client, name, version=1):
    return client.get_public_key(name=f"{name}/cryptoKeyVersions/{version}").pem


def test_key_id_is_the_name_without_a_version(opened, key, decrypting):
    """So that a message finds its key after a rotation, of either kind."""
    assert opened(key).resolve(timeout=10) == f"gcp-kms:{key}"
    versioned = opened(f"{decrypting}/cryptoKeyVersions/1", algorithm="RSA-OAEP-SHA-256")
    assert (
        versioned.resolve(timeout=10)
        == opened(decrypting, **RSA).resolve(timeout=10)
        == f"gcp-kms:{decrypting}"
    )


def test_rotation_makes_the_new_version_the_primary_one(client, opened, key, context):
    """And old wrapped keys open."""
    driver = opened(key)
    before = driver.wrap(b"payload", context, timeout=10)
    driver.rotate(timeout=10)
    after = driver.wrap(b"payload", context, timeout=10)
    assert (before.version, after.version) == ("1", "2")
    assert client.get_crypto_key(name=key).primary.name == f"{key}/cryptoKeyVersions/2"
    assert driver.unwrap(before, context, timeout=10) == b"payload"


def test_disabled_old_version_is_told_and_the_new_one_works(emulator, behind, key, context):
    """A state is a version's."""
    app = behind(key)
    before = app.wrap(b"payload", context)
    app.rotate()
    emulator.set_state(f"{key}/cryptoKeyVersions/1", "DISABLED")
    with pytest.raises(KmsKeyDisabled, match="FAILED_PRECONDITION"):
        app.unwrap(before, context)
    assert app.unwrap(app.wrap(b"payload", context), context) == b"payload"
    assert app.describe().state is KeyState.ENABLED


@pytest.mark.parametrize(
    ("state", "error", "described"),
    [
        ("DISABLED", KmsKeyDisabled, KeyState.DISABLED),
        ("DESTROY_SCHEDULED", KmsKeyDisabled, KeyState.PENDING_DELETION),
        ("DESTROYED", KmsKeyNotFound, KeyState.PENDING_DELETION),
    ],
)
@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_state_of_the_version_is_told(
    emulator, client, behind, key, decrypting, context, kind, state, error, described
):
    """A destroyed version does not exist any more; the others can be had back."""
    name = key if kind == "symmetric" else decrypting
    app = behind(name) if kind == "symmetric" else behind(name, **RSA, public_key=pem_of(client, name))
    wrapped = app.wrap(b"payload", context)
    emulator.set_state(name, state)
    with pytest.raises(error):
        app.unwrap(wrapped, context)
    assert app.describe().state is described


def test_key_without_a_primary_version_is_described(client, behind, ring, key):
    """It cannot wrap."""
    empty = client.create_crypto_key(
        request={
            "parent": ring,
            "crypto_key_id": "without",
            "crypto_key": {"purpose": 1},
            "skip_initial_version_creation": True,
        }
    )
    description = behind(empty.name).describe()
    assert (description.state, description.version) == (KeyState.DISABLED, "")


@pytest.mark.parametrize("algorithm", ["EC_SIGN_P256_SHA256", "HMAC_SHA256", "RSA_DECRYPT_OAEP_2048_SHA256"])
def test_key_of_another_purpose_is_refused_at_first_use(emulator, behind, ring, context, algorithm):
    """`KmsInvalidRequest` that says which purpose it takes."""
    name = emulator.create_key(f"{ring}/cryptoKeys/other", algorithm=algorithm)
    app = behind(name)
    wrapped = behind(emulator.create_key()).wrap(b"payload", context)._replace(key_id=app.key_id)
    for call in (lambda: app.wrap(b"x", context), lambda: app.unwrap(wrapped, context), app.describe):
        with pytest.raises(KmsInvalidRequest, match="ENCRYPT_DECRYPT"):
            call()


@pytest.mark.parametrize(
    "algorithm", ["GOOGLE_SYMMETRIC_ENCRYPTION", "RSA_SIGN_PSS_2048_SHA256", "EC_SIGN_P256_SHA256"]
)
def test_key_that_is_not_for_rsa_oaep_is_refused_at_first_use(emulator, behind, ring, context, algorithm):
    """When it is configured as if it were."""
    name = emulator.create_key(f"{ring}/cryptoKeys/other", algorithm=algorithm)
    app = behind(name, **RSA)
    for call in (lambda: app.wrap(b"x", context), app.describe):
        with pytest.raises(KmsInvalidRequest, match="ENCRYPT_DECRYPT"):
            call()


def test_largest_payload_and_context_fit_together(behind, key):
    """Of a SOFTWARE key."""
    app = behind(key)
    context = EncryptionContext.of({"a": "x" * (MAX_BYTES - 7)}).with_reserved(kmsbridge="direct")
    payload = bytes(app.max_plaintext)
    assert app.unwrap(app.wrap(payload, context), context) == payload
    with pytest.raises(LimitExceeded):
        app.wrap(payload + b"x", context)


def test_hsm_key_takes_a_data_key_in_any_context(emulator, behind, ring):
    """8192 bytes together are more than the largest context and a data key."""
    name = emulator.create_key(f"{ring}/cryptoKeys/hsm", protection_level="HSM")
    app = behind(name)
    context = EncryptionContext.of({"a": "x" * (MAX_BYTES - 7)}).with_reserved(kmsbridge="direct")
    for payload in (bytes(32), bytes(4077)):
        assert app.unwrap(app.wrap(payload, context), context) == payload


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "fetched"])
def test_public_key_wraps_and_the_service_unwraps(emulator, client, behind, decrypting, context, pinned):
    """One call at most to wrap, whatever is wrapped; one for each unwrap."""
    options = {"public_key": pem_of(client, decrypting)} if pinned else {}
    before = emulator.requests(decrypting, method="GetPublicKey")
    app = behind(decrypting, **RSA, **options)
    wrapped = [app.wrap(b"payload", context) for _ in range(3)]
    assert emulator.requests(decrypting, method="GetPublicKey") - before == (0 if pinned else 1)
    assert [app.unwrap(each, context) for each in wrapped] == [b"payload"] * 3
    assert emulator.requests(decrypting, method="AsymmetricDecrypt") == 3
    assert (Capability.LOCAL_WRAP in app.capabilities) is pinned
    other = EncryptionContext.of({"tenant": "other"}).with_reserved(kmsbridge="dek")
    with pytest.raises(AuthenticationError):
        app.unwrap(wrapped[0], other)


def test_asymmetric_key_rotates_by_configuration(client, behind, decrypting, context):
    """A message names the version that unwraps it, whichever version wraps now."""
    first = behind(decrypting, **RSA)
    client.create_crypto_key_version(parent=decrypting)
    second = behind(decrypting, **{**RSA, "version": "2"})
    one, two = first.wrap(b"payload", context), second.wrap(b"payload", context)
    assert (one.version, two.version) == ("1", "2")
    assert first.key_id == second.key_id
    assert [app.unwrap(each, context) for app in (first, second) for each in (one, two)] == [b"payload"] * 4
    with pytest.raises(AuthenticationError):
        first.unwrap(one._replace(version="2"), context)


def test_description_tells_rights_without_the_viewers_role(emulator, opened, ring, key):
    """Who may only wrap is told so, and not the state, which is not its to see."""
    token = f"encrypting-{ring[-8:]}"
    emulator.grant(token, "roles/cloudkms.cryptoKeyEncrypter", key)
    description = opened(key, access_token=token).describe(timeout=10)
    assert (description.may_wrap, description.may_unwrap) == (True, False)
    assert description.state is KeyState.UNKNOWN


def test_description_of_who_may_nothing_is_denied(behind, key):
    """As every other call, with the command that shows what is needed."""
    with pytest.raises(KmsAccessDenied, match="kmsbridge policy"):
        behind(key, access_token="nobody").describe()


def test_description_tells_how_the_key_rotates(client, opened, ring, key):
    """The period, or that it is done by hand."""
    import datetime

    assert opened(key).describe(timeout=10).rotation == "by hand"
    period = {"purpose": 1, "rotation_period": datetime.timedelta(days=90)}
    rotating = client.create_crypto_key(parent=ring, crypto_key_id="rotating", crypto_key=period)
    assert opened(rotating.name).describe(timeout=10).rotation == "every 90 days"
