"""Bodies sealed and opened whole or as streams; random access has tests of its own."""

import hmac

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import AlreadyFinalized

from kmsbridge import AuthenticationError
from kmsbridge.drivers.local.passphrase import passphrase_key
from kmsbridge.message import MIN_BODY, chunked, cobblestone
from kmsbridge.message.chunk_reader import ChunkReader
from kmsbridge.message.chunked import BodyDecryptor, BodyEncryptor, decrypt, encrypt, encrypted_length
from kmsbridge.message.cobblestone import CHUNK, ENCRYPTED_CHUNK, OVERHEAD, commits

KEY, CONTEXT = bytes(range(32)), b"context"
DATA = bytes(range(256)) * (65 * 64)
LENGTHS = [0, 1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, 3 * CHUNK]
LONG = [64 * CHUNK - 1, 64 * CHUNK, 64 * CHUNK + 1]


def finish(opener, sealed):
    """All of a body; what comes before its end is the first chunk or nothing."""
    assert opener.update(sealed) in (b"", DATA[:CHUNK])
    return opener.finalize()


def stepwise(length, step):
    """Slices of `step` bytes."""
    return [slice(at, min(at + step, length)) for at in range(0, length, step)]


@pytest.mark.parametrize("length", LENGTHS + LONG)
def test_what_is_sealed_is_opened_by_cobblestone_and_the_reverse(length):
    """The body is Cobblestone-256 and nothing else, of the length that is announced."""
    sealed = encrypt(KEY, CONTEXT, DATA[:length])
    assert len(sealed) == encrypted_length(length)
    decryptor = Cobblestone256Decryptor(KEY, CONTEXT)
    assert decryptor.update(sealed) + decryptor.finalize() == DATA[:length]
    encryptor = Cobblestone256Encryptor(KEY, CONTEXT)
    theirs = encryptor.update(DATA[:length]) + encryptor.finalize()
    assert decrypt(KEY, CONTEXT, theirs) == decrypt(KEY, CONTEXT, memoryview(theirs)) == DATA[:length]


def by_cobblestone(sealed):
    """What `cryptography.cobblestone` reads."""
    decryptor = Cobblestone256Decryptor(KEY, CONTEXT)
    return decryptor.update(sealed) + decryptor.finalize()


@pytest.mark.parametrize("length", LENGTHS + LONG)
@pytest.mark.parametrize("step", [4999, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 3])
def test_what_is_sealed_in_odd_steps_is_opened_by_cobblestone(length, step):
    """By `update`, which keeps what does not fill a chunk until more comes."""
    sealer = BodyEncryptor(KEY, CONTEXT)
    parts = [sealer.update(DATA[part]) for part in stepwise(length, step)]
    assert by_cobblestone(b"".join(parts) + sealer.finalize()) == DATA[:length]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("length", [0, 100, CHUNK, 64 * CHUNK + 1])
def test_any_buffer_of_bytes_is_sealed(kind, length):
    """A mutable one is not changed."""
    plaintext = kind(DATA[:length])
    assert by_cobblestone(encrypt(KEY, CONTEXT, plaintext)) == DATA[:length] == bytes(plaintext)
    sealer = BodyEncryptor(KEY, CONTEXT)
    assert by_cobblestone(sealer.update(plaintext) + sealer.finalize()) == DATA[:length]


def test_a_body_that_is_complete_takes_no_more():
    """Another chunk of the last one's number would be sealed under its nonce."""
    sealer = BodyEncryptor(KEY, CONTEXT)
    sealer.update(b"x")
    sealer.finalize()
    for more in (lambda: sealer.update(b"y"), sealer.finalize):
        with pytest.raises(AlreadyFinalized):
            more()


def test_an_interrupted_update_uses_no_nonce_twice(monkeypatch):
    """Whatever becomes of the chunks of one update, those of the next have other numbers."""
    nonces = []

    class Interrupted:
        def encrypt_into(self, nonce, *_):
            nonces.append(nonce)
            raise KeyboardInterrupt

    sealer = BodyEncryptor(KEY, CONTEXT)
    monkeypatch.setattr(sealer, "_aead", Interrupted())
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            sealer.update(DATA[: 2 * CHUNK])
    assert len(set(nonces)) == len(nonces) == 3


