"""What the emulator answers to a stock client that encrypts, decrypts and signs."""

import secrets
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from google.api_core import exceptions
from google.cloud.kms_v1.types import resources
from kmsbridge_gcp.crc32c import crc32c

INVALID = "Decryption failed: the ciphertext is invalid."
OTHER = "Decryption failed: verify that 'name' refers to the correct CryptoKey."
LEVEL: Any = resources.ProtectionLevel


def encrypt(client, name, plaintext=b"payload", aad=b"context", **more):
    request = {"name": name, "plaintext": plaintext, "additional_authenticated_data": aad, **more}
    return client.encrypt(request=request, retry=None)


def decrypt(client, name, ciphertext, aad=b"context", **more):
    request = {"name": name, "ciphertext": ciphertext, "additional_authenticated_data": aad, **more}
    return client.decrypt(request=request, retry=None)


def test_ciphertext_opens_and_names_its_version(client, key):
    """Encrypt tells the version, Decrypt that it is the primary one; both with their checksums."""
    sealed = encrypt(client, key)
    assert sealed.name == f"{key}/cryptoKeyVersions/1"
    assert sealed.ciphertext_crc32c == crc32c(sealed.ciphertext)
    assert sealed.protection_level == LEVEL.SOFTWARE
    opened = decrypt(client, key, sealed.ciphertext)
    assert (opened.plaintext, opened.plaintext_crc32c) == (b"payload", crc32c(b"payload"))
    assert opened.used_primary


def test_older_version_is_found_and_told(client, key):
    """After a rotation Decrypt says that it was not the primary version."""
    before = encrypt(client, key)
    client.create_crypto_key_version(parent=key)
    assert encrypt(client, key).name.endswith("/1")
    client.update_crypto_key_primary_version(name=key, crypto_key_version_id="2")
    assert encrypt(client, key).name.endswith("/2")
    opened = decrypt(client, key, before.ciphertext)
    assert (opened.plaintext, opened.used_primary) == (b"payload", False)


def test_named_version_encrypts(client, key):
    """Encrypt takes a version as well, Decrypt does not."""
    client.create_crypto_key_version(parent=key)
    sealed = encrypt(client, f"{key}/cryptoKeyVersions/2")
    assert sealed.name == f"{key}/cryptoKeyVersions/2"
    assert decrypt(client, key, sealed.ciphertext).plaintext == b"payload"
    with pytest.raises(exceptions.InvalidArgument):
        decrypt(client, f"{key}/cryptoKeyVersions/2", sealed.ciphertext)


def test_confirmations_are_true_only_for_what_was_sent(client, key):
    """A checksum that was not sent is not confirmed."""
    sealed = encrypt(client, key)
    assert not sealed.verified_plaintext_crc32c
    assert not sealed.verified_additional_authenticated_data_crc32c
    sealed = encrypt(client, key, plaintext_crc32c=crc32c(b"payload"))
    assert sealed.verified_plaintext_crc32c
    assert not sealed.verified_additional_authenticated_data_crc32c


@pytest.mark.parametrize("field", ["plaintext", "additional_authenticated_data"])
def test_wrong_checksum_to_encrypt_is_refused(client, key, field):
    """INVALID_ARGUMENT that names the field."""
    with pytest.raises(exceptions.InvalidArgument, match=f"{field}_crc32c did not match"):
        encrypt(client, key, **{f"{field}_crc32c": 1})


@pytest.mark.parametrize("field", ["ciphertext", "additional_authenticated_data"])
def test_wrong_checksum_to_decrypt_is_refused(client, key, field):
    """INVALID_ARGUMENT that names the field."""
    sealed = encrypt(client, key)
    with pytest.raises(exceptions.InvalidArgument, match=f"{field}_crc32c did not match"):
        decrypt(client, key, sealed.ciphertext, **{f"{field}_crc32c": 1})


