"""The encryption context: checked, immutable, and with one byte form."""

import struct
import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kmsbridge import ConfigError, LimitExceeded
from kmsbridge.context import EMPTY, MAX_BYTES, MAX_PAIRS, EncryptionContext

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
PAIRS = st.dictionaries(TEXT.filter(lambda name: not name.startswith("kmsbridge")), TEXT, max_size=20)


def read(canonical):
    """The pairs in a canonical form, which must be used up."""
    (count,), at = struct.unpack_from(">H", canonical), 2
    texts = []
    for _ in range(2 * count):
        (length,) = struct.unpack_from(">H", canonical, at)
        texts.append(canonical[at + 2 : at + 2 + length].decode())
        at += 2 + length
    assert at == len(canonical)
    return list(zip(texts[::2], texts[1::2], strict=True))


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_the_pairs_does_not_matter(pairs, rng):
    """Any order gives the same bytes, hash and value; they hold the pairs, sorted by UTF-8."""
    shuffled = list(pairs.items())
    rng.shuffle(shuffled)
    one, two = EncryptionContext.of(pairs), EncryptionContext.of(dict(shuffled))
    assert one.canonical() == two.canonical()
    assert one == two
    assert hash(one) == hash(two)
    assert read(one.canonical()) == sorted(pairs.items(), key=lambda pair: pair[0].encode())


@given(PAIRS, PAIRS)
def test_different_pairs_have_different_bytes(one, two):
    """No two contexts share a canonical form."""
    assume(one != two)
    assert EncryptionContext.of(one).canonical() != EncryptionContext.of(two).canonical()


@given(
    st.one_of(
        st.dictionaries(st.text(), st.text()),
        st.dictionaries(st.integers() | st.text(), st.none() | st.text()),
    )
)
def test_any_mapping_is_a_context_or_a_typed_error(pairs):
    """Nothing but `TypeError`, `ConfigError` and `LimitExceeded` comes of a wrong one."""
    try:
        context = EncryptionContext.of(pairs)
    except (TypeError, ConfigError, LimitExceeded):
        return
    assert dict(context) == pairs


def test_moved_boundaries_have_different_bytes():
    """Lengths are part of the form."""
    forms = [
        EncryptionContext.of(pairs).canonical()
        for pairs in ({"a": "bcd"}, {"ab": "cd"}, {"abc": "d"}, {"a": "b", "c": "d"}, {"c": "d", "a": "bb"})
    ]
    assert len(set(forms)) == len(forms)


def test_names_are_sorted_by_utf_8_not_by_utf_16():
    """U+FFFD stands before U+1F98A."""
    canonical = EncryptionContext.of({"\U0001f98a": "1", "\ufffd": "2"}).canonical()
    assert [name for name, _ in read(canonical)] == ["\ufffd", "\U0001f98a"]


def test_normal_forms_are_different_texts():
    """Nothing is normalised: the bytes that the user gave are bound."""
    nfc, nfd = (unicodedata.normalize(form, "Málaga") for form in ("NFC", "NFD"))
    assert EncryptionContext.of({"city": nfc}) != EncryptionContext.of({"city": nfd})
    assert EncryptionContext.of({nfc: "1", nfd: "2"})[nfd] == "2"


@pytest.mark.parametrize("nothing", [None, {}, EMPTY], ids=["None", "no pairs", "EMPTY"])
def test_no_context_is_the_empty_context(nothing):
    """All of them are two zero bytes."""
    assert EncryptionContext.of(nothing).canonical() == b"\0\0"


@pytest.mark.parametrize(
    ("pairs", "error", "words"),
    [
        pytest.param({"": "v"}, ConfigError, "empty name", id="empty name"),
        pytest.param({"a": ""}, ConfigError, "empty value", id="empty value"),
        pytest.param({"kmsbridge": "dek"}, ConfigError, "reserved", id="reserved name"),
        pytest.param({"kmsbridge-x": "1"}, ConfigError, "reserved", id="reserved prefix"),
        pytest.param({"kmsbridges": "1"}, ConfigError, "reserved", id="longer than the reserved name"),
        pytest.param({"a": "\ud800"}, ConfigError, "UTF-8", id="surrogate in a value"),
        pytest.param({"\udfff": "a"}, ConfigError, "UTF-8", id="surrogate in a name"),
        pytest.param({"a\ud83e": "\udd8ab"}, ConfigError, "UTF-8", id="a pair of surrogates split"),
        pytest.param({"a": 1}, TypeError, "int", id="number as a value"),
        pytest.param({"a": None}, TypeError, "NoneType", id="None as a value"),
        pytest.param({b"a": "1"}, TypeError, "bytes", id="bytes as a name"),
        pytest.param({"a": b"1"}, TypeError, "bytes", id="bytes as a value"),
        pytest.param([("a", "1")], TypeError, "mapping", id="a list of pairs"),
        pytest.param("a=1", TypeError, "mapping", id="a text"),
        pytest.param({f"n{n}": "v" for n in range(65)}, LimitExceeded, "65 pairs", id="65 pairs"),
        pytest.param({"a": "v" * 4091}, LimitExceeded, "4098 bytes", id="a byte too many"),
        pytest.param(
            {"a": "v" * 70000}, LimitExceeded, "longer than 4096 bytes", id="longer than 16 bits can say"
        ),
    ],
)
def test_a_wrong_context_is_refused(pairs, error, words):
    """The error says what is wrong, before anything is made of it."""
    with pytest.raises(error, match=words):
        EncryptionContext.of(pairs)


def test_the_limits_themselves_are_allowed():
    """64 pairs, and 4096 bytes in all; reserved pairs come on top."""
    many = EncryptionContext.of({f"n{n}": "v" for n in range(MAX_PAIRS)})
    assert len(many.with_reserved(kmsbridge="dek")) == MAX_PAIRS + 1
    long = EncryptionContext.of({"a": "v" * (MAX_BYTES - 7)})
    assert len(long.canonical()) == MAX_BYTES
    assert len(long.with_reserved(kmsbridge="direct", kmsbridge_aad="x" * 43).canonical()) > MAX_BYTES


def test_reserved_pairs_are_added_under_their_own_names():
    """`_` stands for `-`; the context they are added to stays as it was."""
    context = EncryptionContext.of({"a": "1"})
    more = context.with_reserved(kmsbridge="direct", kmsbridge_aad="hash")
    assert dict(more) == {"a": "1", "kmsbridge": "direct", "kmsbridge-aad": "hash"}
    assert dict(context) == {"a": "1"}
    assert more.canonical() != context.canonical()


def test_a_context_does_not_follow_what_it_was_made_of():
    """The mapping may change afterwards."""
    pairs = {"a": "1"}
    context = EncryptionContext.of(pairs)
    pairs["a"] = "2"
    assert dict(context) == {"a": "1"}
    assert EncryptionContext.of(context) is context
    with pytest.raises(TypeError):
        context["a"] = "3"  # type: ignore[index]
