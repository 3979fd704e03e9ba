"""Columns beside an encrypted value: blind indexes to look it up by, and parts of it that may be shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import LargeBinary
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.orm.attributes import flag_modified, instance_state

from kmsbridge.blindindex import BlindIndex
from kmsbridge.integrations.sqlalchemy.codecs import TEXT
from kmsbridge.integrations.sqlalchemy.column_type import ColumnSettings, EncryptedType
from kmsbridge.integrations.sqlalchemy.places import EncryptedColumn
from kmsbridge.integrations.sqlalchemy.values import Place, Plaintext
from kmsbridge.partial import Partial

INFO: Final = "kmsbridge_index"


@dataclass(frozen=True)
class IndexOf:
    """The attribute whose values a column has the blind index of."""

    attribute: str
    index: BlindIndex


def index_column(of: str, blind_index: BlindIndex, /, **options: Any) -> Mapped[bytes | None]:
    """Return a mapped column for the blind index of each value of the encrypted text attribute `of`.

    It is computed by the flush, and by `encrypt_rows`, for the tenant that the context names "tenant". `options` are
    those of `mapped_column`, such as `index=True`; a UNIQUE constraint on it needs all 128 bits and the tenant.
    """
    info = {**options.pop("info", {}), INFO: IndexOf(of, blind_index)}
    return mapped_column(LargeBinary(blind_index.size), info=info, **options)


def partial_column(of: str, partial: Partial, /, **options: Any) -> Mapped[str | None]:
    """Return a mapped column for a part of each value of the encrypted text attribute `of`, such as `LAST4`.

    It is computed by the flush, and by `encrypt_rows`, and encrypted by the cipher that `bind` was given as `partial`,
    for the same context, with the aad that `partial.aad` returns. Its attribute is read as any other encrypted one,
    and cannot be assigned. `options` are those of `mapped_column`.
    """
    settings = ColumnSettings(f"{of}#{partial.name}", (), TEXT, partial, of)
    return mapped_column(EncryptedType(settings), **options)


def indexes_of(column: EncryptedColumn, plaintext: Plaintext, place: Place) -> dict[str, bytes | None]:
    """Return the blind indexes of a value at this place, by the attributes that have them."""
    tenant = column.tenant(place) if column.indexes else ""
    return {key: index.of(plaintext.value, tenant=tenant) for key, index in column.indexes}


def parts_of(
    column: EncryptedColumn, plaintext: Plaintext, place: Place
) -> list[tuple[EncryptedColumn, Plaintext, Place]]:
    """Return the parts of a value at this place, which are to be encrypted."""
    return [
        (part, Plaintext(TEXT.encode(part.settings.partial.of(plaintext.value)), TEXT), place)
        for part in column.parts
        if part.settings.partial is not None
    ]


def derived_keys(column: EncryptedColumn) -> tuple[str, ...]:
    """Return the attributes that are computed from a column's values."""
    return (*(key for key, _ in column.indexes), *(part.key for part in column.parts))


def put(instance: object, key: str, value: Any) -> None:
    """Set an attribute so that the statement that stores the object names its column, whatever it had before."""
    instance_state(instance).dict[key] = value
    flag_modified(instance, key)
