"""Makes the vectors in `cases/`: `python -m tests.vectors.make`.

A case is written once. What is there is never written again, even if this file says something else
now: then it says so and fails. Everything here is derived from a case's own name, so that the same
program gives the same bytes; only the cases of `by_library` are random, made by kmsbridge as it was.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.vectors import make_compact, make_environments, make_forms, make_keys
from tests.vectors.casebook import (
    APP,
    ARMOR,
    MALFORMED,
    MOST,
    NO_KEY,
    OFF,
    OTHER,
    TEXT,
    THREE,
    UNAUTHENTIC,
    UNSUPPORTED,
    Cases,
    H,
    body,
    dek_entry,
    direct,
    direct_pairs,
    fields,
    flip,
    inline,
    stuff,
    wrap,
)
from tests.vectors.reader import CHUNK, canonical
from tests.vectors.writer import armored, entry, head, listing, seal

FOLDER = Path(__file__).parent
CASES = FOLDER / "cases"
SUMS = FOLDER / "SHA256SUMS"

# --- the cases ----------------------------------------------------------------------------------------


def plaintexts(c):
    """Lengths and contents."""
    one = [(APP, "2", 104)]
    c.ok(
        "inline-one-recipient-empty-plaintext",
        "no plaintext: the body has 72 bytes",
        plaintext=b"",
        header=fields("inline", H, one),
    )
    c.ok("inline-one-recipient-one-byte", "one byte of plaintext", plaintext=b"\0")
    c.ok("inline-one-recipient-text", "text of several scripts", header=fields("inline", H, one))
    c.ok("inline-every-byte-value", "the 256 byte values", plaintext=bytes(range(256)))
    c.ok("inline-not-text", "a plaintext that is not UTF-8", plaintext=b"\xff\xfe\x80")
    c.ok("inline-plaintext-is-a-message", "a message inside a message", plaintext=inline())
    for length, what in (
        (16383, "one byte less than a chunk"),
        (16384, "a full chunk, so an empty one follows"),
        (16385, "a full chunk and a byte"),
        (32768, "two full chunks, so an empty one follows"),
        (32769, "two full chunks and a byte"),
    ):
        c.ok(f"inline-{length}-bytes", what, plaintext=stuff(f"plaintext {length}", length))
    c.ok(
        "inline-wrapped-by-an-older-version",
        "the key has version 2, and version 1 wrapped this",
        inline(entries=[dek_entry(version="1")]),
        header=fields("inline", H, [(APP, "1", 104)]),
    )


def recipients(c):
    """Several recipients, and the limits of their fields."""
    foreign = entry("vault:transit/app", "7", b"v" * 40)
    c.ok(
        "inline-two-recipients-ours-first",
        "another provider's key stands second",
        inline(entries=[dek_entry(), foreign]),
    )
    c.ok(
        "inline-two-recipients-ours-second",
        "another provider's key stands first",
        inline(entries=[foreign, dek_entry()]),
        header=fields(
            "inline", H + 2 + 17 + 1 + 1 + 2 + 40, [("vault:transit/app", "7", 40), (APP, "2", 104)]
        ),
    )
    both = [dek_entry(), dek_entry(key_id=OTHER, version="1")]
    c.ok(
        "inline-two-recipients-both-ours",
        "either key opens it: here the second",
        inline(entries=both),
        keys=["other"],
    )
    c.ok(
        "inline-two-recipients-first-damaged",
        "a key that fails is no reason not to try the next",
        inline(
            entries=[entry(APP, "2", flip(wrap(stuff("data key", 32), {"kmsbridge": "dek"}), -1)), both[1]]
        ),
        keys=["app", "other"],
    )
    c.ok(
        "inline-two-recipients-first-disabled",
        "the first of the keys is disabled, the second opens it",
        inline(entries=[entry(OFF, "1", b"x" * 104), both[0]]),
        keys=["off", "app"],
    )
    many = [entry(f"vault:transit/{n}", "1", b"w") for n in range(15)]
    c.ok(
        "inline-sixteen-recipients",
        "as many as there may be, ours last",
        inline(entries=[*many, dek_entry()]),
    )
    for name, what, each in (
        ("key-id-of-1024-bytes", "the longest key id", entry("x:" + "k" * 1022, "1", b"w")),
        (
            "key-id-of-1024-bytes-not-ascii",
            "1024 bytes are counted, not characters",
            entry("x:" + "é" * 511, "1", b"w"),
        ),
        ("key-id-of-three-bytes", "the shortest key id", entry("x:k", "1", b"w")),
        (
            "key-id-with-colons",
            "only the first colon ends the scheme",
            entry("aws:arn:aws:kms:eu:1:key/2", "", b"w"),
        ),
        ("key-id-with-a-newline", "a key id is a stranger's text", entry("x:a\n\0\x1b[31m", "1", b"w")),
        ("key-version-empty", "a provider that reports no versions", entry("x:k", "", b"w")),
        ("key-version-of-255-bytes", "the longest version", entry("x:k", "v" * 255, b"w")),
        ("key-version-not-ascii", "a version is UTF-8", entry("x:k", "версия", b"w")),
        ("wrapped-key-of-one-byte", "the shortest wrapped key", entry("x:k", "1", b"w")),
        ("wrapped-key-of-16384-bytes", "the longest wrapped key", entry("x:k", "1", stuff("wrapped", 16384))),
    ):
        c.ok(f"inline-{name}", what, inline(entries=[each, dek_entry()]))
    c.ok(
        "inline-key-ids-that-differ-in-case",
        "two ids that differ in case are two ids",
        inline(entries=[entry("x:k", "1", b"w"), entry("x:K", "1", b"w"), dek_entry()]),
    )
    c.ok(
        "inline-key-ids-that-differ-in-normal-form",
        "key ids are compared byte by byte",
        inline(entries=[entry("x:\u00e9", "1", b"w"), entry("x:e\u0301", "1", b"w"), dek_entry()]),
    )


def padding(c):
    """Padding is zero bytes, any number of them."""
    one = [(APP, "2", 104)]
    c.ok(
        "inline-one-byte-of-padding",
        "one zero byte before the body",
        inline(padding=bytes(1)),
        header=fields("inline", H + 1, one, 1),
    )
    c.ok(
        "inline-padded-as-a-file",
        "H is a multiple of 512 with at least 512 bytes to spare",
        inline(padding=bytes(1024 - H)),
        header=fields("inline", 1024, one, 1024 - H),
    )
    c.ok(
        "inline-header-of-65535-bytes",
        "the longest header",
        inline(padding=bytes(65535 - H)),
        header=fields("inline", 65535, one, 65535 - H),
    )
    c.add("direct-padded", "a direct message has no padding", direct(padding=bytes(5)), MALFORMED)
    c.add("direct-padded-by-one-byte", "not even one byte of it", direct(padding=bytes(1)), MALFORMED)
    for name, zeros in (("first", b"\1\0\0"), ("last", b"\0\0\1"), ("only", b"\x80")):
        c.add(
            f"inline-padding-not-zero-{name}",
            f"the {name} byte of the padding is not zero",
            inline(padding=zeros),
            MALFORMED,
        )
    c.add("direct-padding-not-zero", "padding of a direct message", direct(padding=b"\0\1"), MALFORMED)
    c.add(
        "stored-padding-not-zero",
        "padding of a message whose data key is stored",
        head(1, stuff("id", 32), padding=b"\1") + body(TEXT),
        MALFORMED,
    )


def contexts(c):
    """What a context may be, and that it is bound."""
    order = inline(context=THREE)
    c.ok("context-one-pair", "one pair", context={"tenant": "acme"})
    c.ok("context-three-pairs", "three pairs", order, context=THREE)
    c.ok(
        "context-three-pairs-in-another-order",
        "the same message, the pairs given in another order",
        order,
        context=dict(sorted(THREE.items())),
    )
    c.ok(
        "context-three-pairs-in-reverse-order",
        "the same message, the pairs given in reverse",
        order,
        context=dict(reversed(THREE.items())),
    )
    c.ok("context-empty", "an empty context is no context", context={})
    c.ok(
        "context-not-ascii",
        "names and values of several scripts",
        context={"клиент": "Łódź", "目的": "請求書", "🦊": "🐶"},
    )
    c.ok(
        "context-sorted-by-utf-8",
        "U+FFFD sorts before U+1F98A by UTF-8, after it by UTF-16",
        context={"\U0001f98a": "1", "\ufffd": "2"},
    )
    c.ok(
        "context-names-that-begin-alike",
        "a shorter name sorts first",
        context={"aa": "1", "a": "2", "a\0": "3", "a!": "4"},
    )
    c.ok(
        "context-control-characters",
        "NUL and newline are characters like any other",
        context={"a\nb": "c\0d", "\t": " "},
    )
    c.ok(
        "context-of-64-pairs",
        "as many pairs as there may be",
        context={f"name {n}": f"value {n}" for n in range(64)},
    )
    long = {"a": "v" * (4096 - 2 - 4 - 1)}
    c.ok("context-of-4096-bytes", "the longest canonical form", context=long)
    c.ok("context-reserved-word-as-value", "only names are reserved", context={"a": "kmsbridge"})
    c.ok(
        "context-reserved-word-inside-a-name",
        "only names that begin so are reserved",
        context={"my-kmsbridge": "1", "KMSBRIDGE": "2", "kmsbridg": "3"},
    )
    for form in ("NFC", "NFD"):
        pairs = {"city": unicodedata.normalize(form, "Málaga")}
        c.ok(f"context-{form.lower()}", f"a value in normal form {form}", context=pairs)
    wrong_contexts(c)
    refused_contexts(c)


def wrong_contexts(c):
    """Contexts that are not the message's."""
    made = {"a": "1", "b": "2"}
    for name, what, pairs in (
        ("missing", "no context at all", None),
        ("pair-missing", "one pair is missing", {"a": "1"}),
        ("pair-extra", "one pair too many", {**made, "c": "3"}),
        ("value-changed", "another value", {"a": "1", "b": "3"}),
        ("name-changed", "another name", {"a": "1", "c": "2"}),
        ("values-swapped", "the values swapped", {"a": "2", "b": "1"}),
        ("name-case", "a name in upper case", {"A": "1", "b": "2"}),
        ("trailing-space", "a space after a value", {"a": "1 ", "b": "2"}),
    ):
        c.add(f"wrong-context-{name}", what, inline(context=made), UNAUTHENTIC, context=pairs)
    c.add(
        "wrong-context-moved-boundary",
        'made with {"a": "bcd"}',
        inline(context={"a": "bcd"}),
        UNAUTHENTIC,
        context={"ab": "cd"},
    )
    c.add(
        "wrong-context-split-pair",
        'made with {"a": "1", "b": "2"}, opened with one pair of the same signs',
        inline(context=made),
        UNAUTHENTIC,
        context={"a": "1b2"},
    )
    c.add(
        "wrong-context-normal-form",
        "made with NFC, opened with NFD",
        inline(context={"city": "M\u00e1laga"}),
        UNAUTHENTIC,
        context={"city": "Ma\u0301laga"},
    )
    c.add("wrong-context-one-given", "made without a context", inline(), UNAUTHENTIC, context={"a": "1"})
    c.add("wrong-context-direct", "a direct message", direct(context=made), UNAUTHENTIC, context={"a": "1"})
    c.add(
        "wrong-context-for-the-body-alone",
        "the data key is wrapped in the right context, the body is not",
        head(0, listing(dek_entry({"a": "1"}))) + body(TEXT, {"a": "2"}),
        UNAUTHENTIC,
        context={"a": "1"},
    )
    c.add(
        "wrong-context-for-the-key-alone",
        "the body is in the right context, the data key is not",
        head(0, listing(dek_entry({"a": "2"}))) + body(TEXT, {"a": "1"}),
        UNAUTHENTIC,
        context={"a": "1"},
    )


