"""Refusing statements that would leave messages bound to another row or context, or put them into an order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Insert, Table, Update
from sqlalchemy.sql.selectable import GenerativeSelect

from kmsbridge.integrations.sqlalchemy.column_type import EncryptedType, refuse_operator
from kmsbridge.integrations.sqlalchemy.errors import EncryptedColumnError

_INFO: Final = "kmsbridge"
SAME_VALUES: Final = "kmsbridge_same_values"
"""The execution option of an UPDATE that stores other messages of the same values."""
_ORDERS: Final = {"_order_by_clauses": "ORDER BY", "_group_by_clauses": "GROUP BY"}


@dataclass(frozen=True)
class Bound:
    """An encrypted column of a table, and the columns that its values are bound to.

    A statement names a column by its own key or by its attribute's: `own`, `place` and each of `derived`, the columns
    that are computed from the values, have both.
    """

    label: str
    own: frozenset[str]
    derived: tuple[frozenset[str], ...]
    place: frozenset[str]
    place_columns: frozenset[str]


def register(table: Table, columns: Sequence[Bound]) -> None:
    """Note what a table's encrypted columns are bound to, as a class that is mapped to it has them.

    With the metadata: what a table has in its own `info`, Alembic writes into migrations.
    """
    table.metadata.info.setdefault(_INFO, {}).setdefault(table.key, []).append(tuple(columns))


def check(_connection: Connection, statement: Any, many: Sequence[Any], params: Any, options: Any) -> None:
    """Raise `EncryptedColumnError` for a statement that must not run."""
    if isinstance(statement, GenerativeSelect):
        for clauses, words in _ORDERS.items():
            for clause in getattr(statement, clauses, ()):
                kind = getattr(clause, "type", None)
                if isinstance(kind, EncryptedType):
                    refuse_operator(kind.settings.label, words)
    elif isinstance(statement, Update):
        if options.get(SAME_VALUES):
            return
        classes = _classes(statement.table)
        if classes:
            _check_update(classes, _set_by(statement, many, params))
    elif isinstance(statement, Insert):
        clause = getattr(statement, "_post_values_clause", None)
        classes = _classes(statement.table)
        if clause is not None and classes:
            _check_upsert(classes, clause, {column.key for column in statement.table.primary_key})


def _check_update(classes: Sequence[Sequence[Bound]], names: set[str]) -> None:
    """Raise the error of a changed key or context with unchanged messages, whichever class the rows are of."""
    for each in (each for columns in classes for each in columns if each.own & names):
        for derived in each.derived:
            if not derived & names:
                raise EncryptedColumnError(
                    f"an UPDATE of {each.label!r} would leave {min(derived)!r} as it is, which is computed from it or replaced by it",
                    remedy="set all that encrypt_rows returns for the row",
                )
    lost = [[each for each in columns if each.place & names and not each.own & names] for columns in classes]
    if all(lost):
        first = lost[0][0]
        raise EncryptedColumnError(
            f"an UPDATE of {', '.join(sorted(first.place & names))} would leave the values of {first.label!r} bound "
            "to what it was before, so that they could not be decrypted",
            remedy="change the attributes of objects in a session, which encrypts the values anew",
        )


def _check_upsert(classes: Sequence[Sequence[Bound]], clause: Any, key: set[str]) -> None:
    """Raise the error of an upsert that could put a message into a row of another key or context."""
    for each in getattr(clause, "clauses", None) or (clause,):
        given = getattr(each, "update_values_to_set", None) or getattr(each, "update", None)
        names = _names(dict(given)) if given else set()
        _check_update(classes, names)
        target = getattr(each, "inferred_target_elements", None)
        for bound in (bound for columns in classes for bound in columns if bound.own & names):
            if target is None or _names(target) != key or not bound.place_columns - key <= names:
                raise EncryptedColumnError(
                    f"an upsert that sets {bound.label!r} could put its value into a row of another key or context",
                    remedy="let it conflict on the primary key, and set the columns of the context too",
                )


def _classes(table: Any) -> list[tuple[Bound, ...]]:
    metadata = getattr(table, "metadata", None)
    return metadata.info.get(_INFO, {}).get(table.key, []) if metadata is not None else []


def _set_by(statement: Any, many: Sequence[Any], params: Any) -> set[str]:
    """Return the names that an UPDATE sets: in itself, or by its parameters."""
    ordered = getattr(statement, "_ordered_values", None) or ()
    first = many[0] if many else params
    return (
        _names(getattr(statement, "_values", None) or ())
        | _names(key for key, _ in ordered)
        | _names(first or ())
    )


def _names(keys: Iterable[Any]) -> set[str]:
    return {str(getattr(key, "key", key)) for key in keys}