def test_keys_are_derived_as_rfc_5869_says():
    """HKDF-Expand, written out: two blocks of HMAC-SHA-512."""
    salt, info = bytes(24), b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + bytes(24) + CONTEXT
    first = hmac.digest(KEY, info + b"\1", "sha512")
    okm = (first + hmac.digest(KEY, first + info + b"\2", "sha512"))[:76]
    aead, nonce, commitment = cobblestone.derive(KEY, CONTEXT, salt)
    assert (nonce, commitment) == (okm[32:44], okm[44:])
    assert aead.encrypt(nonce, b"x", None) == type(aead)(okm[:32]).encrypt(nonce, b"x", None)


def test_a_body_commits_to_one_key_and_context():
    """Its first 56 bytes tell, whatever follows them; fewer do not."""
    sealed = encrypt(KEY, CONTEXT, b"x")
    assert commits(KEY, CONTEXT, sealed)
    assert commits(KEY, CONTEXT, memoryview(sealed)[:OVERHEAD])
    assert commits(KEY, CONTEXT, sealed[:OVERHEAD] + b"junk")
    assert not commits(KEY[::-1], CONTEXT, sealed)
    assert not commits(KEY, CONTEXT + b"\0", sealed)
    for at in range(OVERHEAD):
        changed = bytearray(sealed)
        changed[at] ^= 1
        assert not commits(KEY, CONTEXT, bytes(changed))
        assert not commits(KEY, CONTEXT, sealed[:at])
    with pytest.raises(ValueError, match="32 bytes"):
        commits(KEY[:31], CONTEXT, sealed)


@pytest.mark.parametrize("length", [0, CHUNK])
def test_a_key_of_another_length_is_refused(length):
    """HMAC would take it in silence."""
    with pytest.raises(ValueError, match="32 bytes"):
        encrypt(KEY[:31], CONTEXT, DATA[:length])


def test_salts_and_keys_are_asked_of_the_operating_system_each_time(monkeypatch):
    """24 bytes for every body and 32 for every key; nothing is kept for the next."""
    asked = []

    def spied(count):
        asked.append(count)
        return bytes(count)

    for module in (cobblestone, chunked):
        monkeypatch.setattr(module, "urandom", spied)
    bodies = [encrypt(KEY, CONTEXT, b""), encrypt(KEY, CONTEXT, DATA), BodyEncryptor(KEY, CONTEXT).finalize()]
    assert asked == [24, 24, 24]
    assert [sealed[:24] for sealed in bodies] == [bytes(24)] * 3
    assert cobblestone.new_key() == bytes(32)
    assert asked == [24, 24, 24, 32]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("step", [7, 997, CHUNK - 1, CHUNK, ENCRYPTED_CHUNK, ENCRYPTED_CHUNK + 1, 3 * CHUNK])
def test_a_stream_in_odd_steps_is_the_same_as_the_whole(length, step):
    """Steps of any size, by `update` and by `update_into` with the room that is announced."""
    sealer, opener = BodyEncryptor(KEY, CONTEXT), BodyDecryptor(KEY, CONTEXT)
    buffer, sealed = bytearray(BodyEncryptor.output_size(step)), bytearray()
    for part in stepwise(length, step):
        sealed += buffer[: sealer.update_into(DATA[:length][part], buffer)]
    sealed += sealer.finalize()
    assert decrypt(KEY, CONTEXT, bytes(sealed)) == DATA[:length]

    buffer, plaintext, second = bytearray(BodyDecryptor.output_size(step)), bytearray(), bytearray()
    other = BodyDecryptor(KEY, CONTEXT)
    for part in stepwise(len(sealed), step):
        plaintext += buffer[: opener.update_into(sealed[part], buffer)]
        second += other.update(sealed[part])
    assert plaintext + opener.finalize() == second + other.finalize() == DATA[:length]


def test_a_prefix_stands_before_the_body():
    """The header is put there without a copy of its own."""
    sealed = encrypt(KEY, CONTEXT, b"plaintext", b"header")
    assert sealed[:6] == b"header"
    assert decrypt(KEY, CONTEXT, memoryview(sealed)[6:]) == b"plaintext"


def test_two_bodies_share_no_salt():
    """Every sealing draws a salt."""
    salts = {encrypt(KEY, CONTEXT, b"")[:24] for _ in range(1000)}
    assert len(salts) == 1000