def test_wrong_aad_is_refused(client, key):
    """In Cloud KMS's words."""
    with pytest.raises(exceptions.InvalidArgument) as caught:
        decrypt(client, key, encrypt(client, key).ciphertext, b"another")
    assert caught.value.message == INVALID


def test_changed_ciphertext_is_refused(client, key):
    """In Cloud KMS's words."""
    changed = encrypt(client, key).ciphertext[:-1] + b"\0"
    with pytest.raises(exceptions.InvalidArgument) as caught:
        decrypt(client, key, changed)
    assert caught.value.message == INVALID


def test_other_keys_ciphertext_is_refused(client, emulator, ring, key):
    """In Cloud KMS's words."""
    other = emulator.create_key(f"{ring}/cryptoKeys/other")
    for ciphertext in (encrypt(client, other).ciphertext, b"", b"x"):
        with pytest.raises(exceptions.InvalidArgument) as caught:
            decrypt(client, key, ciphertext)
        assert caught.value.message == OTHER


@pytest.mark.parametrize(
    ("level", "fits", "too_large"),
    [
        ("SOFTWARE", [(65536, 65536)], [(65537, 0), (0, 65537)]),
        ("HSM", [(8192, 0), (4096, 4096), (0, 8192)], [(8192, 1), (4097, 4096)]),
    ],
    ids=["SOFTWARE", "HSM"],
)
def test_limits_are_those_of_the_protection_level(client, emulator, ring, level, fits, too_large):
    """64 KiB each, or 8 KiB together."""
    key = emulator.create_key(f"{ring}/cryptoKeys/limited", protection_level=level)
    for plaintext, aad in fits:
        assert encrypt(client, key, bytes(plaintext), bytes(aad)).protection_level == LEVEL[level]
    for plaintext, aad in too_large:
        with pytest.raises(exceptions.InvalidArgument, match="exceed"):
            encrypt(client, key, bytes(plaintext), bytes(aad))


@pytest.mark.parametrize("state", ["DISABLED", "DESTROY_SCHEDULED", "DESTROYED"])
def test_version_that_is_not_enabled_is_refused(client, emulator, key, state):
    """FAILED_PRECONDITION both ways, with the state in text and detail."""
    sealed = encrypt(client, key)
    emulator.set_state(key, state)
    for call in (lambda: encrypt(client, key), lambda: decrypt(client, key, sealed.ciphertext)):
        with pytest.raises(exceptions.FailedPrecondition) as caught:
            call()
        version = f"{key}/cryptoKeyVersions/1"
        assert caught.value.message == f"{version} is not enabled, current state is: {state}."
        (violation,) = caught.value.details[0].violations
        assert (violation.type, violation.subject) == (f"KEY_{state}", version)


@pytest.mark.parametrize("algorithm", ["RSA_DECRYPT_OAEP_2048_SHA256", "EC_SIGN_P256_SHA256", "HMAC_SHA256"])
def test_wrong_purpose_is_refused(client, emulator, ring, algorithm):
    """FAILED_PRECONDITION for Encrypt and Decrypt with a key for something else."""
    key = emulator.create_key(f"{ring}/cryptoKeys/other", algorithm=algorithm)
    for call in (lambda: encrypt(client, key), lambda: decrypt(client, key, b"x")):
        with pytest.raises(exceptions.FailedPrecondition, match="purpose"):
            call()


def test_missing_key_is_not_found(client, ring):
    """NOT_FOUND with its name."""
    with pytest.raises(exceptions.NotFound, match=f"CryptoKey {ring}/cryptoKeys/none not found"):
        encrypt(client, f"{ring}/cryptoKeys/none")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "key",
        "projects/p/locations/l/keyRings/r/cryptoKeys/a b",
        "projects/p/locations/l/keyRings/r/cryptoKeys/" + "k" * 64,
        "projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/x",
        "projects/p/locations/l/keyRings/../cryptoKeys/k",
    ],
    ids=["empty", "short", "space", "64 characters", "version that is no number", "two dots"],
)
def test_name_against_the_grammar_is_refused(client, name):
    """INVALID_ARGUMENT."""
    with pytest.raises(exceptions.InvalidArgument, match="Resource name"):
        encrypt(client, name)


