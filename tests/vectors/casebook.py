"""What the vectors are made with: keys and bytes that depend on names alone, and a case's form."""

from __future__ import annotations

import base64
import hashlib

from tests.vectors import reader, writer
from tests.vectors.reader import DIRECT, INLINE, INLINE_COMPACT, STORED_COMPACT, bound, derive_compact
from tests.vectors.writer import entry, head, listing, seal, seal_compact

H = 145
"""The length of the header that most chunked cases have."""
B = H + 32
"""The offset of the body in most compact cases: a commitment is added."""
APP, OTHER, OFF = "local:app@0123456789abcdef", "local:other@fedcba9876543210", "local:off@00112233445566ff"
MALFORMED, UNSUPPORTED = "malformed-message", "unsupported-message"
UNAUTHENTIC, NO_KEY = "authentication-error", "no-matching-key"
TEXT = "þe quick brown fox, a lazy δog, 犬 and 🦊".encode()
ARMOR = "kmsb1_"
MOST = 65536
"""The length of the longest payload of a compact body."""
THREE = {"tenant": "acme", "purpose": "invoice", "region": "eu"}


def stuff(name, length):
    """`length` bytes that look random and depend on `name` alone."""
    return hashlib.shake_256(b"kmsbridge vectors " + name.encode()).digest(length)


def key_file():
    """The key file of every deterministic case."""

    def key(key_id, versions, state="enabled"):
        name, _, hexes = key_id.removeprefix("local:").partition("@")
        time = "2025-01-31T23:59:59Z"
        material = {v: base64.b64encode(stuff(f"{name} {v}", 32)).decode() for v in versions}
        table = {v: {"created": time, "material": each} for v, each in material.items()}
        return name, {
            "id": hexes,
            "created": time,
            "state": state,
            "current": versions[-1],
            "versions": table,
        }

    keys = dict([key(APP, ["1", "2"]), key(OTHER, ["1"]), key(OFF, ["1"], "disabled")])
    return {"format": 1, "keys": keys}


KEY_FILE = key_file()
DATA_KEY, ANOTHER = stuff("data key", 32), stuff("another data key", 32)


def wrap(payload, pairs, key_id=APP, version="2", salt="wrap", file=None, passphrase=None):
    """What the local key `key_id` makes of `payload`."""
    salt = stuff(f"{salt} {key_id}", 24)
    return writer.wrap(file or KEY_FILE, key_id, version, payload, pairs, salt, passphrase)


def dek_entry(context=None, key_id=APP, version="2", dek=None, salt="wrap"):
    """A recipient with a data key."""
    payload = DATA_KEY if dek is None else dek
    return entry(
        key_id, version, wrap(payload, {**(context or {}), "kmsbridge": "dek"}, key_id, version, salt)
    )


def body(plaintext, context=None, aad=b"", dek=None, salt="body"):
    """A chunked body under the data key."""
    return seal(DATA_KEY if dek is None else dek, bound(context or {}, aad), plaintext, stuff(salt, 24))


def inline(plaintext=TEXT, context=None, aad=b"", *, entries=None, count=None, **header):
    """A message of kind 0."""
    if entries is None:
        entries = [dek_entry(context)]
    return head(INLINE, listing(*entries, count=count), **header) + body(plaintext, context, aad)


def direct_pairs(context=None, aad=b""):
    """What binds a direct payload."""
    return {**(context or {}), **reader.direct_pairs(aad)}


def direct(payload=TEXT, context=None, aad=b"", *, entries=None, **header):
    """A message of kind 2."""
    if entries is None:
        entries = [entry(APP, "2", wrap(payload, direct_pairs(context, aad)))]
    return head(DIRECT, listing(*entries), **header)


def commitment(context=None, dek=DATA_KEY):
    """T: the commitment to the data key and the context."""
    return derive_compact(dek, context or {})[1]


def small(plaintext=TEXT, context=None, aad=b"", dek=DATA_KEY, n="compact nonce"):
    """A compact body; `n` names its nonce, or is it."""
    n = stuff(n, 24) if isinstance(n, str) else n
    return seal_compact(derive_compact(dek, context or {})[0], plaintext, aad, n)