def test_data_keys_are_32_random_bytes():
    """New ones each time."""
    keys = {cobblestone.new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert {len(key) for key in keys} == {32}


@pytest.mark.parametrize("length", [0, 1, CHUNK, CHUNK + 1])
def test_every_truncation_of_short_bodies_is_refused(length):
    """Whole or as a stream, with one error and nothing given out at the end."""
    sealed = encrypt(KEY, CONTEXT, DATA[:length])
    near = [n for n in range(len(sealed)) if n < 200 or len(sealed) - n < 50 or n % 4099 == 0]
    for cut in near:
        with pytest.raises(AuthenticationError):
            decrypt(KEY, CONTEXT, sealed[:cut])
        opener = BodyDecryptor(KEY, CONTEXT)
        with pytest.raises(AuthenticationError):
            finish(opener, sealed[:cut])


def test_a_buffer_is_wiped_where_a_chunk_is_not_authentic():
    """What was decrypted before the tag was seen to be wrong does not stay behind."""
    sealed = bytearray(encrypt(KEY, CONTEXT, b"canary" * 5000))
    sealed[OVERHEAD + ENCRYPTED_CHUNK - 1] ^= 1
    buffer = bytearray(b"x" * BodyDecryptor.output_size(len(sealed)))
    with pytest.raises(AuthenticationError):
        BodyDecryptor(KEY, CONTEXT).update_into(sealed, buffer)
    assert buffer == bytes(len(buffer))


@pytest.mark.parametrize("order", ((0, 1, 2), (2, 0, 1), (1, 2, 0)), ids=str)
def test_reserved_chunks_may_be_encrypted_in_any_order(order):
    """In steps of two chunks; what is encrypted as it comes has its place behind them."""
    sealer, steps = BodyEncryptor(KEY, CONTEXT), {}
    start = sealer.update(b"")
    first = sealer.reserve(6)
    rest = sealer.update(DATA[6 * CHUNK : 8 * CHUNK + 5])
    for number in order:
        step = chunked.Step(2)
        step.plain[:] = DATA[2 * number * CHUNK : (2 * number + 2) * CHUNK]
        sealer.encrypt_reserved(first + 2 * number, step.chunks)
        steps[number] = bytes(step.encrypted)
    body = start + steps[0] + steps[1] + steps[2] + rest + sealer.finalize()
    assert by_cobblestone(body) == DATA[: 8 * CHUNK + 5]
    with pytest.raises(AlreadyFinalized):
        sealer.reserve(1)


@pytest.mark.parametrize("changed", (None, 0, ENCRYPTED_CHUNK - 1, ENCRYPTED_CHUNK, 2 * ENCRYPTED_CHUNK - 1))
def test_a_step_is_decrypted_as_a_whole_or_wiped(changed):
    """What was decrypted before a tag was seen to be wrong does not stay behind, in any of its chunks."""
    body = bytearray(encrypt(KEY, CONTEXT, DATA[: 5 * CHUNK]))
    reader = ChunkReader(KEY, CONTEXT, lambda at, length: bytes(body[at : at + length]), len(body))
    at, step = OVERHEAD + 2 * ENCRYPTED_CHUNK, chunked.Step(2)
    step.encrypted[:] = body[at : at + 2 * ENCRYPTED_CHUNK]
    step.plain[:] = b"x" * 2 * CHUNK
    if changed is None:
        reader.decrypt_step(2, step)
        assert step.plain == DATA[2 * CHUNK : 4 * CHUNK]
        return
    step.encrypted[changed] ^= 1
    with pytest.raises(AuthenticationError):
        reader.decrypt_step(2, step)
    assert step.plain == bytes(2 * CHUNK)


@pytest.mark.parametrize("number", (0, 1, 3))
def test_a_step_is_not_decrypted_in_another_place(number):
    """Its chunks are bound to their numbers."""
    body = encrypt(KEY, CONTEXT, DATA[: 5 * CHUNK])
    reader = ChunkReader(KEY, CONTEXT, lambda at, length: body[at : at + length], len(body))
    step = chunked.Step(2)
    step.encrypted[:] = body[OVERHEAD + 2 * ENCRYPTED_CHUNK : OVERHEAD + 4 * ENCRYPTED_CHUNK]
    with pytest.raises(AuthenticationError):
        reader.decrypt_step(number, step)


@pytest.mark.parametrize("length", LENGTHS)
def test_lengths_that_are_announced_hold(length):
    """`encrypted_length` counts every chunk's tag, the last one's too."""
    assert encrypted_length(length) == OVERHEAD + length + 16 * (length // CHUNK + 1) >= MIN_BODY


def test_the_passphrase_s_key_is_argon2id():
    """Held to a published value of the reference implementation, for version 1.3 and 256 KiB."""
    derived = passphrase_key(b"password", b"somesalt", iterations=2, memory_kib=256, lanes=1)
    assert derived.hex() == "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"
