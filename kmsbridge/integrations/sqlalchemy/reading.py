"""Decrypting what was loaded: one value when its attribute is read, or many values in one call."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, overload

from sqlalchemy.orm import InstrumentedAttribute, Session, object_session
from sqlalchemy.orm.attributes import instance_state

from kmsbridge import KmsBridgeError
from kmsbridge.errors import discreet
from kmsbridge.integrations.sqlalchemy.ciphers import (
    SyncSession,
    TaskSession,
    call,
    is_async,
    may_read,
    read_cipher,
    run,
    sync_session,
    would_block,
)
from kmsbridge.integrations.sqlalchemy.errors import EncryptedColumnError
from kmsbridge.integrations.sqlalchemy.places import (
    EncryptedColumn,
    column_named,
    columns_of,
    contexts_of,
    stored_place,
)
from kmsbridge.integrations.sqlalchemy.values import Ciphertext, Place, Plaintext

Sealed = tuple[EncryptedColumn, Ciphertext, Place]
"""A message that is not decrypted yet, its column, and the place that it is bound to."""


def stored(instance: object, column: EncryptedColumn) -> Plaintext | Ciphertext | None:
    """Return what an attribute holds, which is loaded where it is not."""
    attribute = getattr(type(instance), column.key)
    value: Plaintext | Ciphertext | None = InstrumentedAttribute.__get__(attribute, instance, type(instance))
    return value


@discreet
def value_of(instance: object, column: EncryptedColumn) -> Any:
    """Return the plaintext that an attribute has, which is decrypted where it is not.

    Raises `EncryptedColumnError` where that would block an event loop, and where the object is in no session;
    `RoleError` where the session may not read; and what `decrypt_many` raises.
    """
    replaces = column.settings.replaces
    if replaces and (plain := getattr(instance, replaces)) is not None:
        return plain  # not moved, or written since by a host that knows only this attribute
    found = stored(instance, column)
    if found is None:
        return None
    if isinstance(found, Plaintext):
        return found.value
    if found.opened is None:
        found.opened = _opened(instance, column, found)
    return found.opened.value


def _opened(instance: object, column: EncryptedColumn, ciphertext: Ciphertext) -> Plaintext:
    session = object_session(instance)
    if session is None:
        raise EncryptedColumnError(
            f"{column.name} is not decrypted, and its object is in no session",
            remedy="decrypt_all(session, objects) before the session ends",
        )
    cipher = read_cipher(session, column)
    if would_block():
        raise EncryptedColumnError(
            f"{column.name} is not decrypted, and reading it would block the event loop",
            remedy=f'first await decrypt_all(session, objects, "{column.key}")',
        )
    place = ciphertext.place or stored_place(session, instance_state(instance), column)
    context, aad = column.context(place), column.aad(place)
    payload = call(cipher.decrypt, ciphertext.message, context=context, aad=aad)
    return Plaintext(payload, column.settings.codec)


@overload
def decrypt_all(session: SyncSession, objects: Iterable[object], *attributes: str) -> None: ...


@overload
def decrypt_all(session: TaskSession, objects: Iterable[object], *attributes: str) -> Awaitable[None]: ...


def decrypt_all(
    session: SyncSession | TaskSession, objects: Iterable[object], *attributes: str
) -> Awaitable[None] | None:
    """Decrypt these attributes of all objects at once, without names all that the session may decrypt.

    Each distinct data key is asked for once, in the key service's batches where it has them. The attributes then
    give their values without a call. With an asyncio session it is awaited, and the event loop is not blocked.

    Raises `TypeError` for an attribute that is not encrypted and for what is no object of a mapped class, `RoleError`
    where the session may not read, and what `decrypt_many` raises; the error's `index` is the place of the object.
    """
    if is_async(session):
        return run(session, _decrypt_all, list(objects), attributes)
    return _decrypt_all(sync_session(session), list(objects), attributes)


@discreet
def _decrypt_all(session: Session, objects: list[object], attributes: tuple[str, ...]) -> None:
    sealed: list[Sealed] = []
    indexes: list[int] = []
    chosen = {cls: _chosen(session, cls, attributes) for cls in set(map(type, objects))}
    for index, instance in enumerate(objects):
        for column in chosen[type(instance)]:
            found = stored(instance, column)
            if isinstance(found, Ciphertext) and found.opened is None:
                place = found.place or stored_place(session, instance_state(instance), column)
                sealed.append((column, found, place))
                indexes.append(index)
    try:
        open_all(session, sealed)
    except KmsBridgeError as error:
        if error.index is not None:
            error.index = indexes[error.index]
        raise


def _chosen(session: Session, cls: type, attributes: tuple[str, ...]) -> Sequence[EncryptedColumn]:
    if attributes:
        return [column_named(cls, key) for key in attributes]
    columns = columns_of(cls)
    return [column for column in columns if may_read(session, column)] or columns


@discreet
def open_all(session: Session, sealed: list[Sealed]) -> None:
    """Decrypt messages, each for the place that it is bound to, in one call; those of parts in another."""
    for partial in (False, True):
        places = [
            n for n, (column, _, _) in enumerate(sealed) if (column.settings.partial is not None) is partial
        ]
        if places:
            _open_group(session, [sealed[n] for n in places], places)


def _open_group(session: Session, group: list[Sealed], places: list[int]) -> None:
    """Decrypt messages of one cipher. `places` are theirs among all, for the error of one."""
    try:
        payloads = call(
            read_cipher(session, group[0][0]).decrypt_many,
            [ciphertext.message for _, ciphertext, _ in group],
            contexts=contexts_of(group),
            aads=[column.aad(place) for column, _, place in group],
        )
    except KmsBridgeError as error:
        if error.index is not None:
            error.index = places[error.index]
        raise
    for (column, ciphertext, _), payload in zip(group, payloads, strict=True):
        ciphertext.opened = Plaintext(payload, column.settings.codec)
