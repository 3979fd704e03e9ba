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
from kmsbridge.drivers.local.keyfile import KeyFile, discreet, find_key
from kmsbridge.errors import AuthenticationError, ConfigError
from kmsbridge.message import chunked

_CONTEXT: Final = b"kmsbridge-local/v1\0"
_SHOWN: Final = 10
_FORGED: Final = 80
"""The length in bytes of a forged wrapped key: about that of a wrapped data key."""

# The first class that matches counts. These are the errors of reading, locking and replacing a file.
_OS_ERRORS: Final[tuple[tuple[type[OSError], ErrorKind, str], ...]] = (
    (FileNotFoundError, ErrorKind.KEY_NOT_FOUND, "restore the key file from a backup"),
    (PermissionError, ErrorKind.ACCESS_DENIED, "let this user read and replace the key file and its folder"),
    (OSError, ErrorKind.UNAVAILABLE, "check the file system that the key file is on"),
)


class LocalDriver(KeyDriver):
    """A key in a file. Its id is `local:NAME@` and 16 hex digits, which are made with the key and never change.

    A data key is wrapped with Cobblestone-256 under the version's 32 bytes; the Cobblestone context is
    `"kmsbridge-local/v1" 0x00` and the canonical encryption context.
    """

    scheme: ClassVar[str] = "local"
    capabilities: frozenset[Capability] = frozenset(
        {Capability.BINDS_CONTEXT, Capability.REPORTS_VERSION, Capability.ROTATE}
    )
    # The limit of AWS KMS: a payload that is accepted here must not be too large after a move to a service.
    max_plaintext: int = 4096
    reads_version: bool = True
    may_wait: bool = False

    def __init__(self, file: KeyFile, key: StoredKey) -> None:
        self._file = file
        self._name, self._id = key.name, key.id
        self._key_id = key.key_id
        self._version = key.current

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """Read the key file and select the key. The passphrase is not tried before the first call.

        Raises `ConfigError` where the file or the URI cannot be used.
        """
        _check_uri(uri)
        passphrase = options.secret("passphrase")
        file = KeyFile(os.path.join(options.folder, uri.path), passphrase)
        try:
            document = file.document()
        except OSError as error:
            if error.errno is None:
                raise  # not from the file: a signal handler raised it
            raise _unreadable(file.path, error) from error
        return cls(file, _choose(document, uri.fragment, file.path))

    def resolve(self, *, timeout: float) -> str:
        """Return `local:NAME@` and the key's own id, which `open` has read."""
        return self._key_id

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt `plaintext` under the current version."""
        document, key = self._current()
        material = self._file.material(document, key, key.current, timeout=timeout)
        with discreet():
            ciphertext = chunked.encrypt(material.reveal(), _CONTEXT + context.canonical(), plaintext)
        return WrappedKey(self._key_id, key.current, ciphertext)

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """Decrypt `wrapped` under the version that it names."""
        if wrapped.key_id != self._key_id:
            raise AuthenticationError
        document, key = self._current()
        if wrapped.version not in key.versions:
            raise _no_version(key, wrapped.version)
        material = self._file.material(document, key, wrapped.version, timeout=timeout)
        with discreet():
            return chunked.decrypt(material.reveal(), _CONTEXT + context.canonical(), wrapped.ciphertext)

    def describe(self, *, timeout: float) -> KeyDescription:
        """Return the key's state and current version from the file. The passphrase is not tried."""
        _, key = self._find()
        return KeyDescription(self._key_id, key.state, key.current, rotation="by hand: kmsbridge rotate")

    def rotate(self, *, timeout: float) -> None:
        """Add a version to the key in the file. All older versions stay."""
        self._file.rotate(self._name, expected_id=self._id, timeout=timeout)

    def policy(self, role: PolicyRole) -> str:
        """Raise `ConfigError`: access to a key file cannot be divided into roles."""
        raise ConfigError(
            f"there are no policies for {self._key_id}: whoever may read its key file may do everything with it",
            remedy="use a key of a key service to separate roles, as in docs/how-to/separate-roles.md",
        )

    def forgeries(self) -> Sequence[WrappedKey]:
        """Return random bytes, as if wrapped by the version that was current when the key was opened."""
        return (WrappedKey(self._key_id, self._version, os.urandom(_FORGED)),)

    def development_settings(self) -> Sequence[str]:
        """Return that the key is in a file, which anybody who can read it can copy."""
        return ("the key is in a file",)

    def classify(self, error: BaseException, operation: Operation) -> ErrorKind | None:
        """Return the kind of an error of the file system; None for any other, such as a signal handler's."""
        if isinstance(error, OSError) and error.errno is not None:
            return next(kind for cls, kind, _ in _OS_ERRORS if isinstance(error, cls))
        return None

    def error_details(self, error: BaseException) -> ErrorDetails:
        """Return the name of the operating system's error, and a remedy."""
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
        return document, find_key(document, self._name, self._file.path, self._id)

    def _current(self) -> tuple[Document, StoredKey]:
        document, key = self._find()
        if key.state is not KeyState.ENABLED:
            raise LocalKeyError(
                ErrorKind.KEY_DISABLED,
                f"the key {self._key_id} is disabled",
                f'set its state to "enabled" in {self._file.path}',
            )
        return document, key


def _check_uri(uri: KeyURI) -> None:
    if uri.query:
        raise ConfigError(
            f"a local URI has no parameters, but this one has {', '.join(sorted(uri.query))}",
            remedy="write local:PATH#NAME, and put everything else into the key's table as options",
        )
    if not uri.path:
        raise ConfigError("a local URI has no path", remedy="write local:PATH#NAME")
    if uri.fragment and not is_name(uri.fragment):
        raise ConfigError(
            "the part after '#' of a local URI is not a valid name of a key",
            remedy="use 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit, without '..'",
        )


def _choose(document: Document, name: str, path: str) -> StoredKey:
    names = sorted(document.keys)
    if not names:
        raise ConfigError(f"the key file {path} has no keys", remedy="add one, or use another key file")
    if not name and len(names) == 1:
        return document.keys[names[0]]
    if name not in document.keys:
        what = f"has no key {name}" if name else f"has {len(names)} keys, and the URI does not name one"
        shown = ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
        raise ConfigError(
            f"the key file {path} {what}", remedy=f"write #NAME at the end of the URI; its keys are {shown}"
        )
    return document.keys[name]


def _no_version(key: StoredKey, version: str) -> LocalKeyError:
    # The version comes from a message, so it is quoted only if it is valid.
    which = f"version {version}" if is_version(version) else "the version that the message names"
    return LocalKeyError(
        ErrorKind.KEY_NOT_FOUND,
        f"{which} of {key.key_id} is not in the key file",
        "use the copy of the key file that has this version, or restore it from a backup",
    )


def _unreadable(path: str, error: OSError) -> ConfigError:
    if isinstance(error, FileNotFoundError):
        return ConfigError(
            f"the key file {path} does not exist",
            remedy="restore it from a backup; if it protects nothing yet, make one with kmsbridge init",
        )
    return ConfigError(f"the key file {path} cannot be read ({_code(error)})", remedy=_remedy(error))


def _remedy(error: OSError) -> str:
    return next(remedy for cls, _, remedy in _OS_ERRORS if isinstance(error, cls))


def _code(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)
