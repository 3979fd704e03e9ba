"""HPKE's own vectors, RFC 9180's and those of the post-quantum draft, hold for the keys that seeds make here.

They have associated data, which the public interface of `cryptography` does not take, and ours does not use.

Other implementations are asked in two ways. pyhpke, for X25519, runs here, in both directions. For the hybrid,
@hpke/hybridkem-x-wing was run once by `make_hpke.py`, under Node.js with @hpke/core from npm: what it sealed is kept in
hpke-peers.json, and it opened what was sealed here before that was written. Tests need no Node.js package.
"""

import json
import os
from pathlib import Path

import cryptography_vectors
import pytest
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives import hpke
from pyhpke import AEADId, CipherSuite, KDFId, KEMId
from pyhpke.exceptions import OpenError

from kmsbridge.context import EncryptionContext
from kmsbridge.driver import Secret
from kmsbridge.drivers.hpke.publickey import PublicKey
from kmsbridge.drivers.hpke.suites import HYBRID, X25519
from kmsbridge.errors import AuthenticationError

FOLDER = Path(cryptography_vectors.__file__).parent / "HPKE"
OURS = {0x0020: (X25519, hpke.KEM.X25519), 0x647A: (HYBRID, hpke.KEM.MLKEM768_X25519)}
KDFS = {
    1: hpke.KDF.HKDF_SHA256,
    2: hpke.KDF.HKDF_SHA384,
    3: hpke.KDF.HKDF_SHA512,
    16: hpke.KDF.SHAKE128,
    17: hpke.KDF.SHAKE256,
}
AEADS = {1: hpke.AEAD.AES_128_GCM, 2: hpke.AEAD.AES_256_GCM, 3: hpke.AEAD.CHACHA20_POLY1305}
BASE = 0


def vectors(name):
    return [
        vector
        for vector in json.loads((FOLDER / name).read_text())
        if vector["mode"] == BASE
        and vector["kem_id"] in OURS
        and vector["kdf_id"] in KDFS
        and vector["aead_id"] in AEADS
    ]


ALL = vectors("test-vectors.json") + vectors("hpke-pq-test-vectors.json")


def test_there_are_vectors_of_both_suites():
    """And of X25519 the very KDF and AEAD that are used here."""
    assert {vector["kem_id"] for vector in ALL} == set(OURS)
    assert (0x20, 1, 2) in {(vector["kem_id"], vector["kdf_id"], vector["aead_id"]) for vector in ALL}


@pytest.mark.parametrize("vector", ALL, ids=lambda v: f"{v['kem_id']:04x}-{v['kdf_id']}-{v['aead_id']}")
def test_vector(vector):
    suite, kem = OURS[vector["kem_id"]]
    private_key, public = suite.load_private(Secret(bytes.fromhex(vector["skRm"])))
    assert public.hex() == vector["pkRm"]
    assert len(bytes.fromhex(vector["enc"])) == suite.enc
    suite.load_public(public)
    first = vector["encryptions"][0]
    whole = bytes.fromhex(vector["enc"] + first["ct"])
    bare = hpke.Suite(kem, KDFS[vector["kdf_id"]], AEADS[vector["aead_id"]])
    info, aad = bytes.fromhex(vector["info"]), bytes.fromhex(first["aad"])
    opened = openssl.hpke._decrypt_with_aad(bare, whole, private_key, info, aad)
    assert opened.hex() == first["pt"]


PEERS = json.loads((Path(__file__).parent / "hpke-peers.json").read_text())


def test_there_are_peers_of_both_suites():
    """`make_hpke.py` wrote the cases only once the same peers had opened what is wrapped here."""
    assert {(case["peer"], case["suite"]) for case in PEERS} == {
        ("pyhpke", "x25519"),
        ("@hpke/hybridkem-x-wing", "mlkem768-x25519"),
    }


@pytest.mark.parametrize("case", PEERS, ids=lambda case: case["public_key"][12:24])
def test_what_another_implementation_sealed_is_opened(case):
    public_key = PublicKey.parse(case["public_key"])
    private_key, public = public_key.suite.load_private(Secret(bytes.fromhex(case["seed"])))
    assert (public_key.suite.name, public) == (case["suite"], public_key.data)
    reserved = {name: value for name, value in case["context"].items() if name.startswith("kmsbridge")}
    own = {name: value for name, value in case["context"].items() if name not in reserved}
    context = EncryptionContext.of(own).with_reserved(**reserved)
    wrapped = bytes.fromhex(case["wrapped"])
    opened = public_key.suite.decrypt(wrapped, private_key, public_key.info(context))
    assert opened.hex() == case["plaintext"]
    with pytest.raises(AuthenticationError):
        public_key.suite.decrypt(wrapped, private_key, public_key.info(EncryptionContext.of(own)))


class Pyhpke:
    """The other implementation of X25519, with a seed as its private key."""

    suite = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)

    def __init__(self, seed):
        self.private = self.suite.kem.deserialize_private_key(seed)

    def seal(self, public_key, info, plaintext):
        enc, context = self.suite.create_sender_context(
            self.suite.kem.deserialize_public_key(public_key), info=info
        )
        return enc + context.seal(plaintext)

    def open(self, wrapped, info):
        context = self.suite.create_recipient_context(wrapped[:32], self.private, info=info)
        return context.open(wrapped[32:])


@pytest.mark.parametrize(
    "pairs", ({}, {"tenant": "acme"}, {f"n{n}": "\u00e9" * n for n in range(1, 40)}), ids=len
)
def test_pyhpke_and_this_open_what_the_other_sealed(pairs):
    """With keys, info and payloads that are new each time; neither opens it with another info."""
    context = EncryptionContext.of(pairs).with_reserved(kmsbridge="dek")
    for length in (1, 32, 64, 4096):
        seed, plaintext = os.urandom(32), os.urandom(length)
        private_key, public = X25519.load_private(Secret(seed))
        key, peer = PublicKey.of(f"live@{os.urandom(8).hex()}", X25519, public), Pyhpke(seed)
        ours, theirs = key.wrap(plaintext, context), peer.seal(public, key.info(context), plaintext)
        assert len(ours) == len(theirs) == X25519.enc + length + 16
        assert peer.open(ours, key.info(context)) == plaintext
        assert X25519.decrypt(theirs, private_key, key.info(context)) == plaintext
        with pytest.raises(OpenError):
            peer.open(ours, key.info(EncryptionContext.of(pairs)))
        with pytest.raises(AuthenticationError):
            X25519.decrypt(theirs, private_key, key.info(EncryptionContext.of(pairs)))
