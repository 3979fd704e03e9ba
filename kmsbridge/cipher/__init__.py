"""The portable API: encrypt and decrypt, whichever service holds the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmsbridge.cipher.decryptor import Decryptor
    from kmsbridge.cipher.encryptor import Encryptor
    from kmsbridge.cipher.envelope import EnvelopeCipher

__all__ = ["Decryptor", "Encryptor", "EnvelopeCipher"]

_LATE = {
    "Decryptor": "kmsbridge.cipher.decryptor",
    "Encryptor": "kmsbridge.cipher.encryptor",
    "EnvelopeCipher": "kmsbridge.cipher.envelope",
}


def __getattr__(name: str) -> Any:
    """Import each class when it is first asked for (PEP 562)."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATE[name]), name)
