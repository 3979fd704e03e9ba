"""The random-access reader, held against the published vectors and against Cobblestone itself."""

import base64
import hashlib
import io
import itertools
import json
import random
import zlib
from collections import Counter
from importlib.resources import files

import pytest
from cryptography.cobblestone import Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from kmsbridge import AuthenticationError, EnvelopeCipher, inspect
from kmsbridge import message as wire
from kmsbridge.cipher.reading import MessageReader
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.message import chunked, cobblestone
from kmsbridge.message.chunk_reader import ChunkReader
from kmsbridge.message.chunked import BodyDecryptor, decrypt
from kmsbridge.message.cobblestone import CHUNK, ENCRYPTED_CHUNK, OVERHEAD
from tests.gcm import Gcm, for_both
from tests.support import BODIES, encrypt_chunked

PUBLISHED = json.loads(files("cryptography_vectors").joinpath("chunked-encryption/vectors.json").read_text())
USABLE = [each for each in PUBLISHED["vectors"] if each["aead"] == "AEAD_AES_256_GCM"]
LENGTHS = [
    *range(65),
    *range(CHUNK - 20, CHUNK + 21),
    *range(2 * CHUNK - 20, 2 * CHUNK + 21),
    *range(3 * CHUNK - 2, 3 * CHUNK + 3),
]
KEY, CONTEXT = bytes(range(32)), b"context"
DATA = random.Random(1).randbytes(3 * CHUNK + 100)


def chunks_of(key, context, sealed):
    """Every chunk, last to first, as random access may ask for them."""
    chunk_reader = ChunkReader(key, context, lambda at, length: sealed[at : at + length], len(sealed))
    last = chunk_reader.size // CHUNK
    chunks = [chunk_reader.chunk(number) for number in range(last, -1, -1)]
    plaintext = b"".join(reversed(chunks))
    assert len(plaintext) == chunk_reader.size
    return plaintext


def in_steps(key, context, sealed, step, out=None):
    """Through `BodyDecryptor`, `step` bytes at a time; `out` has what came out before an error."""
    opener, out = BodyDecryptor(key, context), bytearray() if out is None else out
    for at in range(0, len(sealed), step):
        out += opener.update(sealed[at : at + step])
    return bytes(out) + opener.finalize()


def through_message_reader(key, context, sealed):
    """The file interface on top of the chunks."""
    chunk_reader = ChunkReader(key, context, lambda at, length: sealed[at : at + length], len(sealed))
    return MessageReader(chunk_reader, lambda: None).read()


WAYS = {
    "every chunk at random": chunks_of,
    "as a file": through_message_reader,
    "whole": decrypt,
    "in steps of 997": lambda key, context, sealed: in_steps(key, context, sealed, 997),
    "in steps of 16401": lambda key, context, sealed: in_steps(key, context, sealed, ENCRYPTED_CHUNK + 1),
    "all at once, streamed": lambda key, context, sealed: in_steps(key, context, sealed, len(sealed) or 1),
}


@pytest.fixture(params=list(WAYS.values()), ids=list(WAYS))
def opened(request):
    """One of the ways to open a body."""
    return request.param


def okm_of(key, salt, context):
    """What Cobblestone-256 derives: the AES key, the base nonce, the commitment."""
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + context
    return HKDFExpand(hashes.SHA512(), 76, info).derive(key)


def seal(length, context=CONTEXT):
    """By Cobblestone itself."""
    encryptor = Cobblestone256Encryptor(KEY, context)
    return encryptor.update(DATA[:length]) + encryptor.finalize()


# --- published vectors --------------------------------------------------------------------------------


@pytest.fixture
def with_sha256(monkeypatch):
    """The published vectors derive with SHA-256, Cobblestone with SHA-512: all else is the same."""
    monkeypatch.setattr(cobblestone, "HASH", hashes.SHA256())


def test_what_of_the_published_vectors_is_used():
    """All 34 of AES-256; the 68 of AES-128 and ChaCha20 are of schemes that this library does not have."""
    assert Counter((each["aead"], each["expect"]) for each in PUBLISHED["vectors"]) == {
        ("AEAD_AES_256_GCM", "success"): 9,
        ("AEAD_AES_256_GCM", "failure"): 25,
        ("AEAD_AES_128_GCM", "success"): 9,
        ("AEAD_AES_128_GCM", "failure"): 25,
        ("AEAD_CHACHA20_POLY1305", "success"): 9,
        ("AEAD_CHACHA20_POLY1305", "failure"): 25,
    }


def given_by(vector):
    """Key, context and ciphertext of a published vector."""
    sealed = base64.b64decode(vector["ciphertext"] or "")
    if vector.get("compressed"):
        sealed = zlib.decompress(sealed)
    return bytes.fromhex(vector["key"]), vector["context"].encode(), sealed


