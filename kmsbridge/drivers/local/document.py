"""The format of key files: parses and renders their content, without reading or writing files.

A key file is one JSON object in UTF-8, of at most 8 MiB, with exactly these members:

    format        1
    protection    only where a passphrase protects the file:
        kdf           "argon2id" (RFC 9106, version 1.3)
        salt          16 bytes
        iterations    1 to 16
        memory_kib    8 * lanes to 1048576
        lanes         1 to 16
        check         Cobblestone-256 of the empty plaintext, to distinguish a wrong passphrase from a changed file
    keys          an object; each name is [A-Za-z0-9][A-Za-z0-9._-]{0,127} without "..", its value
        id            16 hex digits, random, made with the key
        created       a UTC time, as in "2025-01-31T23:59:59Z"
        state         "enabled" or "disabled"
        current       the version that wraps
        versions      a non-empty object; each name is "1" to "999999999", its value
            created       a UTC time
            material      32 bytes; in a protected file Cobblestone-256 of them, 104 bytes

Bytes are written in base64 (RFC 4648, section 4, with padding). A member that is not named here, a
member given twice, and any other type, length or spelling is refused. The Cobblestone key in a
protected file is the 32 bytes that Argon2id makes of the passphrase; the Cobblestone context is
`"kmsbridge-local/v1 check"`, or `"kmsbridge-local/v1 material" 0x00 name 0x00 id 0x00 version`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, Final, NamedTuple, NoReturn

from kmsbridge.driver import KeyState, Secret
from kmsbridge.errors import ConfigError, LimitExceeded

FORMAT: Final = 1
MAX_BYTES: Final = 8 << 20
MATERIAL_BYTES: Final = 32
SEALED_BYTES: Final = MATERIAL_BYTES + 72
CHECK_BYTES: Final = 72
SALT_BYTES: Final = 16

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_ID = re.compile(r"[0-9a-f]{16}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_STATE = re.compile("enabled|disabled")
_KDF = re.compile("argon2id")
_PLAIN_WORD = re.compile(r"[A-Za-z_-]{1,24}")


class Cost(NamedTuple):
    """The parameters of Argon2id, which decide what one guess of the passphrase costs.

    The defaults are the second recommended option of RFC 9106, section 4.
    """

    iterations: int = 3
    memory_kib: int = 65536
    lanes: int = 4


class Protection(NamedTuple):
    """The parameters of a passphrase's protection of a file."""

    salt: bytes
    cost: Cost
    check: bytes

    def __repr__(self) -> str:
        return f"Protection({self.cost})"


class Version(NamedTuple):
    """One version of a key. `material` is as stored: encrypted if a passphrase protects the file."""

    created: str
    material: Secret


class StoredKey(NamedTuple):
    """One key of a file. `state` is ENABLED or DISABLED; `current` is the version that wraps."""

    name: str
    id: str
    created: str
    state: KeyState
    current: str
    versions: Mapping[str, Version]

    @property
    def key_id(self) -> str:
        """The key's id in messages. It stays the same when the file is moved or renamed."""
        return f"local:{self.name}@{self.id}"


class Document(NamedTuple):
    """The content of a key file."""

    protection: Protection | None
    keys: Mapping[str, StoredKey]


class _DamageError(Exception):
    """The reason why a key file cannot be used, which quotes nothing that may be key material."""


def is_name(text: str) -> bool:
    """Return whether `text` is a valid name of a key."""
    return bool(_NAME.fullmatch(text)) and ".." not in text


def is_version(text: str) -> bool:
    """Return whether `text` is a valid name of a version."""
    return bool(_VERSION.fullmatch(text))


def parse(data: bytes, path: str) -> Document:
    """Parse the content of the key file at `path`. Raises `ConfigError`, which names `path` and quotes no secret."""
    try:
        return _document(_load(data))
    except _DamageError as damage:
        problem = str(damage)
    del data
    # Outside the handler: the parser's own exceptions hold the whole text of the file.
    raise ConfigError(
        f"the key file {path} cannot be used: {problem}",
        remedy="restore it from a backup; without one, what its keys wrapped cannot be decrypted",
    )


def render(document: Document) -> bytes:
    """Return the document as bytes for `parse`. Raises `LimitExceeded` for more than 8 MiB."""
    members: dict[str, Any] = {"format": FORMAT}
    if document.protection is not None:
        members["protection"] = _render_protection(document.protection)
    members["keys"] = {name: _render_key(key) for name, key in document.keys.items()}
    data = json.dumps(members, indent=2).encode() + b"\n"
    if len(data) > MAX_BYTES:
        raise LimitExceeded(
            f"the key file would grow to {len(data)} bytes, more than {MAX_BYTES}",
            remedy="use a second key file",
        )
    return data


