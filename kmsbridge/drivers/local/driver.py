"""The `local` driver: `local:PATH#NAME`."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import ClassVar, Final, Self

from kmsbridge.driver import (
    Capability,
    EncryptionContext,
    ErrorDetails,
    ErrorKind,
    KeyDescription,
    KeyDriver,
    KeyState,
    KeyURI,
    Operation,
    Options,
    PolicyRole,
    WrappedKey,
)
from kmsbridge.drivers.local.document import Document, StoredKey, is_name, is_version
from kmsbridge.drivers.local.errors import LocalKeyError
from kmsbridge.drivers.local.keyfile import KeyFile, discreet, find
from kmsbridge.errors import AuthenticationError, ConfigError
from kmsbridge.message import chunked

_CONTEXT: Final = b"kmsbridge-local/v1\0"
_SHOWN: Final = 10
_FORGED: Final = 80
"""Bytes of a wrapped key that nobody wrapped: about as many as a data key takes."""

# The first that fits; only what can come of reading, locking and replacing a file.
_OS_ERRORS: Final[tuple[tuple[type[OSError], ErrorKind, str], ...]] = (
    (FileNotFoundError, ErrorKind.KEY_NOT_FOUND, "restore the key file from a backup"),
    (PermissionError, ErrorKind.ACCESS_DENIED, "let this user read and replace the key file and its folder"),
    (OSError, ErrorKind.UNAVAILABLE, "check the file system that the key file is on"),
)


class LocalDriver(KeyDriver):
    """A key in a file. Its id is `local:NAME@` and 16 hex digits, made with the key, wherever the file is.

    A data key is wrapped as Cobblestone-256 of it under the version's 32 bytes, with the Cobblestone
    context `"kmsbridge-local/v1" 0x00` and the canonical encryption context.
    """

    scheme: ClassVar[str] = "local"
    capabilities: frozenset[Capability] = frozenset(
        {Capability.BINDS_CONTEXT, Capability.REPORTS_VERSION, Capability.ROTATE}
    )
    # As AWS KMS: what works here must not be too large after a move to a service.
    max_plaintext: int = 4096
    reads_version: bool = True
    may_wait: ClassVar[bool] = False

    def __init__(self, file: KeyFile, key: StoredKey) -> None:
        self._file = file
        self._name, self._id = key.name, key.id
        self._key_id = key.key_id
        self._version = key.current

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """Reads the file, but does not try the passphrase: that is for the first call."""
        _check_uri(uri)
        passphrase = options.secret("passphrase")
        file = KeyFile(os.path.join(options.folder, uri.path), passphrase)
        try:
            document = file.document()
        except OSError as error:
            if error.errno is None:
                raise  # no file's, but a signal handler's
            raise _unreadable(file.path, error) from error
        return cls(file, _choose(document, uri.fragment, file.path))

    def resolve(self, *, timeout: float) -> str:
        """`local:NAME@` and the key's own id, which was read by `open`."""
        return self._key_id

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt under the current version."""
        document, key = self._current()
        material = self._file.material(document, key, key.current, timeout=timeout)
        with discreet():
            sealed = chunked.encrypt(material.reveal(), _CONTEXT + context.canonical(), plaintext)
        return WrappedKey(self._key_id, key.current, sealed)

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """Decrypt under the version that `wrapped` names."""
        if wrapped.key_id != self._key_id:
            raise AuthenticationError
        document, key = self._current()
        if wrapped.version not in key.versions:
            raise _no_version(key, wrapped.version)
        material = self._file.material(document, key, wrapped.version, timeout=timeout)
        with discreet():
            return chunked.decrypt(material.reveal(), _CONTEXT + context.canonical(), wrapped.ciphertext)

    def describe(self, *, timeout: float) -> KeyDescription:
        """The state and version that the file tells; the passphrase is not tried."""
        _, key = self._find()
        return KeyDescription(self._key_id, key.state, key.current, rotation="by hand: kmsbridge rotate")

    def rotate(self, *, timeout: float) -> None:
        """Add a version to the file; all older ones stay."""
        self._file.rotate(self._name, expected_id=self._id, timeout=timeout)

    def policy(self, role: PolicyRole) -> str:
        """There is none: raises `ConfigError`."""
        raise ConfigError(
            f"no policy can separate roles for {self._key_id}: who may read its key file may do everything",
            remedy="use a key service's key for that; docs/how-to/separate-roles.md says how",
        )

    def forgeries(self) -> Sequence[WrappedKey]:
        """Random bytes under the version that was the current one when the key was opened."""
        return (WrappedKey(self._key_id, self._version, os.urandom(_FORGED)),)

    def development_settings(self) -> Sequence[str]:
        """A file can be copied by who reads it."""
        return ("the key is in a file",)

    def classify(self, error: BaseException, operation: Operation) -> ErrorKind | None:
        """The kind of an error of the file system; None for any other, such as a signal handler's."""
        if isinstance(error, OSError) and error.errno is not None:
            return next(kind for cls, kind, _ in _OS_ERRORS if isinstance(error, cls))
        return None

    def error_details(self, error: BaseException) -> ErrorDetails:
        """The name of the operating system's error, and what to do."""
        if isinstance(error, OSError) and error.errno is not None:
            return ErrorDetails(code=_code(error), remedy=_remedy(error))
        return ErrorDetails()

    def close(self) -> None:
        """Forget the keys and the passphrase."""
        self._file.close()

    def __repr__(self) -> str:
        return f"LocalDriver({self._key_id!r}, {self._file.path!r})"

    def _find(self) -> tuple[Document, StoredKey]:
        document = self._file.document()
        return document, find(document, self._name, self._file.path, self._id)

    def _current(self) -> tuple[Document, StoredKey]:
        document, key = self._find()
        if key.state is not KeyState.ENABLED:
            raise LocalKeyError(
                ErrorKind.KEY_DISABLED,
                f"{self._key_id} is disabled",
                f'set its state to "enabled" in {self._file.path}',
            )
        return document, key