def start(context=None, *, entries=None, t=None, dek=DATA_KEY, **lies):
    """The header of a message of kind 3; `t` is its commitment."""
    entries = [dek_entry(context, dek=dek)] if entries is None else entries
    return head(INLINE_COMPACT, listing(*entries) + (commitment(context, dek) if t is None else t), **lies)


def compact(plaintext=TEXT, context=None, aad=b"", *, entries=None, **more):
    """A message of kind 3."""
    return start(context, entries=entries) + small(plaintext, context, aad, **more)


def stored_compact(plaintext=TEXT, context=None, aad=b"", *, name=None, **lies):
    """A message of kind 4."""
    name = commitment(context) if name is None else name
    return head(STORED_COMPACT, name, **lies) + small(plaintext, context, aad)


def mended(dek):
    """An entry of our second key with the data key of most cases, after one of our first with `dek`."""
    return [dek_entry(dek=dek, salt="junk"), dek_entry(key_id=OTHER, version="1")]


BOTH = ("app", "other")
FOREIGN = entry("vault:transit/app", "7", b"v" * 40)


def flip(message, at, bit=0):
    """One bit changed; `at` may count from the end."""
    changed = bytearray(message)
    changed[at] ^= 1 << bit
    return bytes(changed)


class Cases(dict):
    """Cases by name."""

    def add(
        self,
        name,
        description,
        message,
        outcome="success",
        *,
        plaintext=TEXT,
        context=None,
        aad=b"",
        keys=("app",),
        aad_repeat=None,
        header=None,
        file=None,
        passphrase=None,
        store=None,
        with_store=None,
        environment=None,
    ):
        """`message` is text where the armored form is what matters; aad is `aad`, `aad_repeat` times over.

        `store` is what a key store has, data keys by id, and `with_store` the outcome of a reader that has it.
        """
        assert name not in self, name
        case = {"description": description, "made_by": "make.py"}
        if isinstance(message, str):
            case["armored"] = message
        elif len(message) <= 4096:
            case["message_hex"] = message.hex()
        else:
            case["message_base64"] = base64.b64encode(message).decode()
        case |= {"context": context, "aad_hex": aad.hex()}
        if aad_repeat is not None:
            case["aad_repeat"] = aad_repeat
        case |= {"decrypt_with": list(keys), "outcome": outcome}
        if store is not None:
            case["store"] = {name.hex(): data_key.hex() for name, data_key in store.items()}
            case["outcome_with_store"] = with_store
        succeeds = "success" in (outcome, with_store)
        if succeeds and len(plaintext) <= 4096:
            case["plaintext_hex"] = plaintext.hex()
        elif succeeds:
            case["plaintext_length"] = len(plaintext)
            case["plaintext_sha256"] = hashlib.sha256(plaintext).hexdigest()
        if header is not None:
            case["header"] = header
        if environment is not None:
            case["environment"] = environment
        case["key_file"] = file or KEY_FILE
        if passphrase is not None:
            case["passphrase"] = passphrase
            derived = reader.passphrase_key(passphrase, case["key_file"]["protection"])
            case["passphrase_key_hex"] = derived.hex()
        self[name] = case

    def ok(self, name, description, message=None, **more):
        """A success; without `message`, the plain inline message of these arguments."""
        if message is None:
            message = inline(more.get("plaintext", TEXT), more.get("context"), more.get("aad", b""))
        self.add(name, description, message, **more)


def fields(kind, length, recipients=(), padding=0, data_key_id="", body="chunked", commitment=""):
    """What a parsed header says; of its body too, where that is compact."""
    compact = {"body": "compact", "commitment_hex": commitment} if body == "compact" else {}
    return {
        "kind": kind,
        "length": length,
        "padding": padding,
        "recipients": [
            {"key_id": key_id, "key_version": version, "wrapped_length": wrapped}
            for key_id, version, wrapped in recipients
        ],
        "data_key_id_hex": data_key_id,
        **compact,
    }
