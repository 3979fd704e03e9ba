"""The type of an encrypted column, which takes messages and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

from sqlalchemy import BinaryExpression, ColumnElement, LargeBinary, Null
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeDecorator

from kmsbridge.integrations.sqlalchemy.codecs import Codec
from kmsbridge.integrations.sqlalchemy.errors import EncryptedColumnError
from kmsbridge.integrations.sqlalchemy.values import Ciphertext
from kmsbridge.partial import Partial

_EQUALITY = (operators.eq, operators.ne)
_NULL_TESTS = (operators.is_, operators.is_not, *_EQUALITY)


@dataclass(frozen=True)
class ColumnSettings:
    """The settings that a column was declared with. `context` has pairs of a context's name and the attribute that has its value."""

    label: str
    context: tuple[tuple[str, str], ...]
    codec: Codec[Any]
    partial: Partial | None = None
    """The part of another column's value that the column has. Its label and context are those of that one, whose attribute is `of`."""
    of: str = ""
    replaces: str = ""
    """The attribute that has the plaintexts of rows that are not moved yet."""


class EncryptedType(TypeDecorator[Any]):
    """Stores messages as bytes: BLOB, BYTEA. It binds a `Ciphertext` or None, and refuses every other value.

    So no way into the database, whether a flush, a bulk method or a statement, can store a plaintext. Alembic renders
    it as `LargeBinary()`.
    """

    # Alembic renders a type of this module as one of SQLAlchemy's, by its repr.
    __module__ = "sqlalchemy.types"
    impl = LargeBinary
    cache_ok = True

    def __init__(self, settings: ColumnSettings) -> None:
        super().__init__()
        self.settings = settings

    def __repr__(self) -> str:
        return "LargeBinary()"

    def __reduce__(self) -> tuple[Any, ...]:
        return _of_settings, (self.settings,)

    def process_bind_param(self, value: Any, dialect: Dialect) -> bytes | None:
        if type(value) is Ciphertext:
            return value.message
        if value is not None:
            _refuse_plaintext(self.settings.label)
        return None

    def process_literal_param(self, value: Any, dialect: Dialect) -> str:
        raise EncryptedColumnError(
            f"a value of the encrypted column {self.settings.label!r} is never a literal in SQL"
        )

    def process_result_value(self, value: Any, dialect: Dialect) -> Ciphertext | None:
        if value is None:
            return None
        return Ciphertext(value if type(value) is bytes else bytes(value))

    def coerce_compared_value(self, op: Any, value: Any) -> EncryptedType:
        return self

    class comparator_factory(TypeDecorator.Comparator[Any]):  # noqa: N801 - SQLAlchemy's name
        """Allows the test for NULL, and no other operator: equal values have different messages."""

        def operate(self, op: Any, *other: Any, **kwargs: Any) -> Any:
            if op in _NULL_TESTS and (other[0] is None or isinstance(other[0], Null)):
                return super().operate(op, *other, **kwargs)
            if op in _EQUALITY and isinstance(other[0], ColumnElement):
                return _ColumnComparison(self.expr, other[0], op)
            return self._refuse(op)

        def reverse_operate(self, op: Any, other: Any, **kwargs: Any) -> NoReturn:
            self._refuse(op)

        def _refuse(self, op: Any) -> NoReturn:
            kind = self.expr.type
            assert isinstance(kind, EncryptedType)
            refuse_operator(kind.settings.label, getattr(op, "__name__", None) or str(op.opstring))


class _ColumnComparison(BinaryExpression[Any]):
    """Says whether two columns are one, as SQLAlchemy asks where it looks for a column in a list. It is no SQL."""

    inherit_cache = True


@compiles(_ColumnComparison)
def _refuse_comparison(element: _ColumnComparison, _compiler: Any, **_: Any) -> NoReturn:
    kinds = (element.left.type, element.right.type)
    label = next(kind.settings.label for kind in kinds if isinstance(kind, EncryptedType))
    refuse_operator(label, "a comparison")


def refuse_operator(label: str, name: str) -> NoReturn:
    """Raise the error of a comparison or an order of messages."""
    raise EncryptedColumnError(
        f"the column {label!r} is encrypted: the database cannot use {name} on it",
        remedy="only is_(None) and is_not(None) work; to look a value up, give the column a blind index",
    )


def _refuse_plaintext(label: str) -> NoReturn:
    raise EncryptedColumnError(
        f"a value that is not encrypted was about to be stored in the encrypted column {label!r}",
        remedy="for insert(), update(), upserts and the bulk methods, encrypt the rows first with "
        "encrypt_rows(session, Model, rows); else add the object to a session and flush it",
    )


def _of_settings(settings: ColumnSettings) -> EncryptedType:
    return EncryptedType(settings)
