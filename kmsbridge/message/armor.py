"""Messages as text, for text columns, JSON and environment variables."""

from __future__ import annotations

import binascii
from typing import Final

from kmsbridge.errors import MalformedMessage

ARMOR_PREFIX: Final = "kmsb1_"

_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/\xff\xff\xff")  # what is not of this alphabet becomes invalid
WHITE_SPACE: Final = " \t\n\v\f\r"
"""What may stand around an armored message, and nowhere in it: U+0020, and U+0009 to U+000D."""
_LAST_SIGN: Final = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}


def armor(message: bytes) -> str:
    """The message as text: `kmsb1_` and base64url without padding (RFC 4648, section 5)."""
    return ARMOR_PREFIX + binascii.b2a_base64(message, newline=False).translate(_TO_URL, b"=").decode("ascii")


def dearmor(text: str) -> bytes:
    """The message in `text`; white space around it is ignored, nothing else is.

    Raises `MalformedMessage`.
    """
    text = text.strip(WHITE_SPACE)
    if not text.startswith(ARMOR_PREFIX):
        raise MalformedMessage(
            f"the text does not begin with {ARMOR_PREFIX!r}", remedy="pass the armored message, whole"
        )
    digits = text[len(ARMOR_PREFIX) :]
    rest = len(digits) % 4
    try:
        # As much padding as it can take; what it does not need it passes over.
        message = binascii.a2b_base64(digits.encode("ascii").translate(_FROM_URL) + b"==")
    except ValueError:
        message = b""
    # The decoder passes over signs that are not of the alphabet, which leaves the result too short; the
    # last sign can have bits to spare, and where they are not zero this is another spelling.
    if len(message) != len(digits) * 3 // 4 or rest == 1 or (rest and digits[-1] not in _LAST_SIGN[rest]):
        raise MalformedMessage("the armored text is damaged", remedy="it was cut short or changed")
    return message
