"""Preparing mapped classes that have encrypted columns, so that their attributes take and give plaintexts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

from sqlalchemy import Column, ColumnElement, Table, and_, event, or_
from sqlalchemy.orm import InstanceState, InstrumentedAttribute, Mapper, class_mapper

from kmsbridge.blindindex import BlindIndex
from kmsbridge.integrations.sqlalchemy.checks import check, column_of, source_of
from kmsbridge.integrations.sqlalchemy.column_type import EncryptedType
from kmsbridge.integrations.sqlalchemy.derived import INFO, derived_keys, put
from kmsbridge.integrations.sqlalchemy.errors import EncryptedColumnError
from kmsbridge.integrations.sqlalchemy.places import (
    TENANT,
    Defaults,
    EncryptedColumn,
    column_named,
    columns_of,
    describe,
    loaded_place,
)
from kmsbridge.integrations.sqlalchemy.reading import value_of
from kmsbridge.integrations.sqlalchemy.statements import Bound, register
from kmsbridge.integrations.sqlalchemy.values import Ciphertext, Plaintext
from kmsbridge.integrations.sqlalchemy.writing import before_row

T_co = TypeVar("T_co", covariant=True)


class EncryptedAttribute(InstrumentedAttribute[T_co]):
    """An attribute that gives the plaintext of an object's value. Of a class it gives itself, as any other does."""

    __slots__ = ()
    inherit_cache = True

    def matches(self, value: str, *, tenant: Any = None) -> ColumnElement[bool]:
        """Return the condition that an encrypted attribute with a blind index has this value.

        `tenant` is the owner of the rows, where the context of the attribute names one, and only then. With an index
        of fewer than 128 bits, rows with other values match too. The index's first use may call a key service. Raises
        `EncryptedColumnError` where there is no blind index, `TypeError` for a tenant too many or too few, and what
        `BlindIndex.queries` raises.
        """
        column = column_named(class_mapper(self.parent.mapper.class_).class_, self.key)
        if not column.indexes:
            raise EncryptedColumnError(
                f"{column.name} has no blind index",
                remedy=f'add a column: index_column("{self.key}", BlindIndex(...))',
            )
        owner = dict(column.settings.context).get(TENANT)
        if (owner is None) is not (tenant is None):
            raise TypeError(f"{column.name} is looked up {'with' if owner else 'without'} a tenant")
        text = column.text(TENANT, tenant) if owner else ""
        found = or_(
            *(
                getattr(self.class_, key).in_(index.queries(value, tenant=text))
                for key, index in column.indexes
            )
        )
        return and_(getattr(self.class_, owner) == tenant, found) if owner else found

    def __get__(self, instance: object | None, owner: Any) -> Any:
        if instance is None:
            return self
        return value_of(instance, self._column(instance))

    def __set__(self, instance: object, value: Any) -> None:
        super().__set__(instance, value)
        # Not in the event of the attribute, by which `merge` copies each attribute as it is, and not before the value
        # was accepted.
        replaced = self._column(instance).settings.replaces
        if replaced:
            put(instance, replaced, None)

    def __delete__(self, instance: object) -> None:
        if self._column(instance).settings.replaces:
            self.__set__(instance, None)
        else:
            super().__delete__(instance)

    def _column(self, instance: object) -> EncryptedColumn:
        for column in columns_of(type(instance)):
            if column.key == self.key:
                return column
        raise AttributeError(self.key)


def prepare(mapper: Mapper[Any], cls: type) -> None:
    """Have the attributes of a class's encrypted columns be such, as soon as its mapper is made."""
    for key, column in mapper.columns.items():
        if isinstance(column.type, EncryptedType):
            getattr(cls, key).__class__ = EncryptedAttribute


def configure(mapper: Mapper[Any], cls: type) -> None:
    """Check and prepare a class when its mapper is configured. Raises `ConfigError` for what cannot be."""
    identity = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    columns = [
        EncryptedColumn(mapper, attribute.key, kind.settings, identity)
        for attribute in mapper.column_attrs
        if isinstance(kind := attribute.columns[0].type, EncryptedType)
    ]
    if not columns:
        return
    columns = _linked(mapper, columns)
    check(mapper, columns)
    keys = {key for column in columns for key in (column.key, *column.place_keys)}
    describe(cls, columns, _defaults(mapper, sorted(keys)))
    for table in {column_of(mapper, column.key).table for column in columns}:
        assert isinstance(table, Table)
        register(
            table,
            [_bound(mapper, column) for column in columns if column_of(mapper, column.key).table is table],
        )
    for column in columns:
        _instrument(cls, column)
    for name in ("load", "refresh"):
        event.listen(mapper, name, _note_places, raw=True)
    for name in ("before_insert", "before_update"):
        event.listen(mapper, name, before_row)


