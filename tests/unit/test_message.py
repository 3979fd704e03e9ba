"""The parser is strict and total, and what it parses it writes back byte for byte."""

import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kmsbridge import ConfigError, LimitExceeded, MalformedMessage, MessageError, UnsupportedMessage, inspect
from kmsbridge import message as wire
from kmsbridge.message import Header, Kind, Recipient
from kmsbridge.message.chunked import encrypted_length

BODY = bytes(72)
MINE = Recipient("local:app@0123456789abcdef", "1", b"w" * 104)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
RECIPIENTS = st.lists(
    st.builds(
        Recipient,
        st.builds("{}:{}".format, TEXT.filter(lambda t: t and ":" not in t), TEXT.filter(bool)).filter(
            lambda t: len(t.encode()) <= wire.MAX_KEY_ID
        ),
        TEXT.filter(lambda t: len(t.encode()) <= wire.MAX_KEY_VERSION),
        st.binary(min_size=1, max_size=300),
    ),
    min_size=1,
    max_size=wire.MAX_RECIPIENTS,
    unique_by=lambda each: each.key_id,
).map(tuple)


INLINE = st.builds(
    lambda recipients, padded: wire.inline(recipients, padded=padded), RECIPIENTS, st.booleans()
)
DIRECT = RECIPIENTS.map(lambda recipients: wire.inline(recipients[:1], kind=Kind.DIRECT))
HASH = st.binary(min_size=32, max_size=32)
STORED = st.builds(
    lambda data_key_id, padding: Header(Kind.STORED, 40 + padding, (), data_key_id),
    HASH,
    st.integers(0, 600),
)
INLINE_COMPACT = st.builds(
    lambda recipients, commitment: wire.inline(recipients, kind=Kind.INLINE_COMPACT, commitment=commitment),
    RECIPIENTS,
    HASH,
)
STORED_COMPACT = HASH.map(lambda data_key_id: Header(Kind.STORED_COMPACT, 40, (), data_key_id))
HEADERS = st.one_of(INLINE, DIRECT, STORED, INLINE_COMPACT, STORED_COMPACT)


def structured():
    """Byte strings that come far into the parser: valid messages with a few bytes replaced."""
    whole = HEADERS.map(lambda header: header.encode() + (b"" if header.kind is Kind.DIRECT else BODY))
    return st.builds(
        _edited,
        whole,
        st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=4)), max_size=3),
    )


def _edited(data, edits):
    for at, replacement in edits:
        data = data[:at] + replacement + data[at + len(replacement) :]
    return data


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=200).map(b"KMSB\1".__add__), structured()))
@example(b"")
@example(b"KMSB\1\0\0\x09\0" + BODY)
def test_any_bytes_are_a_message_or_a_message_error(data):
    """Whatever the bytes are, they parse or raise a `MessageError`; what parses encodes to the same bytes."""
    try:
        header = wire.parse(data)
    except MessageError:
        return
    assert header.encode() == data[: header.length]
    assert 0 <= header.padding <= header.length
    assert inspect(data).header_length == header.length


@given(st.sampled_from(Kind), st.binary(max_size=200), st.integers(0, 100))
def test_the_kind_of_buffer_does_not_matter(kind, data, cut):
    """bytes and memoryviews of them parse alike, or fail alike."""
    data = (b"KMSB\1" + bytes((kind,)) + data)[: cut + 20]
    results: list[object] = []
    for buffer in (data, memoryview(data)):
        try:
            results.append(wire.parse_header(buffer))
        except MessageError as error:
            results.append((type(error), str(error)))
    assert results[0] == results[1]


@given(HEADERS)
def test_what_is_written_is_read_back(header):
    """Whatever is within the limits survives, of every kind."""
    encoded = header.encode()
    assert len(encoded) == header.length
    assert wire.parse(encoded + (b"" if header.kind is Kind.DIRECT else BODY)) == header


@given(RECIPIENTS)
def test_padding_is_as_files_need_it(recipients):
    """None, or at least 512 bytes up to a multiple of 512."""
    assert wire.inline(recipients).padding == 0
    padded = wire.inline(recipients, padded=True)
    assert padded.length % 512 == 0
    assert 512 <= padded.padding < 1024