@pytest.mark.usefixtures("with_sha256")
@pytest.mark.parametrize("way", [chunks_of, through_message_reader])
@pytest.mark.parametrize("vector", USABLE, ids=lambda vector: vector["name"])
def test_published_vector(vector, way):
    """Each gives its payload, or fails with `AuthenticationError`; a key of another length is a `ValueError`."""
    key, context, sealed = given_by(vector)
    if vector["expect"] == "success":
        plaintext = way(key, context, sealed)
        assert len(plaintext) == vector["payload_length"]
        assert hashlib.sha256(plaintext).hexdigest() == vector["payload_sha256"]
    else:
        with pytest.raises(AuthenticationError if len(key) == 32 else ValueError):
            way(key, context, sealed)


def derived_for(key, context, sealed):
    """What opens the chunks of a body, and the nonce of the first as a number; its commitment is checked."""
    aead, nonce, commitment = cobblestone.derive(key, context, sealed[:24])
    if commitment != sealed[24:OVERHEAD]:
        raise AuthenticationError
    return aead, int.from_bytes(nonce, "big")


@pytest.mark.usefixtures("with_sha256")
@pytest.mark.parametrize(
    "vector", [each for each in USABLE if "aead_key" in each], ids=lambda vector: vector["name"]
)
def test_key_and_nonce_are_those_of_the_published_vector(vector):
    """The derived key opens a chunk under the published base nonce, which is the derived one."""
    key, context, sealed = given_by(vector)
    aead, base_nonce = derived_for(key, context, sealed)
    assert base_nonce.to_bytes(12, "big").hex() == vector["base_nonce"]
    sample = AESGCM(bytes.fromhex(vector["aead_key"])).encrypt(bytes(12), b"sample", None)
    assert aead.decrypt(bytes(12), sample, None) == b"sample"


@pytest.mark.usefixtures("with_sha256")
@pytest.mark.parametrize(
    "vector",
    [each for each in USABLE if each["expect"] == "success"],
    ids=lambda vector: vector["name"],
)
def test_what_is_sealed_with_the_salt_of_a_published_vector_is_that_vector(vector, monkeypatch):
    """Byte for byte, whole and in steps."""
    key, context, published = given_by(vector)
    plaintext = chunks_of(key, context, published)
    monkeypatch.setattr(chunked, "urandom", lambda count: published[:count])
    assert chunked.encrypt(key, context, plaintext) == published
    sealer = chunked.BodyEncryptor(key, context)
    parts = [sealer.update(plaintext[at : at + 100_003]) for at in range(0, len(plaintext), 100_003)]
    assert b"".join(parts) + sealer.finalize() == published


@pytest.mark.parametrize(
    "vector",
    [each for each in USABLE if each.get("payload_length") and each["payload_length"] < 10**6],
    ids=lambda vector: vector["name"],
)
@pytest.mark.parametrize("step", [1009, ENCRYPTED_CHUNK, 10**6])
@pytest.mark.usefixtures("with_sha256")
def test_streams_on_what_the_published_vectors_hold(vector, step):
    """The chunks of each vector, right or broken, sealed anew for SHA-512: a stream verifies as much of them.

    What a chunk holds is known where a vector's own key opens it; a chunk that is broken stays broken.
    """
    key, context, sealed = given_by(vector)
    again = sealed_anew(key, context, sealed)
    if vector["expect"] == "success":
        plaintext = in_steps(key, context, again, step)
        assert plaintext == decrypt(key, context, again)
        assert hashlib.sha256(plaintext).hexdigest() == vector["payload_sha256"]
        return
    with pytest.raises(AuthenticationError):
        decrypt(key, context, again)
    verified = bytearray()
    with pytest.raises(AuthenticationError):
        in_steps(key, context, again, step, verified)
    assert len(verified) in (0, vector["payload_length"])
    if verified:
        assert hashlib.sha256(verified).hexdigest() == vector["payload_sha256"]


def sealed_anew(key, context, sealed):
    """The same chunks under what SHA-512 derives."""
    aead, base_nonce = derived_for(key, context, sealed)
    okm = okm_of(key, sealed[:24], context)
    out = [sealed[:24] + okm[44:]]
    for number, chunk in enumerate(pieces(sealed)[1]):
        try:
            plaintext = aead.decrypt((base_nonce ^ number).to_bytes(12, "big"), chunk, None)
        except InvalidTag:
            out.append(chunk)
        else:
            nonce = int.from_bytes(okm[32:44], "big") ^ number
            out.append(AESGCM(okm[:32]).encrypt(nonce.to_bytes(12, "big"), plaintext, None))
    return b"".join(out)