def _instrument(cls: type, column: EncryptedColumn) -> None:
    """Have an attribute take plaintexts, which it keeps apart from messages, and give plaintexts."""
    codec = column.settings.codec

    def keep(_instance: object, value: Any, current: Any, _initiator: object) -> Any:
        if value is None or isinstance(value, (Plaintext, Ciphertext)):
            return value
        if column.settings.partial is not None:
            raise EncryptedColumnError(
                f"{column.name} is computed from {column.settings.of!r}", remedy="assign that, and flush it"
            )
        try:
            plaintext = Plaintext(codec.encode(value), codec)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{column.name}: {error}") from None
        opened = current.opened if isinstance(current, Ciphertext) else None
        return current if opened is not None and opened.payload == plaintext.payload else plaintext

    event.listen(getattr(cls, column.key), "set", keep, retval=True)


def _note_places(state: InstanceState[Any], _context: Any, _names: Any = None) -> None:
    """Have each message that was loaded know the row that it is bound to."""
    values, committed = state.dict, state.committed_state
    for column in columns_of(state.class_):
        value = values.get(column.key)
        if type(value) is Ciphertext and value.place is None and column.key not in committed:
            value.place = loaded_place(state, column)


def _linked(mapper: Mapper[Any], columns: list[EncryptedColumn]) -> list[EncryptedColumn]:
    """Return the columns with what is computed from their values. Parts have the label and context of their values."""
    whole = {column.key: column for column in columns if column.settings.partial is None}
    parts: dict[str, list[EncryptedColumn]] = {}
    for column in columns:
        partial = column.settings.partial
        if partial is not None:
            source = source_of(whole, column.settings.of, column.name)
            settings = replace(
                column.settings,
                label=f"{source.settings.label}#{partial.name}",
                context=source.settings.context,
            )
            part = EncryptedColumn(mapper, column.key, settings, column.identity)
            parts.setdefault(source.key, []).append(part)
    indexes: dict[str, list[tuple[str, BlindIndex]]] = {}
    for attribute in mapper.column_attrs:
        found = attribute.columns[0].info.get(INFO) if isinstance(attribute.columns[0], Column) else None
        if found is not None:
            source = source_of(whole, found.attribute, f"{mapper.class_.__name__}.{attribute.key}")
            indexes.setdefault(source.key, []).append((attribute.key, found.index))
    for key, column in whole.items():
        column.indexes, column.parts = indexes.get(key, ()), parts.get(key, ())
    return [*whole.values(), *(part for each in parts.values() for part in each)]


def _bound(mapper: Mapper[Any], column: EncryptedColumn) -> Bound:
    own = column_of(mapper, column.key)
    # A key has a column in each table of a joined class.
    place = {
        each.key
        for key in column.place_keys
        for each in mapper.column_attrs[key].columns
        if each.table is own.table
    }
    beside = [*derived_keys(column), *filter(None, [column.settings.replaces])]
    return Bound(
        column.settings.label,
        own=frozenset({own.key, column.key}),
        derived=tuple(frozenset({column_of(mapper, key).key, key}) for key in beside),
        place=frozenset({*place, *column.place_keys}),
        place_columns=frozenset(place),
    )


def _defaults(mapper: Mapper[Any], keys: list[str]) -> Defaults:
    return {key: made for key in keys if (made := _default(mapper, key)) is not None}


def _default(mapper: Mapper[Any], key: str) -> Callable[[], Any] | None:
    """Return what makes the Python default of an attribute's column, or None where it has none."""
    # A key of a joined class has a column in each table, and the default where it begins.
    for default in (
        column.default for column in mapper.column_attrs[key].columns if isinstance(column, Column)
    ):
        made: Any = default
        if made is not None and made.is_scalar:
            return lambda: made.arg
        if made is not None and made.is_callable:
            return lambda: made.arg(_NoStatement(key))
    return None


class _NoStatement:
    """Stands for the context of a statement, which a default may ask for: there is no statement yet."""

    def __init__(self, column: str) -> None:
        self._column = column

    def __getattr__(self, name: str) -> NoReturn:
        raise EncryptedColumnError(
            f"the default of {self._column!r} asks for the statement, which is made after the row is encrypted",
            remedy="use a default that takes no argument",
        )