def refused_contexts(c):
    """Contexts that nothing can be made with."""
    for name, what, outcome, pairs in (
        ("of-65-pairs", "one pair too many", "limit-exceeded", {f"n{n}": "v" for n in range(65)}),
        ("of-4097-bytes", "one byte too many", "limit-exceeded", {"a": "v" * (4096 - 2 - 4)}),
        ("value-of-65536-bytes", "a length that 16 bits do not hold", "limit-exceeded", {"a": "v" * 65536}),
        ("empty-name", "an empty name", "invalid-context", {"": "v"}),
        ("empty-value", "an empty value", "invalid-context", {"a": ""}),
        ("reserved-name", "the library's own name", "invalid-context", {"kmsbridge": "dek"}),
        (
            "reserved-prefix",
            "a name that begins as the library's own do",
            "invalid-context",
            {"kmsbridge-x": "1"},
        ),
    ):
        c.add(f"refused-context-{name}", what, inline(), outcome, context=pairs)


def aads(c):
    """Associated data."""
    made = b"users/42/phone"
    c.ok("aad-some-bytes", "associated data", aad=made)
    c.ok("aad-one-zero-byte", "one zero byte is not nothing", aad=b"\0")
    c.ok("aad-of-4096-bytes", "long associated data", aad=stuff("aad", 4096))
    unit = stuff("aad", 1024)
    c.ok("aad-of-1-mib", "the longest", inline(aad=unit * 1024), aad=unit, aad_repeat=1024)
    c.ok("direct-aad-of-1-mib", "of a direct message", direct(aad=unit * 1024), aad=unit, aad_repeat=1024)
    longer = b"a" * (1024 * 1024 + 1)
    for name, message in (("aad", inline(aad=longer)), ("direct-aad", direct(aad=longer))):
        c.add(
            f"refused-{name}-of-1-mib-and-a-byte",
            "made with what is given, and one byte too long",
            message,
            "limit-exceeded",
            aad=b"a",
            aad_repeat=len(longer),
        )
    c.ok(
        "worked-example",
        "the message that docs/reference/format.md takes apart",
        plaintext=b"+1 555 0100",
        context={"tenant": "acme"},
        aad=made,
        header=fields("inline", H, [(APP, "2", 104)]),
    )
    c.ok("aad-and-context", "both", aad=made, context=THREE)
    for name, aad in (
        ("missing", b""),
        ("changed", b"users/43/phone"),
        ("shorter", made[:-1]),
        ("longer", made + b"\0"),
    ):
        c.add(
            f"wrong-aad-{name}",
            "associated data that is not the message's",
            inline(aad=made),
            UNAUTHENTIC,
            aad=aad,
        )
    c.add("wrong-aad-one-given", "made without associated data", inline(), UNAUTHENTIC, aad=b"\0")
    c.add(
        "wrong-aad-as-context",
        "what was associated data is given as context",
        inline(aad=b"acme"),
        UNAUTHENTIC,
        context={"tenant": "acme"},
    )
    c.add(
        "wrong-aad-holds-the-context",
        "made with a context; its canonical form is given as associated data",
        head(0, listing(dek_entry())) + body(TEXT, {"a": "1"}),
        UNAUTHENTIC,
        aad=canonical({"a": "1"}),
    )


