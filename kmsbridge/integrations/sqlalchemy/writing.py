"""Encrypting what a flush is about to store: all of it in one call, before the first statement."""

from __future__ import annotations

from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Session, object_session
from sqlalchemy.orm.attributes import flag_modified, instance_state

from kmsbridge.errors import discreet
from kmsbridge.integrations.sqlalchemy.ciphers import call, write_cipher
from kmsbridge.integrations.sqlalchemy.derived import derived_keys, indexes_of, parts_of, put
from kmsbridge.integrations.sqlalchemy.errors import EncryptedColumnError
from kmsbridge.integrations.sqlalchemy.places import (
    EncryptedColumn,
    columns_of,
    contexts_of,
    defaults_of,
    is_changed,
    place_now,
    stored_place,
)
from kmsbridge.integrations.sqlalchemy.reading import Sealed, open_all, stored
from kmsbridge.integrations.sqlalchemy.values import Ciphertext, Place, Plaintext

Move = tuple[object, EncryptedColumn, Plaintext | Ciphertext, Place]
"""An object's value that is to be encrypted for a place: one that is not encrypted, or a message of another place."""


def before_flush(session: Session, *_: Any) -> None:
    """Encrypt what was assigned to the objects of a session, and what has another place than it is bound to.

    What cannot be encrypted yet, because a relationship gives the row's key or context during the flush, is left to
    `before_row`.
    """
    for instance in session.new:
        if columns_of(type(instance)):
            _apply_defaults(instance)
    encrypt_changes(session)


def before_row(_mapper: Any, _connection: Any, instance: object) -> None:
    """Look once more, before a row is written, that each of its values is a message for this row's place.

    Other listeners may have assigned values meanwhile, and relationships keys.
    """
    state = instance_state(instance)
    for column in columns_of(type(instance)):
        if column.settings.partial is not None or _is_settled(state, column):
            continue
        session = object_session(instance)
        assert session is not None
        encrypt_changes(session)
        if state.dict.get(column.key) is not None:
            _check(state, column)


def _is_settled(state: InstanceState[Any], column: EncryptedColumn) -> bool:
    """Return whether a value is a message for its place, or NULL, or was not changed."""
    value = state.dict.get(column.key)
    if (
        isinstance(value, Ciphertext)
        and value.place is not None
        and value.place == column.place_in(state.dict)
    ):
        return True
    if isinstance(value, Plaintext):
        return False
    if state.key is None:
        return value is None
    if value is None and column.key in state.dict:
        derived = any(state.dict.get(key, column) is not None for key in derived_keys(column))
        changed = is_changed(state, (column.key, *column.place_keys))
        return not changed or (column.key in state.committed_state and not derived)
    return not is_changed(state, (column.key, *column.place_keys))


def _check(state: InstanceState[Any], column: EncryptedColumn) -> None:
    """Raise the error of a value whose place is still not known."""
    value = state.dict[column.key]
    if column.place_in(state.dict) is None:
        missing = [key for key in column.place_keys if state.dict.get(key) is None]
        raise EncryptedColumnError(
            f"{column.name} cannot be encrypted: {', '.join(missing)} of the object is not known",
            remedy="give every object its primary key and the attributes of its context before it is flushed",
        )
    assert type(value) is Ciphertext


@discreet
def encrypt_changes(session: Session) -> None:
    """Encrypt all values of a session's new and changed objects that are not messages for their places."""
    with session.no_autoflush:
        moves = _moves(session)
    if not moves:
        return
    open_all(session, _sealed(moves))
    values = [(column, _plaintext(value), place) for _, column, value, place in moves]
    messages = encrypt(session, values)
    derived = derive(session, values)
    for (instance, _, value, _), (column, plaintext, place), message, beside in zip(
        moves, values, messages, derived, strict=True
    ):
        attributes = instance_state(instance).dict
        if attributes.get(column.key) is value:
            attributes[column.key] = Ciphertext(message, place, plaintext)
            if isinstance(value, Ciphertext):
                flag_modified(instance, column.key)  # nobody assigned it
            for key, found in beside.items():
                put(instance, key, found)
            _name_replaced(instance, column)


def _moves(session: Session) -> list[Move]:
    """Return what is to be done for the values of a session's new and changed objects."""
    moves: list[Move] = []
    for instance in (*session.new, *session.dirty):
        for column in columns_of(type(instance)):
            if column.settings.partial is None:  # a part goes with its value
                move = _move(session, instance, instance_state(instance), column)
                if move is not None:
                    moves.append(move)
    return moves


