"""The cases of compact messages whose form is right: what they hold, and what they are bound to."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.vectors.casebook import (
    ANOTHER,
    APP,
    BOTH,
    DATA_KEY,
    FOREIGN,
    MALFORMED,
    MOST,
    OFF,
    OTHER,
    TEXT,
    THREE,
    UNAUTHENTIC,
    B,
    H,
    body,
    commitment,
    compact,
    dek_entry,
    fields,
    flip,
    mended,
    small,
    start,
    stuff,
    wrap,
)
from tests.vectors.reader import INLINE_COMPACT, bound, canonical, derive_compact, derive_xaes
from tests.vectors.writer import entry, head, listing, seal, seal_compact


def shown(length, recipients, context=None):
    """What a parsed header of kind 3 says."""
    return fields("inline", length, recipients, body="compact", commitment=commitment(context).hex())


def plaintexts(c):
    """Lengths and contents."""

    def ok(name, what, plaintext, **more):
        c.ok(f"compact-{name}", what, compact(plaintext), plaintext=plaintext, **more)

    one = [(APP, "2", 104)]
    ok("text", "text of several scripts", TEXT, header=shown(B, one))
    ok("empty-plaintext", "no plaintext: the body has 40 bytes", b"", header=shown(B, one))
    ok("one-byte", "one byte of plaintext", b"\0")
    ok("every-byte-value", "the 256 byte values", bytes(range(256)))
    ok("not-text", "a plaintext that is not UTF-8", b"\xff\xfe\x80")
    ok("plaintext-is-a-message", "a message inside a message", compact())
    ok("plaintext-of-31-bytes", "with 71 bytes of body, one less than a chunked one has", bytes(31))
    for length in (16384, MOST - 1, MOST):
        ok(f"{length}-bytes", f"{length} bytes of plaintext", stuff("compact", length))
    ok("zeros", "the longest, all zeros", bytes(MOST))
    for length in (MOST + 1, 2 * MOST):
        message = compact(stuff("compact", length))
        c.add(f"compact-{length}-bytes", "a body that is too long, right by all else", message, MALFORMED)
    longer = compact(bytes(MOST)) + b"\0"
    c.add("compact-longest-and-a-byte", "a byte after the longest body", longer, MALFORMED)
    what = "malformed is found before a key is looked for"
    c.add("compact-too-long-for-another-key", what, longer, MALFORMED, keys=["other"])
    c.ok(
        "compact-wrapped-by-an-older-version",
        "the key has version 2, and version 1 wrapped this",
        compact(entries=[dek_entry(version="1")]),
        header=shown(B, [(APP, "1", 104)]),
    )
    made = {"context": {"tenant": "acme"}, "aad": b"users/42/phone"}
    key, nonce = bytes(range(32)), bytes(range(0x64, 0x64 + 24))
    entries = [dek_entry(made["context"], dek=key, salt="worked example")]
    c.ok(
        "worked-example-compact",
        "the compact message that docs/reference/format.md takes apart",
        start(made["context"], entries=entries, dek=key) + small(b"+1 555 0100", **made, dek=key, n=nonce),
        plaintext=b"+1 555 0100",
        **made,
    )


def recipients(c):
    """Several recipients, whoever they are."""
    mine, second = dek_entry(), dek_entry(key_id=OTHER, version="1")
    damaged = entry(APP, "2", flip(wrap(DATA_KEY, {"kmsbridge": "dek"}), -1))
    junk = [entry(f"vault:transit/{n}", "1", b"w") for n in range(16)]
    filling = [entry(f"x:{n}", "", stuff("filling", 16384)) for n in range(3)]
    rest = 65535 - len(start(entries=[mine, *filling, entry("x:3", "", b"")]))
    for name, what, entries, keys in (
        ("two-recipients-ours-first", "another provider's key stands second", [mine, FOREIGN], ["app"]),
        ("two-recipients-ours-second", "another provider's key stands first", [FOREIGN, mine], ["app"]),
        ("two-recipients-first-used", "either key opens it: here the first", [mine, second], ["app"]),
        ("two-recipients-second-used", "either key opens it: here the second", [mine, second], ["other"]),
        ("sixteen-recipients-ours-first", "as many as there may be", [mine, *junk[1:]], ["app"]),
        ("sixteen-recipients-ours-last", "as many as there may be", [*junk[1:], mine], ["app"]),
        ("first-damaged", "a key that fails is no reason not to try the next", [damaged, second], BOTH),
        (
            "first-disabled",
            "nor is one that is disabled",
            [entry(OFF, "1", b"x" * 104), mine],
            ("off", "app"),
        ),
        ("first-version-unknown", "nor a version that is not there", [entry(APP, "3", b"x"), second], BOTH),
        ("first-too-short", "nor a wrapped key of one byte", [entry(APP, "2", b"x"), second], BOTH),
        ("label-empty", "another's label is empty", [entry("x:k", "", b"w"), mine], ["app"]),
        ("label-of-255-bytes", "another's label is long", [entry("x:k", "v" * 255, b"w"), mine], ["app"]),
        ("label-not-ascii", "another's label is UTF-8", [entry("x:k", "версия", b"w"), mine], ["app"]),
        ("label-changed", "another's label is changed", [FOREIGN.replace(b"7", b"8"), mine], ["app"]),
        ("key-id-of-1024-bytes", "the longest key id", [entry("x:" + "k" * 1022, "1", b"w"), mine], ["app"]),
        ("key-id-with-a-newline", "a stranger's text", [entry("x:\n\0\x1b[31m", "1", b"w"), mine], ["app"]),
        (
            "header-of-65535-bytes",
            "the longest header",
            [mine, *filling, entry("x:3", "", stuff("rest", rest))],
            ["app"],
        ),
    ):
        c.ok(f"compact-{name}", what, compact(entries=entries), keys=keys)
    for name, what, entries, count in (
        ("recipients-none", "no recipient", [], None),
        ("recipients-none-but-one-follows", "the count says 0, and one follows", [mine], 0),
        ("recipients-17", "one too many", [*junk, mine], None),
        ("recipients-two-claimed", "the commitment is no recipient", [mine], 2),
        ("recipients-one-claimed", "the second is not the commitment", [mine, second], 1),
        ("recipients-same-key-id", "one key id twice", [mine, mine], None),
        ("key-id-not-utf-8", "Latin-1", [entry(b"x:\xe9", "1", b"w"), mine], None),
        ("key-version-not-utf-8", "Latin-1", [entry("x:k", b"\xff", b"w"), mine], None),
        ("key-id-without-name", "a scheme and no name", [entry("local:", "1", b"w"), mine], None),
        ("wrapped-key-empty", "an empty wrapped key", [entry("x:k", "1", b""), mine], None),
        ("wrapped-key-of-16385-bytes", "one byte too many", [entry("x:k", "1", bytes(16385)), mine], None),
    ):
        content = listing(*entries, count=count) + commitment()
        c.add(f"compact-{name}", what, head(INLINE_COMPACT, content) + small(), MALFORMED)


def data_keys(c):
    """Recipients that hold other data keys than the body's, or none."""
    what = "the second recipient has the data key that fits"
    for order, keys in (("", BOTH), ("-asked-first", ("other", "app"))):
        c.ok(f"compact-second-data-key-fits{order}", what, compact(entries=mended(ANOTHER)), keys=keys)
    c.add(
        "compact-commitment-to-the-first-body-of-the-second",
        "the commitment fits one recipient's data key, the body the other's",
        start(entries=mended(ANOTHER), t=commitment(dek=ANOTHER)) + small(),
        UNAUTHENTIC,
        keys=BOTH,
    )
    neither = [dek_entry(dek=ANOTHER), dek_entry(key_id=OTHER, version="1", dek=stuff("third", 32))]
    what = "neither recipient has the data key"
    c.add("compact-no-data-key-fits", what, compact(entries=neither), UNAUTHENTIC, keys=BOTH)
    for length in (0, 16, 31, 33, 64):
        dek = stuff("short", length)
        what = "a data key is 32 bytes, whoever wrapped it"
        alone = compact(entries=[dek_entry(dek=dek)])
        c.add(f"compact-data-key-of-{length}-bytes", what, alone, UNAUTHENTIC)
        what = "after a data key of a wrong length, the next recipient is tried"
        c.ok(f"compact-data-key-of-{length}-bytes-first", what, compact(entries=mended(dek)), keys=BOTH)
    padded = stuff("zero at the end", 31) + b"\0"
    what = "the data key ends with a zero byte"
    c.ok("compact-data-key-with-a-zero-at-its-end", what, start(dek=padded) + small(dek=padded))
    for length, dek in ((31, padded[:31]), (33, padded + b"\0"), (64, padded + bytes(32))):
        assert derive_compact(dek, {}) == derive_compact(padded, {})
        message = start(entries=[dek_entry(dek=dek)], t=commitment(dek=padded)) + small(dek=padded)
        what = "HMAC takes this for the data key of 32 bytes that ends with zero"
        c.add(f"compact-data-key-of-{length}-bytes-for-hmac-alike", what, message, UNAUTHENTIC)