@pytest.mark.parametrize("kind", [Kind.STORED, Kind.STORED_COMPACT], ids=lambda kind: kind.name)
@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_an_id_of_a_stored_data_key_has_32_bytes(length, kind):
    """No other length is written, and what has one is no message."""
    with pytest.raises(LimitExceeded, match=f"data key id of {length} bytes"):
        Header(kind, 8 + length, (), bytes(length)).encode()
    header = b"KMSB\1" + bytes((kind,)) + (8 + length).to_bytes(2, "big") + b"i" * length
    with pytest.raises(MalformedMessage):
        wire.parse(header + BODY)


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_commitment_has_32_bytes(length):
    """No other length is written, and what has one is no message."""
    with pytest.raises(LimitExceeded, match=f"commitment of {length} bytes"):
        wire.inline((MINE,), kind=Kind.INLINE_COMPACT, commitment=b"c" * length)
    bare = wire.inline((MINE,), kind=Kind.INLINE_COMPACT, commitment=bytes(32)).encode()[:-32]
    header = bare[:6] + (len(bare) + length).to_bytes(2, "big") + bare[8:] + b"c" * length
    with pytest.raises(MalformedMessage):
        wire.parse(header + BODY)


@pytest.mark.parametrize("count", [0, 2, 16, 17, 255])
def test_a_direct_message_has_one_recipient(count):
    """With several, recipients of two messages could be put together, and two readers would read different things."""
    recipients = tuple(Recipient(f"x:{n}", "1", b"w") for n in range(count))
    with pytest.raises((LimitExceeded, ConfigError), match=rf"\b{count}\b"):
        wire.inline(recipients, kind=Kind.DIRECT)
    content = b"".join(b"\0\4x:%02x\1\x31\0\1w" % n for n in range(count))
    header = b"KMSB\1\2" + (9 + len(content)).to_bytes(2, "big") + bytes((count,)) + content
    with pytest.raises(MalformedMessage, match=f"{count} recipients instead of one"):
        wire.parse(header)


UNPADDED = {
    "direct": wire.inline((MINE,), kind=Kind.DIRECT).encode(),
    "inline, compact": wire.inline((MINE,), kind=Kind.INLINE_COMPACT, commitment=b"c" * 32).encode(),
    "stored, compact": Header(Kind.STORED_COMPACT, 40, (), b"i" * 32).encode(),
}


@pytest.mark.parametrize("bare", UNPADDED.values(), ids=UNPADDED)
@pytest.mark.parametrize("padding", [b"\0", bytes(512), b"\1"], ids=("one byte", "as in a file", "not zero"))
def test_direct_and_compact_messages_have_no_padding(padding, bare):
    """What could be put after the header's content is no part of it, so nothing may be."""
    body = b"" if bare[5] == Kind.DIRECT else bytes(40)
    assert wire.parse(bare + body).padding == 0
    length = (len(bare) + len(padding)).to_bytes(2, "big")
    with pytest.raises(MalformedMessage, match="padding"):
        wire.parse(bare[:6] + length + bare[8:] + padding + body)


SHORTEST = {
    "inline, chunked": wire.inline((MINE,)).encode() + BODY,
    "stored, chunked": Header(Kind.STORED, 40, (), bytes(32)).encode() + BODY,
    **{name: bare + (b"" if name == "direct" else bytes(40)) for name, bare in UNPADDED.items()},
}


@pytest.mark.parametrize("message", SHORTEST.values(), ids=SHORTEST)
def test_every_truncation_is_malformed(message):
    """No start of a message with an empty payload is a message."""
    assert wire.parse(message)
    for length in range(len(message)):
        with pytest.raises(MalformedMessage):
            wire.parse(message[:length])


@pytest.mark.parametrize("kind", sorted(wire.COMPACT_KINDS), ids=lambda kind: Kind(kind).name)
def test_a_compact_body_has_40_to_65576_bytes(kind):
    """One byte less or more is no message, and is told apart."""
    message = next(bare for bare in UNPADDED.values() if bare[5] == kind)
    assert inspect(message + bytes(40)).plaintext_length == 0
    assert inspect(message + bytes(65_576)).plaintext_length == 65_536
    with pytest.raises(MalformedMessage, match="39 bytes, fewer than"):
        wire.parse(message + bytes(39))
    with pytest.raises(MalformedMessage, match="more than 65576 bytes"):
        wire.parse(message + bytes(65_577))