def directs(c):
    """Direct messages."""
    one = [(APP, "2", 72 + len(TEXT))]
    c.ok(
        "direct-text",
        "the key wraps the payload itself",
        direct(),
        header=fields("direct", 8 + 1 + 2 + len(APP) + 1 + 1 + 2 + 72 + len(TEXT), one),
    )
    c.ok("direct-empty", "an empty payload", direct(b""), plaintext=b"")
    c.ok("direct-32-bytes", "as long as a data key", direct(stuff("32", 32)), plaintext=stuff("32", 32))
    c.ok(
        "direct-4096-bytes",
        "the longest payload of a local key",
        direct(stuff("4096", 4096)),
        plaintext=stuff("4096", 4096),
    )
    c.ok("direct-with-aad", "associated data is bound by its hash", direct(aad=b"row 7"), aad=b"row 7")
    c.ok("direct-with-context", "a context", direct(context=THREE), context=THREE)
    c.ok(
        "direct-with-context-and-aad",
        "both",
        direct(context=THREE, aad=b"row 7"),
        context=THREE,
        aad=b"row 7",
    )
    two = [entry(key, v, wrap(TEXT, direct_pairs(), key, v)) for key, v in ((APP, "2"), (OTHER, "1"))]
    c.add("direct-two-recipients", "two readers could read different things", direct(entries=two), MALFORMED)
    c.add("direct-no-recipient", "no key wraps the payload", direct(entries=[]), MALFORMED)
    c.add(
        "direct-sixteen-recipients",
        "as many as an inline message may have",
        direct(entries=[two[0], *(entry(f"vault:transit/{n}", "1", b"w") for n in range(15))]),
        MALFORMED,
    )
    c.add(
        "direct-recipient-that-is-not-counted",
        "one is counted, and a second follows",
        head(2, listing(*two, count=1)),
        MALFORMED,
    )
    c.add("direct-wrong-aad", "other associated data", direct(aad=b"row 7"), UNAUTHENTIC, aad=b"row 8")
    c.add("direct-aad-missing", "no associated data", direct(aad=b"row 7"), UNAUTHENTIC)
    c.add("direct-aad-given", "made without associated data", direct(), UNAUTHENTIC, aad=b"row 7")
    c.add("direct-bytes-after", "a byte after the header", direct() + b"\0", MALFORMED)
    c.add("direct-body-after", "a body after the header", direct() + body(TEXT), MALFORMED)
    c.add(
        "direct-bytes-after-and-not-authentic",
        "malformed is found before the key is asked",
        flip(direct(), -1) + b"\0",
        MALFORMED,
    )
    c.add("direct-damaged", "a bit of the wrapped payload changed", flip(direct(), -1), UNAUTHENTIC)
    c.add("direct-no-matching-key", "for another key", direct(), NO_KEY, keys=["other"])
    c.add("direct-cut", "the last byte is missing", direct()[:-1], MALFORMED)
    c.add(
        "data-key-passed-off-as-direct",
        "else the data key would be handed out as plaintext",
        head(2, listing(dek_entry())),
        UNAUTHENTIC,
    )
    payload = stuff("payload", 32)
    c.add(
        "direct-payload-passed-off-as-data-key",
        "a payload of 32 bytes is no data key",
        head(0, listing(entry(APP, "2", wrap(payload, direct_pairs())))) + body(TEXT, dek=payload),
        UNAUTHENTIC,
    )
    c.add(
        "data-key-without-the-reserved-pair",
        "wrapped in the user's context alone",
        inline(entries=[entry(APP, "2", wrap(stuff("data key", 32), {}))]),
        UNAUTHENTIC,
    )


