"""Counting the rows of a column that are moved from plaintext, where an encrypted one replaces it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, NamedTuple, overload

from sqlalchemy import and_, case, func, select
from sqlalchemy.orm import Session, class_mapper

from kmsbridge import ConfigError
from kmsbridge.integrations.sqlalchemy.ciphers import SyncSession, TaskSession, is_async, run, sync_session
from kmsbridge.integrations.sqlalchemy.places import column_named


class Progress(NamedTuple):
    """The rows of a table whose value is a message, and those whose value is still in the clear."""

    encrypted: int
    in_the_clear: int


@overload
def progress(session: SyncSession, model: type, attribute: str) -> Progress: ...


@overload
def progress(session: TaskSession, model: type, attribute: str) -> Awaitable[Progress]: ...


def progress(
    session: SyncSession | TaskSession, model: type, attribute: str
) -> Progress | Awaitable[Progress]:
    """Count the rows of an encrypted attribute and of the one that it `replaces`, by one query over the table.

    Once nothing is in the clear, take `replaces` away and drop the old column. With an asyncio session it is awaited.
    Raises `TypeError` for an attribute that is not encrypted, and `ConfigError` for one that replaces none.
    """
    if is_async(session):
        return run(session, _progress, model, attribute)
    return _progress(sync_session(session), model, attribute)


def _progress(session: Session, model: Any, attribute: str) -> Progress:
    replaced = column_named(class_mapper(model).class_, attribute).settings.replaces
    if not replaced:
        raise ConfigError(
            f"{model.__name__}.{attribute} replaces no attribute", remedy='declare it with replaces="..."'
        )
    new, old = getattr(model, attribute), getattr(model, replaced)
    # A row that has both, as an older version of the application makes it, is in the clear still.
    moved = and_(new.is_not(None), old.is_(None))
    counted = select(func.count(case((moved, 1))), func.count(old)).select_from(model)
    return Progress(*session.execute(counted).one())