def _check_uri(uri: KeyURI) -> None:
    if uri.query:
        raise ConfigError(
            f"a local URI takes no parameters, and this one has {', '.join(sorted(uri.query))}",
            remedy="write local:PATH#NAME; everything else is an option in the key's table",
        )
    if not uri.path:
        raise ConfigError("a local URI has no path", remedy="write local:PATH#NAME")
    if uri.fragment and not is_name(uri.fragment):
        raise ConfigError(
            "the part after '#' of a local URI is not a key's name",
            remedy="use 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit, and no '..'",
        )


def _choose(document: Document, name: str, path: str) -> StoredKey:
    names = sorted(document.keys)
    if not names:
        raise ConfigError(f"the key file {path} holds no key", remedy="add one, or use another key file")
    if not name and len(names) == 1:
        return document.keys[names[0]]
    if name not in document.keys:
        what = f"has no key {name}" if name else f"holds {len(names)} keys, and the URI names none"
        shown = ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
        raise ConfigError(
            f"the key file {path} {what}", remedy=f"write #NAME at the URI's end; there are: {shown}"
        )
    return document.keys[name]


def _no_version(key: StoredKey, version: str) -> LocalKeyError:
    # What a message names is quoted only where it can be a version at all.
    which = f"version {version}" if is_version(version) else "the version that the message names"
    return LocalKeyError(
        ErrorKind.KEY_NOT_FOUND,
        f"{which} of {key.key_id} is not in the key file",
        "use the copy of the key file that has this version, or restore it from a backup",
    )


def _unreadable(path: str, error: OSError) -> ConfigError:
    if isinstance(error, FileNotFoundError):
        return ConfigError(
            f"there is no key file {path}",
            remedy="restore it from a backup; if nothing is protected by it yet, make one with kmsbridge init",
        )
    return ConfigError(f"the key file {path} cannot be read ({_code(error)})", remedy=_remedy(error))


def _remedy(error: OSError) -> str:
    return next(remedy for cls, _, remedy in _OS_ERRORS if isinstance(error, cls))


def _code(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
