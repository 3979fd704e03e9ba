"""The encrypted columns of a mapped class, and which place a value of one has: its row's key and context."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import InstanceState, Mapper, Session
from sqlalchemy.orm.base import NO_VALUE

from kmsbridge.blindindex import BlindIndex
from kmsbridge.integrations.sqlalchemy.column_type import ColumnSettings
from kmsbridge.integrations.sqlalchemy.errors import EncryptedColumnError
from kmsbridge.integrations.sqlalchemy.values import Place

TENANT: Final = "tenant"
"""The name, in a context, of who owns a row: blind indexes are made for one owner each."""

_COLUMNS: Final = "__kmsbridge_columns__"
_DEFAULTS: Final = "__kmsbridge_defaults__"


class EncryptedColumn:
    """An encrypted column of a mapped class. `key` is the attribute's name.

    `indexes` are the attributes with the blind indexes of its values, and `parts` the columns with parts of them.
    """

    def __init__(
        self, mapper: Mapper[Any], key: str, settings: ColumnSettings, identity: Sequence[str]
    ) -> None:
        self.key, self.settings, self.mapper = key, settings, mapper
        self.name = f"{mapper.class_.__name__}.{key}"
        self.identity = tuple(identity)
        self.place_keys = (*identity, *(attribute for _, attribute in settings.context))
        self._words = tuple(word for word, _ in settings.context)
        self.indexes: Sequence[tuple[str, BlindIndex]] = ()
        self.parts: Sequence[EncryptedColumn] = ()
        only = self.place_keys[0]
        self._get = (
            itemgetter(*self.place_keys) if len(self.place_keys) > 1 else lambda values: (values[only],)
        )

    def labelled(self, label: str | None) -> EncryptedColumn:
        """Return the same column with another label."""
        if label is None:
            return self
        return EncryptedColumn(self.mapper, self.key, replace(self.settings, label=label), self.identity)

    def place_in(self, values: Mapping[str, Any]) -> Place | None:
        """Return the place that these values of attributes are, or None where one of them is missing or None."""
        try:
            place: Place = self._get(values)
        except KeyError:
            return None
        return None if None in place else place

    def aad(self, place: Place) -> tuple[Any, ...]:
        """Return the aad of a value at this place."""
        return (self.settings.label, *place[: len(self.identity)])

    def context(self, place: Place) -> dict[str, str]:
        """Return the encryption context of a value at this place. Raises `TypeError`, which names the column."""
        values = place[len(self.identity) :]
        return {word: self.text(word, value) for word, value in zip(self._words, values, strict=True)}

    def tenant(self, place: Place) -> str:
        """Return the tenant that a blind index of a value at this place is made with."""
        return self.context(place).get(TENANT, "")

    def is_same(self, place: Place, other: Place) -> bool:
        """Return whether two places are one: 42 and "42" are."""
        return place == other or (self.aad(place), self.context(place)) == (
            self.aad(other),
            self.context(other),
        )

    def text(self, word: str, value: Any) -> str:
        if isinstance(value, str):
            return value
        if isinstance(value, UUID) or (isinstance(value, int) and not isinstance(value, bool)):
            return str(value)
        raise TypeError(
            f"the context of {self.name} needs str, int or UUID for {word!r}, not {type(value).__name__}"
        )


Defaults = dict[str, Callable[[], Any]]
"""Attributes, and what returns the Python default of each."""


def contexts_of(values: Iterable[tuple[EncryptedColumn, Any, Place]]) -> list[dict[str, str]]:
    """Return the encryption context of each value. Values of one context share a dict."""
    known: dict[tuple[Any, ...], dict[str, str]] = {}
    found = []
    for column, _, place in values:
        key = (column.settings.context, *place[len(column.identity) :])
        context = known.get(key)
        if context is None:
            context = known[key] = column.context(place)
        found.append(context)
    return found


def columns_of(cls: type) -> tuple[EncryptedColumn, ...]:
    """Return the encrypted columns of a mapped class; of any other class none."""
    found: tuple[EncryptedColumn, ...] = getattr(cls, _COLUMNS, ())
    return found


def defaults_of(cls: type) -> Defaults:
    """Return the defaults of a class's key, of its contexts' attributes and of its encrypted columns."""
    found: Defaults = getattr(cls, _DEFAULTS, {})
    return found


def describe(cls: type, columns: Sequence[EncryptedColumn], defaults: Defaults) -> None:
    """Have `columns_of` and `defaults_of` return these."""
    type.__setattr__(cls, _COLUMNS, tuple(columns))
    type.__setattr__(cls, _DEFAULTS, defaults)


def column_named(cls: type, key: str) -> EncryptedColumn:
    """Return the encrypted column of this attribute. Raises `TypeError`."""
    for column in columns_of(cls):
        if column.key == key:
            return column
    raise TypeError(f"{cls.__name__} has no encrypted column {key!r}")


def is_changed(state: InstanceState[Any], keys: Sequence[str]) -> bool:
    """Return whether any of these attributes was assigned since the object was loaded or flushed."""
    committed = state.committed_state
    return any(key in committed for key in keys)


def loaded_place(state: InstanceState[Any], column: EncryptedColumn) -> Place | None:
    """Return the place of a value that was just loaded, or None where not all of it is loaded too."""
    values: Mapping[str, Any] = state.dict
    committed = state.committed_state
    if committed and is_changed(state, column.place_keys):
        values = {key: committed.get(key, state.dict.get(key, NO_VALUE)) for key in column.place_keys}
        if NO_VALUE in values.values():
            return None
    return column.place_in(values)


def stored_place(session: Session, state: InstanceState[Any], column: EncryptedColumn) -> Place:
    """Return the place of a row as the database has it. It is asked where the attributes are not loaded."""
    place = loaded_place(state, column)
    if place is not None:
        return place
    if state.identity is None:
        raise EncryptedColumnError(
            f"the row that a message of {column.name} came from is not known",
            remedy="load all attributes of its primary key and context with it, or assign the plaintext",
        )
    attributes = [column.mapper.attrs[key].class_attribute for key in column.place_keys]
    keys = zip(column.mapper.primary_key, state.identity, strict=True)
    row = session.execute(select(*attributes).where(*(key == value for key, value in keys))).one()
    return tuple(row)


def place_now(instance: object, state: InstanceState[Any], column: EncryptedColumn) -> Place | None:
    """Return the place that a value will have once the object is flushed, or None where that is not known yet.

    Attributes that are not loaded are loaded.
    """
    values = state.dict
    if state.key is not None:
        for key in column.place_keys:
            if key not in values:
                getattr(instance, key)
    return column.place_in(values)
