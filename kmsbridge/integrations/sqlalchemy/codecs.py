"""Codecs, which write values as the bytes that are encrypted, and read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sqlalchemy import JSON

from kmsbridge.integrations.sqlalchemy.frozen import frozen

T = TypeVar("T")


class Codec(Protocol[T]):
    """Writes values of a type as bytes, and reads them. None is never passed: it is NULL.

    `encode` raises `TypeError` or `ValueError` for what it does not take, in an error that does not quote it.
    `decode` should return what cannot be changed in place, since such a change is not stored.
    """

    def encode(self, value: T, /) -> bytes: ...

    def decode(self, payload: bytes, /) -> T: ...


@dataclass(frozen=True)
class TextCodec:
    """Text as UTF-8."""

    def encode(self, value: str, /) -> bytes:
        if not isinstance(value, str):
            raise TypeError(f"the value must be str, not {type(value).__name__}")
        try:
            return value.encode()
        except UnicodeEncodeError:
            # The error that Python makes holds the text itself.
            raise ValueError("the text has unpaired surrogates and cannot be written as UTF-8") from None

    def decode(self, payload: bytes, /) -> str:
        try:
            return payload.decode()
        except UnicodeDecodeError:
            raise ValueError("the decrypted value is not text") from None


@dataclass(frozen=True)
class BytesCodec:
    """Bytes as they are."""

    def encode(self, value: bytes, /) -> bytes:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"the value must be bytes-like, not {type(value).__name__}")
        return bytes(value)

    def decode(self, payload: bytes, /) -> bytes:
        return payload


@dataclass(frozen=True)
class JsonCodec:
    """JSON in UTF-8. JSON's null is `sqlalchemy.JSON.NULL`, as None is SQL's. What is read cannot be changed in place."""

    def encode(self, value: Any, /) -> bytes:
        if value is JSON.NULL:
            return b"null"
        try:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError):
            # Python's errors can quote the value.
            raise TypeError("the value cannot be written as JSON") from None

    def decode(self, payload: bytes, /) -> Any:
        try:
            value = json.loads(payload)
        except ValueError:
            raise ValueError("the decrypted value is not JSON") from None
        return JSON.NULL if value is None else frozen(value)


TEXT, BYTES, JSON_CODEC = TextCodec(), BytesCodec(), JsonCodec()
