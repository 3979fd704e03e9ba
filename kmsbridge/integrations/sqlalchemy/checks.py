"""Refusing, when a class is mapped, what would store values that cannot be decrypted, found, or kept from sight."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, UniqueConstraint
from sqlalchemy.orm import Mapper
from sqlalchemy.types import Boolean, Date, DateTime, Enum, Float, Interval, Numeric, Time

from kmsbridge import ConfigError
from kmsbridge.integrations.sqlalchemy.codecs import TextCodec
from kmsbridge.integrations.sqlalchemy.column_type import EncryptedType
from kmsbridge.integrations.sqlalchemy.places import TENANT, EncryptedColumn

_NOT_EXACT = (Boolean, Float, Numeric, Date, DateTime, Time, Interval, Enum)
"""Types of columns whose values can be written in more than one way."""


def column_of(mapper: Mapper[Any], key: str) -> Column[Any]:
    """Return the column of an attribute: of a joined class its own table's."""
    column: Any = mapper.column_attrs[key].columns[0]
    assert isinstance(column, Column)
    return column


def source_of(whole: Mapping[str, EncryptedColumn], key: str, name: str) -> EncryptedColumn:
    """Return the column that `name` is computed from. Raises `ConfigError`."""
    source = whole.get(key)
    if source is None or not isinstance(source.settings.codec, TextCodec):
        raise ConfigError(
            f"{name} is computed from {key!r}, which is no attribute of encrypted text of its class"
        )
    return source


def check(mapper: Mapper[Any], columns: list[EncryptedColumn]) -> None:
    """Raise `ConfigError` for a mapped class whose encrypted columns cannot be."""
    for key in mapper.primary_key:
        assert isinstance(key, Column)
        _check_key(mapper, key)
    replaced = [column.settings.replaces for column in columns if column.settings.replaces]
    if len(set(replaced)) < len(replaced):
        raise ConfigError(
            f"two encrypted columns of {mapper.class_.__name__} replace one attribute",
            remedy="assigning to one of them would lose the value of the other: let one replace it",
        )
    for column in columns:
        found = column_of(mapper, column.key)
        for _, attribute in column.settings.context:
            _check_context(mapper, column, attribute, found)
        _check_column(column, found)
        if column.settings.replaces:
            _check_replaced(mapper, column, found)
        _check_shown(column)
        if column.indexes and column.settings.context and TENANT not in dict(column.settings.context):
            raise ConfigError(
                f"{column.name} has a blind index, and its context does not say who owns the value",
                remedy='give the context the name "tenant": context={"tenant": "account_id"}',
            )


def _check_replaced(mapper: Mapper[Any], column: EncryptedColumn, own: Column[Any]) -> None:
    replaced = column.settings.replaces
    old = mapper.column_attrs[replaced].columns[0] if replaced in mapper.column_attrs else None
    if (
        not isinstance(old, Column)
        or old.table is not own.table
        or isinstance(old.type, EncryptedType)
        or not (old.nullable and own.nullable)
    ):
        raise ConfigError(
            f"{column.name} replaces {replaced!r}, which is no column of its table in the clear, or one of both is NOT NULL",
            remedy="let both columns be NULL while values are moved",
        )
    made = (old.default, old.server_default, old.onupdate, old.server_onupdate, old.computed, own.default)
    if any(each is not None for each in made):
        raise ConfigError(
            f"{column.name} replaces {replaced!r}, and a default of one would win over a value of the other",
            remedy="while values are moved, remove default and onupdate from both, and from the table too",
        )


def _check_key(mapper: Mapper[Any], column: Column[Any]) -> None:
    name = f"{mapper.class_.__name__}.{column.name}"
    if isinstance(column.type, _NOT_EXACT):
        raise ConfigError(
            f"{name}: a row with encrypted columns cannot have a key of type {column.type!r}",
            remedy="use text, whole numbers, UUIDs or bytes",
        )
    default = column.default
    by_application = default is not None and not (default.is_sequence or default.is_clause_element)
    by_database = (
        default is not None
        or column.server_default is not None
        or column.identity is not None
        or getattr(column.table, "autoincrement_column", None) is column
    )
    if by_database and not by_application:
        raise ConfigError(
            f"{name} is made by the database, and a value is encrypted for its row's key before the row is stored",
            remedy="give the column a Python default, such as default=lambda: str(uuid4()), or autoincrement=False "
            "where the application gives each key",
        )
    _check_unchanged(name, column)


def _check_context(mapper: Mapper[Any], column: EncryptedColumn, key: str, own: Column[Any]) -> None:
    if key not in mapper.column_attrs:
        raise ConfigError(f"the context of {column.name} names {key!r}, which is no column of its class")
    found = column_of(mapper, key)
    if found.table is not own.table:
        raise ConfigError(
            f"the context of {column.name} names {key!r}, which is in another table",
            remedy="name attributes of the table that has the encrypted column, so that both change together",
        )
    if isinstance(found.type, (*_NOT_EXACT, EncryptedType)):
        raise ConfigError(
            f"the context of {column.name} cannot have {key!r}, which is of type {found.type!r}",
            remedy="use text, whole numbers or UUIDs",
        )
    _check_unchanged(f"{mapper.class_.__name__}.{key}", found)


def _check_unchanged(name: str, column: Column[Any]) -> None:
    """Refuse what changes a key or a context where nobody can encrypt the row's values anew."""
    changes = (column.onupdate, column.server_onupdate, column.computed)
    cascades = [
        key.onupdate
        for key in column.foreign_keys
        if (key.onupdate or "NO ACTION").upper() not in ("NO ACTION", "RESTRICT")
    ]
    if cascades or any(change is not None for change in changes):
        raise ConfigError(
            f"{name} is changed by an UPDATE that does not name it, and encrypted values are bound to it",
            remedy="remove onupdate, ON UPDATE or the computation from the column",
        )


def _check_column(column: EncryptedColumn, found: Column[Any]) -> None:
    table: Any = found.table
    groups = (*table.indexes, *(each for each in table.constraints if isinstance(each, UniqueConstraint)))
    compared = any(found is one for each in groups for one in each.columns)
    if found.primary_key or found.foreign_keys or compared:
        raise ConfigError(
            f"{column.name} is encrypted and cannot be a key, unique or in an index: equal values have different "
            "messages",
            remedy="to look values up, give the column a blind index",
        )
    labels = table.metadata.info.setdefault("kmsbridge_labels", {})
    if labels.setdefault(column.settings.label, found) is not found:
        raise ConfigError(
            f"{column.name} has the label {column.settings.label!r}, which another column has",
            remedy="give each encrypted column a label of its own, so that no value can be moved between them",
        )


def _check_shown(column: EncryptedColumn) -> None:
    cls = column.mapper.class_
    if not dataclasses.is_dataclass(cls):
        return
    parameters: Any = getattr(cls, "__dataclass_params__", None)
    for field in dataclasses.fields(cls):
        shown = (field.repr and parameters.repr) or (field.compare and (parameters.eq or parameters.order))
        if field.name == column.key and shown:
            raise ConfigError(
                f"{column.name} is encrypted, and its dataclass would decrypt it to show or compare objects",
                remedy="give the column repr=False and compare=False",
            )
