"""Group 2: a wrapped key unwraps in the context that it was wrapped in, and in no other."""

from __future__ import annotations

import pytest

from kmsbridge.context import MAX_BYTES, MAX_PAIRS, EncryptionContext
from kmsbridge.errors import AuthenticationError
from kmsbridge.keys import ManagedKey
from kmsbridge_testing.contract.base import Cases, bound, refused

Pairs = dict[str, str]

WRONG: dict[str, tuple[Pairs, Pairs]] = {
    "no context": ({"tenant": "acme"}, {}),
    "context where there was none": ({}, {"tenant": "acme"}),
    "first pair missing": ({"a": "1", "b": "2"}, {"b": "2"}),
    "last pair missing": ({"a": "1", "b": "2"}, {"a": "1"}),
    "pair added": ({"a": "1"}, {"a": "1", "b": "2"}),
    "first value changed": ({"a": "1", "b": "2", "c": "3"}, {"a": "9", "b": "2", "c": "3"}),
    "middle value changed": ({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "9", "c": "3"}),
    "last value changed": ({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "2", "c": "9"}),
    "first name changed": ({"a": "1", "b": "2"}, {"A": "1", "b": "2"}),
    "last name changed": ({"a": "1", "b": "2"}, {"a": "1", "B": "2"}),
    "case of a value": ({"tenant": "acme"}, {"tenant": "Acme"}),
    "space after a value": ({"tenant": "acme"}, {"tenant": "acme "}),
    "values swapped": ({"a": "1", "b": "2"}, {"a": "2", "b": "1"}),
    "name and value swapped": ({"a": "b"}, {"b": "a"}),
    "boundary moved between pairs": ({"a": "b", "c": "d"}, {"a": "bcd"}),
    "boundary moved between name and value": ({"ab": "c"}, {"a": "bc"}),
    "pairs written as one value": ({"a": "1", "b": "2"}, {"a": "1,b=2"}),
    "end of a long value": ({"a": "x" * 3000 + "1"}, {"a": "x" * 3000 + "2"}),
    "composed and decomposed": ({"name": "é"}, {"name": "e\N{COMBINING ACUTE ACCENT}"}),
}
"""Pairs of contexts: what is wrapped in the first must not unwrap in the second."""

RIGHT: dict[str, Pairs] = {
    "empty": {},
    "one pair": {"tenant": "acme"},
    "many scripts": {"größe": "groß", "名前": "東京", "имя": "Москва", "اسم": "القاهرة", "😀": "👩🏽‍🚀"},
    "signs that encodings use": {'"\\': "{}[]", "a=b&c": "%41+%00 ", "<x>": "'; --"},
    "spaces": {" a ": " b ", "\t": "\n"},
    "the most pairs": {f"name {n}": f"value {n}" for n in range(MAX_PAIRS)},
    "the most bytes": {"a": "x" * (MAX_BYTES - 2 - 4 - 1)},
    "four-byte characters to the limit": {"a": "😀" * ((MAX_BYTES - 7) // 4)},
}

wrong = pytest.mark.parametrize(("closed", "opened"), WRONG.values(), ids=WRONG)
right = pytest.mark.parametrize("pairs", RIGHT.values(), ids=RIGHT)


class BindingCases(Cases):
    """Cases for the encryption context, which the library binds if the key service does not."""

    @right
    def test_context_is_accepted(self, key: ManagedKey, plaintext: bytes, pairs: Pairs) -> None:
        """The driver handles every context that the library allows."""
        assert key.unwrap(key.wrap(plaintext, bound(pairs)), bound(pairs)) == plaintext

    def test_order_of_the_pairs_does_not_matter(self, key: ManagedKey, plaintext: bytes) -> None:
        """A context is a set of pairs without an order."""
        wrapped = key.wrap(plaintext, bound({"a": "1", "b": "2", "c": "3"}))
        assert key.unwrap(wrapped, bound({"c": "3", "b": "2", "a": "1"})) == plaintext

    @wrong
    def test_wrong_context_is_refused(
        self, key: ManagedKey, plaintext: bytes, closed: Pairs, opened: Pairs
    ) -> None:
        """Any other context than the original one is an `AuthenticationError`."""
        wrapped = key.wrap(plaintext, bound(closed))
        refused(lambda: key.unwrap(wrapped, bound(opened)), AuthenticationError)
        assert key.unwrap(wrapped, bound(closed)) == plaintext

    def test_reserved_pair_is_bound(self, key: ManagedKey, plaintext: bytes) -> None:
        """A data key cannot be passed off as a direct message."""
        wrapped = key.wrap(plaintext, bound())
        direct = EncryptionContext.of(bound()).with_reserved(kmsbridge="direct")
        refused(lambda: key.unwrap(wrapped, direct), AuthenticationError)