def _move(
    session: Session, instance: object, state: InstanceState[Any], column: EncryptedColumn
) -> Move | None:
    """Return what is to be done for a value, or None where it is a message of its place, NULL, or cannot be done yet."""
    value = state.dict.get(column.key)
    if state.key is not None and not isinstance(value, Plaintext):
        value = _changed(instance, state, column)
    place = None if value is None else place_now(instance, state, column)
    if value is None or place is None:
        return None
    if isinstance(value, Ciphertext):
        if value.place is None:
            value.place = _place_of_unknown(session, instance, state, column)
        if column.is_same(value.place, place) and not _lacks_derived(state, column, value):
            return None
    return instance, column, value, place


def _lacks_derived(state: InstanceState[Any], column: EncryptedColumn, value: Ciphertext) -> bool:
    """Return whether a message was assigned, such as `encrypt_rows` returns, without what is computed from its value."""
    assigned = state.committed_state
    if value.opened is None or assigned.get(column.key, value) == value:
        return False
    return any(key not in assigned for key in derived_keys(column))


def _changed(
    instance: object, state: InstanceState[Any], column: EncryptedColumn
) -> Plaintext | Ciphertext | None:
    """Return the value of a stored row where it, its key or its context was changed; else None.

    Where it is NULL, so is what is computed from it; the statement that stores the object then names them all.
    """
    if not is_changed(state, (column.key, *column.place_keys)):
        return None
    value = stored(instance, column)
    if value is None:
        for key in (column.key, *derived_keys(column)):
            put(instance, key, None)
        _name_replaced(instance, column)
    return value


def _name_replaced(instance: object, column: EncryptedColumn) -> None:
    """Have the statement that stores a value name the attribute that it replaces too, which stays as it is."""
    replaced = column.settings.replaces
    if replaced:
        put(instance, replaced, getattr(instance, replaced))


def _place_of_unknown(
    session: Session, instance: object, state: InstanceState[Any], column: EncryptedColumn
) -> Place:
    """Return the place of a message that was loaded without it, which is the row's as it is stored."""
    history = inspect(instance).attrs[column.key].history
    if history.added:
        raise EncryptedColumnError(
            f"{column.name} was given a message, and it is not known which row it belongs to",
            remedy="assign the plaintext, or a message that encrypt_rows made",
        )
    return stored_place(session, state, column)


def _plaintext(value: Plaintext | Ciphertext) -> Plaintext:
    plaintext = value.opened if isinstance(value, Ciphertext) else value
    assert plaintext is not None
    return plaintext


def _sealed(moves: list[Move]) -> list[Sealed]:
    return [
        (column, value, value.place)
        for _, column, value, _ in moves
        if isinstance(value, Ciphertext) and value.opened is None and value.place is not None
    ]


@discreet
def encrypt(session: Session, values: list[tuple[EncryptedColumn, Plaintext, Place]]) -> list[bytes]:
    """Return a message for each value, each for its place, in one call."""
    messages: list[bytes] = call(
        write_cipher(session, values[0][0]).encrypt_many,
        [plaintext.payload for _, plaintext, _ in values],
        contexts=contexts_of(values),
        aads=[column.aad(place) for column, _, place in values],
    )
    return messages


@discreet
def derive(
    session: Session, values: list[tuple[EncryptedColumn, Plaintext, Place]]
) -> list[dict[str, bytes | Ciphertext | None]]:
    """Return the attributes that are stored beside each value: its blind indexes, and its parts, in one call for all."""
    columns = {column for column, _, _ in values}
    if not any(column.indexes or column.parts for column in columns):
        return [{}] * len(values)
    for index in {index for column in columns for _, index in column.indexes}:
        call(index.load_keys)
    found: list[dict[str, bytes | Ciphertext | None]] = [dict(indexes_of(*each)) for each in values]
    parts = [(beside, part) for beside, each in zip(found, values, strict=True) for part in parts_of(*each)]
    if parts:
        for (beside, (column, plaintext, place)), message in zip(
            parts, encrypt(session, [part for _, part in parts]), strict=True
        ):
            beside[column.key] = Ciphertext(message, place, plaintext)
    return found


def _apply_defaults(instance: object) -> None:
    """Give a new object the Python defaults of its key, its context and its encrypted columns.

    SQLAlchemy evaluates them for the statement, which is too late.
    """
    values = instance_state(instance).dict
    for key, default in defaults_of(type(instance)).items():
        if values.get(key) is None:
            setattr(instance, key, default())
