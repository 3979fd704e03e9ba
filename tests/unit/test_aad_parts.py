"""aad as a tuple of parts: one encoding, which no two different tuples share."""

import asyncio
import enum
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmsbridge import AuthenticationError, Decryptor, Encryptor, LimitExceeded, aio
from kmsbridge.cipher.aad import MAX_AAD, MAX_PARTS, as_aad

PLACE = ("users", 42, "phone")
ENCODED = bytes.fromhex("0003 00000005 7573657273 00000002 3432 00000005 70686f6e65".replace(" ", ""))
ID = uuid.UUID("12345678-ABCD-4321-8765-0123456789AB")


class Table(enum.StrEnum):
    USERS = "users"


class Row(int, enum.Enum):
    LAST = 42


def test_the_encoding_is_the_documented_one():
    """The number of parts in 2 bytes, then the length in 4 and the bytes of each."""
    assert as_aad(PLACE) == ENCODED
    assert as_aad(()) == b"\0\0"
    assert as_aad((b"\xff", "é", -7)) == b"\0\3" + b"\0\0\0\1\xff" + b"\0\0\0\2\xc3\xa9" + b"\0\0\0\2-7"


@pytest.mark.parametrize(
    "same",
    (
        ("users", "42", "phone"),
        (b"users", 42, bytearray(b"phone")),
        (memoryview(b"users"), 42, "phone"),
        (Table.USERS, Row.LAST, "phone"),
    ),
)
def test_a_part_is_what_it_is_written_as(same):
    """A number and its decimal text are one, text and its UTF-8 are one; an enumeration is its value."""
    assert as_aad(same) == ENCODED


def test_a_uuid_is_its_text_in_lower_case():
    assert as_aad((ID,)) == as_aad(("12345678-abcd-4321-8765-0123456789ab",))


PARTS = st.lists(st.one_of(st.text(), st.integers(), st.binary()), max_size=5).map(tuple)


@given(PARTS, PARTS)
def test_different_tuples_are_never_confused(one, other):
    """Wherever their borders are."""

    def written(parts):
        return [p if isinstance(p, bytes) else str(p).encode() for p in parts]

    assert (as_aad(one) == as_aad(other)) == (written(one) == written(other))


@pytest.mark.parametrize("part", (True, 4.2, None, ("nested",), ["x"]), ids=repr)
def test_a_part_of_another_type_is_refused(part):
    """`True` is not 1, and what 4.2 is written as is not certain; the error says which part."""
    with pytest.raises(TypeError, match=r"aad\[1\] must be str, int, bytes-like or uuid.UUID"):
        as_aad(("users", part))


def test_text_that_is_not_unicode_is_refused():
    with pytest.raises(ValueError, match=r"aad\[0\] has unpaired surrogates") as caught:
        as_aad(("secret\ud800",))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("parts", (("x" * MAX_AAD,), (1,) * (MAX_PARTS + 1)), ids=("long", "many"))
def test_a_tuple_has_the_limits_of_aad(parts):
    with pytest.raises(LimitExceeded):
        as_aad(parts)


def test_it_binds_in_every_way_to_encrypt_and_to_decrypt(cipher, tmp_path):
    """And is the same as its bytes."""
    path, target = tmp_path / "plain", tmp_path / "message"
    path.write_bytes(b"x")
    messages = [cipher.encrypt(b"x", aad=PLACE), *cipher.encrypt_many([b"x"], aads=[PLACE])]
    cipher.encrypt_file(path, target, aad=PLACE)
    for message in [*messages, target.read_bytes()]:
        assert cipher.decrypt(message, aad=PLACE) == cipher.decrypt(message, aad=ENCODED) == b"x"
        assert cipher.decrypt_many([message], aads=[PLACE]) == [b"x"]
        with pytest.raises(AuthenticationError):
            cipher.decrypt(message, aad=("users", 4, "2phone"))
    assert cipher.decrypt_text(cipher.encrypt_text("x", aad=PLACE), aad=PLACE) == "x"
    assert cipher.open(target, aad=PLACE).read() == b"x"
    for message in [messages[0], target.read_bytes()]:
        assert cipher.decrypt(cipher.rewrap(message, aad=PLACE), aad=PLACE) == b"x"


def test_it_binds_direct_messages(service):
    with Encryptor.from_uri("fake:app", direct=True) as writer, Decryptor.from_uri("fake:app") as reader:
        message = writer.encrypt(b"x", aad=PLACE)
        assert reader.decrypt(message, aad=ENCODED) == b"x"
        with pytest.raises(AuthenticationError):
            reader.decrypt(message, aad=("users", 43, "phone"))


def test_it_binds_in_asyncio(service):
    async def work():
        async with aio.EnvelopeCipher.from_uri("fake:app") as cipher:
            message = await cipher.encrypt(b"x", aad=PLACE)
            return await cipher.decrypt(message, aad=ENCODED)

    assert asyncio.run(work()) == b"x"