def _render_protection(protection: Protection) -> dict[str, Any]:
    return {
        "kdf": "argon2id",
        "salt": _base64(protection.salt),
        "iterations": protection.cost.iterations,
        "memory_kib": protection.cost.memory_kib,
        "lanes": protection.cost.lanes,
        "check": _base64(protection.check),
    }


def _render_key(key: StoredKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "created": key.created,
        "state": key.state.value,
        "current": key.current,
        "versions": {
            name: {"created": version.created, "material": _base64(version.material.reveal())}
            for name, version in key.versions.items()
        },
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _load(data: bytes) -> object:
    problem = "it is empty" if not data else ""
    try:
        if not problem:
            return json.loads(data.decode(), object_pairs_hook=_members, parse_constant=_constant)
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except json.JSONDecodeError as error:
        problem = f"it is not JSON from line {error.lineno}, column {error.colno} on"
    except RecursionError:
        problem = "it is nested too deeply"
    except ValueError:
        problem = "it holds a number that is too large"
    raise _DamageError(problem)


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _DamageError("one of its objects has a member twice")
    return members


def _constant(_text: str) -> NoReturn:
    raise _DamageError("it has a number that is not allowed in JSON")


def _document(value: object) -> Document:
    # The format's number first: a file of a later format must not be reported as damaged.
    if isinstance(value, dict) and "format" in value:
        number = value["format"]
        if type(number) is not int or number < 1:
            raise _DamageError("its format is not a positive whole number")
        if number != FORMAT:
            raise _DamageError("its format needs a later version of kmsbridge")
    members = _object(value, "the file", {"format", "keys"}, {"protection"})
    protection = _protection(members["protection"]) if "protection" in members else None
    length = MATERIAL_BYTES if protection is None else SEALED_BYTES
    keys = _object(members["keys"], "keys")
    if not all(is_name(name) for name in keys):
        raise _DamageError("one of its keys has an invalid name")
    return Document(protection, {name: _key(name, value, length) for name, value in keys.items()})


def _protection(value: object) -> Protection:
    where = "protection"
    members = _object(value, where, {"kdf", "salt", "iterations", "memory_kib", "lanes", "check"})
    _text(members, "kdf", where, _KDF)
    lanes = _number(members, "lanes", where, 1, 16)
    cost = Cost(
        iterations=_number(members, "iterations", where, 1, 16),
        memory_kib=_number(members, "memory_kib", where, 8 * lanes, 1 << 20),
        lanes=lanes,
    )
    salt = _bytes(members, "salt", where, SALT_BYTES)
    return Protection(salt, cost, _bytes(members, "check", where, CHECK_BYTES))


def _key(name: str, value: object, length: int) -> StoredKey:
    where = f"the key {name}"
    members = _object(value, where, {"id", "created", "state", "current", "versions"})
    versions = _object(members["versions"], f"versions of {where}")
    if not versions or not all(is_version(version) for version in versions):
        raise _DamageError(f"the versions of {where} are not named 1, 2, 3 ...")
    current = _text(members, "current", where, _VERSION)
    if current not in versions:
        raise _DamageError(f"the current version of {where} is not among its versions")
    return StoredKey(
        name=name,
        id=_text(members, "id", where, _ID),
        created=_text(members, "created", where, _TIME),
        state=KeyState(_text(members, "state", where, _STATE)),
        current=current,
        versions={v: _version(f"version {v} of {where}", versions[v], length) for v in versions},
    )


def _version(where: str, value: object, length: int) -> Version:
    members = _object(value, where, {"created", "material"})
    created = _text(members, "created", where, _TIME)
    return Version(created, Secret(_bytes(members, "material", where, length)))


def _object(
    value: object,
    where: str,
    required: AbstractSet[str] | None = None,
    optional: AbstractSet[str] = frozenset(),
) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _DamageError(f"{where} is not a JSON object")
    if required is not None:
        for name in sorted(required - value.keys()):
            raise _DamageError(f"{where} has no {name}")
        for name in sorted(value.keys() - required - optional):
            # Quoted only if it is a plain word: key material may have been pasted there.
            word = f" ({name})" if _PLAIN_WORD.fullmatch(name) else ""
            raise _DamageError(f"{where} has an unknown member{word}")
    return value


def _text(members: dict[str, object], name: str, where: str, pattern: re.Pattern[str]) -> str:
    value = members[name]
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise _DamageError(f"the {name} of {where} is not valid")
    return value


def _number(members: dict[str, object], name: str, where: str, low: int, high: int) -> int:
    value = members[name]
    if type(value) is not int or not low <= value <= high:
        raise _DamageError(f"the {name} of {where} is not a whole number from {low} to {high}")
    return value


def _bytes(members: dict[str, object], name: str, where: str, length: int) -> bytes:
    value = members[name]
    try:
        decoded = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        decoded = b""
    if len(decoded) != length or _base64(decoded) != value:
        raise _DamageError(f"the {name} of {where} is not {length} bytes in base64")
    return decoded
