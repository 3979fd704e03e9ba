"""Compact messages: their bytes, when they are written, what reads them, and what is refused, cold and warm."""

import io
import random

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from kmsbridge import (
    AuthenticationError,
    EnvelopeCipher,
    MalformedMessage,
    inspect,
)
from kmsbridge import message as wire
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import datakey
from kmsbridge.message import Kind, compact
from kmsbridge.message import cobblestone as keys
from tests.gcm import Gcm, for_both
from tests.support import encrypt_chunked, encrypt_compact, parts, with_recipients
from tests.unit.compact_messages import (
    AAD,
    BINDING,
    CONTEXT,
    DATA_KEY,
    LONGEST,
    NONCE,
    READ,
    Collector,
    made,
    outcome,
    reader_of,
    run,
    same,
    with_body,
    with_commitment,
    wrapped_for,
)
from tests.vectors import writer

# --- the bytes ----------------------------------------------------------------------------------------

KEY_AND_COMMITMENT = (
    "b1a11d19f2bbdf8a7efad4e8ab2de4ea8e44e29ee1fda77322f4d4ec036fb245",
    "46c01d570e85dda6d8d9f45006412e1b80e8e375b2edaee4344b36e908c69c40",
)
AFTER_NONCE = "dfec7d605ae510464090471458c67fa4aa7f41bc69e77e423873c3"


def test_a_message_has_the_bytes_of_the_specification_s_example(monkeypatch, service, cipher):
    """Its data key, its nonce: its commitment and its ciphertext; and anybody with the key reads it."""
    monkeypatch.setattr(keys, "new_key", lambda: DATA_KEY)
    monkeypatch.setattr(datakey, "urandom", lambda count: NONCE[:count])
    monkeypatch.setattr(compact, "urandom", lambda count: NONCE[-count:])
    message = cipher.encrypt(b"+1 555 0100", **BINDING)
    header, body = parts(message)
    assert wire.parse(message).commitment.hex() == header[-32:].hex() == KEY_AND_COMMITMENT[1]
    assert body == NONCE + bytes.fromhex(AFTER_NONCE)
    derived = compact.derive(DATA_KEY, EncryptionContext.of(CONTEXT).canonical())
    assert tuple(each.hex() for each in derived) == KEY_AND_COMMITMENT
    assert made(service, b"+1 555 0100")[-len(body) - 32 :] == header[-32:] + body
    with EnvelopeCipher.from_uri("fake:app") as reader:
        for each in (message, made(service, b"+1 555 0100")):
            assert reader.decrypt(each, **BINDING) == b"+1 555 0100"


def test_the_derived_keys_are_those_of_hkdf_expand():
    """Over random data keys and contexts, against `cryptography`'s."""
    rng = random.Random(9)
    for number in range(300):
        pairs = {
            rng.randbytes(rng.randrange(1, 9)).hex(): "é" * rng.randrange(1, 40) for _ in range(number % 9)
        }
        data_key, canonical = rng.randbytes(32), EncryptionContext.of(pairs).canonical()
        info = b"kmsbridge/v1/compact\0" + len(canonical).to_bytes(4, "big") + canonical
        expanded = HKDFExpand(hashes.SHA512(), 64, info).derive(data_key)
        assert compact.derive(data_key, canonical) == (expanded[:32], expanded[32:])


LENGTHS = (0, 16, 31, 33, 64, 128)
"""Of data keys that are none. HMAC pads a key that is short with zero bytes, up to 128."""


@pytest.mark.parametrize("length", LENGTHS)
def test_keys_are_derived_from_32_bytes_only(length):
    """Else several data keys would have one commitment."""
    with pytest.raises(ValueError, match="32 bytes"):
        compact.derive(bytes(length), b"")