def contexts(c):
    """Contexts that are right, wrong and refused."""
    for name, what, pairs in (
        ("one-pair", "one pair", {"tenant": "acme"}),
        ("reverse-order", "the pairs given in another order", dict(reversed(THREE.items()))),
        ("empty", "an empty context is no context", {}),
        ("not-ascii", "several scripts", {"клиент": "Łódź", "目的": "請求書", "🦊": "🐶"}),
        ("sorted-by-utf-8", "UTF-16 sorts these otherwise", {"\U0001f98a": "1", "\ufffd": "2"}),
        ("names-that-begin-alike", "a shorter name sorts first", {"aa": "1", "a": "2", "a\0": "3"}),
        ("of-64-pairs", "as many pairs as there may be", {f"name {n}": f"value {n}" for n in range(64)}),
        ("of-4096-bytes", "the longest canonical form", {"a": "v" * (4096 - 2 - 4 - 1)}),
    ):
        c.ok(f"compact-context-{name}", what, compact(context=pairs), context=pairs)
    made = {"a": "1", "b": "2"}
    for name, what, pairs in (
        ("missing", "no context at all", None),
        ("pair-missing", "one pair is missing", {"a": "1"}),
        ("pair-extra", "one pair too many", {**made, "c": "3"}),
        ("value-changed", "another value", {"a": "1", "b": "3"}),
        ("name-changed", "another name", {"a": "1", "c": "2"}),
        ("values-swapped", "the values swapped", {"a": "2", "b": "1"}),
        ("split-pair", "one pair of the same signs", {"a": "1b2"}),
        ("name-case", "a name in upper case", {"A": "1", "b": "2"}),
    ):
        c.add(f"compact-wrong-context-{name}", what, compact(context=made), UNAUTHENTIC, context=pairs)
    one, two = {"a": "1"}, {"a": "2"}
    for name, what, message in (
        ("for-the-key", "the data key is wrapped in another context", start(two, t=commitment(one)) + small(context=one)),
        ("for-the-body", "the body is in another context", start(one) + small(context=two)),
        ("for-the-commitment", "the commitment is of another context", start(one, t=commitment(two)) + small(context=one)),
        ("for-commitment-and-body", "the key alone is in this context", start(one, t=commitment(two)) + small(context=two)),
    ):  # fmt: skip
        c.add(f"compact-wrong-context-{name}", what, message, UNAUTHENTIC, context=one)
    many = {f"n{n}": "v" for n in range(65)}
    for name, what, outcome, pairs in (
        ("of-65-pairs", "one pair too many", "limit-exceeded", many),
        ("of-4097-bytes", "one byte too many", "limit-exceeded", {"a": "v" * (4096 - 2 - 4)}),
        ("value-of-65536-bytes", "16 bits do not hold the length", "limit-exceeded", {"a": "v" * 65536}),
        ("empty-value", "an empty value", "invalid-context", {"a": ""}),
        ("reserved-name", "the library's own name", "invalid-context", {"kmsbridge": "dek"}),
        ("surrogate", "half of a surrogate pair is no UTF-8", "invalid-context", {"a": "\ud83e"}),
        ("surrogate-in-a-name", "nor in a name", "invalid-context", {"\udd8a": "a"}),
        ("of-65-pairs-one-reserved", "counted before looked at", "limit-exceeded", many | {"kmsbridge": "v"}),
        (
            "too-long-and-reserved",
            "looked at before measured",
            "invalid-context",
            {"a": "v" * 5000, "kmsbridge-x": "1"},
        ),
    ):
        c.add(f"compact-refused-context-{name}", what, compact(), outcome, context=pairs)
    what = "the context is checked before a key is looked for"
    c.add(
        "compact-refused-context-for-another-key",
        what,
        compact(),
        "limit-exceeded",
        context=many,
        keys=["other"],
    )


