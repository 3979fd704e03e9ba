"""XAES-256-GCM as https://c2sp.org/XAES-256-GCM specifies it, in the library and in the second reader."""

import hashlib

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmsbridge.message import xaes
from tests.vectors import reader

IMPLEMENTATIONS = {
    "the library": xaes.derive,
    "the second reader": lambda key, prefix: AESGCM(reader.derive_xaes(key, prefix)),
}
NONCE = b"ABCDEFGHIJKLMNOPQRSTUVWX"
# Key, derived key, aad and ciphertext. The highest bit of AES(key, 0) is 0 in the first, 1 in the second.
EXAMPLES = (
    (
        bytes([1] * 32),
        "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
        b"",
        "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
    ),
    (
        bytes([3] * 32),
        "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
        b"c2sp.org/XAES-256-GCM",
        "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
    ),
)
ROUNDS = 10_000
DIGEST = "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939"


@pytest.fixture(params=IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def derive(request):
    """A function of a key and the first half of a nonce, to what encrypts with the other half."""
    return request.param


@pytest.mark.parametrize("key, derived, aad, ciphertext", EXAMPLES, ids=["highest bit 0", "highest bit 1"])
def test_the_examples_of_the_specification(derive, key, derived, aad, ciphertext):
    """Both examples come out, and open again."""
    cipher = derive(key, NONCE[:12])
    assert cipher.encrypt(NONCE[12:], b"XAES-256-GCM", aad).hex() == ciphertext
    assert cipher.decrypt(NONCE[12:], bytes.fromhex(ciphertext), aad) == b"XAES-256-GCM"
    assert reader.derive_xaes(key, NONCE[:12]).hex() == derived


def test_ten_thousand_random_inputs_give_the_digest_of_the_specification(derive):
    """Keys, nonces, plaintexts and aads of 0 to 255 bytes from SHAKE128, and the ciphertexts into another."""
    most = 32 + 24 + 1 + 255 + 1 + 255
    stream = memoryview(hashlib.shake_128(b"").digest(ROUNDS * most))
    assert stream[:16].hex() == "7f9c2ba4e88f827d616045507605853e"
    at, digest = 0, hashlib.shake_128()

    def take(length):
        nonlocal at
        at += length
        return bytes(stream[at - length : at])

    for _ in range(ROUNDS):
        key, nonce = take(32), take(24)
        plaintext = take(take(1)[0])
        aad = take(take(1)[0])
        cipher = derive(key, nonce[:12])
        ciphertext = cipher.encrypt(nonce[12:], plaintext, aad)
        assert cipher.decrypt(nonce[12:], ciphertext, aad) == plaintext
        digest.update(ciphertext)
    assert digest.hexdigest(32) == DIGEST


def test_every_byte_of_key_and_prefix_counts(derive):
    """With one bit changed in any byte of the key or of the nonce's first half, nothing opens."""
    key, prefix, rest = bytes(range(32)), bytes(range(12)), bytes(12)
    ciphertext = derive(key, prefix).encrypt(rest, b"payload", b"")
    whole = key + prefix
    for at in range(len(whole)):
        changed = whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :]
        with pytest.raises(InvalidTag):
            derive(changed[:32], changed[32:]).decrypt(rest, ciphertext, b"")


@pytest.mark.parametrize(
    "key, prefix", [(31, 12), (33, 12), (16, 12), (0, 12), (32, 11), (32, 13), (32, 24), (32, 0)]
)
def test_the_library_takes_no_key_or_prefix_of_another_length(key, prefix):
    """Neither a shorter nor a longer one."""
    with pytest.raises(ValueError, match="32 bytes and prefix 12 bytes"):
        xaes.derive(bytes(key), bytes(prefix))
