"""The cases of compact messages and of what their keys can do."""

from __future__ import annotations

import base64

from tests.vectors.casebook import (
    ANOTHER,
    APP,
    BOTH,
    DATA_KEY,
    FOREIGN,
    KEY_FILE,
    NO_KEY,
    OFF,
    UNAUTHENTIC,
    compact,
    dek_entry,
    direct,
    inline,
    mended,
    stuff,
    wrap,
)
from tests.vectors.reader import passphrase_key
from tests.vectors.writer import entry, seal


def no_key(c):
    """Messages for others, and keys that cannot be used."""
    wrapped = wrap(DATA_KEY, {"kmsbridge": "dek"})
    off, unknown, wrong = entry(OFF, "1", b"w" * 104), entry(APP, "3", wrapped), dek_entry(dek=ANOTHER)
    missing = "key-version-not-found"
    for name, what, entries, outcome, keys in (
        ("no-matching-key", "for another key", [dek_entry()], NO_KEY, ["other"]),
        ("no-matching-key-of-that-provider", "for another provider", [FOREIGN], NO_KEY, ["app"]),
        ("key-version-unknown", "a version that is not there", [unknown], missing, ["app"]),
        ("key-version-wrong", "another version's label", [entry(APP, "1", wrapped)], UNAUTHENTIC, ["app"]),
        ("key-disabled", "the key is disabled", [dek_entry(key_id=OFF, version="1")], "key-disabled", ["off"]),
        ("key-disabled-version-unknown", "the state comes first", [entry(OFF, "9", wrapped)], "key-disabled", ["off"]),
        ("wrong-key-and-disabled", "a refusal is told, not a wrong data key", [wrong, off], "key-disabled", ["app", "off"]),
        ("disabled-and-wrong-key", "in either order", [wrong, off], "key-disabled", ["off", "app"]),
        ("unknown-and-disabled", "of two refusals the first key's", [off, unknown], missing, ["app", "off"]),
        ("disabled-and-unknown", "in the order of the reader's keys", [unknown, off], "key-disabled", ["off", "app"]),
    ):  # fmt: skip
        c.add(f"compact-{name}", what, compact(entries=entries), outcome, keys=keys)


def protected_file(cost, passphrase):
    """The key file of most cases, protected by a passphrase."""
    protection = {"kdf": "argon2id", "salt": base64.b64encode(stuff("salt", 16)).decode(), **cost}
    key = passphrase_key(passphrase, protection)

    def sealed(place, plaintext):
        return base64.b64encode(seal(key, place.encode(), plaintext, stuff(place, 24))).decode()

    protection["check"] = sealed("kmsbridge-local/v1 check", b"")
    keys = {}
    for name, each in KEY_FILE["keys"].items():
        versions = {}
        for version, stored_version in each["versions"].items():
            place = f"kmsbridge-local/v1 material\0{name}\0{each['id']}\0{version}"
            material = base64.b64decode(stored_version["material"])
            versions[version] = {**stored_version, "material": sealed(place, material)}
        keys[name] = {**each, "versions": versions}
    return {"format": 1, "protection": protection, "keys": keys}


def passphrases(c):
    """Key files that a passphrase protects."""
    cheap = {"iterations": 1, "memory_kib": 8, "lanes": 1}
    words = "correct horse 🐎 Łódź"
    file = protected_file(cheap, words)
    message = compact()
    for name, what, entries, passphrase, outcome, keys in (
        ("wrong-passphrase", "another passphrase", None, "guess", "wrong-passphrase", ["app"]),
        ("newline", "a newline at the end counts", None, words + "\n", "wrong-passphrase", ["app"]),
        ("wrong-passphrase-disabled", "the state comes first", [dek_entry(key_id=OFF, version="1")], "guess", "key-disabled", ["off"]),
        ("wrong-passphrase-version-unknown", "then the version", [entry(APP, "3", b"w")], "guess", "key-version-not-found", ["app"]),
        ("wrong-passphrase-too-short", "then the passphrase", [entry(APP, "2", b"w")], "guess", "wrong-passphrase", ["app"]),
        ("too-short", "then the wrapped key", [entry(APP, "2", b"w")], words, UNAUTHENTIC, ["app"]),
    ):  # fmt: skip
        given = message if entries is None else compact(entries=entries)
        c.add(f"protected-{name}", what, given, outcome, file=file, passphrase=passphrase, keys=keys)
    known = {"file": file, "passphrase": words}
    c.ok("protected-compact", "the key file has a passphrase", message, **known)
    c.ok("protected-chunked", "a chunked body", inline(), **known)
    c.ok("protected-direct", "a direct message", direct(), **known)
    c.ok(
        "protected-older-version",
        "each version is in its place",
        compact(entries=[dek_entry(version="1")]),
        **known,
    )
    c.ok("protected-second-key", "and each key", compact(entries=mended(ANOTHER)), **known, keys=BOTH)
    c.add("protected-wrong-context", "a wrong context", message, UNAUTHENTIC, **known, context={"a": "1"})
    dear = {"iterations": 3, "memory_kib": 256, "lanes": 4}
    what = "Argon2id with several iterations and lanes"
    c.ok("protected-by-several-lanes", what, message, file=protected_file(dear, "x"), passphrase="x")


GROUPS = (no_key, passphrases)