def aads(c):
    """Associated data."""
    made = b"users/42/phone"
    parts = bytes.fromhex("0003 00000005 7573657273 00000002 3432 00000005 70686f6e65")
    for name, what, aad in (
        ("some-bytes", "associated data", made),
        ("one-zero-byte", "one zero byte is not nothing", b"\0"),
        ("of-4096-bytes", "long associated data", stuff("aad", 4096)),
        ("of-parts", 'the parts ("users", 42, "phone")', parts),
    ):
        c.ok(f"compact-aad-{name}", what, compact(aad=aad), aad=aad)
    c.ok("compact-aad-and-context", "both", compact(TEXT, THREE, made), context=THREE, aad=made)
    unit, mib = stuff("aad", 1024), 1 << 20
    c.ok("compact-aad-of-1-mib", "the longest", compact(aad=unit * 1024), aad=unit, aad_repeat=1024)
    longer = compact(aad=b"a" * (mib + 1))
    what = "made with what is given, and one byte too long"
    c.add("compact-refused-aad", what, longer, "limit-exceeded", aad=b"a", aad_repeat=mib + 1)
    for name, what, message, aad in (
        ("missing", "none is given", compact(aad=made), b""),
        ("changed", "another row", compact(aad=made), b"users/43/phone"),
        ("shorter", "the last byte is missing", compact(aad=made), made[:-1]),
        ("longer", "a zero byte after it", compact(aad=made), made + b"\0"),
        ("one-given", "made without", compact(), b"\0"),
        ("holds-the-context", "C stands in the additional data", compact(aad=canonical({})), b""),
        ("parts-joined", "the parts without their lengths", compact(aad=parts), b"users42phone"),
    ):
        c.add(f"compact-wrong-aad-{name}", what, message, UNAUTHENTIC, aad=aad)