def test_a_data_key_of_31_bytes_has_no_commitment_in_common_with_one_of_32(service):
    """The same bytes and a zero, which HMAC alone takes for the same key: the shorter one is refused in every way."""
    sound = DATA_KEY[1:] + b"\0"
    message = made(service, b"payload", data_key=sound)
    for length in LENGTHS:
        other = (sound + bytes(128))[:length] if length else b""
        if not other:
            continue  # a key service wraps no empty payload
        forged = with_recipients(message, wrapped_for(service, other))
        for way in READ.values():
            for _ in range(2):
                with EnvelopeCipher.from_uri("fake:app") as cipher, pytest.raises(AuthenticationError):
                    way(cipher, forged, BINDING)
        with EnvelopeCipher.from_uri("fake:other", decrypt_uris=["fake:app"]) as mover:
            for options in (BINDING, {"context": CONTEXT}):
                with pytest.raises(AuthenticationError):
                    mover.rewrap(forged, **options)
    with EnvelopeCipher.from_uri("fake:app") as cipher:
        assert cipher.decrypt(message, **BINDING) == b"payload"


# --- which kind is written ----------------------------------------------------------------------------


async def async_stream(cipher, payload):
    target = Collector()
    await cipher.encrypt_stream(reader_of(payload), target)
    return bytes(target.data)


def encrypted_file(cipher, payload, folder):
    (folder / "plain").write_bytes(payload)
    cipher.encrypt_file(folder / "plain", folder / "message")
    return (folder / "message").read_bytes()


def created(cipher, payload):
    target = io.BytesIO()
    with cipher.create(target) as file:
        file.write(payload)
    return target.getvalue()


WRITE = {
    "encrypt": lambda c, payload: c.encrypt(payload),
    "encrypt, a view": lambda c, payload: c.encrypt(memoryview(payload)),
    "encrypt_text": lambda c, payload: wire.dearmor(c.encrypt_text(payload.decode())),
    "encrypt_many": lambda c, payload: c.encrypt_many([payload])[0],
    "encrypt_many, text": lambda c, payload: wire.dearmor(c.encrypt_many([payload.decode()])[0]),
    "async encrypt": lambda c, payload: run(lambda c: c.encrypt(payload)),
    "async encrypt_text": lambda c, payload: wire.dearmor(run(lambda c: c.encrypt_text(payload.decode()))),
    "async encrypt_many": lambda c, payload: run(lambda c: c.encrypt_many([payload]))[0],
}
STREAM = {
    "encrypt_file": encrypted_file,
    "encrypt_stream": lambda c, payload, folder: encrypt_chunked(c, payload),
    "create": lambda c, payload, folder: created(c, payload),
    "encrypting": lambda c, payload, folder: c.encrypting(io.BytesIO(payload)).read(),
    "async encrypt_stream": lambda c, payload, folder: run(lambda c: async_stream(c, payload)),
}


