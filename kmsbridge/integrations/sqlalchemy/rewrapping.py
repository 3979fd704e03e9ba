"""Rewrapping the messages of a table, some rows at a time."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, overload

from sqlalchemy import LargeBinary, select, tuple_, type_coerce, update
from sqlalchemy.orm import Session, class_mapper

from kmsbridge import EnvelopeCipher, aio
from kmsbridge.errors import discreet
from kmsbridge.integrations.sqlalchemy.checks import column_of
from kmsbridge.integrations.sqlalchemy.ciphers import (
    SyncSession,
    TaskSession,
    call,
    is_async,
    run,
    sync_session,
)
from kmsbridge.integrations.sqlalchemy.places import EncryptedColumn, column_named, columns_of, contexts_of
from kmsbridge.integrations.sqlalchemy.statements import SAME_VALUES
from kmsbridge.integrations.sqlalchemy.values import Ciphertext, Place

Key = tuple[Any, ...]
"""The values of a row's primary key."""
RewrapCipher = EnvelopeCipher | aio.EnvelopeCipher
Stored = tuple[EncryptedColumn, Ciphertext, Place]


@overload
def rewrap_rows(
    session: SyncSession,
    cipher: EnvelopeCipher,
    model: type,
    *attributes: str,
    after: Key | None = ...,
    limit: int = ...,
) -> Key | None: ...


@overload
def rewrap_rows(
    session: TaskSession,
    cipher: RewrapCipher,
    model: type,
    *attributes: str,
    after: Key | None = ...,
    limit: int = ...,
) -> Awaitable[Key | None]: ...


def rewrap_rows(
    session: SyncSession | TaskSession,
    cipher: RewrapCipher,
    model: type,
    *attributes: str,
    after: Key | None = None,
    limit: int = 500,
) -> Key | Awaitable[Key | None] | None:
    """Rewrap the messages in the next rows of a table to the current keys of `cipher`, those that need it.

    The rows are those with the `limit` lowest primary keys above `after`. Return the primary key of the last one, to
    be given as `after` next time, and None where there was no row: commit after each call, and call until then. A
    value that changed meanwhile is left as it is. Objects in the session keep the messages that they have loaded.

    Without names of attributes it is all encrypted ones that are no parts of others. For a part, give its name and
    the cipher that encrypts parts. With an asyncio session it is awaited.

    Raises `TypeError` for an attribute that is not encrypted, `ValueError` for a `limit` below 1, and what
    `rewrap_many` raises.
    """
    if limit < 1:
        raise ValueError("limit must be at least 1")
    if is_async(session):
        return run(session, _rewrap_rows, cipher, model, attributes, after, limit)
    return _rewrap_rows(sync_session(session), cipher, model, attributes, after, limit)


@discreet
def _rewrap_rows(
    session: Session,
    cipher: RewrapCipher,
    model: type,
    attributes: tuple[str, ...],
    after: Key | None,
    limit: int,
) -> Key | None:
    class_mapper(model)  # configures the class, which says what its encrypted columns are
    columns = [column_named(model, key) for key in attributes] or [
        column for column in columns_of(model) if column.settings.partial is None
    ]
    if not columns:
        raise TypeError(f"{model.__name__} has no encrypted column")
    identity = columns[0].identity
    key = [getattr(model, name) for name in identity]
    names = dict.fromkeys(name for column in columns for name in (*column.place_keys, column.key))
    wanted = select(*(getattr(model, name).label(name) for name in names)).order_by(*key).limit(limit)
    if after is not None:
        # A bare tuple is bound with the types of the key's columns.
        wanted = wanted.where(tuple_(*key) > after if len(key) > 1 else key[0] > after[0])
    rows = [dict(row) for row in session.execute(wanted).mappings()]
    stored = [
        (column, row[column.key], place)
        for row in rows
        for column in columns
        if row[column.key] is not None and (place := column.place_in(row)) is not None
    ]
    stale = [each for each in stored if call(cipher.needs_rewrap, each[1].message)]
    for each, message in zip(stale, _rewrapped(cipher, stale), strict=True):
        _replace(session, each, message)
    return tuple(rows[-1][name] for name in identity) if rows else None


def _rewrapped(cipher: RewrapCipher, stale: Sequence[Stored]) -> list[bytes]:
    if not stale:
        return []
    messages: list[bytes] = call(
        cipher.rewrap_many,
        [ciphertext.message for _, ciphertext, _ in stale],
        contexts=contexts_of(stale),
        aads=[column.aad(place) for column, _, place in stale],
    )
    return messages


def _replace(session: Session, stored: Stored, message: bytes) -> None:
    """Store the new message where the row still has the old one."""
    column, old, place = stored
    mapper = column.mapper
    own = column_of(mapper, column.key)
    # Of a joined class, the table that has the message, by its own columns of the key.
    row = (
        each == value
        for name, value in zip(column.identity, place, strict=False)
        for each in mapper.column_attrs[name].columns
        if each.table is own.table
    )
    session.execute(
        update(own.table)
        .where(*row, type_coerce(own, LargeBinary) == old.message)
        .values({own: Ciphertext(message, place)})
        .execution_options(**{SAME_VALUES: True}),
        bind_arguments={"mapper": mapper},
    )