def damaged(c):
    """Bytes that are changed, the form being right."""
    good = compact()
    for name, at in (
        ("wrapped-salt", H - 104),
        ("wrapped-commitment", H - 70),
        ("wrapped-ciphertext", H - 40),
        ("wrapped-tag", H - 1),
        ("commitment-first-byte", H),
        ("commitment-in-the-middle", H + 16),
        ("commitment-last-byte", B - 1),
        ("nonce-first-byte", B),
        ("nonce-end-of-prefix", B + 11),
        ("nonce-after-prefix", B + 12),
        ("nonce-last-byte", B + 23),
        ("ciphertext-first-byte", B + 24),
        ("ciphertext-last-byte", -17),
        ("tag-first-byte", -16),
        ("tag-last-byte", -1),
    ):
        c.add(f"compact-damaged-{name}", "one bit changed", flip(good, at), UNAUTHENTIC)
    key, t = derive_compact(DATA_KEY, {})
    n = stuff("compact nonce", 24)
    aes = AESGCM(derive_xaes(key, n[:12])).encrypt
    for name, what, message in (
        ("empty-body", "a bit of the tag of no plaintext", flip(compact(b""), -1)),
        ("commitment-of-zeros", "no commitment", start(t=bytes(32)) + small()),
        ("commitment-of-another-data-key", "a commitment to another", start(t=commitment(dek=ANOTHER)) + small()),
        ("commitment-halves-swapped", "its halves swapped", start(t=t[16:] + t[:16]) + small()),
        ("commitment-is-the-key", "K stands for T, and T for K", start(t=key) + seal_compact(t, TEXT, b"", n)),
        ("body-of-zeros", "40 zero bytes for a body", start() + bytes(40)),
        ("nonce-of-zeros", "the nonce is set to zeros", start() + bytes(24) + good[B + 24 :]),
        ("nonce-halves-swapped", "the nonce's halves swapped", start() + n[12:] + n[:12] + good[B + 24 :]),
        ("key-not-derived", "XAES-256-GCM under the data key itself", start() + seal_compact(DATA_KEY, TEXT, b"", n)),
        ("key-not-extended", "AES-256-GCM under K itself", start() + n + AESGCM(key).encrypt(n[12:], TEXT, b"")),
        ("nonce-of-24-bytes", "AES-256-GCM under X with all of N", start() + n + aes(n, TEXT, b"")),
        ("aad-of-the-chunked-body", "C and aad as in a chunked body", start() + n + aes(n[12:], TEXT, bound({}, b""))),
        ("header-in-the-aad", "the header is not bound", start() + n + aes(n[12:], TEXT, start())),
        ("chunked-body", "a chunked body after the header", start() + body(TEXT)),
        ("chunked-body-under-the-key", "a chunked body under K", start() + seal(key, bound({}, b""), TEXT, n)),
    ):  # fmt: skip
        c.add(f"compact-{name}", what, message, UNAUTHENTIC)
    for name, pairs in (("stored", {"kmsbridge": "stored"}), ("direct", {"kmsbridge": "direct"}), ("no", {})):
        wrapped = compact(entries=[entry(APP, "2", wrap(DATA_KEY, pairs))])
        c.add(f"compact-wrapped-with-{name}-pair", "wrapped for another use", wrapped, UNAUTHENTIC)


GROUPS = (plaintexts, recipients, data_keys, contexts, aads, damaged)
