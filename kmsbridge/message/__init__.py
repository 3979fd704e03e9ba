"""The bytes of a message: a header, which says how to get the data key, and a body that the data key encrypts.

`docs/reference/format.md` specifies both. The names exported here concern headers and the armored form, and
load no cipher; bodies are in `kmsbridge.message.chunked`.
"""

from kmsbridge.message.armor import ARMOR_PREFIX, WHITE_SPACE, armor, dearmor
from kmsbridge.message.header import (
    DATA_KEY_ID,
    FIXED,
    MAGIC,
    MAX_HEADER,
    MAX_KEY_ID,
    MAX_KEY_VERSION,
    MAX_WRAPPED,
    MIN_BODY,
    PAD_TO,
    VERSION,
    Header,
    Recipient,
    check_body_length,
    check_direct,
    header_length,
    inline,
    parse,
    parse_header,
    plaintext_length,
)
from kmsbridge.message.kinds import LAYOUTS, MAX_RECIPIENTS, BodyFormat, DataKeyIn, Kind, Layout

__all__ = [
    "ARMOR_PREFIX",
    "DATA_KEY_ID",
    "FIXED",
    "LAYOUTS",
    "MAGIC",
    "MAX_HEADER",
    "MAX_KEY_ID",
    "MAX_KEY_VERSION",
    "MAX_RECIPIENTS",
    "MAX_WRAPPED",
    "MIN_BODY",
    "PAD_TO",
    "VERSION",
    "WHITE_SPACE",
    "BodyFormat",
    "DataKeyIn",
    "Header",
    "Kind",
    "Layout",
    "Recipient",
    "armor",
    "check_body_length",
    "check_direct",
    "dearmor",
    "header_length",
    "inline",
    "parse",
    "parse_header",
    "plaintext_length",
]
