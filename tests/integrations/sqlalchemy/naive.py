"""What an application writes for itself in an afternoon, with the mistakes that this makes: the mutant of the tests.

A second attribute holds the message, the plaintext stands beside it in the object, and a listener encrypts before
the flush. Every test of a trap must fail with it.
"""

from __future__ import annotations

import json

from sqlalchemy import Text, TypeDecorator, event
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, mapped_column, object_session, sessionmaker


class Message(TypeDecorator):
    """Bytes, as anybody gives them."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value.encode() if isinstance(value, str) else value


class Field:
    """The attribute that an application uses, beside the mapped one."""

    def __init__(self, label, context, write, read, options):
        self.label, self.names, self.write, self.read, self.options = label, context, write, read, options

    def __set_name__(self, owner, name):
        self.name, self.plain, self.message = name, f"_{name}", f"{name}_message"
        setattr(owner, self.message, mapped_column(name, Message(), **self.options))
        owner.encrypted = [*getattr(owner, "encrypted", ()), self]

    def __get__(self, instance, owner):
        if instance is None:
            return getattr(owner, self.message)
        if self.plain not in instance.__dict__:
            message = getattr(instance, self.message)
            cipher = object_session(instance).info["read"]
            assert cipher, "a host that only writes decrypts a value"
            payload = message and cipher.decrypt(
                message, context=self.context(instance), aad=self.aad(instance)
            )
            instance.__dict__[self.plain] = payload and self.read(payload)
        return instance.__dict__[self.plain]

    def __set__(self, instance, value):
        instance.__dict__[self.plain] = value
        setattr(instance, self.message, b"placeholder")

    def context(self, instance):
        return {name: getattr(instance, name) or "" for name in self.names}

    def aad(self, instance):
        return (self.label, str(instance.id))


def encrypted_text(label, context=(), **options):
    return Field(label, context, str.encode, bytes.decode, options)


def encrypted_json(label, context=(), **options):
    return Field(label, context, lambda value: json.dumps(value).encode(), json.loads, options)


def bind(target, write=None, read=None):
    if isinstance(target, async_sessionmaker):
        target.configure(
            sync_session_class=type("Bound", (Session,), {}), info={"write": write, "read": read}
        )
        target = target.kw["sync_session_class"]
    elif isinstance(target, sessionmaker):
        target.configure(info={"write": write, "read": read})
    event.listen(target, "before_flush", _encrypt)


def _encrypt(session, *_):
    for instance in (*session.new, *session.dirty):
        for field in getattr(instance, "encrypted", ()):
            value = instance.__dict__.get(field.plain)
            if value:
                assert session.info["write"], "a host that only reads encrypts a value"
                message = session.info["write"].encrypt_many(
                    [field.write(value)], contexts=[field.context(instance)], aads=[field.aad(instance)]
                )
                setattr(instance, field.message, message[0])
            elif field.plain in instance.__dict__:
                setattr(instance, field.message, None)


def decrypt_all(session, objects, *names):
    """Without a batch."""
    if isinstance(session, AsyncSession):
        return session.run_sync(decrypt_all, objects, *names)
    for instance in objects:
        for name in names:
            getattr(instance, name)
    return None


def encrypt_rows(session, model, rows):
    """There is no such thing: the rows go as they are."""
    if isinstance(session, AsyncSession):
        return session.run_sync(encrypt_rows, model, rows)
    return [dict(row) for row in rows]


def rebind(session, objects, *names, **how):
    """Nor this."""
