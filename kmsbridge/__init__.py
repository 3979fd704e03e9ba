"""Envelope encryption with keys that live in a key service, whichever service that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kmsbridge.errors import (
    AuditError,
    AuthenticationError,
    ClosedError,
    ConfigError,
    KmsAccessDenied,
    KmsBridgeError,
    KmsCredentialMisused,
    KmsError,
    KmsInvalidRequest,
    KmsKeyDisabled,
    KmsKeyNotFound,
    KmsThrottled,
    KmsTimeout,
    KmsUnauthenticated,
    KmsUnavailable,
    LimitExceeded,
    MalformedMessage,
    MessageError,
    NoMatchingKey,
    ProviderLoadError,
    ProviderNotFound,
    ReentrantCall,
    RoleError,
    UnsupportedMessage,
)

if TYPE_CHECKING:
    from kmsbridge.cipher import Decryptor, Encryptor, EnvelopeCipher
    from kmsbridge.cipher.health import CacheHealth, Health, KeyHealth
    from kmsbridge.cipher.pulling import EncryptingReader
    from kmsbridge.cipher.reading import MessageReader
    from kmsbridge.cipher.sharing import shared
    from kmsbridge.cipher.writing import MessageWriter
    from kmsbridge.hardening import harden_process
    from kmsbridge.inspection import MessageInfo, RecipientInfo, inspect, inspect_file
    from kmsbridge.secretvalue import SecretValue

__version__: Final = "0.1.0"

__all__ = [
    "AuditError",
    "AuthenticationError",
    "CacheHealth",
    "ClosedError",
    "ConfigError",
    "Decryptor",
    "EncryptingReader",
    "Encryptor",
    "EnvelopeCipher",
    "Health",
    "KeyHealth",
    "KmsAccessDenied",
    "KmsBridgeError",
    "KmsCredentialMisused",
    "KmsError",
    "KmsInvalidRequest",
    "KmsKeyDisabled",
    "KmsKeyNotFound",
    "KmsThrottled",
    "KmsTimeout",
    "KmsUnauthenticated",
    "KmsUnavailable",
    "LimitExceeded",
    "MalformedMessage",
    "MessageError",
    "MessageInfo",
    "MessageReader",
    "MessageWriter",
    "NoMatchingKey",
    "ProviderLoadError",
    "ProviderNotFound",
    "RecipientInfo",
    "ReentrantCall",
    "RoleError",
    "SecretValue",
    "UnsupportedMessage",
    "harden_process",
    "inspect",
    "inspect_file",
    "shared",
]

_LATE = {
    "CacheHealth": "kmsbridge.cipher.health",
    "Decryptor": "kmsbridge.cipher",
    "EncryptingReader": "kmsbridge.cipher.pulling",
    "Encryptor": "kmsbridge.cipher",
    "EnvelopeCipher": "kmsbridge.cipher",
    "Health": "kmsbridge.cipher.health",
    "KeyHealth": "kmsbridge.cipher.health",
    "MessageInfo": "kmsbridge.inspection",
    "MessageReader": "kmsbridge.cipher.reading",
    "MessageWriter": "kmsbridge.cipher.writing",
    "RecipientInfo": "kmsbridge.inspection",
    "SecretValue": "kmsbridge.secretvalue",
    "harden_process": "kmsbridge.hardening",
    "inspect": "kmsbridge.inspection",
    "inspect_file": "kmsbridge.inspection",
    "shared": "kmsbridge.cipher.sharing",
}


def __getattr__(name: str) -> Any:
    """Import a public name that needs more than the errors when it is first used (PEP 562)."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_LATE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