def stored(c):
    """The data key is in a key store: parsed, named, and not opened by a reader that has none."""
    name = stuff("data key id", 32)
    message = head(1, name) + body(TEXT)
    c.add(
        "stored",
        "the data key is in a key store",
        message,
        UNSUPPORTED,
        header=fields("stored", 40, data_key_id=name.hex()),
    )
    c.add(
        "stored-padded",
        "padding after the id",
        head(1, name, padding=bytes(8)) + body(b""),
        UNSUPPORTED,
        header=fields("stored", 48, padding=8, data_key_id=name.hex()),
    )
    c.add(
        "stored-id-of-zeros",
        "thirty-two zero bytes are an id",
        head(1, bytes(32)) + body(b""),
        UNSUPPORTED,
        header=fields("stored", 40, data_key_id="00" * 32),
    )
    c.add("stored-id-cut", "H leaves 31 bytes for the id", head(1, name, length=39) + body(TEXT), MALFORMED)
    c.add("stored-id-of-16-bytes", "half an id, and a whole body", head(1, name[:16]) + body(TEXT), MALFORMED)
    c.add(
        "stored-id-of-31-bytes",
        "a byte too few, and a whole body",
        head(1, name[:31]) + body(TEXT),
        MALFORMED,
    )
    c.add("stored-id-of-33-bytes", "the 33rd byte is not zero", head(1, name + b"\1") + body(TEXT), MALFORMED)
    c.add("stored-id-of-64-bytes", "twice an id", head(1, name + name) + body(TEXT), MALFORMED)
    c.add("stored-no-id", "H leaves none", head(1, name, length=8) + body(TEXT), MALFORMED)
    c.add("stored-short-body", "a body of 71 bytes", message[: 40 + 71], MALFORMED)
    c.add("stored-no-body", "no body", message[:40], MALFORMED)


def starts(c):
    """Magic, version and kind."""
    good = inline()
    c.add("empty", "no bytes at all", b"", MALFORMED)
    for name, what, message in (
        ("magic-lower-case", "kmsb", b"kmsb" + good[4:]),
        ("magic-one-bit", "one bit of the magic", flip(good, 0)),
        ("magic-after-a-byte", "a byte before the message", b"\0" + good),
        ("magic-after-a-byte-order-mark", "a byte order mark before the message", b"\xef\xbb\xbf" + good),
        ("magic-of-the-armored-form", "the armored form given as bytes", armored(good).encode()),
        ("magic-zeros", "100 zero bytes", bytes(100)),
        (
            "magic-text",
            "plain text",
            b"not a message, however long it may be, and it is longer than 72 bytes or so",
        ),
    ):
        c.add(name, what, message, MALFORMED)
    c.add("version-0", "no version", inline(version=0), MALFORMED)
    for version in (2, 3, 127, 255):
        c.add(f"version-{version}", "a later version", inline(version=version), UNSUPPORTED)
    c.add(
        "version-2-and-nothing-else",
        "a later version may mean anything by what follows",
        head(9, b"", version=2, length=0),
        UNSUPPORTED,
    )
    c.add("version-2-cut", "seven bytes are too few for any version", b"KMSB\2\0\0", MALFORMED)
    for kind in (5, 128, 255):
        c.add(
            f"kind-{kind}",
            "a kind that version 1 does not have",
            head(kind, good[8:H]) + body(TEXT),
            UNSUPPORTED,
        )
    c.add(
        "kind-5-and-nothing-else",
        "an unknown kind may mean anything by H",
        head(5, b"", length=0),
        UNSUPPORTED,
    )
    c.add("kind-3", "no commitment follows the recipients", head(3, good[8:H]) + body(TEXT), MALFORMED)
    c.add("kind-4", "the recipients are no id", head(4, good[8:H]) + body(TEXT), MALFORMED)
    c.add("kind-3-and-nothing-else", "a known kind has a header", head(3, b"", length=0), MALFORMED)
    c.add(
        "kind-inline-changed-to-reference", "the recipients are no id and zeros", flip(good, 5, 0), MALFORMED
    )
    c.add("kind-inline-changed-to-direct", "a direct message has no body", flip(good, 5, 1), MALFORMED)
    c.add("kind-direct-changed-to-inline", "an inline message has a body", flip(direct(), 5, 1), MALFORMED)