# --- against Cobblestone ------------------------------------------------------------------------------


@pytest.mark.parametrize("length", LENGTHS)
def test_a_body_of_cobblestone_of_any_length(length):
    """Whatever Cobblestone sealed, each way to open it gives back."""
    sealed = seal(length)
    for name, way in WAYS.items():
        assert way(KEY, CONTEXT, sealed) == DATA[:length], name


@pytest.fixture(scope="module")
def cipher(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    KeyFile.create(path, "app")
    with EnvelopeCipher.from_uri(f"local:{path}") as opened_cipher:
        yield opened_cipher


@pytest.mark.parametrize("encrypt", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("length", LENGTHS)
def test_random_ranges_of_a_message(length, encrypt, cipher, torture):
    """`Decryptor.open` reads any range as a slice of the plaintext, and `inspect` knows the length."""
    rng = torture.rng(f"ranges of {length}")
    message = encrypt(cipher, DATA[:length], context={"a": "b"}, aad=b"aad")
    assert inspect(message).plaintext_length == length
    edges = [at for at in range(length + 2) if at % CHUNK in (0, 1, CHUNK - 1) or at >= length - 1]
    starts = edges + [rng.randrange(length + 1) for _ in range(10)]
    with cipher.open(io.BytesIO(message), context={"a": "b"}, aad=b"aad") as file:
        assert file.size == length
        for start, count in itertools.product(starts, (0, 1, rng.randrange(length + 50), -1)):
            file.seek(start)
            expected = DATA[:length][start:] if count < 0 else DATA[:length][start : start + count]
            assert file.read(count) == expected
            assert file.tell() == max(start, min(start + len(expected), length))


def test_reads_touch_only_the_chunks_they_need():
    """Besides the first 56 bytes and the last chunk, a read of few bytes reads one or two chunks."""
    sealed, asked = seal(3 * CHUNK + 5), []

    def read_at(at, length):
        asked.append((at, length))
        return sealed[at : at + length]

    file = MessageReader(ChunkReader(KEY, CONTEXT, read_at, len(sealed)), lambda: None)
    assert asked == [(0, OVERHEAD), (OVERHEAD + 3 * ENCRYPTED_CHUNK, 21)]
    asked.clear()
    file.seek(CHUNK + 7)
    file.read(100)
    assert asked == [(OVERHEAD + ENCRYPTED_CHUNK, ENCRYPTED_CHUNK)]
    asked.clear()
    file.seek(CHUNK - 1)
    assert file.read(2) == DATA[CHUNK - 1 : CHUNK + 1]
    assert asked == [(OVERHEAD, ENCRYPTED_CHUNK), (OVERHEAD + ENCRYPTED_CHUNK, ENCRYPTED_CHUNK)]


# --- bodies that are not whole ------------------------------------------------------------------------

TWO = seal(2 * CHUNK + 9)


@pytest.mark.parametrize(
    "length",
    sorted(
        {
            max(0, OVERHEAD + chunk * ENCRYPTED_CHUNK + off)
            for chunk in range(3)
            for off in (-17, -16, -15, -1, 0, 1, 15, 16, 17)
        }
        | {0, 1, 23, 24, 25, 55, 56, len(TWO) - 1, len(TWO) - 16}
    ),
)
def test_a_body_cut_at_a_border_is_refused(length, opened):
    """No cut at or around the borders of salt, commitment, chunks and tags is taken for a whole body."""
    with pytest.raises(AuthenticationError):
        opened(KEY, CONTEXT, TWO[:length])


@pytest.mark.parametrize("full", [1, 2, 3])
def test_a_body_that_ends_with_a_full_chunk_is_refused(full, opened):
    """The last chunk is always shorter than the others: without it the end is missing."""
    sealed = seal(full * CHUNK)
    assert opened(KEY, CONTEXT, sealed) == DATA[: full * CHUNK]
    with pytest.raises(AuthenticationError):
        opened(KEY, CONTEXT, sealed[:-16])


def pieces(sealed):
    """The overhead, and each sealed chunk."""
    return sealed[:OVERHEAD], [
        sealed[at : at + ENCRYPTED_CHUNK] for at in range(OVERHEAD, len(sealed), ENCRYPTED_CHUNK)
    ]


@pytest.mark.parametrize(
    "order", [o for n in range(5) for o in itertools.product(range(3), repeat=n)], ids=str
)
def test_chunks_in_any_other_order_are_refused(order, opened):
    """Swapped, repeated and missing chunks: of all ways to place three, one opens."""
    overhead, chunks = pieces(TWO)
    rearranged = overhead + b"".join(chunks[number] for number in order)
    if order == (0, 1, 2):
        assert opened(KEY, CONTEXT, rearranged) == DATA[: 2 * CHUNK + 9]
    else:
        with pytest.raises(AuthenticationError):
            opened(KEY, CONTEXT, rearranged)


def test_a_changed_chunk_is_found_when_it_is_read():
    """Only reading the changed chunk fails; the others stay readable, and nothing of it comes out."""
    sealed = bytearray(TWO)
    sealed[OVERHEAD + ENCRYPTED_CHUNK + 100] ^= 1
    chunk_reader = ChunkReader(KEY, CONTEXT, lambda at, length: bytes(sealed[at : at + length]), len(sealed))
    assert chunk_reader.chunk(0) == DATA[:CHUNK]
    with pytest.raises(AuthenticationError):
        chunk_reader.chunk(1)
    assert chunk_reader.chunk(2) == DATA[2 * CHUNK : 2 * CHUNK + 9]


def test_a_chunk_of_another_body_of_the_same_key_is_refused(opened):
    """Every body has keys of its own, by its salt."""
    overhead, chunks = pieces(TWO)
    _, others = pieces(seal(2 * CHUNK + 9))
    with pytest.raises(AuthenticationError):
        opened(KEY, CONTEXT, overhead + others[0] + chunks[1] + chunks[2])


def test_a_file_that_shrinks_is_refused():
    """Where the file ends before the size that it was said to have, that is no shorter plaintext."""
    with pytest.raises(AuthenticationError):
        ChunkReader(KEY, CONTEXT, lambda at, length: TWO[: CHUNK * 2][at : at + length], len(TWO))


@pytest.mark.parametrize("size", [-1, 0, 55, 56, 71, OVERHEAD + ENCRYPTED_CHUNK, 2**64, 2**70])
def test_a_size_that_no_body_has_is_refused(size):
    """Whatever length is claimed, nothing of that length is read or made."""
    asked = []

    def read_at(at, length):
        asked.append(length)
        return TWO[at : at + length]

    with pytest.raises(AuthenticationError):
        ChunkReader(KEY, CONTEXT, read_at, size)
    assert max(asked) <= ENCRYPTED_CHUNK


def test_another_key_or_context_is_refused(opened):
    """Both are committed to."""
    for key, context in ((KEY[::-1], CONTEXT), (KEY, b""), (KEY, CONTEXT + b"\0")):
        with pytest.raises(AuthenticationError):
            opened(key, context, TWO)


# --- a body for two keys ------------------------------------------------------------------------------


def test_a_body_that_raw_gcm_opens_under_two_keys_opens_under_one_at_most():
    """AES-GCM accepts one ciphertext under two keys; the commitment tells which key a body is for."""
    rng, salt = random.Random(2), bytes(24)
    keys = [rng.randbytes(32), rng.randbytes(32)]
    derived = [okm_of(key, salt, CONTEXT) for key in keys]
    gcms = [Gcm(okm[:32], okm[32:44]) for okm in derived]
    chunk = for_both(gcms[0], gcms[1], [rng.getrandbits(128) for _ in range(9)])

    plaintexts = [gcm.aead.decrypt(gcm.nonce, chunk, None) for gcm in gcms]
    assert plaintexts[0] != plaintexts[1]
    with pytest.raises(InvalidTag):
        gcms[0].aead.decrypt(gcms[0].nonce, chunk[:-1] + bytes((chunk[-1] ^ 1,)), None)

    commitments = [okm[44:] for okm in derived]
    mixed = commitments[0][:16] + commitments[1][16:]
    for way in WAYS.values():
        for commitment in (*commitments, mixed, bytes(32), rng.randbytes(32)):
            opened_by = []
            for number, key in enumerate(keys):
                try:
                    plaintext = way(key, CONTEXT, salt + commitment + chunk)
                except AuthenticationError:
                    continue
                assert plaintext == plaintexts[number]
                opened_by.append(commitment)
            assert opened_by == [commitment] * (commitment in commitments)


def test_two_keys_one_nonce_in_a_message(cipher):
    """A message whose chunk raw AES-GCM opens under the data keys of two readers is read by none or by one."""
    rng = random.Random(3)
    one, two = (AESGCM(key) for key in (KEY, KEY[::-1]))
    nonce = rng.randbytes(12)
    chunk = for_both(Gcm(KEY, nonce), Gcm(KEY[::-1], nonce), [rng.getrandbits(128) for _ in range(4)])
    assert one.decrypt(nonce, chunk, None) != two.decrypt(nonce, chunk, None)
    message = encrypt_chunked(cipher, b"x" * (len(chunk) - 16))
    body = wire.parse(message).length
    for start in (message[: body + OVERHEAD], message[:body] + rng.randbytes(OVERHEAD)):
        with pytest.raises(AuthenticationError):
            cipher.decrypt(start + chunk)
