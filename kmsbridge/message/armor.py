"""Messages as text, for text columns, JSON and environment variables."""

from __future__ import annotations

import binascii
from functools import lru_cache
from typing import Final

from kmsbridge.errors import MalformedMessage

ARMOR_PREFIX: Final = "kmsb1_"

_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/\xff\xff\xff")  # signs that only plain base64 has become invalid
WHITE_SPACE: Final = " \t\n\v\f\r"
"""The characters that may surround an armored message, but not occur in it: U+0020, and U+0009 to U+000D."""
_HEAD: Final = 256
"""The digits that are decoded by themselves: a multiple of 4, and about as many as a header takes."""
_LAST_SIGN: Final = {2: frozenset("AQgw"), 3: frozenset("AEIMQUYcgkosw048")}


def armor(message: bytes) -> str:
    """Return the message as text: `kmsb1_` and base64url without padding (RFC 4648, section 5)."""
    return ARMOR_PREFIX + binascii.b2a_base64(message, newline=False).translate(_TO_URL, b"=").decode("ascii")


def dearmor(text: str) -> bytes:
    """Return the message whose armored form is `text`. White space around the text is ignored.

    Raises `MalformedMessage` for any other text.
    """
    text = text.strip(WHITE_SPACE)
    if not text.startswith(ARMOR_PREFIX):
        raise MalformedMessage(
            f"the text does not begin with {ARMOR_PREFIX!r}", remedy="pass the whole armored message"
        )
    digits = text[len(ARMOR_PREFIX) :]
    rest = len(digits) % 4
    try:
        message = _decoded_head(digits[:_HEAD]) + _decoded(digits[_HEAD:])
    except ValueError:
        message = b""
    # The decoder skips invalid signs, which makes the result too short. The last sign can have unused bits;
    # unless they are zero, this is a second spelling of the same message.
    if len(message) != len(digits) * 3 // 4 or rest == 1 or (rest and digits[-1] not in _LAST_SIGN[rest]):
        raise MalformedMessage(
            "the armored text is damaged: it was cut short or changed", remedy="restore it from its source"
        )
    return message


def _decoded(digits: str) -> bytes:
    # The most padding that can be needed: the decoder ignores what is left over.
    return binascii.a2b_base64(digits.encode("ascii").translate(_FROM_URL) + b"==")


_decoded_head: Final = lru_cache(maxsize=1024)(_decoded)
"""Messages of one data key begin alike, and decoding costs more than decrypting a small one."""