def header_lengths(c):
    """H."""
    good = inline()
    for name, what, length in (
        ("0", "nothing", 0),
        ("7", "less than the fixed part", 7),
        ("8", "the fixed part alone", 8),
        ("9", "the number of recipients alone", 9),
        ("one-too-small", "the last byte of the wrapped key would be the body's", H - 1),
        ("one-too-large", "the body's first byte would be padding", H + 1),
        ("of-the-whole-message", "no body would be left", len(good)),
        ("one-beyond-the-end", "more than there is", len(good) + 1),
        ("65535", "much more than there is", 65535),
    ):
        c.add(f"header-length-{name}", what, head(0, good[8:H], length=length) + good[H:], MALFORMED)
    c.add(
        "header-length-little-endian",
        f"{H} written the wrong way round",
        head(0, good[8:H], length=H << 8) + good[H:],
        MALFORMED,
    )
    c.add(
        "header-length-swallows-a-zero-body",
        "a body of zeros is padding, and none is left",
        head(0, good[8:H], length=H + 72) + bytes(72),
        MALFORMED,
    )


def broken_recipients(c):
    """Fields of the recipients that break a rule, the rest being right."""
    mine = dek_entry()
    many = [entry(f"vault:transit/{n}", "1", b"w") for n in range(16)]
    for name, what, content in (
        ("recipients-none", "no recipient", listing()),
        ("recipients-none-but-one-follows", "the count says 0, and one follows", listing(mine, count=0)),
        ("recipients-17", "one too many", listing(*many, mine)),
        ("recipients-255-claimed", "255 claimed, one there", listing(mine, count=255)),
        ("recipients-two-claimed", "two claimed, one there", listing(mine, count=2)),
        ("recipients-one-claimed", "one claimed, two there", listing(mine, many[0], count=1)),
        ("recipients-same-key-id", "one key id twice", listing(mine, mine)),
        (
            "recipients-same-key-id-other-version",
            "one key id twice, in two versions",
            listing(mine, dek_entry(version="1")),
        ),
        (
            "recipients-same-foreign-key-id",
            "not even another's key id",
            listing(mine, many[0], many[1], many[0]),
        ),
        ("key-id-empty", "an empty key id", listing(entry("", "1", b"w"), mine)),
        ("key-id-of-1025-bytes", "one byte too many", listing(entry("x:" + "k" * 1023, "1", b"w"), mine)),
        (
            "key-id-of-1025-bytes-not-ascii",
            "fewer characters than bytes",
            listing(entry("x:k" + "é" * 511, "1", b"w"), mine),
        ),
        ("key-id-without-colon", "no scheme", listing(entry("app", "1", b"w"), mine)),
        ("key-id-without-scheme", "an empty scheme", listing(entry(":app", "1", b"w"), mine)),
        ("key-id-without-name", "a scheme and no name", listing(entry("local:", "1", b"w"), mine)),
        ("key-id-only-colon", "a colon", listing(entry(":", "1", b"w"), mine)),
        ("key-id-not-utf-8", "Latin-1", listing(entry(b"x:\xe9", "1", b"w"), mine)),
        ("key-id-overlong-utf-8", "a slash in two bytes", listing(entry(b"x:\xc0\xaf", "1", b"w"), mine)),
        ("key-id-surrogate", "half of a surrogate pair", listing(entry(b"x:\xed\xa0\x80", "1", b"w"), mine)),
        (
            "key-id-cut-utf-8",
            "a character that the field's end cuts",
            listing(entry(b"x:\xf0\x9f\xa6", "1", b"w"), mine),
        ),
        ("key-version-not-utf-8", "Latin-1", listing(entry("x:k", b"\xff", b"w"), mine)),
        ("wrapped-key-empty", "an empty wrapped key", listing(entry("x:k", "1", b""), mine)),
        ("wrapped-key-empty-ours", "our own is empty", listing(entry(APP, "2", b""))),
        ("wrapped-key-of-16385-bytes", "one byte too many", listing(entry("x:k", "1", bytes(16385)), mine)),
        (
            "wrapped-key-length-beyond-the-header",
            "a length that leads into the body",
            listing(mine)[: 1 + 2 + len(APP) + 2] + b"\xff\xff" + listing(mine)[1 + 2 + len(APP) + 4 :],
        ),
        (
            "key-id-length-beyond-the-header",
            "a length that leads into the body",
            b"\1\xff\xff" + listing(mine)[3:],
        ),
        (
            "key-version-length-beyond-the-header",
            "a length that leads into the body",
            b"\1" + mine[: 2 + len(APP)] + b"\xff" + mine[3 + len(APP) :],
        ),
    ):
        c.add(name, what, head(0, content) + body(TEXT), MALFORMED)


