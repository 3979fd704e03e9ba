"""One cipher for all of a process."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any, Final, NamedTuple, TypeVar, overload

from kmsbridge import config, forks
from kmsbridge.cipher.base import Cipher, make_cipher, profile_session
from kmsbridge.cipher.envelope import EnvelopeCipher
from kmsbridge.cipher.session import Session
from kmsbridge.errors import discreet

CipherT = TypeVar("CipherT", bound=Cipher)


@overload
def shared(profile: str | None = None) -> EnvelopeCipher: ...


@overload
def shared(profile: str | None = None, cls: type[CipherT] = ...) -> CipherT: ...


@discreet
def shared(profile: str | None = None, cls: type[Any] = EnvelopeCipher) -> Any:
    """Return the `cls` that everybody in this process uses for a profile; the first call opens it.

    The configuration and the profile are found as by `cls.from_config(profile=profile)`, at each call. There is
    one for each of them and each class, so that an `Encryptor` holds nothing that could decrypt. Threads and
    forked children may call it. Do not use the result with `with`: closing it closes it for everybody, and the
    next call opens another. Raises what `from_config` raises.
    """
    if not issubclass(cls, Cipher):
        raise TypeError(f"cls must be a class of this library that encrypts or decrypts, not {cls.__name__}")
    return _ciphers.get(cls, profile)


class _Opened(NamedTuple):
    cipher: Cipher
    session: Session


class _Ciphers:
    """The ciphers that are shared, by their class, configuration and profile."""

    def __init__(self) -> None:
        self._opened: dict[Hashable, _Opened] = {}
        self.after_fork()
        forks.watch(self)

    def get(self, cls: type[Cipher], profile: str | None) -> Cipher:
        """Return the one for this class and profile, opened where there is none that is open."""
        where, asked = config.identify(profile)
        opened = self._opened.get((cls, where, asked))
        if opened is None or opened.session.closed:
            with self._lock:
                opened = self._open(cls, profile, where, asked)
        return opened.cipher

    def after_fork(self) -> None:
        """Another thread of the parent may have held the lock. The ciphers go on working in the child."""
        self._lock = threading.RLock()

    def _open(self, cls: type[Cipher], profile_name: str | None, where: str, asked: str | None) -> _Opened:
        profile = config.load(profile=profile_name)
        name = (cls, where, profile.name)  # whoever asks for it by name gets what the default was opened as
        opened = self._opened.get(name)
        if opened is None or opened.session.closed:
            session = profile_session(cls, profile)
            opened = self._opened[name] = _Opened(make_cipher(cls, session), session)
        self._opened[cls, where, asked] = opened
        return opened


_ciphers: Final = _Ciphers()
