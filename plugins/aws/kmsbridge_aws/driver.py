"""The `aws-kms` driver: `aws-kms://` and a key id, `alias/NAME`, or the ARN of a key or alias."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Self

from kmsbridge.driver import (
    Capability,
    DriverError,
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
from kmsbridge.driverkit.publickey import OaepPublicKey
from kmsbridge.errors import ConfigError
from kmsbridge_aws import answers, failures, mfa, policies, settings
from kmsbridge_aws.client import Client
from kmsbridge_aws.failures import UnreadableAnswer
from kmsbridge_aws.naming import SCHEME, Arn, arn_of_key_id
from kmsbridge_aws.rotation import Rotation
from kmsbridge_aws.settings import Settings

_SYMMETRIC, _OAEP = "SYMMETRIC_DEFAULT", "RSAES_OAEP_SHA_256"
_MAX_SYMMETRIC: Final = 4096
_MAX_SMALLEST_RSA: Final = 190
_ROTATION_UNKNOWN: Final = frozenset(
    {ErrorKind.ACCESS_DENIED, ErrorKind.INVALID_REQUEST, ErrorKind.KEY_DISABLED}
)
"""Refusals of GetKeyRotationStatus after which a key is described without its rotation."""
# The first bytes of a ciphertext of AWS KMS, and about how many follow if it contains a data key.
_BLOB: Final = b"\x01\x02\x02\0x", 179
_OAEP_BLOB: Final = b"\0", 255

# AWS KMS refuses an empty plaintext, so this is sent instead. It is also put in front of a payload that begins with
# these bytes, so that `unwrap` can always remove it once.
_EMPTY: Final = bytes.fromhex("6b6d736272696467652d6177732f656d7074792fd34cbb8a10f7425c9e3b7c5d")


class AwsKmsDriver(KeyDriver):
    """A key of AWS KMS: symmetric, or with the option `algorithm` an RSA key.

    For a symmetric key, the library's context becomes the encryption context of AWS KMS, pair by pair. An RSA key
    wraps in this process with its public key. If the option `public_key` gives that key, a wrap needs no network;
    otherwise GetPublicKey is called once, and the largest payload is 190 bytes.
    """

    scheme: ClassVar[str] = SCHEME
    capabilities: frozenset[Capability] = frozenset(
        {Capability.BINDS_CONTEXT, Capability.SERVER_REWRAP, Capability.ROTATE, Capability.CHECKS_VERSION}
    )
    max_plaintext: int = _MAX_SYMMETRIC
    rewraps_context: bool = True

    def __init__(self, given: Settings) -> None:
        self._name, self._asymmetric = given.name, given.asymmetric
        self._alias = given.arn if given.arn is not None and not given.arn.is_key else None
        self._arn = given.arn if given.arn is not None and given.arn.is_key else None
        self._client = Client(given)
        self._rotation = Rotation(self._client)
        self._development, self._endpoint = settings.for_development(given), settings.endpoint(given)
        self._public_key, self._profile = given.public_key, given.profile
        self.wrap_tells_id = not given.asymmetric
        if given.asymmetric:
            self.capabilities, self.max_plaintext = frozenset(), _MAX_SMALLEST_RSA
        if given.public_key is not None:
            self.capabilities = frozenset({Capability.LOCAL_WRAP})
            self.max_plaintext = given.public_key.max_plaintext

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """Return a driver. Raises `ConfigError`. AWS is called, and botocore imported, on first use."""
        return cls(settings.read(uri, options))

    def resolve(self, *, timeout: float) -> str:
        """Return `aws-kms:` and the key's ARN, with `*` as the region of a multi-region key.

        Calls DescribeKey once if the URI does not contain the key's ARN and nothing was wrapped before.
        """
        return self._resolved(time.monotonic() + timeout).key_id

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt by AWS KMS, or for an RSA key in this process."""
        deadline = time.monotonic() + timeout
        if self._asymmetric:
            return self._wrap_here(plaintext, deadline)
        answer = self._client.call(
            "encrypt",
            deadline,
            KeyId=str(self._arn or self._name),
            Plaintext=_EMPTY + plaintext if not plaintext or plaintext.startswith(_EMPTY) else plaintext,
            EncryptionContext=dict(context),
            EncryptionAlgorithm=_SYMMETRIC,
        )
        arn = self._named_in(answer)
        return WrappedKey(arn.key_id, "", _checked(answer, "CiphertextBlob", arn, _SYMMETRIC))

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """Decrypt by this key; AWS KMS refuses a ciphertext of another key."""
        deadline = time.monotonic() + timeout
        arn = self._resolved(deadline)
        algorithm = _OAEP if self._asymmetric else _SYMMETRIC
        bound = {} if self._asymmetric else {"EncryptionContext": dict(context)}
        answer = self._client.call(
            "decrypt",
            deadline,
            KeyId=str(arn),
            CiphertextBlob=wrapped.ciphertext,
            EncryptionAlgorithm=algorithm,
            **bound,
        )
        plaintext = _checked(answer, "Plaintext", arn, algorithm)
        return plaintext if self._asymmetric else plaintext.removeprefix(_EMPTY)

    def rewraps_from(self, key_id: str) -> bool:
        """Return whether the other key is of the same partition, region and account.

        ReEncrypt uses one set of credentials for both keys.
        """
        other, own = arn_of_key_id(key_id), self._arn
        return own is not None and other is not None and other.shares_account_with(own)

    def rewrap(
        self,
        wrapped: WrappedKey,
        context: EncryptionContext,
        new_context: EncryptionContext | None = None,
        *,
        timeout: float,
    ) -> WrappedKey:
        """Rewrap by ReEncrypt, bound to `new_context` if it is given: the payload does not leave AWS KMS."""
        if self._asymmetric:
            return super().rewrap(wrapped, context, timeout=timeout)
        _, key_id, ciphertext = self._re_encrypt(wrapped, context, time.monotonic() + timeout, new_context)
        return WrappedKey(key_id, "", ciphertext)

    def is_current(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bool | None:
        """Compare the key materials that ReEncrypt names: the one that wrapped the key, and the one that would now.

        Returns None for a key without such materials, for example one in a custom key store.
        """
        if self._asymmetric:
            return super().is_current(wrapped, context, timeout=timeout)
        answer, _, _ = self._re_encrypt(wrapped, context, time.monotonic() + timeout)
        used, current = answer.get("SourceKeyMaterialId"), answer.get("DestinationKeyMaterialId")
        return used == current if used and current else None

    def describe(self, *, timeout: float) -> KeyDescription:
        """Describe by DescribeKey, and for an enabled symmetric key by GetKeyRotationStatus if that is permitted."""
        deadline = time.monotonic() + timeout
        answer = self._client.call("describe_key", deadline, KeyId=str(self._arn or self._name))
        arn, state = answers.arn_of(answer, asymmetric=self._asymmetric), answers.state_of(answer)
        if self._arn is not None and arn != self._arn:
            raise UnreadableAnswer("AWS KMS described another key")
        self._arn = arn
        rotates = not self._asymmetric and state is KeyState.ENABLED
        return KeyDescription(
            arn.key_id, state, rotation=self._describe_rotation(arn, deadline) if rotates else ""
        )

    def rotate(self, *, timeout: float) -> None:
        """Rotate by RotateKeyOnDemand, at most once: after a lost answer the key is looked at.

        AWS limits how often, and accepts it only for the primary of related multi-region keys.
        """
        if self._asymmetric:
            super().rotate(timeout=timeout)
        deadline = time.monotonic() + timeout
        self._rotation.rotate(self._resolved(deadline), deadline)

    def sign_in(self, ask: Callable[[str], str]) -> None:
        """Ask for the code of the MFA device, if the AWS profile has one. The role is then assumed for this process."""
        if mfa.may_be_needed():
            self._client.sign_in(ask)

    def policy(self, role: PolicyRole) -> str:
        """Return an IAM policy in JSON. Raises `ConfigError` if the URI does not contain the key's account."""
        arn = self._arn or self._alias
        return policies.policy(
            arn,
            role,
            asymmetric=self._asymmetric,
            purposes=self.purposes,
            environment=self.environment,
        )

    def forgeries(self) -> Sequence[WrappedKey]:
        """Return random bytes that look like a ciphertext; nothing until the key's ARN is known."""
        if self._arn is None:
            return ()
        start, length = _OAEP_BLOB if self._asymmetric else _BLOB
        return (WrappedKey(self._arn.key_id, "", start + os.urandom(length)),)

    def development_settings(self) -> Sequence[str]:
        """Return endpoints on this machine, without TLS or from the environment, and `allow_plain_http`."""
        return self._development

    def endpoint(self) -> tuple[str, str]:
        """Return the address of AWS KMS that is used, and where it came from."""
        return self._endpoint

    def classify(self, error: BaseException, operation: Operation) -> ErrorKind:
        """Return the kind of botocore's error, from the tables in `failures`."""
        return failures.classify(error)

    def error_details(self, error: BaseException) -> ErrorDetails:
        """Return AWS's code and request id, and a remedy."""
        return failures.details(error, settings.profile_in_force(self._profile))

    def close(self) -> None:
        """Close the connections and forget the credentials."""
        self._client.close()

    def __repr__(self) -> str:
        return f"AwsKmsDriver({self._name!r})"

    def _resolved(self, deadline: float) -> Arn:
        if self._arn is None:
            answer = self._client.call("describe_key", deadline, KeyId=self._name)
            self._arn = answers.arn_of(answer, asymmetric=self._asymmetric)
        return self._arn

    def _re_encrypt(
        self,
        wrapped: WrappedKey,
        context: EncryptionContext,
        deadline: float,
        new_context: EncryptionContext | None = None,
    ) -> tuple[Mapping[str, Any], str, bytes]:
        """Return the answer of ReEncrypt to this key, with this key's id and the new ciphertext."""
        arn = self._resolved(deadline)
        source = arn if wrapped.key_id == arn.key_id else arn_of_key_id(wrapped.key_id)
        answer = self._client.call(
            "re_encrypt",
            deadline,
            CiphertextBlob=wrapped.ciphertext,
            SourceKeyId=str(source),
            SourceEncryptionAlgorithm=_SYMMETRIC,
            SourceEncryptionContext=dict(context),
            DestinationKeyId=str(arn),
            DestinationEncryptionAlgorithm=_SYMMETRIC,
            DestinationEncryptionContext=dict(context if new_context is None else new_context),
        )
        ciphertext = _checked(answer, "CiphertextBlob", arn, _SYMMETRIC, "DestinationEncryptionAlgorithm")
        return answer, arn.key_id, ciphertext

    def _named_in(self, answer: Mapping[str, Any]) -> Arn:
        """Return the key's ARN, which is the answer's if it is not known yet."""
        if self._arn is None:
            arn = Arn.parse(str(answer.get("KeyId", "")))
            if arn is None or not arn.is_key:
                raise UnreadableAnswer("the answer of AWS KMS does not contain the key's ARN")
            self._arn = arn
        return self._arn

    def _describe_rotation(self, arn: Arn, deadline: float) -> str:
        try:
            return answers.rotation_of(self._client.call("get_key_rotation_status", deadline, KeyId=str(arn)))
        except DriverError:
            raise
        except Exception as error:
            if failures.classify(error) in _ROTATION_UNKNOWN:
                return ""
            raise

    # --- asymmetric keys --------------------------------------------------------------------------

    def _wrap_here(self, plaintext: bytes, deadline: float) -> WrappedKey:
        arn = self._resolved(deadline)
        public_key = self._public_key or self._fetch_public_key(arn, deadline)
        return WrappedKey(arn.key_id, "", public_key.wrap(plaintext))

    def _fetch_public_key(self, arn: Arn, deadline: float) -> OaepPublicKey:
        answer = self._client.call("get_public_key", deadline, KeyId=str(arn))
        if answer.get("KeyId") != str(arn):
            raise UnreadableAnswer("AWS KMS returned the public key of another key")
        answers.check_fit(answer, asymmetric=True)
        try:
            self._public_key = OaepPublicKey.of_der(answer["PublicKey"])
        except (KeyError, TypeError, ConfigError):
            raise UnreadableAnswer("AWS KMS returned no usable public key") from None
        return self._public_key


def _checked(
    answer: Mapping[str, Any],
    field: str,
    arn: Arn,
    algorithm: str,
    algorithm_field: str = "EncryptionAlgorithm",
) -> bytes:
    """Return the bytes in `field`. Raises `UnreadableAnswer` if the answer is for another key or algorithm."""
    value = answer.get(field)
    # moto's server leaves the algorithm out.
    is_ours = answer.get("KeyId") == str(arn) and answer.get(algorithm_field, algorithm) == algorithm
    if not is_ours or not isinstance(value, bytes):
        raise UnreadableAnswer("the answer of AWS KMS is for another key or algorithm, or incomplete")
    return value