def cuts(c):
    """Messages cut short, and headers that end inside a field while H is right."""
    good, id_end = inline(), 11 + len(APP)
    for name, at in (
        ("inside-magic", 3),
        ("after-magic", 4),
        ("after-version", 5),
        ("after-kind", 6),
        ("inside-h", 7),
        ("after-h", 8),
        ("after-count", 9),
        ("inside-key-id", 20),
        ("inside-wrapped-key", 100),
        ("before-body", H),
        ("inside-salt", H + 6),
        ("inside-commitment", H + 46),
        ("before-first-chunk", H + 56),
        ("one-byte-less-than-an-empty-body", H + 71),
    ):
        c.add(f"cut-{name}", "the message ends too early", good[:at], MALFORMED)
    for name, at in (
        ("count", 8),
        ("key-id-length", 10),
        ("key-id", 20),
        ("key-version-length", id_end),
        ("key-version", id_end + 1),
        ("wrapped-key-length", id_end + 3),
        ("wrapped-key", H - 1),
    ):
        c.add(
            f"header-ends-before-the-end-of-{name}",
            "H is cut, and a whole body follows",
            head(0, good[8:at]) + body(TEXT),
            MALFORMED,
        )
    c.add("cut-last-byte", "the tag is cut", good[:-1], UNAUTHENTIC)
    c.add("cut-to-an-empty-body", "72 bytes of body are left", good[: H + 72], UNAUTHENTIC)
    c.add("one-byte-more", "a byte after the message", good + b"\0", UNAUTHENTIC)
    c.add("twice", "the message twice", good + good, UNAUTHENTIC)
    c.add("body-twice", "the body twice", good + good[H:], UNAUTHENTIC)


def damaged(c):
    """Bytes that are changed, the form being right."""
    good = inline()
    for name, at in (
        ("wrapped-salt", H - 104),
        ("wrapped-commitment", H - 70),
        ("wrapped-ciphertext", H - 40),
        ("wrapped-tag", H - 1),
        ("salt", H),
        ("commitment", H + 24),
        ("commitment-last-byte", H + 55),
        ("ciphertext", H + 56),
        ("tag", -1),
    ):
        c.add(f"damaged-{name}", "one bit changed", flip(good, at), UNAUTHENTIC)
    c.add("damaged-empty-body", "a bit of the tag of no plaintext", flip(inline(b""), -1), UNAUTHENTIC)
    c.add("body-of-zeros", "72 zero bytes for a body", good[:H] + bytes(72), UNAUTHENTIC)
    c.add(
        "body-without-commitment",
        "sealed with raw AES-256-GCM under the data key",
        good[:H] + AESGCM(stuff("data key", 32)).encrypt(bytes(12), bytes(72), None),
        UNAUTHENTIC,
    )
    bare = seal(stuff("data key", 32), b"", TEXT, stuff("bare", 24))
    c.add("body-without-domain", "sealed in the empty Cobblestone context", good[:H] + bare, UNAUTHENTIC)
    for length in (0, 16, 31, 33, 64):
        entries = [dek_entry(dek=stuff("short", length))]
        c.add(
            f"data-key-of-{length}-bytes",
            "a data key is 32 bytes, whoever wrapped it",
            inline(entries=entries),
            UNAUTHENTIC,
        )


def chunks(c):
    """Whole chunks that are lost, moved or repeated."""
    full = inline(stuff("plaintext 16384", 16384))
    one, step = H + 56, CHUNK + 16
    c.add("chunks-final-one-missing", "cut at exactly a full chunk", full[: one + step], UNAUTHENTIC)
    c.add("chunks-final-one-cut", "the final chunk is cut inside its tag", full[:-1], UNAUTHENTIC)
    c.add(
        "chunks-first-one-missing",
        "only the final chunk is left",
        full[:one] + full[one + step :],
        UNAUTHENTIC,
    )
    c.add("chunks-final-one-twice", "an empty chunk follows the final one", full + full[-16:], UNAUTHENTIC)
    c.add(
        "chunks-full-one-as-final",
        "a full chunk repeated for the final one",
        full[: one + step] + full[one : one + step],
        UNAUTHENTIC,
    )
    two = inline(stuff("plaintext 32768", 32768))
    c.add(
        "chunks-swapped",
        "the two full chunks swapped",
        two[:one] + two[one + step : one + 2 * step] + two[one : one + step] + two[one + 2 * step :],
        UNAUTHENTIC,
    )


def splices(c):
    """Parts of two messages, each right where it came from."""
    other = stuff("another data key", 32)
    mine, theirs = head(0, listing(dek_entry())), head(0, listing(dek_entry(dek=other, salt="another")))
    c.add(
        "splice-header-and-body-of-another-data-key",
        "header A, body B",
        mine + body(TEXT, dek=other),
        UNAUTHENTIC,
    )
    c.add("splice-other-way-round", "header B, body A", theirs + body(TEXT), UNAUTHENTIC)
    a, b = body(TEXT), body(b"other" + TEXT, salt="other body")
    c.add("splice-salt", "the salt of another body of this data key", mine + b[:24] + a[24:], UNAUTHENTIC)
    c.add("splice-commitment", "salt and commitment of another body", mine + b[:56] + a[56:], UNAUTHENTIC)
    c.add("splice-chunk", "the chunk of another body", mine + a[:56] + b[56:], UNAUTHENTIC)
    c.ok(
        "splice-body-of-the-same-data-key",
        "one data key serves many messages: this is message B",
        mine + b,
        plaintext=b"other" + TEXT,
    )


