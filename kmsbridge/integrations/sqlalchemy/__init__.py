"""Encrypted columns for SQLAlchemy 2, with sessions of its ORM, for asyncio too.

    class User(Base):
        __tablename__ = "users"
        id: Mapped[str] = mapped_column(primary_key=True, default=lambda: str(uuid4()))
        tenant: Mapped[str]
        phone: Mapped[str] = encrypted_text("users.phone", context=("tenant",))

    bind(Session, write=encryptor, read=decryptor)

Needs the extra `sqlalchemy`. A value that is assigned is encrypted by the flush that stores it, and one that was
loaded is decrypted when its attribute is read. Every message is bound to its column's label, its row's primary key
and the context.
"""

from __future__ import annotations

from sqlalchemy import Engine, event
from sqlalchemy.orm import Mapper, Session

from kmsbridge.integrations.sqlalchemy import mapping, statements, writing
from kmsbridge.integrations.sqlalchemy.ciphers import bind
from kmsbridge.integrations.sqlalchemy.codecs import Codec
from kmsbridge.integrations.sqlalchemy.columns import (
    EncryptedMapped,
    encrypted,
    encrypted_bytes,
    encrypted_json,
    encrypted_text,
)
from kmsbridge.integrations.sqlalchemy.derived import index_column, partial_column
from kmsbridge.integrations.sqlalchemy.errors import EncryptedColumnError
from kmsbridge.integrations.sqlalchemy.moving import Progress, progress
from kmsbridge.integrations.sqlalchemy.reading import decrypt_all
from kmsbridge.integrations.sqlalchemy.rewrapping import rewrap_rows
from kmsbridge.integrations.sqlalchemy.rows import encrypt_rows, rebind
from kmsbridge.integrations.sqlalchemy.values import Ciphertext

__all__ = [
    "Ciphertext",
    "Codec",
    "EncryptedColumnError",
    "EncryptedMapped",
    "Progress",
    "bind",
    "decrypt_all",
    "encrypt_rows",
    "encrypted",
    "encrypted_bytes",
    "encrypted_json",
    "encrypted_text",
    "index_column",
    "partial_column",
    "progress",
    "rebind",
    "rewrap_rows",
]

event.listen(Mapper, "after_mapper_constructed", mapping.prepare)
event.listen(Mapper, "mapper_configured", mapping.configure)
event.listen(Session, "before_flush", writing.before_flush)
event.listen(Engine, "before_execute", statements.check)
