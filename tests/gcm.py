"""Makes ciphertexts that AES-GCM accepts under two keys, which a commitment to the key must tell apart."""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# GF(2^128) as SP 800-38D has it: the first bit of a block is the coefficient of x^0.
ONE, POLYNOMIAL = 1 << 127, 0xE1 << 120


def times(a, b):
    """The product of two blocks."""
    product = 0
    for bit in range(127, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (POLYNOMIAL if b & 1 else 0)
    return product


def power(a, exponent):
    """`a` to that power; 2**128 - 2 inverts."""
    result = ONE
    while exponent:
        if exponent & 1:
            result = times(result, a)
        a, exponent = times(a, a), exponent >> 1
    return result


class Gcm:
    """What AES-GCM under one key and nonce makes of a ciphertext, apart from the keystream."""

    def __init__(self, key, nonce):
        self.aead, self.nonce = AESGCM(key), nonce
        empty = AESGCM(key).encrypt(nonce, b"", None)  # GHASH of nothing is zero, so this is the tag's mask
        self.mask = int.from_bytes(empty, "big")
        keystream = AESGCM(key).encrypt(nonce, bytes(16), None)
        block, tag = (int.from_bytes(part, "big") for part in (keystream[:16], keystream[16:]))
        self.h = hash_key(key)
        assert self.tag([block]) == tag

    def tag(self, blocks):
        """The tag of these ciphertext blocks."""
        digest = 0
        for block in [*blocks, len(blocks) * 128]:
            digest = times(digest ^ block, self.h)
        return digest ^ self.mask


def hash_key(key):
    """H of SP 800-38D, the encrypted zero block."""
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return int.from_bytes(encryptor.update(bytes(16)), "big")


def for_both(one, two, blocks):
    """A ciphertext and tag that both accept: the last of `blocks` is chosen so that the tags are equal."""
    blocks = [*blocks, 0]
    difference = one.tag(blocks) ^ two.tag(blocks)
    factor = times(one.h, one.h) ^ times(two.h, two.h)
    blocks[-1] = times(difference, power(factor, 2**128 - 2))
    tag = one.tag(blocks)
    assert tag == two.tag(blocks)
    return b"".join(block.to_bytes(16, "big") for block in [*blocks, tag])
