"""The cases of messages with a compact body whose form is wrong, of another kind, or armored."""

from __future__ import annotations

from tests.vectors.casebook import (
    ANOTHER,
    APP,
    DATA_KEY,
    MALFORMED,
    MOST,
    TEXT,
    UNAUTHENTIC,
    UNSUPPORTED,
    B,
    H,
    body,
    commitment,
    compact,
    dek_entry,
    direct,
    fields,
    flip,
    inline,
    small,
    start,
    stored_compact,
    stuff,
)
from tests.vectors.reader import INLINE, INLINE_COMPACT, STORED, STORED_COMPACT
from tests.vectors.writer import armored, head, listing


def lengths(c):
    """Headers and bodies of wrong lengths."""
    good, id_end = compact(), 11 + len(APP)
    for length in (0, 1, 12, 23, 24, 39):
        c.add(f"compact-body-of-{length}-bytes", "too few for a body", good[: B + length], MALFORMED)
    for name, what, message in (
        ("body-of-40-bytes", "cut to the length of an empty body", good[: B + 40]),
        ("last-byte-missing", "the tag is cut", good[:-1]),
        ("one-byte-more", "a byte after the message", good + b"\0"),
        ("body-twice", "the body twice", good + good[B:]),
        ("twice", "the message twice", good + good),
        ("tag-of-12-bytes", "AES-GCM knows shorter tags, this format does not", good[:-4]),
    ):
        c.add(f"compact-{name}", what, message, UNAUTHENTIC)
    for name, what, padding in (
        ("one-byte-of-padding", "a zero byte before the body", bytes(1)),
        ("padded-as-a-file", "H is a multiple of 512", bytes(1024 - B)),
        ("padding-not-zero", "a byte before the body", b"\1"),
        ("commitment-twice", "64 bytes of commitment", commitment()),
    ):
        c.add(f"compact-{name}", what, start(padding=padding) + small(), MALFORMED)
    for length in (0, 16, 31, 33):
        t = (commitment() + b"\0")[:length]
        c.add(f"compact-commitment-of-{length}-bytes", "not 32 bytes", start(t=t) + small(), MALFORMED)
    c.add("compact-commitment-first", "it stands before the recipients",
          head(INLINE_COMPACT, commitment() + listing(dek_entry())) + small(), MALFORMED)  # fmt: skip
    for name, what, length in (
        ("one-too-small", "the commitment's last byte would be the body's", B - 1),
        ("one-too-large", "the body's first byte would be padding", B + 1),
        ("of-the-whole-message", "no body would be left", len(good)),
        ("one-beyond-the-end", "more than there is", len(good) + 1),
        ("8", "the fixed part alone", 8),
    ):
        lie = head(INLINE_COMPACT, good[8:B], length=length) + good[B:]
        c.add(f"compact-header-length-{name}", what, lie, MALFORMED)
    for name, at in (
        ("after-h", 8),
        ("after-count", 9),
        ("inside-key-id-length", 10),
        ("inside-key-id", 20),
        ("before-key-version-length", id_end),
        ("before-key-version", id_end + 1),
        ("inside-wrapped-key-length", id_end + 3),
        ("inside-wrapped-key", H - 1),
        ("before-commitment", H),
        ("inside-commitment", B - 1),
    ):
        c.add(f"compact-cut-{name}", "the message ends too early", good[:at], MALFORMED)
        ends = head(INLINE_COMPACT, good[8:at]) + small()
        c.add(f"compact-header-ends-{name}", "H is cut, and a whole body follows", ends, MALFORMED)


def kinds(c):
    """Kind bytes that are changed, and what is put together from two kinds."""
    good, chunked, named = compact(), inline(), stored_compact()

    def turned(message, kind):
        return message[:5] + bytes((kind,)) + message[6:]

    for name, message, kind, outcome in (
        ("chunked-to-compact", chunked, INLINE_COMPACT, MALFORMED),
        ("compact-to-chunked", good, INLINE, MALFORMED),
        ("compact-to-stored", good, STORED, MALFORMED),
        ("compact-to-direct", good, 2, MALFORMED),
        ("compact-to-stored-compact", good, STORED_COMPACT, MALFORMED),
        ("compact-to-unknown", good, 5, UNSUPPORTED),
        ("direct-to-compact", direct(), INLINE_COMPACT, MALFORMED),
        ("stored-compact-to-compact", named, INLINE_COMPACT, MALFORMED),
        ("stored-compact-to-stored", named, STORED, UNSUPPORTED),
        ("stored-compact-to-stored-short", stored_compact(b""), STORED, MALFORMED),
        ("stored-to-stored-compact", head(STORED, commitment()) + body(TEXT), STORED_COMPACT, UNSUPPORTED),
        ("padded-to-compact", inline(padding=bytes(32)), INLINE_COMPACT, UNAUTHENTIC),
        ("padded-to-compact-33", inline(padding=bytes(33)), INLINE_COMPACT, MALFORMED),
    ):
        c.add(f"kind-{name}", "another kind byte", turned(message, kind), outcome)
    for name, what, message, outcome in (
        ("compact-body-after-a-chunked-header", "a header of kind 0", chunked[:H] + small(), UNAUTHENTIC),
        ("short-compact-body-after-a-chunked-header", "71 bytes", chunked[:H] + small(bytes(31)), MALFORMED),
        ("compact-header-and-body-of-another-data-key", "header A, body B", start() + small(dek=ANOTHER), UNAUTHENTIC),
        ("compact-other-way-round", "header B, body A", start(dek=ANOTHER) + small(), UNAUTHENTIC),
        ("compact-commitment-and-body", "all but the recipients of B", start(t=commitment(dek=ANOTHER)) + small(dek=ANOTHER), UNAUTHENTIC),
        ("compact-nonce", "the nonce of another message", start() + stuff("other", 24) + good[B + 24 :], UNAUTHENTIC),
        ("compact-end-of-nonce", "its last half", start() + good[B : B + 12] + stuff("other", 12) + good[B + 24 :], UNAUTHENTIC),
        ("compact-tag", "the tag of another message", good[:-16] + compact(n="other")[-16:], UNAUTHENTIC),
    ):  # fmt: skip
        c.add(f"splice-{name}", what, message, outcome)
    what = "one data key serves many messages: this is message B"
    c.ok("splice-compact-body-of-the-same-data-key", what, start() + small(b"B", n="other"), plaintext=b"B")
    same = stuff("compact nonce", 12) + stuff("other", 12)
    what = "messages of one writer begin their nonces alike"
    c.ok("compact-nonce-with-the-same-prefix", what, compact(n=same))
    c.ok("compact-nonce-of-ones", "any nonce is one", compact(n=b"\xff" * 24))
    for version, outcome in ((0, MALFORMED), (2, UNSUPPORTED)):
        message = start(version=version) + small()
        c.add(f"compact-version-{version}", "another version", message, outcome)


