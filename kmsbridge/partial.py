"""Parts of values that may be shown where the values must not be: the last digits of a card, a name's first letter.

A part is encrypted in a message of its own, by another profile: who may show parts cannot decrypt values.

    part = LAST4.of(phone)
    message = partials.encrypt_text(part, context=context, aad=LAST4.aad("users.phone", user_id))
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from uuid import UUID

_JOINER: Final = "\u200d"


class Partial(NamedTuple):
    """A part of a value that may be shown: a name, which the message of the part is bound to, and the function that returns it.

    `of` returns text, empty where nothing may be shown; it raises nothing. Never compute a blind index of a part.
    """

    name: str
    of: Callable[[str], str]

    def aad(self, label: str, *key: str | int | bytes | UUID) -> tuple[str | int | bytes | UUID, ...]:
        """Return the aad of the part's message, given the label and the primary key that the value's aad has."""
        return (f"{label}#{self.name}", *key)


def first(count: int) -> Partial:
    """Return the partial that shows the first `count` letters and digits of a value, and at most half of them."""
    _check(count)
    return Partial(f"first{count}", lambda value: "".join(_shown(value, count, from_end=False)))


def last(count: int) -> Partial:
    """Return the partial that shows the last `count` letters and digits of a value, and at most half of them."""
    _check(count)
    return Partial(f"last{count}", lambda value: "".join(_shown(value, count, from_end=True)))


def _check(count: int) -> None:
    if count < 1:
        raise ValueError("a partial shows at least one character")


def _shown(value: str, count: int, *, from_end: bool) -> list[str]:
    """Return whole characters, as people count them: a letter with its accents, an emoji with its skin tone."""
    counted = [cluster for cluster in clusters(value) if _counts(unicodedata.category(cluster[0]))]
    count = min(count, len(counted) // 2)
    return counted[len(counted) - count :] if from_end else counted[:count]


def _counts(category: str) -> bool:
    return category[0] in "LN" or category == "So"  # letters, digits, emoji


def _domain(value: str) -> str:
    local, _, domain = value.strip().rpartition("@")
    return domain if local else ""


def clusters(text: str) -> list[str]:
    """Return the grapheme clusters of `text` in composed form, nearly as Unicode defines them (UAX 29)."""
    found: list[str] = []
    for character in unicodedata.normalize("NFC", text):
        if found and _continues(found[-1], character):
            found[-1] += character
        else:
            found.append(character)
    return found


def _continues(cluster: str, character: str) -> bool:
    """Return whether `character` belongs to the cluster before it."""
    return (
        unicodedata.category(character).startswith("M")
        or character == _JOINER
        or cluster.endswith(_JOINER)
        or "\U0001f3fb" <= character <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= character <= "\U000e007f"  # tags of flags
        or (_is_regional(character) and len(cluster) == 1 and _is_regional(cluster))
        or ("\u1160" <= character <= "\u11ff" and "\u1100" <= cluster[-1] <= "\u11ff")  # Hangul, decomposed
    )


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


LAST4: Final = last(4)
"""The last four letters and digits, of a card or a phone number; of six digits, three."""
FIRST_LETTER: Final = first(1)
"""The first letter, of a name; nothing of a name with one letter."""
DOMAIN: Final = Partial("domain", _domain)
"""The domain of an e-mail address; nothing of the part before the @, and nothing of what has no @."""
