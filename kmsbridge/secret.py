"""Values that must not be shown: key material, tokens, passphrases. They are overwritten when they are let go of.

Overwriting is done by C functions only. Python runs a signal handler between two steps of its own code, and what the
handler raises in a finalizer is lost.
"""

from __future__ import annotations

import hmac
from functools import partial
from io import BytesIO
from operator import methodcaller
from typing import Final, NoReturn, Self

KEY: Final = 32
"""The length in bytes of a key of AES-256."""


class _Held(BytesIO):
    """Bytes that can be overwritten where they are.

    A BytesIO uses the bytes that it is made of, and copies them before a write if anything else holds them. So CPython
    itself decides whether they may be overwritten; elsewhere a copy is.
    """

    __slots__ = ()
    closed = True  # else the garbage collector might close it, before what it holds is overwritten

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")


class Secret:
    """Bytes that do not show in a repr or an error and cannot be pickled or copied.

    `reveal()` and `reveal_text()` return the value. The bytes are overwritten when the object is let go of, if nothing
    else holds them by then. Python makes copies that nobody can overwrite, so this reduces what a core dump holds, and
    promises nothing about it.

    A function overwrites a value of its own by a variable that is set after it: `_overwritten = Secret(value)`. The
    variables of a function go in the order in which they are set.
    """

    # Looked up in the class, `__del__` is found in the object: there it is a C function.
    __slots__ = ("__del__", "_held")

    def __init__(self, value: bytes) -> None:
        self._held = _Held(value)
        self.__del__ = partial(self._held.write, bytes(len(value)))

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Return a secret with the UTF-8 bytes of `text`."""
        return cls(text.encode("utf-8", "surrogateescape"))

    def reveal(self) -> bytes:
        """Return the bytes."""
        if self._held.tell():  # a finalizer got hold of this object again after it was overwritten
            raise ReferenceError("the secret was let go of")
        return self._held.getvalue()

    def reveal_text(self) -> str:
        """Return the bytes decoded as UTF-8, for secrets made by `of_text`."""
        return self.reveal().decode("utf-8", "surrogateescape")

    def equals(self, other: Secret) -> bool:
        """Return whether both hold the same bytes. The time taken does not depend on where they differ."""
        return hmac.compare_digest(self.reveal(), other.reveal())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied")

    # Else Python's own would return the slots to whoever asks, as serializers do.
    __getstate__ = __reduce__


class CipherKey(bytearray):
    """A copy of a 32-byte key for a cipher object, which keeps what it is made of: overwritten when both are let go of.

    Not to be changed: a cipher may read it again for each message.
    """

    __slots__ = ()
    # `partial(overwrite, self)`, made when it is looked up.
    __del__ = property(partial(partial, methodcaller("__setitem__", slice(None), bytes(KEY))))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"

    __str__ = __repr__

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be pickled or copied")
