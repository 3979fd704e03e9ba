"""The `hpke` driver: `hpke:NAME` or `hpke:NAME@ID`."""

from __future__ import annotations

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
from kmsbridge.drivers.hpke.document import SEED, Document, Pair
from kmsbridge.drivers.hpke.errors import HpkeError
from kmsbridge.drivers.hpke.privatefile import PrivateFile, now
from kmsbridge.drivers.hpke.protection import OPTION, Protection
from kmsbridge.drivers.hpke.publickey import PublicKey, is_full_name, is_name
from kmsbridge.errors import AuthenticationError, ConfigError

_TAG: Final = 16
_DATA_KEY: Final = 32


class HpkeDriver(KeyDriver):
    """A public key, with which any host can wrap, and perhaps the private file of its pairs, which unwraps.

    Its id is `hpke:NAME@` and 16 hex digits, which stay the same when a pair is added; its version is that of the
    public key. What it wraps is HPKE's enc and ciphertext (RFC 9180, base mode), with an `info` that has the suite,
    the key's id and the encryption context.
    """

    scheme: ClassVar[str] = "hpke"
    capabilities: frozenset[Capability] = frozenset(
        {Capability.BINDS_CONTEXT, Capability.REPORTS_VERSION, Capability.LOCAL_WRAP}
    )
    # The limit of AWS KMS: a payload that is accepted here must not be too large after a move to a service.
    max_plaintext: int = 4096
    reads_version: bool = True

    def __init__(
        self, public_key: PublicKey | None, file: PrivateFile | None, protection: Protection | None
    ) -> None:
        self._public_key, self._file, self._protection = public_key, file, protection
        self._name = public_key.name if public_key else self._document().name
        self._key_id = f"{self.scheme}:{self._name}"
        self.post_quantum = all(key.suite.post_quantum for key in self._public_keys())
        self.may_wait = protection is not None and protection.driver.may_wait

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """Read the public key, and the private file if there is one. The seed is not opened before it is needed.

        Raises `ConfigError` where one of them cannot be used, or is that of another key than the URI names.
        """
        _check_uri(uri)
        line, path = options.text("public_key"), options.path("private_file")
        if not line and not path:
            raise ConfigError(
                f"{options.name} has neither public_key nor private_file",
                remedy="set public_key to encrypt, and private_file with protect_with to decrypt",
            )
        public_key = PublicKey.parse(line) if line else None
        file = PrivateFile(path) if path else None
        names = {public_key.name} if public_key else set()
        if file is not None:
            names.add(_first_read(file).name)
        for name in names:
            if uri.path not in (name, name.partition("@")[0]):
                raise ConfigError(
                    f"{options.name} is for hpke:{uri.path}, and its key is hpke:{name}",
                    remedy="correct the URI, or use the files of that key",
                )
        if len(names) > 1:
            raise ConfigError(
                f"{options.name} has a public_key and a private_file of two keys: {', '.join(sorted(names))}",
                remedy="use those of one key",
            )
        protection = Protection.of(options)
        if (file is None) is not (protection is None):
            if protection is not None:
                protection.close()
            raise ConfigError(
                f"{options.name} has only one of private_file and {OPTION}",
                remedy=f"set both to decrypt, or neither to encrypt only; {OPTION} names the key that keygen was given",
            )
        return cls(public_key, file, protection)

    def resolve(self, *, timeout: float) -> str:
        """Return `hpke:NAME@` and the key's own id, which `open` has read."""
        return self._key_id

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt to the configured public key, else to that of the private file's pair that encrypts now."""
        public_key = self._encrypting()
        return WrappedKey(self._key_id, public_key.version, public_key.wrap(plaintext, context))

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """Decrypt by the pair that `wrapped` names, whose seed the key service unwraps at the first use."""
        if wrapped.key_id != self._key_id:
            raise AuthenticationError
        if self._protection is None:
            raise HpkeError(
                ErrorKind.ACCESS_DENIED,
                f"this host has no private half of {self._key_id}",
                f"set private_file and {OPTION} on a host that is to decrypt",
                "no private_file",
            )
        pair = self._decrypting(wrapped.version)
        private_key = self._protection.private_key(pair, context, timeout=timeout)
        public_key = pair.public_key
        return public_key.suite.decrypt(wrapped.ciphertext, private_key, public_key.info(context))

    def describe(self, *, timeout: float) -> KeyDescription:
        """Return the version that wraps now. The key service is not asked: whether a seed opens shows at its use."""
        if self._file is not None:
            self._document()
        return KeyDescription(
            self._key_id,
            KeyState.ENABLED,
            self._encrypting().version,
            rotation="by hand: kmsbridge keygen --rotate",
            may_unwrap=False if self._protection is None else None,
        )

    def policy(self, role: PolicyRole) -> str:
        """Return what a decryptor, and an admin who runs keygen, may do with the key that protects the seed.

        Raises `ConfigError` for the other roles, which need nothing of their own, where there is no such key, and for
        an admin where that key's service has no role that both wraps and unwraps.
        """
        if role == "encryptor":
            raise ConfigError(
                f"there is no policy for encrypting to {self._key_id}: its public key is enough",
                remedy="give the host public_key, and no permission",
            )
        if role == "rewrapper" or self._protection is None:
            raise ConfigError(
                f"there is no policy for the role {role} of {self._key_id} here",
                remedy=f"ask for the role decryptor, on a host with {OPTION}",
            )
        protecting = self._protection.driver
        if role == "admin" and Capability.SERVER_REWRAP in protecting.capabilities:
            raise ConfigError(
                "there is no single policy for running keygen: it wraps and unwraps with the key that protects the seed",
                remedy="allow both with that key, for contexts in which kmsbridge is hpke-private",
            )
        protecting.purposes = (SEED,)
        protecting.environment = self.environment
        return protecting.policy("decryptor" if role == "decryptor" else "rewrapper")

    def forgeries(self) -> Sequence[WrappedKey]:
        """Return random bytes of the length of a wrapped data key."""
        public_key = self._encrypting()
        forged = os.urandom(public_key.suite.enc + _DATA_KEY + _TAG)
        return (WrappedKey(self._key_id, public_key.version, forged),)

    def development_settings(self) -> Sequence[str]:
        """Return those of the key that protects the seed."""
        return self._protection.development_settings() if self._protection else ()

    def classify(self, error: BaseException, operation: Operation) -> ErrorKind | None:
        """Return what an exception of the driver that opens the seed means; None where there is none."""
        return self._protection.classify(error, operation) if self._protection else None

    def error_details(self, error: BaseException) -> ErrorDetails:
        """Return the details of an exception of the driver that opens the seed."""
        return self._protection.error_details(error) if self._protection else ErrorDetails()

    def close(self) -> None:
        """Forget the private keys, and close the driver that opens the seed."""
        if self._protection is not None:
            self._protection.close()

    def __repr__(self) -> str:
        return f"HpkeDriver({self._key_id!r})"

    def _document(self) -> Document:
        assert self._file is not None
        return self._file.document()

    def _public_keys(self) -> list[PublicKey]:
        if self._public_key is not None:
            return [self._public_key]
        return [pair.public_key for pair in self._document().pairs.values()]

    def _encrypting(self) -> PublicKey:
        if self._public_key is not None:
            return self._public_key
        try:
            document = self._document()
        except HpkeError:
            # Wrapping takes nothing that the file could still tell, once it was read.
            known = self._file.last_known() if self._file else None
            if known is None:
                raise
            document = known
        pair = document.encrypting(now())
        if pair is None:
            raise HpkeError(
                ErrorKind.KEY_DISABLED,
                f"no pair of {self._key_id} encrypts at this time",
                "see encrypt_from and decrypt_until in its private file, or add a pair with kmsbridge keygen --rotate",
            )
        return pair.public_key

    def _decrypting(self, version: str) -> Pair:
        pair = self._document().pairs.get(version)
        if pair is None:
            raise HpkeError(
                ErrorKind.KEY_NOT_FOUND,
                f"the version of {self._key_id} that the message names is not in the private file",
                "use the copy of the private file that has this version, or restore it from a backup",
            )
        if not pair.decrypts(now()):
            raise HpkeError(
                ErrorKind.KEY_DISABLED,
                f"version {version} of {self._key_id} decrypts no more",
                "change its decrypt_until in the private file, if it still should",
            )
        return pair


def _first_read(file: PrivateFile) -> Document:
    try:
        return file.document()
    except HpkeError as error:
        raise ConfigError(error.message, remedy=error.remedy) from error


def _check_uri(uri: KeyURI) -> None:
    uri.parameters()
    if uri.fragment or not (is_name(uri.path) or is_full_name(uri.path)):
        raise ConfigError(
            "an hpke URI does not name a key",
            remedy="write hpke:NAME or hpke:NAME@ID, as keygen printed it",
        )
