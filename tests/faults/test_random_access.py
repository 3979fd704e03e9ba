"""Reading at random reads and decrypts only what it must."""

import io

import pytest

from kmsbridge import AuthenticationError

CHUNK, SEALED, HEAD, TAG = 16384, 16400, 56, 16
SIZE = 100 * CHUNK + 1234


class Counting(io.BytesIO):
    """Notes which bytes are read."""

    def __init__(self, data):
        super().__init__(data)
        self.ranges = []

    def read(self, size=-1):
        start = self.tell()
        data = super().read(size)
        self.ranges.append((start, start + len(data)))
        return data


def pattern(start, length):
    """The plaintext's bytes from `start` on: each block of 8 tells its own number."""
    first = start // 8
    blocks = b"".join(n.to_bytes(8, "big") for n in range(first, (start + length) // 8 + 1))
    return blocks[start - first * 8 :][:length]


@pytest.fixture
def message(cipher):
    return cipher.encrypt(pattern(0, SIZE))


def test_opening_reads_the_header_the_commitment_and_the_last_chunk(cipher, message):
    """So that the size can be relied on, and nothing else."""
    file = Counting(message)
    start = int.from_bytes(message[6:8], "big")
    with cipher.open(file) as reader:
        assert reader.size == SIZE
    last = start + HEAD + (SIZE // CHUNK) * SEALED
    touched = {span for span in file.ranges if span[0] != span[1]}
    assert touched == {(0, 8), (8, start), (start, start + HEAD), (last, len(message))}


@pytest.mark.torture
def test_each_read_touches_only_the_chunks_that_hold_it(torture, cipher, message):
    """4 KiB at 10,000 random offsets: one chunk read whole, or two where it crosses an edge."""
    rng = torture.rng("random access")
    start = int.from_bytes(message[6:8], "big")
    file = Counting(message)
    with cipher.open(file) as reader:
        for _ in range(torture.times(10_000)):
            offset = rng.randrange(SIZE)
            file.ranges.clear()
            reader.seek(offset)
            assert reader.read(4096) == pattern(offset, min(4096, SIZE - offset))
            end = min(offset + 4096, SIZE)
            needed = {
                (begin, min(begin + SEALED, len(message)))
                for number in range(offset // CHUNK, (end - 1) // CHUNK + 1)
                for begin in [start + HEAD + number * SEALED]
            }
            assert set(file.ranges) <= needed  # the chunk at hand is not read again


def test_reading_on_in_one_chunk_reads_it_once(cipher, message):
    """Small reads in a row cost no more than one."""
    file = Counting(message)
    with cipher.open(file) as reader:
        file.ranges.clear()
        for _ in range(64):
            reader.read(256)
        assert len(file.ranges) == 1


@pytest.mark.parametrize("number", (0, 1, 50, 99))
def test_a_changed_chunk_spoils_only_reads_that_touch_it(cipher, message, number):
    """Every other chunk is still read; this one never."""
    start = int.from_bytes(message[6:8], "big")
    data = bytearray(message)
    data[start + HEAD + number * SEALED + 100] ^= 1
    with cipher.open(io.BytesIO(data)) as reader:
        reader.seek(((number + 1) % 100) * CHUNK)
        assert len(reader.read(CHUNK)) == CHUNK
        for _ in range(2):
            reader.seek(number * CHUNK + 5)
            with pytest.raises(AuthenticationError):
                reader.read(1)


@pytest.mark.parametrize("cut", (1, TAG, 1234, 1234 + TAG, SEALED, SEALED * 3), ids="{} bytes".format)
def test_a_message_cut_short_does_not_open(cipher, message, cut):
    """The last chunk is checked at once."""
    with pytest.raises(AuthenticationError):
        cipher.open(io.BytesIO(message[:-cut]))
