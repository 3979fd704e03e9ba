"""Writes `blind-index.json`, the frozen cases of docs/reference/blind-index.md, once; uses nothing of the library.

Run as `python -m tests.vectors.make_blind_index`. What is written already is never changed: cases are added.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

FILE = Path(__file__).parent / "blind-index.json"
KEYS = [bytes(range(32)), hashlib.sha256(b"second index key").digest(), bytes(32), b"\xff" * 32]
BLOCK = 64

# Normalizer, value, and its normal form; None where the value is refused. The forms are written by hand.
FORMS: list[tuple[str, str, str | None]] = [
    ("exact", "", ""),
    ("exact", "+1 555 0100", "+1 555 0100"),
    ("exact", " Trailing ", " Trailing "),
    ("exact", "e\u0301", "e\u0301"),
    ("exact", "\u00e9", "\u00e9"),
    ("exact", "\u0378", "\u0378"),
    ("exact", "\U0001f511", "\U0001f511"),
    ("exact", "a\0b", "a\0b"),
    ("exact", "\ud800", None),
    ("exact", "x" * 1000, "x" * 1000),
    ("casefold", "Anna Stra\u00dfe", "anna strasse"),
    ("casefold", "ANNA STRASSE", "anna strasse"),
    ("casefold", "\t anna\u00a0strasse\r\n", "anna strasse"),
    ("casefold", "E\u0301MILE", "\u00e9mile"),
    ("casefold", "\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3", "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c3"),
    ("casefold", "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2", "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c3"),
    ("casefold", "\ufb01\uff11", "fi1"),
    ("casefold", "\u1e9e", "ss"),
    ("casefold", "\u0130stanbul", "i\u0307stanbul"),
    ("casefold", "I", "i"),
    ("casefold", "\u0131", "\u0131"),
    ("casefold", "\uab70", "\u13a0"),
    ("casefold", "\u13a0", "\u13a0"),
    ("casefold", "\u2163", "iv"),
    ("casefold", "\u1fb4", "\u03ac\u03b9"),
    ("casefold", "\u03b1\u0345\u0301", "\u03ac\u03b9"),
    ("casefold", "\ud55c\uae00", "\ud55c\uae00"),
    ("casefold", "\u1112\u1161\u11ab\u1100\u1173\u11af", "\ud55c\uae00"),
    ("casefold", "", ""),
    ("casefold", "\uffff", None),
    ("casefold", "\U000e0fff", None),
    ("digits", "4111 1111-1111.1234", "4111111111111234"),
    ("digits", "(0)12/34", "01234"),
    ("digits", "\u0661\u0662\u0663", "123"),
    ("digits", "\uff10\uff11\u3000\u2460", "011"),
    ("digits", "0\u20110\u22120\u20150\u20120\u20130\u2014", "000000"),
    ("digits", "\t0\u00a0", "0"),
    ("digits", "12a", None),
    ("digits", "+12", None),
    ("digits", "1,2", None),
    ("digits", "\n1", None),
    ("digits", "\u00bd", None),
    ("digits", "-", None),
    ("digits", "", None),
    ("email", "Anna@Example.COM", "anna@example.com"),
    ("email", " a.b+c@example.com\n", "a.b+c@example.com"),
    ("email", "anna@B\u00fccher.example", "anna@xn--bcher-kva.example"),
    ("email", "anna@xn--bcher-kva.example", "anna@xn--bcher-kva.example"),
    ("email", "anna@\u4f8b\u3048\u3002\u30c6\u30b9\u30c8", "anna@xn--r8jz45g.xn--zckzah"),
    ("email", "\u00c9mile@example.com", "\u00e9mile@example.com"),
    ("email", '"a@b"@example.com', '"a@b"@example.com'),
    ("email", "anna\uff20example.com", "anna@example.com"),
    ("email", "anna", None),
    ("email", "@example.com", None),
    ("email", "anna@", None),
    ("email", "anna@example..com", None),
    ("email", "anna@example.com.", None),
    ("e164", "+44 20 7946 0018", "+442079460018"),
    ("e164", "+442079460018", "+442079460018"),
    ("e164", "tel:+44-20-7946-0018", "+442079460018"),
    ("e164", "+39 06 6982", "+39066982"),
    ("e164", "020 7946 0018", None),
    ("e164", "+44 20 7946 0018 ext. 5", None),
    ("e164", "+44", None),
    ("e164", "", None),
]
BINDINGS = [
    ("users.phone", "acme"),
    ("users.phone", ""),
    ("caf\u00e9", "\u0141\u00f3d\u017a"),
    ("u", "sers.phone"),
]
BITS = [4, 5, 8, 12, 15, 16, 20, 31, 32, 64, 100, 127, 128]


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """RFC 2104, by hand."""
    padded = key.ljust(BLOCK, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded) + data).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in padded) + inner).digest()


def index_of(key: bytes, label: str, tenant: str, normalizer: str, form: str, bits: int) -> str:
    """The index, in hexadecimal."""
    fields = [text.encode() for text in (label, tenant, normalizer)]
    bound = b"".join(len(field).to_bytes(2, "big") + field for field in fields) + form.encode()
    number = int.from_bytes(hmac_sha256(key, b"kmsbridge/v1/index\0" + bound), "big") >> (256 - bits)
    size = (bits + 7) // 8
    return (number << (8 * size - bits)).to_bytes(size, "big").hex()


def case(normalizer: str, value: str, form: str | None, key: bytes, label: str, tenant: str, bits: int):
    """One case, of values that JSON has."""
    given = {
        "key_hex": key.hex(),
        "label": label,
        "tenant": tenant,
        "normalizer": normalizer,
        "value": value,
        "bits": bits,
    }
    if form is None:
        return {**given, "outcome": "refused"}
    return {
        **given,
        "outcome": "success",
        "form": form,
        "index_hex": index_of(key, label, tenant, normalizer, form, bits),
    }


def cases():
    """Every form, and one form under every key, binding and length."""
    found = [case(*form, KEYS[0], *BINDINGS[0], 128) for form in FORMS]
    one = ("digits", "4111 1111 1111 1234", "4111111111111234")
    found += [case(*one, key, *binding, 128) for key in KEYS for binding in BINDINGS]
    return found + [case(*one, KEYS[0], *BINDINGS[0], bits) for bits in BITS]


def render(found) -> str:
    """The file: one case a line, in ASCII."""
    return "[\n" + ",\n".join(json.dumps(each) for each in found) + "\n]\n"


def main() -> int | str:
    """Write the cases that are not there yet."""
    there = json.loads(FILE.read_text()) if FILE.exists() else []
    new = [each for each in cases() if each not in there]
    changed = [each for each in there if each not in cases()]
    if changed:
        return f"{len(changed)} cases are written already, and are never changed"
    FILE.write_text(render(there + new))
    print(f"written: {len(new)} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