def stored(c):
    """The data key is in a key store, under T."""
    made, store = {"tenant": "acme"}, {commitment({"tenant": "acme"}): DATA_KEY}
    right = {"context": made, "store": store}

    def add(name, what, message, with_store, **more):
        c.add(f"stored-{name}", what, message, UNSUPPORTED, with_store=with_store, **{**right, **more})

    good = stored_compact(TEXT, made)
    t = commitment(made)
    add(
        "compact",
        "the data key is in a key store",
        good,
        "success",
        header=fields("stored", 40, data_key_id=t.hex(), body="compact"),
    )
    add("compact-empty", "no plaintext", stored_compact(b"", made), "success", plaintext=b"")
    most = stuff("compact", MOST)
    add("compact-longest", "the longest", stored_compact(most, made), "success", plaintext=most)
    add("compact-aad", "associated data", stored_compact(TEXT, made, b"a"), "success", aad=b"a")
    add("compact-wrong-aad", "other associated data", good, UNAUTHENTIC, aad=b"a")
    add("compact-wrong-context", "the id is of another context", good, UNAUTHENTIC, context={"tenant": "b"})
    add("compact-damaged", "one bit of the tag", flip(good, -1), UNAUTHENTIC)
    what = "a store that was changed cannot make a message open"
    add("compact-other-data-key", what, good, UNAUTHENTIC, store={t: ANOTHER})
    add("compact-data-key-of-31-bytes", what, good, UNAUTHENTIC, store={t: DATA_KEY[:31]})
    id_of_other = stored_compact(TEXT, made, name=commitment(made, ANOTHER))
    what = "the body's data key stands under another's id"
    add(
        "compact-id-of-another-data-key",
        what,
        id_of_other,
        UNAUTHENTIC,
        store={commitment(made, ANOTHER): DATA_KEY},
    )
    add("compact-not-in-the-store", "the store has others", good, UNSUPPORTED, store={bytes(32): DATA_KEY})
    chunked = head(STORED, t, padding=bytes(8)) + body(TEXT, made)
    add("chunked-in-the-store", "the id of a chunked body is made the same way", chunked, "success")
    other = head(STORED, bytes(32)) + body(TEXT, made)
    what = "the id is not that of the data key, though the body would open"
    add("chunked-under-another-id", what, other, UNAUTHENTIC, store={bytes(32): DATA_KEY})
    add("chunked-wrong-context", "the id is of another context", chunked, UNAUTHENTIC, context=None)
    for name, what, message in (
        ("padded", "a zero byte before the body", stored_compact(padding=bytes(1))),
        ("no-id", "H leaves none", stored_compact(name=b"")),
        ("id-of-31-bytes", "a byte too few", stored_compact(name=bytes(31))),
        ("id-of-33-bytes", "a byte too many, though it is zero", stored_compact(name=bytes(33))),
        ("id-cut", "H leaves 31 bytes for the id", stored_compact(length=39)),
        ("no-body", "no body", stored_compact()[:40]),
        ("short-body", "a body of 39 bytes", stored_compact(b"")[:-1]),
        ("too-long", "a body of 65577 bytes", stored_compact(bytes(MOST + 1))),
    ):
        c.add(f"stored-compact-{name}", what, message, MALFORMED)
    c.add(
        "stored-compact-refused-context",
        "no context for anything",
        good,
        "invalid-context",
        context={"": "v"},
    )


def armors(c):
    """The armored form."""
    for rest, message in sorted({len(compact(b"a" * n)) % 3: compact(b"a" * n) for n in range(3)}.items()):
        plaintext = b"a" * (len(message) - B - 40)
        c.ok(
            f"armored-compact-{rest}-bytes-over", f"3n + {rest} bytes", armored(message), plaintext=plaintext
        )
    text = armored(compact())
    c.ok("armored-compact-white-space-around", "white space is ignored", f" \t\r\n\v\f{text}\f\v\n\r\t ")
    c.add("armored-compact-damaged", "a bit of the tag", armored(flip(compact(), -1)), UNAUTHENTIC)
    c.add("armored-compact-cut", "cut in the header", text[:200], MALFORMED)
    c.add("armored-compact-without-body", "no body", armored(start()), MALFORMED)
    c.add("armored-compact-wrong-aad", "nothing bound is changed", text, UNAUTHENTIC, aad=b"x")
    c.add("armored-stored-compact", "stored", armored(stored_compact()), UNSUPPORTED)


GROUPS = (lengths, kinds, stored, armors)