def no_key(c):
    """Messages for others, and keys that cannot be used."""
    c.add("no-matching-key", "for another key", inline(), NO_KEY, keys=["other"])
    c.add(
        "no-matching-key-of-that-provider",
        "for another provider",
        inline(entries=[entry("vault:transit/app", "1", b"w")]),
        NO_KEY,
    )
    c.add(
        "no-matching-key-same-name",
        "a key of that name that was made another time",
        inline(entries=[entry("local:app@0123456789abcdee", "2", b"w" * 104)]),
        NO_KEY,
    )
    c.add(
        "no-matching-key-case",
        "key ids are compared byte by byte",
        inline(entries=[entry("local:App@0123456789abcdef", "2", b"w" * 104)]),
        NO_KEY,
    )
    c.add(
        "no-matching-key-space",
        "key ids are compared byte by byte",
        inline(entries=[entry(APP + " ", "2", b"w" * 104)]),
        NO_KEY,
    )
    for name, version in (("unknown", "3"), ("empty", ""), ("leading-zero", "02"), ("not-ascii", "２")):
        wrapped = wrap(stuff("data key", 32), {"kmsbridge": "dek"})
        c.add(
            f"key-version-{name}",
            "a version that the key file does not have",
            inline(entries=[entry(APP, version, wrapped)]),
            "key-version-not-found",
        )
    c.add(
        "key-version-wrong",
        "the version names another material",
        inline(entries=[entry(APP, "1", wrap(stuff("data key", 32), {"kmsbridge": "dek"}))]),
        UNAUTHENTIC,
    )
    c.add(
        "key-disabled",
        "the key is disabled",
        inline(entries=[dek_entry(key_id=OFF, version="1")]),
        "key-disabled",
        keys=["off"],
    )
    c.add(
        "both-keys-fail",
        "a service's failure is told before one of authenticity",
        inline(entries=[entry(APP, "2", b"w" * 104), entry(OFF, "1", b"w" * 104)]),
        "key-disabled",
        keys=["app", "off"],
    )
    c.add(
        "wrapped-key-of-another-key",
        "what another key wrapped, under this key's id",
        inline(entries=[entry(APP, "2", wrap(stuff("data key", 32), {"kmsbridge": "dek"}, OTHER, "1"))]),
        UNAUTHENTIC,
    )
    c.add(
        "wrapped-key-too-short",
        "71 bytes are no wrapped key of the local driver",
        inline(entries=[entry(APP, "2", b"w" * 71)]),
        UNAUTHENTIC,
    )


def armors(c):
    """The armored form."""
    by_rest = {len(message) % 3: message for message in (inline(b"a" * n) for n in range(3))}
    for rest, message in sorted(by_rest.items()):
        c.ok(
            f"armored-{rest}-bytes-over",
            f"a length of 3n + {rest} bytes",
            armored(message),
            plaintext=b"a" * (len(message) - H - 72),
        )
    text = armored(inline())
    c.ok(
        "armored-white-space-around",
        "every kind of white space that is ignored",
        " \t\r\n\v\f" + text + "\f\v\n\r\t ",
    )
    c.ok("armored-direct", "a direct message", armored(direct()))
    c.add(
        "armored-stored",
        "a message whose data key is stored",
        armored(head(1, stuff("id", 32)) + body(TEXT)),
        UNSUPPORTED,
    )
    c.add(
        "armored-version-2",
        "the armor's 1 is not the message's version",
        armored(inline(version=2)),
        UNSUPPORTED,
    )
    c.add("armored-wrong-aad", "armor changes nothing of what is bound", text, UNAUTHENTIC, aad=b"x")
    spare = armored(by_rest[1]), armored(by_rest[2])
    assert len(spare[0][6:]) % 4 == 2
    assert len(spare[1][6:]) % 4 == 3
    middle = len(text) // 2
    for name, what, broken in (
        ("empty", "no text at all", ""),
        ("white-space-only", "white space", " \n"),
        ("prefix-only", "the prefix and nothing else", ARMOR),
        ("prefix-missing", "no prefix", text.removeprefix(ARMOR)),
        ("prefix-upper-case", "KMSB1_", text.replace(ARMOR, "KMSB1_", 1)),
        ("prefix-2", "kmsb2_", text.replace(ARMOR, "kmsb2_", 1)),
        ("prefix-cut", "the prefix without its underscore", text.replace(ARMOR, "kmsb1", 1)),
        ("prefix-twice", "the prefix twice", ARMOR + text),
        ("prefix-full-width", "signs that only look alike", text.replace("k", "\uff4b", 1)),
        ("space-after-prefix", "white space inside", text.replace(ARMOR, ARMOR + " ", 1)),
        ("space-inside", "white space inside", text[:middle] + " " + text[middle:]),
        ("line-break-inside", "wrapped at a column", text[:middle] + "\n" + text[middle:]),
        ("junk-before", "a word before", "message: " + text),
        ("junk-after", "a sign after", text + "!"),
        ("quotes-around", "quotes are not white space", f'"{text}"'),
        ("no-break-space-around", "U+00A0 is not white space here", "\u00a0" + text),
        ("line-separator-around", "U+2028 is not white space here", text + "\u2028"),
        ("byte-order-mark", "U+FEFF is not white space here", "\ufeff" + text),
        ("file-separator-around", "U+001C is not white space here", text + "\x1c"),
        ("zero-byte-after", "U+0000 is not white space", text + "\0"),
        ("standard-alphabet-plus", "+ is of the other alphabet", text[:middle] + "+" + text[middle + 1 :]),
        ("standard-alphabet-slash", "/ is of the other alphabet", text[:middle] + "/" + text[middle + 1 :]),
        ("padding-one", "= at the end", spare[1] + "="),
        ("padding-two", "== at the end", spare[0] + "=="),
        ("padding-inside", "= inside", text[:middle] + "=" + text[middle:]),
        ("digit-arabic", "a digit that is not ASCII", text[:middle] + "\u0663" + text[middle + 1 :]),
        ("digit-full-width", "a letter that is not ASCII", text[:middle] + "\uff21" + text[middle + 1 :]),
        ("surrogate-escaped", "a lone surrogate", text[:middle] + "\udcff" + text[middle + 1 :]),
        (
            "last-sign-2-bits-to-spare",
            "the last sign's spare bits are not zero",
            spare[1][:-1] + after(spare[1][-1]),
        ),
        (
            "last-sign-4-bits-to-spare",
            "the last sign's spare bits are not zero",
            spare[0][:-1] + after(spare[0][-1]),
        ),
        ("one-sign-over", "a length of 4n + 1", armored(by_rest[0]) + "A"),
        ("one-sign-over-alone", "one sign", ARMOR + "A"),
        ("cut", "cut in the header", text[:60]),
    ):
        c.add(f"armored-{name}", what, broken, MALFORMED)
    c.add(
        "armored-last-byte-missing",
        "the armored form of a message that was cut",
        armored(inline()[:-1]),
        UNAUTHENTIC,
    )


