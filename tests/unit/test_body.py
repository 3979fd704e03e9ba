"""Bodies sealed and opened whole or as streams; random access has tests of its own."""

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor

from kmsbridge import AuthenticationError, body
from kmsbridge.body import (
    CHUNK,
    OVERHEAD,
    SEALED_CHUNK,
    Opener,
    Sealer,
    open_sealed,
    seal,
    sealed_length,
)
from kmsbridge.message import MIN_BODY

KEY, CONTEXT = bytes(range(32)), b"context"
DATA = bytes(range(256)) * 200
LENGTHS = [0, 1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 3 * CHUNK]


def finish(opener, sealed):
    """All of a body; what comes before its end is the first chunk or nothing."""
    assert opener.update(sealed) in (b"", DATA[:CHUNK])
    return opener.finalize()


def stepwise(length, step):
    """Slices of `step` bytes."""
    return [slice(at, min(at + step, length)) for at in range(0, length, step)]


@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_sealed_is_opened_by_cobblestone_and_the_reverse(length):
    """The body is Cobblestone-256 and nothing else, of the length that is announced."""
    sealed = seal(KEY, CONTEXT, DATA[:length])
    assert len(sealed) == sealed_length(length)
    decryptor = Cobblestone256Decryptor(KEY, CONTEXT)
    assert decryptor.update(sealed) + decryptor.finalize() == DATA[:length]
    encryptor = Cobblestone256Encryptor(KEY, CONTEXT)
    theirs = encryptor.update(DATA[:length]) + encryptor.finalize()
    assert open_sealed(KEY, CONTEXT, theirs) == open_sealed(KEY, CONTEXT, memoryview(theirs)) == DATA[:length]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("step", [7, 997, CHUNK - 1, CHUNK, SEALED_CHUNK, SEALED_CHUNK + 1, 3 * CHUNK])
def test_a_stream_in_odd_steps_is_the_same_as_the_whole(length, step):
    """Steps of any size, by `update` and by `update_into` with the room that is announced."""
    sealer, opener = Sealer(KEY, CONTEXT), Opener(KEY, CONTEXT)
    buffer, sealed = bytearray(Sealer.room(step)), bytearray()
    for part in stepwise(length, step):
        sealed += buffer[: sealer.update_into(DATA[:length][part], buffer)]
    sealed += sealer.finalize()
    assert open_sealed(KEY, CONTEXT, bytes(sealed)) == DATA[:length]

    buffer, plaintext, second = bytearray(Opener.room(step)), bytearray(), bytearray()
    other = Opener(KEY, CONTEXT)
    for part in stepwise(len(sealed), step):
        plaintext += buffer[: opener.update_into(sealed[part], buffer)]
        second += other.update(sealed[part])
    assert plaintext + opener.finalize() == second + other.finalize() == DATA[:length]


def test_a_prefix_stands_before_the_body():
    """The header is put there without a copy of its own."""
    sealed = seal(KEY, CONTEXT, b"plaintext", b"header")
    assert sealed[:6] == b"header"
    assert open_sealed(KEY, CONTEXT, memoryview(sealed)[6:]) == b"plaintext"


def test_two_bodies_share_no_salt():
    """Every sealing draws a salt."""
    salts = {seal(KEY, CONTEXT, b"")[:24] for _ in range(1000)}
    assert len(salts) == 1000


def test_data_keys_are_32_random_bytes():
    """New ones each time."""
    keys = {body.new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert {len(key) for key in keys} == {32}


@pytest.mark.parametrize("length", [0, 1, CHUNK, CHUNK + 1])
def test_every_truncation_of_short_bodies_is_refused(length):
    """Whole or as a stream, with one error and nothing given out at the end."""
    sealed = seal(KEY, CONTEXT, DATA[:length])
    near = [n for n in range(len(sealed)) if n < 200 or len(sealed) - n < 50 or n % 4099 == 0]
    for cut in near:
        with pytest.raises(AuthenticationError):
            open_sealed(KEY, CONTEXT, sealed[:cut])
        opener = Opener(KEY, CONTEXT)
        with pytest.raises(AuthenticationError):
            finish(opener, sealed[:cut])


def test_a_buffer_is_wiped_where_a_chunk_is_not_authentic():
    """What was decrypted before the tag was seen to be wrong does not stay behind."""
    sealed = bytearray(seal(KEY, CONTEXT, b"canary" * 5000))
    sealed[OVERHEAD + SEALED_CHUNK - 1] ^= 1
    buffer = bytearray(b"x" * Opener.room(len(sealed)))
    with pytest.raises(AuthenticationError):
        Opener(KEY, CONTEXT).update_into(sealed, buffer)
    assert buffer == bytes(len(buffer))


@pytest.mark.parametrize("length", LENGTHS)
def test_lengths_that_are_announced_hold(length):
    """`sealed_length` counts every chunk's tag, the last one's too."""
    assert sealed_length(length) == OVERHEAD + length + 16 * (length // CHUNK + 1) >= MIN_BODY


def test_the_passphrase_s_key_is_argon2id():
    """Held to a published value of the reference implementation, for version 1.3 and 256 KiB."""
    derived = body.passphrase_key(b"password", b"somesalt", iterations=2, memory_kib=256, lanes=1)
    assert derived.hex() == "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"