@pytest.mark.parametrize(
    ("start", "error"),
    [
        pytest.param(b"KMSB\0\0\0\0", MalformedMessage, id="version 0"),
        pytest.param(b"KMSB\2\0\0\0", UnsupportedMessage, id="version 2"),
        pytest.param(b"KMSB\xff\xff\0\0", UnsupportedMessage, id="version 255"),
        pytest.param(b"KMSB\1\5\0\0", UnsupportedMessage, id="kind 5"),
        pytest.param(b"KMSB\1\xff\0\0", UnsupportedMessage, id="kind 255"),
        pytest.param(b"XMSB\2\0\0\0", MalformedMessage, id="wrong magic comes before the version"),
        pytest.param(b"KMSB\2\0\0", MalformedMessage, id="seven bytes"),
    ],
)
def test_magic_version_and_kind_are_judged_first(start, error):
    """Before lengths are: a later format may use them otherwise."""
    for parse in (wire.header_length, wire.parse_header, wire.parse):
        with pytest.raises(error):
            parse(start)


def test_an_armored_message_given_as_bytes_is_told_so():
    """The remedy names what to use instead."""
    with pytest.raises(MalformedMessage, match="decrypt_text"):
        wire.parse(b"kmsb1_S01TQgEAAA")


@pytest.mark.parametrize(
    ("recipients", "words"),
    [
        pytest.param((), "0 recipients", id="no recipient"),
        pytest.param((MINE,) * 17, "17 recipients", id="17 recipients"),
        pytest.param((Recipient("", "", b"w"),), "key id of 0", id="empty key id"),
        pytest.param((Recipient("x:" + "é" * 512, "", b"w"),), "key id of 1026", id="long key id"),
        pytest.param((Recipient("x:y", "v" * 256, b"w"),), "key version of 256", id="long version"),
        pytest.param((Recipient("x:y", "", b""),), "wrapped key of 0", id="empty wrapped key"),
        pytest.param((Recipient("x:y", "", bytes(16385)),), "wrapped key of 16385", id="long wrapped key"),
        pytest.param(
            tuple(Recipient(f"x:{n}", "", bytes(16384)) for n in range(4)),
            "header would have 65",
            id="header too long",
        ),
    ],
)
def test_nothing_is_written_that_could_not_be_read(recipients, words):
    """A writer beyond a limit of the format is told which."""
    with pytest.raises(LimitExceeded, match=words):
        wire.inline(recipients)


def test_the_same_key_twice_is_not_written():
    """Nor are two recipients of one key id."""
    with pytest.raises(ConfigError, match="same key"):
        wire.inline((MINE, MINE))


def test_a_padded_header_that_would_be_too_long_is_not_written():
    """Padding counts towards the 65535 bytes."""
    recipients = tuple(Recipient(f"x:{n}", "", bytes(n)) for n in (16384, 16383, 16382, 16250))
    assert wire.inline(recipients).length == 65456
    with pytest.raises(LimitExceeded, match="header would have"):
        wire.inline(recipients, padded=True)


@pytest.mark.parametrize("plaintext", [0, 1, 16383, 16384, 16385, 32767, 32768, 10**12])
def test_the_plaintext_s_length_follows_from_the_body_s(plaintext):
    """What the message module computes undoes what the body module does."""
    for kind in (Kind.INLINE, Kind.STORED):
        assert wire.plaintext_length(kind, encrypted_length(plaintext)) == plaintext


@given(st.integers(72, 10**7))
def test_a_body_length_means_one_plaintext_length_or_none(body):
    """Lengths that no body has are told apart."""
    plaintext = wire.plaintext_length(Kind.INLINE, body)
    assert plaintext is None or encrypted_length(plaintext) == body
    if plaintext is None:
        assert (body - 56) % 16400 < 16


def test_wrapped_keys_do_not_show():
    """A repr names the key, not what it wrapped; headers are plain values."""
    header = wire.inline((Recipient("local:app@00", "1", b"canary-wrapped"),))
    assert "canary" not in repr(header)
    assert "local:app@00" in repr(header)
    assert pickle.loads(pickle.dumps(header)) == header
