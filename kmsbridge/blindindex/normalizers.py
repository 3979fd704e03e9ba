"""Normalizers, which bring values that count as the same when they are looked up into one form.

A normalizer's id is part of what is hashed, so none of them ever changes what it returns. No error quotes a value.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Final, NamedTuple

from kmsbridge.errors import ConfigError

_WHITE_SPACE: Final = " \t\n\v\f\r"
_SEPARATORS: Final = frozenset("\t -./()‐‑‒–—―−")
"""The characters that may stand between the digits of a number."""
_REMOVED: Final = dict.fromkeys(map(ord, _SEPARATORS))


class Normalizer(NamedTuple):
    """A form of values: its id, and the function that returns a value in that form.

    The function raises `ValueError` for what is no such value. One of your own has an id of your own, such as
    `acme.iban`; change the id whenever the function changes what it returns.
    """

    id: str
    function: Callable[[str], str]


def exact(value: str) -> str:
    """Return `value` as it is."""
    return value


def casefold(value: str) -> str:
    """Return `value` without its case and its compatibility forms, and without white space at its ends.

    Raises `ValueError` for characters that this Python's Unicode version does not know: a later version may fold
    them.
    """
    if value.isascii():  # the same by a shorter way, as in `digits`
        return value.lower().strip(_WHITE_SPACE)
    if any(unicodedata.category(character) == "Cn" for character in value):
        raise ValueError(
            f"the value has a character that is not in Unicode {unicodedata.unidata_version}, this Python's version"
        )
    folded = unicodedata.normalize("NFKC", value).casefold()
    return unicodedata.normalize("NFKC", folded).strip(_WHITE_SPACE)


def digits(value: str) -> str:
    """Return the decimal digits in `value` as ASCII, without the separators between them.

    Separators are white space, hyphens and dashes, full stops, slashes and parentheses. Raises `ValueError` for any
    other character, and where there is no digit.
    """
    if value.isascii() and (plain := value.translate(_REMOVED)).isdecimal():
        return plain
    found = []
    for character in unicodedata.normalize("NFKC", value):
        digit = unicodedata.decimal(character, None)
        if digit is not None:
            found.append(str(digit))
        elif character not in _SEPARATORS:
            raise ValueError("the value has a character that is neither a digit nor a separator of digits")
    if not found:
        raise ValueError("the value has no digits")
    return "".join(found)


def email(value: str) -> str:
    """Return an e-mail address without its case, and with its domain in the ASCII form of names.

    The part before the @ keeps its dots and what follows a +. Raises `ValueError` for what has no @ or nothing
    beside it, and what `casefold` raises.
    """
    local, at, domain = casefold(value).rpartition("@")
    labels = domain.replace("。", ".").split(".")
    if not (local and at and all(labels)):
        raise ValueError("the value is not an e-mail address")
    return f"{local}@{'.'.join(map(_ascii_label, labels))}"


def e164(region: str | None = None) -> Normalizer:
    """Return the normalizer of phone numbers, whose form is that of E.164: `+` and up to 15 digits.

    Numbers without a country code are of `region`, two capital letters such as `GB`; without a region they are
    refused. Needs the extra `phone`. Raises `ConfigError` where that is not installed, and for an unknown region.
    """
    try:
        import phonenumbers
    except ImportError:
        raise ConfigError(
            "the normalizer e164 needs the package phonenumbers", remedy="pip install 'kmsbridge[phone]'"
        ) from None
    if region is not None and region not in phonenumbers.SUPPORTED_REGIONS:
        raise ConfigError(
            "e164 was given an unknown region", remedy="give two capital letters, such as GB, or None"
        )

    def function(value: str) -> str:
        try:
            number = phonenumbers.parse(value, region)
        except phonenumbers.NumberParseException:
            number = None  # raised below, without the parser's error
        if number is None or number.extension or not phonenumbers.is_possible_number(number):
            raise ValueError("the value is not a phone number, lacks its country code, or has an extension")
        return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)

    return Normalizer("e164", function)


def normalizer(given: str | Normalizer) -> Normalizer:
    """Return the normalizer of this name, or the one given. Raises `ConfigError` for an unknown name."""
    if isinstance(given, Normalizer):
        return given
    if given == "e164":
        return e164()
    if given not in _BY_NAME:
        raise ConfigError(
            f"there is no normalizer {given!r}", remedy=f"valid: {', '.join(sorted((*_BY_NAME, 'e164')))}"
        )
    return Normalizer(given, _BY_NAME[given])


def _ascii_label(label: str) -> str:
    return label if label.isascii() else "xn--" + label.encode("punycode").decode()


_BY_NAME: Final[dict[str, Callable[[str], str]]] = {
    function.__name__: function for function in (exact, casefold, digits, email)
}
