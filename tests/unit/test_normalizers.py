"""What counts as one value when it is looked up, and what is no such value."""

import sys
import unicodedata

import pytest

from kmsbridge import ConfigError, SecretValue
from kmsbridge.blindindex import BlindIndex, e164
from kmsbridge.blindindex.normalizers import casefold, normalizer


@pytest.fixture
def folder():
    """Returns what a normalizer makes of a value."""

    def fold(normalize, value):
        return BlindIndex("x", keys=[SecretValue(bytes(32))], normalize=normalize).normalize(value)

    return fold


SAME = {
    "exact": {" A\u00e9": [" A\u00e9"]},
    "casefold": {
        "anna stra\u00dfe": ["ANNA STRASSE", "Anna Stra\u00dfe", "anna\u00a0strasse", " anna strasse\r\n"],
        "\u00e9": ["e\u0301", "\u00c9", "E\u0301"],
        "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2": ["\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3"],
        "fi1": ["\ufb01\uff11", "FI\u2460"],
        "\u1e9e": ["ss", "\u00df", "SS"],
    },
    "digits": {
        "123456": ["12-34-56", "12.34 56", "(12) 3456", "12/3456", "\u0661\u0662\u0663\u0664\u0665\u0666"],
        "0012": ["00\u201112", "00\u221212", "\uff10\uff10\u00a0\uff11\uff12", " 0012\t", "\u09e6\u09e612"],
    },
    "email": {
        "anna@example.com": ["Anna@Example.COM", " anna@example.com ", "anna@example\u3002com"],
        "anna@xn--bcher-kva.example": ["anna@b\u00fccher.example", "ANNA@B\u00dcCHER.EXAMPLE"],
        "a.b+c@example.com": ["A.B+C@example.com"],
        '"a@b"@example.com': ['"A@B"@example.com'],
    },
}


@pytest.mark.parametrize(
    ("normalize", "value", "others"),
    [(name, value, others) for name, cases in SAME.items() for value, others in cases.items()],
)
def test_values_that_are_the_same_have_one_form(folder, normalize, value, others):
    assert {folder(normalize, other) for other in others} == {folder(normalize, value)}


@pytest.mark.parametrize("name", ("exact", "casefold", "digits", "email"))
def test_a_form_is_its_own_form(folder, name):
    for cases in SAME[name]:
        once = folder(name, cases)
        assert folder(name, once) == once


@pytest.mark.parametrize(
    ("normalize", "one", "other"),
    (
        ("exact", "a", "A"),
        ("exact", "\u00e9", "e\u0301"),
        ("exact", "a", "a "),
        ("casefold", "e", "\u00e9"),
        ("casefold", "anna strasse", "annastrasse"),
        ("digits", "123", "0123"),
        ("email", "a.b@example.com", "ab@example.com"),
        ("email", "a+b@example.com", "a@example.com"),
        ("email", "a@b.example", "a@b.example.com"),
    ),
)
def test_values_that_differ_have_two_forms(folder, normalize, one, other):
    assert folder(normalize, one) != folder(normalize, other)


@pytest.mark.parametrize(
    ("normalize", "value"),
    (
        ("casefold", "canary \u0378"),
        ("casefold", "canary \ue0fff\uffff"),
        ("digits", "canary"),
        ("digits", "12a"),
        ("digits", "+12"),
        ("digits", "1,000"),
        ("digits", "\u00bd"),
        ("digits", " - "),
        ("digits", ""),
        ("email", "canary"),
        ("email", "@example.com"),
        ("email", "canary@"),
        ("email", "canary@example..com"),
        ("email", "canary@example.com."),
        ("email", "canary@\u0378.com"),
        ("e164", "020 7946 0018"),
        ("e164", "canary"),
        ("e164", ""),
        ("e164", "+44 20 7946 0018 ext. 5"),
        ("e164", "+44"),
        ("e164", "+44 20 7946 0018 0018"),
        ("e164", "+999 20 7946 0018"),
        ("e164", "1" * 300),
    ),
)
def test_what_is_no_such_value_is_refused_and_not_shown(folder, normalize, value):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is looked at below
        folder(normalize, value)
    assert type(caught.value) is ValueError
    assert "canary" not in str(caught.value)
    assert value == "" or value not in str(caught.value)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize(
    ("region", "value"),
    (
        ("GB", "020 7946 0018"),
        ("GB", "(020) 7946-0018"),
        ("GB", "+44 20 7946 0018"),
        ("GB", "0044 20 7946 0018"),
        ("GB", "+44 (0)20 7946 0018"),
        ("GB", "\u0660\u0662\u0660 \u0667\u0669\u0664\u0666 \u0660\u0660\u0661\u0668"),
        ("GB", "\uff0b\uff14\uff14 20 7946 0018"),
        ("GB", "tel:+44-20-7946-0018"),
        ("US", "011 44 20 7946 0018"),
        (None, "+44 20 7946 0018"),
    ),
)
def test_a_phone_number_is_the_same_however_it_is_written(folder, region, value):
    assert folder(e164(region), value) == "+442079460018"


def test_an_italian_zero_is_part_of_the_number(folder):
    assert folder(e164("IT"), "06 6982") == "+39066982"


def test_a_form_of_casefold_is_its_own_form_for_any_text(torture):
    """Of characters that have a case, another form, or combine."""
    rng = torture.rng("casefold")
    moved = [
        chr(code)
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")
        if unicodedata.combining(chr(code)) or chr(code).casefold() != chr(code)
    ]
    for _ in range(torture.times(200_000)):
        text = "".join(rng.choices(moved, k=rng.randint(1, 5)))
        folded = casefold(text)
        assert casefold(folded) == folded
        assert casefold(unicodedata.normalize("NFD", text)) == folded


@pytest.mark.parametrize("region", ("gb", "XX", "44", ""))
def test_an_unknown_region_is_refused(region):
    with pytest.raises(ConfigError, match="region"):
        e164(region)


def test_without_phonenumbers_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "phonenumbers", None)
    with pytest.raises(ConfigError, match=r"kmsbridge\[phone\]"):
        normalizer("e164")
