"""Binding ciphers to sessions, and calling them without blocking an event loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, Union

from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.util import await_only, concurrency

from kmsbridge import Decryptor, Encryptor, EnvelopeCipher, RoleError, aio
from kmsbridge.integrations.sqlalchemy.errors import EncryptedColumnError
from kmsbridge.integrations.sqlalchemy.places import EncryptedColumn

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

SyncSession: TypeAlias = Session | scoped_session[Any]
TaskSession: TypeAlias = Union["AsyncSession", "async_scoped_session[Any]"]
"""A session of asyncio. Its module is for type checkers: it needs greenlet, which may not be installed."""

WriteCipher = Encryptor | EnvelopeCipher | aio.Encryptor | aio.EnvelopeCipher
ReadCipher = Decryptor | EnvelopeCipher | aio.Decryptor | aio.EnvelopeCipher

_ATTRIBUTE: Final = "_kmsbridge_ciphers"


class Ciphers(NamedTuple):
    """The ciphers of a session: to encrypt, to decrypt, and to do both with parts of values; None where it may not."""

    write: WriteCipher | None = None
    read: ReadCipher | None = None
    partial: WriteCipher | ReadCipher | None = None


def bind(
    target: Any,
    *,
    write: WriteCipher | None = None,
    read: ReadCipher | None = None,
    partial: WriteCipher | ReadCipher | None = None,
) -> None:
    """Have sessions encrypt what is assigned to encrypted columns with `write`, and decrypt with `read`.

    `partial` encrypts and decrypts the parts of values that partial columns have.

    `target` is a `sessionmaker`, an `async_sessionmaker`, a scoped session of either, a session class or a session. A
    host that may only write, such as a web server, gives `write` alone, and one that may only read gives `read`
    alone. The ciphers are of `kmsbridge` or of `kmsbridge.aio`; those of `aio` need an asyncio session. They are not
    closed with the sessions. A second call replaces the first, for the sessions that are made after it.

    Raises `TypeError` for what is none of these.
    """
    if write is not None and not hasattr(write, "encrypt_many"):
        raise TypeError(f"write must be an Encryptor or EnvelopeCipher, not {type(write).__name__}")
    if read is not None and not hasattr(read, "decrypt_many"):
        raise TypeError(f"read must be a Decryptor or EnvelopeCipher, not {type(read).__name__}")
    if partial is not None and not (hasattr(partial, "encrypt_many") or hasattr(partial, "decrypt_many")):
        raise TypeError(f"partial must be a cipher of kmsbridge, not {type(partial).__name__}")
    setattr(_holder(target), _ATTRIBUTE, Ciphers(write, read, partial))


def _holder(target: Any) -> Any:
    """Return the session or the session class on which the ciphers of this target are kept."""
    if hasattr(target, "session_factory"):  # a scoped session, of either kind
        target = target.session_factory
    if isinstance(target, sessionmaker):
        return target.class_
    if isinstance(target, Session) or (isinstance(target, type) and issubclass(target, Session)):
        return target
    if isinstance(getattr(target, "sync_session", None), Session):
        return target.sync_session
    if isinstance(getattr(target, "sync_session_class", None), type):  # a class of asyncio sessions
        target.sync_session_class = _subclass(target.sync_session_class)
        return target.sync_session_class
    if hasattr(target, "configure") and hasattr(getattr(target, "class_", None), "sync_session_class"):
        cls = _subclass(target.kw.get("sync_session_class") or target.class_.sync_session_class)
        target.configure(sync_session_class=cls)
        return cls
    raise TypeError(f"bind takes a sessionmaker, a session class or a session, not {type(target).__name__}")


def _subclass(cls: type[Any]) -> type[Any]:
    return type(cls.__name__, (cls,), {})


def sync_session(session: Any) -> Session:
    """Return the session itself, or a scoped session's. Raises `TypeError` for what is neither."""
    found = _unscoped(session)
    if not isinstance(found, Session):
        raise TypeError(f"session must be a Session or an AsyncSession, not {type(session).__name__}")
    return found


def is_async(session: Any) -> bool:
    """Return whether what is done with this session must be awaited."""
    return hasattr(_unscoped(session), "sync_session")


def run(session: Any, function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
    """Return what to await for `function(sync_session, *args)`, which an asyncio session runs."""
    awaitable: Awaitable[Any] = _unscoped(session).run_sync(function, *args)
    return awaitable


def _unscoped(session: Any) -> Any:
    return session() if hasattr(session, "session_factory") else session


def write_cipher(session: Session, column: EncryptedColumn) -> Any:
    """Return what this session encrypts a column with. Raises `RoleError`."""
    ciphers: Ciphers = getattr(session, _ATTRIBUTE, Ciphers())
    cipher = ciphers.write if column.settings.partial is None else ciphers.partial
    if not hasattr(cipher, "encrypt_many"):
        word = "write" if column.settings.partial is None else "partial"
        raise RoleError(
            f"{column.name} cannot be encrypted: this session has no cipher to do it with",
            remedy=f"bind(Session, {word}=encryptor), on a host that may encrypt",
        )
    return cipher


def may_read(session: Session, column: EncryptedColumn) -> bool:
    """Return whether this session has what decrypts a column."""
    ciphers: Ciphers = getattr(session, _ATTRIBUTE, Ciphers())
    return hasattr(ciphers.read if column.settings.partial is None else ciphers.partial, "decrypt_many")


def read_cipher(session: Session, column: EncryptedColumn) -> Any:
    """Return what this session decrypts a column with. Raises `RoleError`."""
    ciphers: Ciphers = getattr(session, _ATTRIBUTE, Ciphers())
    if not may_read(session, column):
        word = "read" if column.settings.partial is None else "partial"
        raise RoleError(
            f"{column.name} cannot be decrypted: this session has no cipher to do it with",
            remedy=f"bind(Session, {word}=decryptor), on a host that may decrypt",
        )
    return ciphers.read if column.settings.partial is None else ciphers.partial


def _in_greenlet() -> bool:
    """Return whether an asyncio session runs this. Without the package greenlet there are none."""
    try:
        return concurrency.in_greenlet()
    except ImportError:
        return False


def would_block() -> bool:
    """Return whether an event loop runs here that a call would block: it is not called by an asyncio session."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return not _in_greenlet()


def call(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return what a cipher's method returns; within an asyncio session, the event loop runs on meanwhile."""
    if inspect.iscoroutinefunction(method):
        if not _in_greenlet():
            raise EncryptedColumnError(
                "a cipher of kmsbridge.aio cannot be used by a session that is not for asyncio",
                remedy="bind a cipher of kmsbridge to it",
            )
        return await_only(method(*args, **kwargs))
    if _in_greenlet():
        return await_only(asyncio.to_thread(method, *args, **kwargs))
    return method(*args, **kwargs)