def after(sign):
    """The sign whose value is one more: not canonical where `sign` is."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return alphabet[alphabet.index(sign) + 1]


GROUPS = (
    plaintexts, recipients, padding, contexts, aads, directs, stored, starts, header_lengths,
    broken_recipients, cuts, damaged, chunks, splices, no_key, armors,
    *make_compact.GROUPS, *make_forms.GROUPS, *make_keys.GROUPS, *make_environments.GROUPS,
)  # fmt: skip


def deterministic():
    """The cases that this program gives anew whenever it runs."""
    cases = Cases()
    for group in GROUPS:
        group(cases)
    return cases


# --- what the library wrote ---------------------------------------------------------------------------


def by_library():
    """Compact messages as kmsbridge writes them itself, with its own random keys and nonces.

    The cases `library-...` of the other kinds were written in the same way before there were compact ones.
    """
    from importlib.metadata import version

    from kmsbridge import EnvelopeCipher
    from kmsbridge.drivers.local.keyfile import KeyFile

    cases = Cases()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "keys.json")
        file = KeyFile.create(path, "app")
        file.add_key("second")
        one, two = f"local:{path}#app", f"local:{path}#second"

        def add(name, description, message, **more):
            name = f"library-compact-{name}"
            cases.add(name, description, message, file=json.loads(path.read_text()), **more)
            cases[name]["made_by"] = f"kmsbridge {version('kmsbridge')}"

        bound: dict[str, Any] = {"context": THREE, "aad": b"users/42/phone"}
        with EnvelopeCipher.from_uri(one) as cipher:
            add("encrypt", "by encrypt", cipher.encrypt(TEXT))
            add("encrypt-context-aad", "by encrypt", cipher.encrypt(TEXT, **bound), **bound)
            add("encrypt-text", "by encrypt_text", cipher.encrypt_text(TEXT.decode()))
            first, second = cipher.encrypt_many([b"1", b"2"], context=THREE)
            add("encrypt-many-first", "by encrypt_many", first, plaintext=b"1", context=THREE)
            add("encrypt-many-second", "under the same data key", second, plaintext=b"2", context=THREE)
            most = bytes(MOST)
            add("encrypt-65536-bytes", "the longest", cipher.encrypt(most), plaintext=most)
            old = cipher.encrypt(TEXT, **bound)
        file.rotate("app")
        with EnvelopeCipher.from_uri(one) as cipher:
            add("rewrapped", "by rewrap after a rotation", cipher.rewrap(old, **bound), **bound)
            add("from-before-the-rotation", "by encrypt, before a rotation", old, **bound)
        with EnvelopeCipher.from_uri(two, decrypt_uris=[one]) as cipher:
            moved = cipher.rewrap(old, **bound)
            add("rewrapped-to-another-key", "by rewrap", moved, keys=["second"], **bound)
    return cases


def render(case):
    """A case's file."""
    return (json.dumps(case, indent=1, ensure_ascii=True) + "\n").encode()


def main():
    """Write the cases that are not there yet."""
    CASES.mkdir(exist_ok=True)
    there = {path.stem for path in CASES.glob("*.json")}
    cases = deterministic()
    changed = [n for n in there & cases.keys() if (CASES / f"{n}.json").read_bytes() != render(cases[n])]
    if changed:
        return f"these cases are written already, and are never changed: {', '.join(sorted(changed))}"
    if not any(name.startswith("library-compact-") for name in there):
        cases |= by_library()
    for name in sorted(cases.keys() - there):
        with open(CASES / f"{name}.json", "xb") as file:
            file.write(render(cases[name]))
        print(f"written: {name}")
    sums = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  cases/{p.name}" for p in sorted(CASES.glob("*.json"))
    ]
    SUMS.write_text("\n".join(sums) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
