"""Encrypting rows that no flush sees, and moving values that are bound to another row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, overload

from sqlalchemy.orm import Session, class_mapper
from sqlalchemy.orm.attributes import instance_state

from kmsbridge.errors import discreet
from kmsbridge.integrations.sqlalchemy.ciphers import SyncSession, TaskSession, is_async, run, sync_session
from kmsbridge.integrations.sqlalchemy.derived import derived_keys
from kmsbridge.integrations.sqlalchemy.errors import EncryptedColumnError
from kmsbridge.integrations.sqlalchemy.places import (
    EncryptedColumn,
    column_named,
    columns_of,
    defaults_of,
    stored_place,
)
from kmsbridge.integrations.sqlalchemy.reading import open_all, stored
from kmsbridge.integrations.sqlalchemy.values import Ciphertext, Place, Plaintext
from kmsbridge.integrations.sqlalchemy.writing import derive, encrypt

Row = dict[str, Any]


@overload
def encrypt_rows(session: SyncSession, model: type, rows: Iterable[Mapping[str, Any]]) -> list[Row]: ...


@overload
def encrypt_rows(
    session: TaskSession, model: type, rows: Iterable[Mapping[str, Any]]
) -> Awaitable[list[Row]]: ...


def encrypt_rows(
    session: SyncSession | TaskSession, model: type, rows: Iterable[Mapping[str, Any]]
) -> list[Row] | Awaitable[list[Row]]:
    """Return copies of rows in which the values of encrypted columns are messages, all encrypted in one call.

    For `insert(Model)`, upserts, `update(Model)` by primary key and the session's bulk methods. A row is a mapping of
    the attributes' names of `model`. It must have the primary key and the attributes of the context, or these must
    have Python defaults, which are put into the copies. None stays None. With an asyncio session it is awaited.

    Raises `EncryptedColumnError` for a row without these, `TypeError` for a class without encrypted columns,
    `RoleError` where the session may not write, and what `encrypt_many` raises.
    """
    if is_async(session):
        return run(session, _encrypt_rows, model, list(rows))
    return _encrypt_rows(sync_session(session), model, list(rows))


@discreet
def _encrypt_rows(session: Session, model: type, rows: list[Mapping[str, Any]]) -> list[Row]:
    columns = _columns_of(model)
    copies = [dict(row) for row in rows]
    places: list[tuple[Row, EncryptedColumn]] = []
    values: list[tuple[EncryptedColumn, Plaintext, Place]] = []
    for index, row in enumerate(copies):
        _apply_defaults(model, row, columns[0].identity)
        for column in columns:
            value = row.get(column.key)
            replaced = column.settings.replaces
            if replaced and column.key in row and (value is not None or row.get(replaced) is None):
                row[replaced] = None
            if value is None and column.key in row:
                row.update(dict.fromkeys(derived_keys(column)))
            if value is not None and not isinstance(value, Ciphertext):
                places.append((row, column))
                values.append(_to_encrypt(column, value, row, index))
    if values:
        messages, derived = encrypt(session, values), derive(session, values)
        for (row, column), (_, plaintext, place), message, beside in zip(
            places, values, messages, derived, strict=True
        ):
            row.update({column.key: Ciphertext(message, place, plaintext)} | beside)
    return copies


def _apply_defaults(model: type, row: Row, identity: tuple[str, ...]) -> None:
    for key, default in defaults_of(model).items():
        if key not in row or (row[key] is None and key in identity):
            row[key] = default()


def _to_encrypt(
    column: EncryptedColumn, value: Any, row: Row, index: int
) -> tuple[EncryptedColumn, Plaintext, Place]:
    if column.settings.partial is not None:
        raise EncryptedColumnError(
            f"{column.name} of row {index} is computed from {column.settings.of!r}", remedy="leave it out"
        )
    place = column.place_in(row)
    if place is None:
        missing = [key for key in column.place_keys if row.get(key) is None]
        raise EncryptedColumnError(
            f"{column.name} of row {index} cannot be encrypted: it has no {', '.join(missing)}",
            remedy="give every row its primary key and the attributes of its context",
        )
    codec = column.settings.codec
    return column, Plaintext(codec.encode(value), codec), place


def _columns_of(model: type) -> tuple[EncryptedColumn, ...]:
    columns = columns_of(class_mapper(model).class_)
    if not columns:
        raise TypeError(f"{model.__name__} has no encrypted column")
    return columns


Was = Callable[[Any], Mapping[str, Any]]


@overload
def rebind(
    session: Session,
    objects: Iterable[object],
    *attributes: str,
    was: Was | None = ...,
    label: str | None = ...,
) -> None: ...


@overload
def rebind(
    session: TaskSession,
    objects: Iterable[object],
    *attributes: str,
    was: Was | None = ...,
    label: str | None = ...,
) -> Awaitable[None]: ...


def rebind(
    session: SyncSession | TaskSession,
    objects: Iterable[object],
    *attributes: str,
    was: Was | None = None,
    label: str | None = None,
) -> Awaitable[None] | None:
    """Take values whose messages are bound to other rows, and have the next flush encrypt them for their own.

    For rows that were copied or changed by SQL, where the messages were copied with them. `was(object)` returns the
    attributes of the primary key and the context that differ in the row which the messages are bound to, such as
    `{"id": "42"}`; `label` is the label that they were encrypted with, where it was another. Without names of
    attributes it is all that are encrypted. With an asyncio session it is awaited.

    Raises `RoleError` where the session may not read, and what `decrypt_many` raises: `AuthenticationError` where the
    messages are not bound to what `was` says.
    """
    if is_async(session):
        return run(session, _rebind, list(objects), attributes, was, label)
    return _rebind(sync_session(session), list(objects), attributes, was, label)


@discreet
def _rebind(
    session: Session, objects: list[object], attributes: tuple[str, ...], was: Was | None, label: str | None
) -> None:
    sealed = []
    for instance in objects:
        cls = type(instance)
        differs = was(instance) if was is not None else {}
        for column in _whole(cls, attributes):
            found = stored(instance, column)
            replaced = column.settings.replaces
            if not isinstance(found, Ciphertext) or (replaced and getattr(instance, replaced) is not None):
                continue
            now = stored_place(session, instance_state(instance), column)
            place = tuple(differs.get(key, value) for key, value in zip(column.place_keys, now, strict=True))
            # Decrypted apart from what the object holds, which must not seem to be decrypted at its own place.
            sealed.append((instance, column.labelled(label), Ciphertext(found.message, place), place))
    open_all(session, [each[1:] for each in sealed])
    for instance, column, ciphertext, _ in sealed:
        setattr(instance, column.key, ciphertext.opened)


def _whole(cls: type, attributes: tuple[str, ...]) -> list[EncryptedColumn]:
    """Return the columns of these attributes, or all but those with parts of values, which follow their values."""
    named = [column_named(cls, key) for key in attributes] if attributes else columns_of(cls)
    return [column for column in named if column.settings.partial is None]