@pytest.mark.parametrize("write", WRITE.values(), ids=WRITE)
@pytest.mark.parametrize(
    ("payload", "kind"),
    (
        (b"", Kind.INLINE_COMPACT),
        (b"x" * LONGEST, Kind.INLINE_COMPACT),
        (b"x" * (LONGEST + 1), Kind.INLINE),
        ("é".encode() * (LONGEST // 2), Kind.INLINE_COMPACT),
        ("é".encode() * (LONGEST // 2) + b"x", Kind.INLINE),
    ),
    ids=("empty", "longest", "a byte more", "longest, of two bytes each", "a byte more, of two bytes each"),
)
def test_a_payload_of_65536_bytes_is_compact_and_a_longer_one_chunked(service, cipher, write, payload, kind):
    """Text counts in bytes of UTF-8; many are looked at one by one."""
    for _ in range(2):
        message = write(cipher, payload)
        assert wire.parse(message).kind is kind
        assert wire.parse(message).padding == 0
        assert cipher.decrypt(message) == payload
        assert (inspect(message).body_length - len(payload) == 40) == (kind is Kind.INLINE_COMPACT)


def test_many_payloads_are_compact_or_chunked_each_by_its_own_length(cipher):
    """One that is too long changes nothing for the others."""
    payloads = [b"x", bytes(LONGEST + 1), b"", bytes(LONGEST), bytes(LONGEST + 1)]
    messages = cipher.encrypt_many(payloads)
    assert [wire.parse(each).kind for each in messages] == [3, 0, 3, 3, 0]
    assert cipher.decrypt_many(messages) == payloads


@pytest.mark.parametrize("write", STREAM.values(), ids=STREAM)
@pytest.mark.parametrize("payload", (b"", b"x", bytes(LONGEST)), ids=len)
def test_files_and_streams_are_chunked_however_short(cipher, tmp_path, write, payload):
    """Their length is not known before their end."""
    message = write(cipher, payload, tmp_path)
    assert wire.parse(message).kind is Kind.INLINE
    assert cipher.decrypt(message) == payload


# --- what reads them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", READ.values(), ids=READ)
@pytest.mark.parametrize("size", (0, 1, 16_384, 16_385, LONGEST))
def test_every_way_to_decrypt_takes_a_compact_message(service, cipher, way, size):
    """The first time as the second."""
    payload = bytes(n % 97 for n in range(size))
    message = encrypt_compact(cipher, payload, **BINDING)
    with EnvelopeCipher.from_uri("fake:app") as reader:
        for _ in range(2):
            assert way(reader, message, BINDING) == payload


# --- the same cold and warm ---------------------------------------------------------------------------


REFUSED = {
    "65,577 bytes": (lambda s, m: made(s, bytes(LONGEST + 1)), MalformedMessage),
    "131,072 bytes": (lambda s, m: made(s, bytes(2 * LONGEST)), MalformedMessage),
    "no body": (lambda s, m: with_body(m, lambda body: b""), MalformedMessage),
    "a prefix alone": (lambda s, m: with_body(m, lambda body: body[:12]), MalformedMessage),
    "half a nonce": (lambda s, m: with_body(m, lambda body: body[:20]), MalformedMessage),
    "a nonce alone": (lambda s, m: with_body(m, lambda body: body[:24]), MalformedMessage),
    "39 bytes": (lambda s, m: with_body(m, lambda body: body[:39]), MalformedMessage),
    "40 bytes": (lambda s, m: with_body(m, lambda body: body[:40]), AuthenticationError),
    "cut by one": (lambda s, m: m[:-1], AuthenticationError),
    "one more": (lambda s, m: m + b"\0", AuthenticationError),
    "another prefix": (
        lambda s, m: with_body(m, lambda body: bytes((body[0] ^ 1,)) + body[1:]),
        AuthenticationError,
    ),
    "another nonce": (
        lambda s, m: with_body(m, lambda body: body[:23] + bytes((body[23] ^ 1,)) + body[24:]),
        AuthenticationError,
    ),
    "another commitment": (
        lambda s, m: with_commitment(m, lambda it: bytes((it[0] ^ 1,)) + it[1:]),
        AuthenticationError,
    ),
    "no commitment": (lambda s, m: with_commitment(m, lambda it: bytes(32)), AuthenticationError),
    "the commitment of another data key": (
        lambda s, m: with_commitment(m, lambda it: wire.parse(made(s, b"x", data_key=b"k" * 32)).commitment),
        AuthenticationError,
    ),
}


@pytest.mark.parametrize("way", READ.values(), ids=READ)
@pytest.mark.parametrize(("change", "error"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_cold_is_refused_warm(service, way, change, error):
    """Behind the very header of a message that was decrypted just now, where that is possible."""
    good = made(service, b"payload" * 20)
    bad = change(service, good)
    with EnvelopeCipher.from_uri("fake:app") as cold:
        first = outcome(way, cold, bad)
    assert type(first) is error
    with EnvelopeCipher.from_uri("fake:app") as warm:
        assert warm.decrypt(good, **BINDING) == b"payload" * 20
        assert same(outcome(way, warm, bad), first)
        assert warm.decrypt_many([good, good], context=CONTEXT, aads=[AAD] * 2) == [b"payload" * 20] * 2
        assert same(outcome(way, warm, bad), first)
        assert warm.decrypt(good, **BINDING) == b"payload" * 20


def test_a_short_or_long_body_among_many_is_refused_for_itself(service, cipher):
    """Behind the header that the others have."""
    good = made(service, b"payload")
    bad = [parts(good)[0] + bytes(length) for length in (0, 12, 24, 39, 40, 65_576, 65_577)]
    for _ in range(2):
        results = cipher.decrypt_many(
            [good, *bad, good], context=CONTEXT, aads=[AAD] * (len(bad) + 2), errors="return"
        )
        assert results[0] == results[-1] == b"payload"
        assert [type(each) for each in results[1:-1]] == [
            *[MalformedMessage] * 4,
            *[AuthenticationError] * 2,
            MalformedMessage,
        ]


@pytest.mark.parametrize("way", READ.values(), ids=READ)
def test_the_data_key_of_one_context_is_used_for_no_other(service, cipher, way):
    """Nor that of no context; whoever may wrap gains nothing by wrapping the data key for another one."""
    other = {"tenant": "other"}
    message = made(service, b"payload")
    elsewhere = wrapped_for(service, DATA_KEY, other)
    theirs = made(service, b"theirs", context=other)
    forged = {
        "another context": (message, other),
        "no context": (message, None),
        "wrapped for another context": (with_recipients(message, elsewhere), other),
        "as well, with its commitment": (
            with_commitment(with_recipients(message, elsewhere), lambda _: wire.parse(theirs).commitment),
            other,
        ),
        "a body of another context": (with_body(message, lambda _: parts(theirs)[1]), CONTEXT),
    }
    for warm in (False, True):
        for given, context in forged.values():
            with pytest.raises(AuthenticationError):
                way(cipher, given, {"context": context, "aad": AAD})
        assert cipher.decrypt(message, **BINDING) == b"payload", warm
        assert cipher.decrypt(theirs, context=other, aad=AAD) == b"theirs"


def test_a_body_that_raw_gcm_opens_under_two_data_keys_is_one_message_only(service, cipher):
    """AES-GCM accepts a ciphertext under two keys: the commitment says which data key a message is of."""
    service.create("third")
    rng = random.Random(3)
    data_keys = [rng.randbytes(32), rng.randbytes(32)]
    canonical = EncryptionContext.of(CONTEXT).canonical()
    derived = [compact.derive(each, canonical) for each in data_keys]
    aes = [writer.derive_xaes(key, NONCE[:12]) for key, _ in derived]
    one, two = (Gcm(key, NONCE[12:]) for key in aes)
    sealed = for_both(one, two, [rng.getrandbits(128) for _ in range(4)])
    plaintexts = [AESGCM(key).decrypt(NONCE[12:], sealed, None) for key in aes]
    assert plaintexts[0] != plaintexts[1]
    with pytest.raises(InvalidTag):
        AESGCM(aes[0]).decrypt(NONCE[12:], sealed[:-1] + bytes((sealed[-1] ^ 1,)), None)
    recipients = [wrapped_for(service, each) for each in data_keys]
    commitments = [commitment for _, commitment in derived]
    for commitment in (*commitments, commitments[0][:16] + commitments[1][16:], bytes(32)):
        opened = []
        for recipient in recipients:
            header = wire.inline((recipient,), kind=Kind.INLINE_COMPACT, commitment=commitment)
            result = outcome(READ["decrypt"], cipher, header.encode() + NONCE + sealed, {"context": CONTEXT})
            opened += [] if isinstance(result, AuthenticationError) else [result]
        expected = [plain for plain, mine in zip(plaintexts, commitments, strict=True) if mine == commitment]
        assert opened == expected
