"""Checks of what a driver returns: a faulty one must not harm what is stored."""

from __future__ import annotations

import math
from typing import Any, Final

from kmsbridge.driver import KeyDescription, KeyState, WrappedKey
from kmsbridge.errors import KmsError
from kmsbridge.message import MAX_KEY_VERSION, MAX_WRAPPED

_TELLTALE: Final = 32
"""A payload of this many bytes or more is not found in a ciphertext by chance."""


class FaultyAnswer(Exception):
    """A driver returned what its contract does not allow. The text says what, and quotes nothing of it."""


def check_wrapped_key(answer: Any, key_id: str, payload: bytes = b"") -> WrappedKey:
    """Return `answer` if it is a wrapped key of this key's that fits into a message, and does not show
    `payload`.
    """
    if not isinstance(answer, WrappedKey) or not isinstance(answer.ciphertext, bytes):
        raise FaultyAnswer("it returned no WrappedKey")
    if answer.key_id != key_id:
        raise FaultyAnswer("it answered with another key's id")
    if utf8_length(answer.version) > MAX_KEY_VERSION or not 1 <= len(answer.ciphertext) <= MAX_WRAPPED:
        raise FaultyAnswer("its answer does not fit into a message")
    if len(payload) >= _TELLTALE and payload in answer.ciphertext:
        raise FaultyAnswer("it returned the payload unencrypted")
    return answer


def check_plaintext(answer: Any) -> bytes:
    """Return `answer` if it is bytes."""
    if not isinstance(answer, bytes):
        raise FaultyAnswer("it returned no bytes")
    return answer


def check_answer_of_is_current(answer: Any) -> bool | None:
    """Return `answer` if it is true, false or None."""
    if answer is not None and not isinstance(answer, bool):
        raise FaultyAnswer("it returned neither true nor false")
    return answer


def check_batch(answer: Any, count: int) -> list[Any]:
    """Return `answer` if it has a result for each of `count` items."""
    if not isinstance(answer, list) or len(answer) != count:
        raise FaultyAnswer("it answered a batch with the wrong number of results")
    return answer


def check_description(answer: Any, key_id: str) -> KeyDescription:
    """Return `answer` if it describes this key."""
    if not isinstance(answer, KeyDescription) or not isinstance(answer.state, KeyState):
        raise FaultyAnswer("it returned no KeyDescription")
    if answer.key_id != key_id or utf8_length(answer.version) > MAX_KEY_VERSION:
        raise FaultyAnswer("it described another key, or a version that is none")
    return answer


def utf8_length(text: Any) -> float:
    """Return the length of `text` in bytes; infinity for what no message can hold."""
    try:
        return len(text.encode())
    except (AttributeError, UnicodeEncodeError):
        return math.inf


def faulty_driver(what: object, *, scheme: str, key_id: str, operation: str) -> KmsError:
    """Return the error for a driver that breaks its contract."""
    return KmsError(
        f"the {scheme} driver is faulty: {what}",
        remedy="report it to the driver's author; kmsbridge.testing has the suite that shows it",
        key_id=key_id,
        operation=operation,
    )
