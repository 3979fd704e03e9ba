"""aad is at most 1 MiB, in every way to encrypt and to decrypt."""

import asyncio
import io

import pytest

from kmsbridge import EnvelopeCipher, LimitExceeded, aio
from kmsbridge.cipher.aad import MAX_AAD
from tests.support import encrypt_chunked

LONGEST = bytes(MAX_AAD)
PLAIN = b"payload"


@pytest.fixture(params=(False, True), ids=("inline", "direct"))
def cipher(service, request):
    with EnvelopeCipher.from_uri("fake:app", direct=request.param) as opened:
        yield opened


@pytest.fixture(params=("compact or direct", "chunked"))
def bound(cipher, request):
    """A message that is bound to the longest aad."""
    if request.param == "chunked":
        with EnvelopeCipher.from_uri("fake:app") as writer:
            return encrypt_chunked(writer, PLAIN, aad=LONGEST)
    return cipher.encrypt(PLAIN, aad=LONGEST)


def encrypted_file(cipher, folder, aad):
    (folder / "source").write_bytes(PLAIN)
    try:
        cipher.encrypt_file(folder / "source", folder / "target", aad=aad)
    finally:
        made = (folder / "target").read_bytes() if (folder / "target").exists() else b""
    return made


def encrypted_stream(cipher, folder, aad):
    made = io.BytesIO()
    try:
        cipher.encrypt_stream(io.BytesIO(PLAIN), made, aad=aad)
    finally:
        assert len(aad) == MAX_AAD or not made.getvalue()
    return made.getvalue()


def decrypted_file(cipher, folder, message, aad):
    (folder / "message").write_bytes(message)
    (folder / "plain").unlink(missing_ok=True)
    try:
        cipher.decrypt_file(folder / "message", folder / "plain", aad=aad)
    finally:
        assert len(aad) == MAX_AAD or not (folder / "plain").exists()
    return (folder / "plain").read_bytes()


def decrypted_stream(cipher, folder, message, aad):
    plain = io.BytesIO()
    cipher.decrypt_stream(io.BytesIO(message), plain, aad=aad)
    return plain.getvalue()


class Collector:
    """An asyncio writer that keeps what it gets."""

    def __init__(self):
        self.data = bytearray()

    def write(self, data):
        self.data += data

    async def drain(self):
        pass


def reader_of(data):
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def async_encrypted_stream(cipher, aad):
    made = Collector()
    await cipher.encrypt_stream(reader_of(PLAIN), made, aad=aad)
    return bytes(made.data)


async def async_decrypted_stream(cipher, message, aad):
    plain = Collector()
    await cipher.decrypt_stream(reader_of(message), plain, aad=aad)
    return bytes(plain.data)


def run(work):
    """The result of `work`, which gets an asyncio cipher."""

    async def main():
        async with aio.EnvelopeCipher.from_uri("fake:app") as cipher:
            return await work(cipher)

    return asyncio.run(main())


ENCRYPT = {
    "encrypt": lambda c, folder, aad: c.encrypt(PLAIN, aad=aad),
    "encrypt_text": lambda c, folder, aad: c.encrypt_text(PLAIN.decode(), aad=aad),
    "encrypt_many": lambda c, folder, aad: c.encrypt_many([PLAIN], aads=[aad])[0],
    "encrypt_file": encrypted_file,
    "encrypt_stream": encrypted_stream,
    "async encrypt": lambda c, folder, aad: run(lambda c: c.encrypt(PLAIN, aad=aad)),
    "async encrypt_stream": lambda c, folder, aad: run(lambda c: async_encrypted_stream(c, aad)),
}
DECRYPT = {
    "decrypt": lambda c, folder, message, aad: c.decrypt(message, aad=aad),
    "decrypt_many": lambda c, folder, message, aad: c.decrypt_many([message], aads=[aad])[0],
    "decrypt_file": decrypted_file,
    "decrypt_stream": decrypted_stream,
    "open": lambda c, folder, message, aad: c.open(io.BytesIO(message), aad=aad).read(),
    "async decrypt": lambda c, folder, message, aad: run(lambda c: c.decrypt(message, aad=aad)),
    "async decrypt_stream": lambda c, folder, message, aad: run(
        lambda c: async_decrypted_stream(c, message, aad)
    ),
    "async open": lambda c, folder, message, aad: run(lambda c: async_opened(c, message, aad)),
}


async def async_opened(cipher, message, aad):
    async with await cipher.open(io.BytesIO(message), aad=aad) as file:
        return await file.read()


@pytest.mark.parametrize("kind", (bytes, bytearray, memoryview), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("way", ENCRYPT)
@pytest.mark.parametrize("cipher", (False,), ids=("inline",), indirect=True)
def test_encrypting_takes_an_aad_of_1_mib_and_no_byte_more(cipher, tmp_path, way, kind):
    """What is too long is `LimitExceeded`, which tells the limit, and nothing is made."""
    with pytest.raises(LimitExceeded, match=r"has 1048577 bytes; 1048576 bytes is the limit"):
        ENCRYPT[way](cipher, tmp_path, kind(LONGEST + b"x"))
    assert not (tmp_path / "target").exists()
    message = ENCRYPT[way](cipher, tmp_path, kind(LONGEST))
    open_it = cipher.decrypt_text if isinstance(message, str) else cipher.decrypt
    assert open_it(message, aad=LONGEST) in (PLAIN, PLAIN.decode())


@pytest.mark.parametrize("kind", (bytes, bytearray, memoryview), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("way", DECRYPT)
def test_decrypting_takes_an_aad_of_1_mib_and_no_byte_more(cipher, bound, tmp_path, way, kind):
    """With the data key at hand as without it."""
    for _ in range(2):
        with pytest.raises(LimitExceeded, match=r"has 1048577 bytes"):
            DECRYPT[way](cipher, tmp_path, bound, kind(LONGEST + b"x"))
        assert DECRYPT[way](cipher, tmp_path, bound, kind(LONGEST)) == PLAIN


@pytest.mark.parametrize("cipher", (True,), ids=("direct",), indirect=True)
def test_a_direct_message_takes_an_aad_of_1_mib_and_no_byte_more(cipher):
    """It binds the aad by its hash, and takes no more for that."""
    for encrypt in (ENCRYPT["encrypt"], ENCRYPT["encrypt_text"], ENCRYPT["encrypt_many"]):
        with pytest.raises(LimitExceeded, match=r"has 1048577 bytes"):
            encrypt(cipher, None, LONGEST + b"x")
        encrypt(cipher, None, LONGEST)


def test_rewrapping_a_direct_message_takes_no_longer_aad(service):
    """Its aad is bound at the key service, so rewrapping needs it."""
    with EnvelopeCipher.from_uri("fake:app", direct=True) as cipher:
        message = cipher.encrypt(PLAIN, aad=LONGEST)
        with pytest.raises(LimitExceeded):
            cipher.rewrap(message, aad=LONGEST + b"x")
        assert cipher.decrypt(cipher.rewrap(message, aad=LONGEST), aad=LONGEST) == PLAIN
