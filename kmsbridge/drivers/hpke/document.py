"""The format of private files: parses and renders their content, without reading or writing files.

A private file is TOML in UTF-8, of at most 1 MiB, with exactly these members:

    format        1
    [[pairs]]     one table for each key pair, at least one, all of one key `NAME@ID`
        public_key     the public key, as one line of text
        seed           the private key's 32 bytes, as an armored direct message that a key service wrapped
        created        a date and time with its offset, as in 2026-01-31T23:59:59Z
        encrypt_from   the same: from then on this pair is the one to encrypt to, until that of a later pair
        decrypt_until  optional, the same: from then on this pair decrypts no more

What the key service wrapped is bound to the pairs `kmsbridge` = `hpke-private` and `kmsbridge-public-key` = the
SHA-256, in hex, of the suite and of the public key, and perhaps `kmsbridge-environment`. A member that is not named
here and any other type is refused.
"""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from kmsbridge.context import EMPTY
from kmsbridge.driver import EncryptionContext
from kmsbridge.drivers.hpke.publickey import PublicKey
from kmsbridge.errors import ConfigError, MessageError
from kmsbridge.message import Header, Kind, Recipient, armor, dearmor, inline
from kmsbridge.message import parse as parse_message

FORMAT: Final = 1
SEED: Final = "hpke-private"
"""The value of the reserved pair `kmsbridge` that a seed is bound to."""
MAX_BYTES: Final = 1 << 20

_REQUIRED: Final = {"public_key": str, "seed": str, "created": datetime, "encrypt_from": datetime}
_OPTIONAL: Final = {"decrypt_until": datetime}

_HEAD: Final = """\
# The private half of {name}: its seed, encrypted by the key service that `seed` names. Made by kmsbridge keygen.
# Keep it on the hosts that decrypt, and keep a backup: without this file, or without that key, what was encrypted to
# the public key is lost.

format = 1
"""


class Pair(NamedTuple):
    """One key pair. `seed` is the recipient of the direct message that holds the seed."""

    public_key: PublicKey
    seed: Recipient
    created: datetime
    encrypt_from: datetime
    decrypt_until: datetime | None = None

    def decrypts(self, now: datetime) -> bool:
        """Return whether the pair may still decrypt."""
        return self.decrypt_until is None or now < self.decrypt_until


class Document(NamedTuple):
    """The content of a private file. `pairs` are by version, in the order of the file."""

    pairs: dict[str, Pair]

    @property
    def name(self) -> str:
        """The key's `NAME@ID`."""
        return next(iter(self.pairs.values())).public_key.name

    def encrypting(self, now: datetime) -> Pair | None:
        """Return the pair to encrypt to: of those that have begun and still decrypt, the one that began last."""
        pairs = reversed(self.pairs.values())
        begun = [pair for pair in pairs if pair.encrypt_from <= now and pair.decrypts(now)]
        return max(begun, key=lambda pair: pair.encrypt_from, default=None)  # the first of equal ones


def seed_context(public_key: PublicKey) -> EncryptionContext:
    """Return the context that a pair's seed is bound to at the key service."""
    return EMPTY.with_reserved(kmsbridge=SEED, kmsbridge_public_key=public_key.hash)


def parse(data: bytes, path: str) -> Document:
    """Return the content of a private file. Raises `ConfigError`, which quotes nothing of it."""
    content: dict[str, Any] | None
    try:
        content = tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        content = None  # raised below: those exceptions hold the file's text
    if content is None:
        raise _damaged(path, "is not valid TOML")
    if content.keys() != {"format", "pairs"} or type(content["format"]) is not int:
        raise _damaged(path, "has not exactly the members format and pairs")
    if content["format"] != FORMAT:
        raise ConfigError(
            f"the private file {path} has the format {content['format']}",
            remedy="upgrade kmsbridge to read it",
        )
    tables = content["pairs"]
    if not isinstance(tables, list) or not tables:
        raise _damaged(path, "has no pairs")
    pairs = [_pair(table, path) for table in tables]
    if len({pair.public_key.name for pair in pairs}) > 1:
        raise _damaged(path, "has pairs of two keys")
    by_version = {pair.public_key.version: pair for pair in pairs}
    if len(by_version) != len(pairs):
        raise _damaged(path, "has one pair twice")
    return Document(by_version)


def render(document: Document) -> bytes:
    """Return the text of a private file."""
    parts = [_HEAD.format(name=f"hpke:{document.name}")]
    for pair in document.pairs.values():
        sealed = armor(inline((pair.seed,), kind=Kind.DIRECT).encode())
        lines = [
            "",
            "[[pairs]]",
            f'public_key = "{pair.public_key.line()}"',
            f'seed = "{sealed}"',
            f"created = {_time(pair.created)}",
            f"encrypt_from = {_time(pair.encrypt_from)}",
        ]
        if pair.decrypt_until is not None:
            lines.append(f"decrypt_until = {_time(pair.decrypt_until)}")
        parts.append("\n".join([*lines, ""]))
    return "".join(parts).encode()


def _pair(table: Any, path: str) -> Pair:
    if not isinstance(table, dict):
        raise _damaged(path, "has a pair that is not a table")
    known = {**_REQUIRED, **_OPTIONAL}
    for name in _REQUIRED.keys() - table.keys():
        raise _damaged(path, f"has a pair without {name}")
    for name, value in table.items():
        if name not in known:
            raise _damaged(path, "has a pair with a member that it cannot have")
        if not isinstance(value, known[name]):
            raise _damaged(path, f"has a {name} of the wrong type")
        if isinstance(value, datetime) and value.tzinfo is None:
            raise _damaged(path, f"has a {name} without an offset, such as Z at its end")
    try:
        public_key = PublicKey.parse(table["public_key"])
    except ConfigError as error:
        raise ConfigError(f"the private file {path}: {error.message}", remedy=error.remedy) from None
    header = _seed_header(table["seed"], path)
    until = table.get("decrypt_until")
    if until is not None and until <= table["encrypt_from"]:
        raise _damaged(path, "has a pair whose decrypt_until is not after its encrypt_from")
    return Pair(public_key, header.recipients[0], table["created"], table["encrypt_from"], until)


def _seed_header(text: str, path: str) -> Header:
    try:
        header = parse_message(dearmor(text))
    except MessageError:
        header = None
    if header is None or not header.is_direct:
        raise _damaged(path, "has a seed that is not an armored direct message")
    return header


def _time(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _damaged(path: str, problem: str) -> ConfigError:
    return ConfigError(f"the private file {path} {problem}", remedy="restore it from a backup")
