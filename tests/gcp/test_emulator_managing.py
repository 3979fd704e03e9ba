"""What the emulator answers to a stock client that makes and changes keys."""

import datetime

import pytest
from google.api_core import exceptions
from google.cloud.kms_v1.types import resources

PURPOSE = resources.CryptoKey.CryptoKeyPurpose
STATE = resources.CryptoKeyVersion.CryptoKeyVersionState


def made(client, ring, key_id="made", **key):
    if not any(each.name == ring for each in client.list_key_rings(parent=ring.partition("/keyRings/")[0])):
        client.create_key_ring(
            parent=ring.partition("/keyRings/")[0], key_ring_id=ring.rpartition("/")[2], key_ring={}
        )
    return client.create_crypto_key(
        parent=ring, crypto_key_id=key_id, crypto_key={"purpose": PURPOSE.ENCRYPT_DECRYPT, **key}
    )


def set_state(client, version, state):
    return client.update_crypto_key_version(
        crypto_key_version={"name": version, "state": state}, update_mask={"paths": ["state"]}
    )


def test_new_key_has_a_primary_version(client, ring):
    """Enabled, of the default algorithm and level, and the same when it is asked for."""
    key = made(client, ring)
    assert key.name == f"{ring}/cryptoKeys/made"
    assert key.primary.name == f"{key.name}/cryptoKeyVersions/1"
    assert key.primary.state == STATE.ENABLED
    assert key.primary.algorithm.name == "GOOGLE_SYMMETRIC_ENCRYPTION"
    assert key.primary.protection_level.name == "SOFTWARE"
    assert client.get_crypto_key(name=key.name) == key
    assert client.get_key_ring(name=ring).name == ring


def test_what_exists_is_not_made_again(client, ring):
    """ALREADY_EXISTS."""
    made(client, ring)
    with pytest.raises(exceptions.AlreadyExists):
        made(client, ring)


@pytest.mark.parametrize(
    "key",
    [
        {"purpose": 0},
        {"version_template": {"algorithm": "RSA_DECRYPT_OAEP_2048_SHA256"}},
        {"purpose": PURPOSE.ASYMMETRIC_SIGN},
        {"version_template": {"protection_level": "EXTERNAL"}},
    ],
    ids=["no purpose", "algorithm for another purpose", "no algorithm", "external"],
)
def test_key_that_makes_no_sense_is_refused(client, ring, key):
    """INVALID_ARGUMENT."""
    with pytest.raises(exceptions.InvalidArgument):
        made(client, ring, **key)


def test_lists_are_complete_and_come_in_pages(client, ring):
    """Through the client's own pager."""
    names = [made(client, ring, f"key-{n}").name for n in range(5)]
    assert [each.name for each in client.list_crypto_keys(request={"parent": ring, "page_size": 2})] == names
    for _ in range(3):
        client.create_crypto_key_version(parent=names[0])
    versions = [each.name for each in client.list_crypto_key_versions(parent=names[0])]
    assert versions == [f"{names[0]}/cryptoKeyVersions/{n}" for n in range(1, 5)]


def test_version_is_disabled_and_enabled(client, key):
    """By UpdateCryptoKeyVersion; the key shows it."""
    version = f"{key}/cryptoKeyVersions/1"
    assert set_state(client, version, STATE.DISABLED).state == STATE.DISABLED
    assert client.get_crypto_key(name=key).primary.state == STATE.DISABLED
    assert set_state(client, version, STATE.ENABLED).state == STATE.ENABLED
    with pytest.raises(exceptions.InvalidArgument):
        set_state(client, version, STATE.DESTROYED)


def test_destruction_is_scheduled_and_can_be_undone(client, key):
    """In 30 days; a restored version is disabled."""
    version = f"{key}/cryptoKeyVersions/1"
    scheduled = client.destroy_crypto_key_version(name=version)
    assert scheduled.state == STATE.DESTROY_SCHEDULED
    left = scheduled.destroy_time - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=29) < left <= datetime.timedelta(days=30)
    with pytest.raises(exceptions.FailedPrecondition):
        client.destroy_crypto_key_version(name=version)
    assert client.restore_crypto_key_version(name=version).state == STATE.DISABLED
    with pytest.raises(exceptions.FailedPrecondition):
        client.restore_crypto_key_version(name=version)


def test_key_decides_how_long_destruction_takes(client, ring):
    """When the time has come the version is destroyed."""
    key = made(client, ring, destroy_scheduled_duration=datetime.timedelta(microseconds=1))
    client.destroy_crypto_key_version(name=key.primary.name)
    assert client.get_crypto_key_version(name=key.primary.name).state == STATE.DESTROYED
    with pytest.raises(exceptions.FailedPrecondition, match="DESTROYED"):
        client.encrypt(name=key.name, plaintext=b"x")


def test_only_an_enabled_version_becomes_the_primary_one(client, emulator, key):
    """FAILED_PRECONDITION for a disabled one, NOT_FOUND for none."""
    made_version = client.create_crypto_key_version(parent=key)
    emulator.set_state(made_version.name, "DISABLED")
    with pytest.raises(exceptions.FailedPrecondition):
        client.update_crypto_key_primary_version(name=key, crypto_key_version_id="2")
    with pytest.raises(exceptions.NotFound):
        client.update_crypto_key_primary_version(name=key, crypto_key_version_id="3")


def test_asymmetric_key_has_no_primary_version(client, decrypting):
    """FAILED_PRECONDITION."""
    assert not client.get_crypto_key(name=decrypting).primary.name
    with pytest.raises(exceptions.FailedPrecondition):
        client.update_crypto_key_primary_version(name=decrypting, crypto_key_version_id="1")


def test_what_is_not_there_is_not_found(client, ring):
    """Key ring, key, version."""
    for call in (
        lambda: client.get_key_ring(name=ring),
        lambda: client.get_crypto_key(name=f"{ring}/cryptoKeys/none"),
        lambda: client.get_crypto_key_version(name=f"{ring}/cryptoKeys/none/cryptoKeyVersions/1"),
        lambda: list(client.list_crypto_keys(parent=ring)),
    ):
        with pytest.raises(exceptions.NotFound):
            call()


def test_what_is_not_emulated_says_so(client, key):
    """UNIMPLEMENTED."""
    with pytest.raises(exceptions.MethodNotImplemented):
        client.mac_sign(name=f"{key}/cryptoKeyVersions/1", data=b"x")
