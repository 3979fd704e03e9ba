"""Declaring encrypted columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from sqlalchemy.orm import Mapped, mapped_column

from kmsbridge import ConfigError
from kmsbridge.integrations.sqlalchemy.codecs import BYTES, JSON_CODEC, TEXT, Codec
from kmsbridge.integrations.sqlalchemy.column_type import ColumnSettings, EncryptedType
from kmsbridge.integrations.sqlalchemy.mapping import EncryptedAttribute

T = TypeVar("T")

T_co = TypeVar("T_co", covariant=True)


class EncryptedMapped(Mapped[T_co]):
    """The annotation of an encrypted column, `phone: EncryptedMapped[str]`: `Mapped`, with `User.phone.matches`."""

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: Any) -> EncryptedAttribute[T_co]: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> T_co: ...
        def __get__(self, instance: object | None, owner: Any) -> EncryptedAttribute[T_co] | T_co: ...


Context = Sequence[str] | Mapping[str, str]
"""The names of attributes, or the attribute of each name of a context."""

_REFUSED = {
    "unique": "equal values have different messages, so that the database cannot see that they are equal",
    "index": "equal values have different messages, so that no index helps to find one",
    "primary_key": "a message is of no use as a key",
    "server_default": "the database cannot encrypt",
    "onupdate": "give the value to the object instead",
    "server_onupdate": "the database cannot encrypt",
}


def encrypted(
    label: str, codec: Codec[T], *, context: Context = (), replaces: str = "", **options: Any
) -> EncryptedMapped[T]:
    """Return a mapped column whose values are encrypted, and written as bytes by `codec`.

    `label` names the column in every message's aad, which is `(label, *primary key)`: choose it once, such as
    "users.phone", and keep it when the table or the column is renamed. No two columns may have the same one.

    `context` names the attributes whose values are the encryption context, such as `("tenant",)`; a mapping gives
    for each name of the context the attribute that has its value. They are `str`, `int` or `uuid.UUID`, and not None.

    `replaces` names the attribute that has had the values in the clear, while they are moved: where it is not None
    it is what the object gives, and a value that is assigned is encrypted and sets it to None.

    `options` are those of `mapped_column`. Raises `ConfigError` for those that an encrypted column cannot have, such
    as `unique` and `index`, and `TypeError` for a label or context that is of a wrong type.
    """
    pairs = _pairs(context)
    words: tuple[object, ...] = (label, replaces or label, *(name for pair in pairs for name in pair))
    if not all(isinstance(word, str) and word for word in words):
        raise TypeError("the label and the names of the context must be text that is not empty")
    for name, reason in _REFUSED.items():
        if options.get(name) not in (None, False):
            raise ConfigError(f"the encrypted column {label!r} cannot have {name}: {reason}")
    settings = ColumnSettings(label, pairs, codec, replaces=replaces)
    column: Any = mapped_column(EncryptedType(settings), **options)
    made: EncryptedMapped[T] = column
    return made


def encrypted_text(
    label: str, *, context: Context = (), replaces: str = "", **options: Any
) -> EncryptedMapped[str]:
    """Return a mapped column of encrypted text. See `encrypted`."""
    return encrypted(label, TEXT, context=context, replaces=replaces, **options)


def encrypted_bytes(
    label: str, *, context: Context = (), replaces: str = "", **options: Any
) -> EncryptedMapped[bytes]:
    """Return a mapped column of encrypted bytes. See `encrypted`."""
    return encrypted(label, BYTES, context=context, replaces=replaces, **options)


def encrypted_json(
    label: str, *, context: Context = (), replaces: str = "", **options: Any
) -> EncryptedMapped[Any]:
    """Return a mapped column of encrypted JSON. See `encrypted`.

    What is read cannot be changed in place: change a `copy.deepcopy` of it and assign that. None is SQL's NULL, and
    `sqlalchemy.JSON.NULL` is JSON's.
    """
    return encrypted(label, JSON_CODEC, context=context, replaces=replaces, **options)


def _pairs(context: Context) -> tuple[tuple[str, str], ...]:
    if isinstance(context, str):
        raise TypeError(f'context must be a sequence of names, such as ("{context}",)')
    pairs = context.items() if isinstance(context, Mapping) else [(name, name) for name in context]
    return tuple(pairs)