def test_rsa_key_decrypts_what_its_public_key_encrypted(client, decrypting):
    """GetPublicKey and AsymmetricDecrypt, with their checksums."""
    version = f"{decrypting}/cryptoKeyVersions/1"
    answer = client.get_public_key(name=version)
    assert (answer.name, answer.pem_crc32c) == (version, crc32c(answer.pem.encode()))
    public_key = serialization.load_pem_public_key(answer.pem.encode())
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    ciphertext = public_key.encrypt(b"payload", oaep)
    request = {"name": version, "ciphertext": ciphertext, "ciphertext_crc32c": crc32c(ciphertext)}
    opened = client.asymmetric_decrypt(request=request)
    assert (opened.plaintext, opened.plaintext_crc32c) == (b"payload", crc32c(b"payload"))
    assert opened.verified_ciphertext_crc32c
    with pytest.raises(exceptions.InvalidArgument, match="did not match"):
        client.asymmetric_decrypt(request={**request, "ciphertext_crc32c": 1})
    for bad in (secrets.token_bytes(256), b"short", b""):
        with pytest.raises(exceptions.InvalidArgument) as caught:
            client.asymmetric_decrypt(name=version, ciphertext=bad)
        assert caught.value.message == INVALID


@pytest.mark.parametrize(
    "algorithm",
    ["EC_SIGN_P256_SHA256", "EC_SIGN_P384_SHA384", "RSA_SIGN_PSS_2048_SHA256", "RSA_SIGN_PKCS1_2048_SHA256"],
)
def test_signature_verifies(client, emulator, ring, algorithm):
    """By the public key that GetPublicKey gives."""
    key = emulator.create_key(f"{ring}/cryptoKeys/signing", algorithm=algorithm)
    version = f"{key}/cryptoKeyVersions/1"
    chosen = hashes.SHA384() if "SHA384" in algorithm else hashes.SHA256()
    hasher = hashes.Hash(chosen)
    hasher.update(b"message")
    digest = hasher.finalize()
    request = {"name": version, "digest": {chosen.name: digest}, "digest_crc32c": crc32c(digest)}
    answer = client.asymmetric_sign(request=request)
    assert answer.name == version
    assert answer.signature_crc32c == crc32c(answer.signature)
    assert answer.verified_digest_crc32c
    public_key: Any = serialization.load_pem_public_key(client.get_public_key(name=version).pem.encode())
    prehashed = utils.Prehashed(chosen)
    if algorithm.startswith("EC"):
        public_key.verify(answer.signature, digest, ec.ECDSA(prehashed))
    else:
        pss = padding.PSS(padding.MGF1(chosen), chosen.digest_size)
        scheme = pss if "PSS" in algorithm else padding.PKCS1v15()
        public_key.verify(answer.signature, digest, scheme, prehashed)
    with pytest.raises(exceptions.InvalidArgument, match="digest"):
        client.asymmetric_sign(request={"name": version, "digest": {chosen.name: b"short"}})
    with pytest.raises(exceptions.FailedPrecondition, match="purpose"):
        client.asymmetric_decrypt(name=version, ciphertext=b"x")


def test_random_bytes_are_of_the_asked_length(client):
    """8 to 1024, from an HSM only."""
    location = "projects/test/locations/global"

    def ask(length, level=LEVEL.HSM):
        return client.generate_random_bytes(location=location, length_bytes=length, protection_level=level)

    for length in (8, 1024):
        answer = ask(length)
        assert len(answer.data) == length
        assert answer.data_crc32c == crc32c(answer.data)
    for wrong in (lambda: ask(7), lambda: ask(1025), lambda: ask(16, LEVEL.SOFTWARE)):
        with pytest.raises(exceptions.InvalidArgument):
            wrong()
