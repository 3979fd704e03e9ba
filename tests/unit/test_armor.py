"""Armor: one text for each message, and white space around it is all that is forgiven."""

import base64
import contextlib
import itertools
import string
import sys
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmsbridge import MalformedMessage
from kmsbridge.message import ARMOR_PREFIX, armor, dearmor

ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"


@given(st.binary(max_size=500))
def test_bytes_survive(data):
    """Any bytes come back, and the text is base64url of RFC 4648 without padding."""
    text = armor(data)
    assert text == ARMOR_PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert dearmor(text) == data


@given(
    st.one_of(
        st.text(), st.text().map(ARMOR_PREFIX.__add__), st.text(ALPHABET + "=+/ \n").map(ARMOR_PREFIX.__add__)
    )
)
def test_any_text_is_armor_or_malformed(text):
    """What is accepted is what `armor` writes, white space around it apart."""
    try:
        data = dearmor(text)
    except MalformedMessage:
        return
    assert armor(data) == text.strip(" \t\n\v\f\r")


@pytest.mark.parametrize("length", range(4))
def test_of_all_short_texts_exactly_one_stands_for_each_message(length):
    """All signs in all places: as many texts are accepted as there are byte strings."""
    accepted = []
    for signs in itertools.product(ALPHABET, repeat=length):
        try:
            accepted.append(dearmor(ARMOR_PREFIX + "".join(signs)))
        except MalformedMessage:
            continue
    expected = {0: 1, 1: 0, 2: 256, 3: 65536}[length]
    assert len(accepted) == len(set(accepted)) == expected


@pytest.mark.parametrize("sign", [chr(code) for code in range(256) if chr(code) not in ALPHABET])
@pytest.mark.parametrize("length", [4, 5, 6, 7])
def test_no_other_sign_is_passed_over(sign, length):
    """A sign that is not of the alphabet is refused wherever it stands, except white space at the end."""
    for at in range(length):
        text = ARMOR_PREFIX + "A" * at + sign + "A" * (length - at - 1)
        if at == length - 1 and sign in " \t\n\v\f\r":
            continue
        with pytest.raises(MalformedMessage):
            dearmor(text)


@pytest.mark.parametrize(
    "space", ["\u00a0", "\u2003", "\u2028", "\u3000", "\ufeff", "\u200b", "\x85", "\x1c", "\0"], ids=ascii
)
def test_only_ascii_white_space_is_ignored(space):
    """What other languages trim differs: the format names six characters."""
    for text in (space + armor(b"abc"), armor(b"abc") + space):
        with pytest.raises(MalformedMessage):
            dearmor(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(" " * 2**23 + armor(b"abc"), id="white space before"),
        pytest.param(armor(b"abc") + "\n" * 2**23, id="white space after"),
        pytest.param(armor(bytes(2**23)), id="a message"),
        pytest.param(ARMOR_PREFIX + "A " * 2**22, id="white space inside"),
        pytest.param(ARMOR_PREFIX + "!" * 2**23, id="other signs"),
        pytest.param(ARMOR_PREFIX + "A=" * 2**22, id="padding"),
        pytest.param(ARMOR_PREFIX + "\u0663" * 2**22, id="other digits"),
        pytest.param(ARMOR_PREFIX * 2**20, id="prefixes"),
    ],
)
def test_megabytes_of_text_take_memory_in_proportion(text):
    """At most a few times what the text takes itself, whether it is a message or not."""
    tracemalloc.start()
    try:
        with contextlib.suppress(MalformedMessage):
            dearmor(text)
        assert tracemalloc.get_traced_memory()[1] < 5 * sys.getsizeof(text)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("prefix", ["KMSB1_", "kmsb1-", "kmsb1", "kmsb2_", "kmsb_", "", "kmsb1__"])
def test_another_prefix_is_refused(prefix):
    """The prefix is as it is; `kmsb1__` has a sign too many."""
    with pytest.raises(MalformedMessage):
        dearmor(prefix + armor(b"abc").removeprefix(ARMOR_PREFIX))
