"""The `vault-transit` driver."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, Self

from kmsbridge.driver import (
    Capability,
    EncryptionContext,
    ErrorDetails,
    ErrorKind,
    KeyDescription,
    KeyDriver,
    KeyURI,
    Options,
    PolicyRole,
    WrappedKey,
    report_request_id,
)
from kmsbridge.errors import ClosedError
from kmsbridge_vault import answers, failures, policies
from kmsbridge_vault.client import Client
from kmsbridge_vault.credentials import Tokens
from kmsbridge_vault.failures import VaultFailure
from kmsbridge_vault.naming import KeyName
from kmsbridge_vault.settings import login_of, place_of

_AEAD: Final = ("aes256-gcm96", "aes128-gcm96", "chacha20-poly1305", "xchacha20-poly1305")
_EITHER: Final = frozenset({Capability.BINDS_CONTEXT, Capability.BATCH_UNWRAP, Capability.REPORTS_VERSION})


class VaultTransitDriver(KeyDriver):
    """`vault-transit://MOUNT/KEY`: an AEAD key, with the context as associated data.

    With the option `derived = true` a key made for derivation, with a hash of the context to derive from;
    then the server can rewrap.
    """

    scheme: ClassVar[str] = "vault-transit"
    capabilities: frozenset[Capability] = _EITHER | {Capability.ROTATE}
    max_plaintext: int = 12_000
    """Bytes whose ciphertext, base64 with a prefix, is within the 16384 of a wrapped key."""

    def __init__(self, name: KeyName, client: Client, tokens: Tokens, *, derived: bool) -> None:
        self._name, self._client, self._tokens = name, client, tokens
        self._derived = derived
        self._checked = not derived
        self._closed = False
        if derived:
            self.capabilities = type(self).capabilities | {Capability.SERVER_REWRAP}

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """A driver; nothing is connected or logged in before the first call."""
        name, derived = KeyName.of(uri, options), options.flag("derived")
        client = Client(place_of(options))
        return cls(name, client, Tokens(client, login_of(options, client)), derived=derived)

    @property
    def key_id(self) -> str:
        """`vault-transit:`, then the namespace where there is one, mount and key."""
        namespace = self._client.place.namespace
        return f"{self.scheme}:{f'{namespace}/' if namespace else ''}{self._name.mount}/{self._name.key}"

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt under the latest version; a key that does not exist is not made."""
        with self._calling(timeout):
            if len(plaintext) > self.max_plaintext:
                raise VaultFailure(ErrorKind.TOO_LARGE, "too-large")
            self._check_derivation()
            asked = {
                "plaintext": base64.b64encode(plaintext).decode(),
                "type": failures.NO_SUCH_TYPE,
                **self._bound(context),
            }
            try:
                return self._wrapped(self._ask("POST", self._name.path("encrypt"), asked))
            except VaultFailure as failure:
                if failure.kind is not ErrorKind.ACCESS_DENIED:
                    raise
                refusal = failure
            # To a token that may not create, an unknown key is denied.
            if self._is_missing():
                refusal = VaultFailure(ErrorKind.KEY_NOT_FOUND, "no-key", request_id=refusal.request_id)
            raise refusal

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """Decrypt, whatever version the ciphertext names."""
        with self._calling(timeout):
            self._check_derivation()
            asked = {"ciphertext": answers.ciphertext_text(wrapped.ciphertext), **self._bound(context)}
            data = self._ask("POST", self._name.path("decrypt"), asked)
            return answers.plaintext(data.get("plaintext"))

    def unwrap_many(
        self, items: Sequence[tuple[WrappedKey, EncryptionContext]], *, timeout: float
    ) -> list[bytes | ErrorKind]:
        """All in one request; those that are no ciphertext are not sent."""
        with self._calling(timeout):
            self._check_derivation()
            results: list[bytes | ErrorKind] = [ErrorKind.NOT_AUTHENTIC] * len(items)
            sound = [
                number
                for number, (wrapped, _) in enumerate(items)
                if answers.version_of_ciphertext(wrapped.ciphertext) is not None
            ]
            batch = [
                {"ciphertext": answers.ciphertext_text(wrapped.ciphertext), **self._bound(context)}
                for wrapped, context in (items[number] for number in sound)
            ]
            if not batch:
                return results
            asked = {"batch_input": batch, "partial_failure_response_code": 200}
            told = self._ask("POST", self._name.path("decrypt"), asked).get("batch_results")
            if not isinstance(told, list) or len(told) != len(batch):
                raise answers.unreadable()
            for number, each in zip(sound, told, strict=True):
                results[number] = answers.one_of_many(each)
            return results

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """By the server, under the latest version; of a derived key alone."""
        if not self._derived:
            raise NotImplementedError
        with self._calling(timeout):
            self._check_derivation()
            asked = {"ciphertext": answers.ciphertext_text(wrapped.ciphertext), **self._bound(context)}
            return self._wrapped(self._ask("POST", self._name.path("rewrap"), asked))

    def describe(self, *, timeout: float) -> KeyDescription:
        """From the key's own page, and what the token may do where it may ask."""
        with self._calling(timeout):
            paths = [self._name.path("encrypt"), self._name.path("decrypt")]
            try:
                rights = self._ask("POST", "sys/capabilities-self", {"paths": paths})
            except VaultFailure as failure:
                if failure.kind is not ErrorKind.ACCESS_DENIED:
                    raise
                rights = {}
            key = self._ask("GET", self._name.path("keys"))
            self._check(key)
            return KeyDescription(
                self.key_id,
                answers.state(key),
                answers.key_version(key.get("latest_version")),
                answers.rotation(key),
                *(answers.may(rights.get(path)) for path in paths),
            )

    def rotate(self, *, timeout: float) -> None:
        """Make a new version."""
        with self._calling(timeout):
            self._ask("POST", f"{self._name.path('keys')}/rotate", {})

    def policy(self, role: PolicyRole) -> str:
        """HCL for `bao policy write`."""
        return policies.policy(self._name, role, derived=self._derived)

    def classify(self, error: BaseException) -> ErrorKind:
        """Of every failure the kind was known when it was raised."""
        if isinstance(error, VaultFailure):
            return error.kind
        return ErrorKind.TIMEOUT if isinstance(error, TimeoutError) else ErrorKind.INVALID_REQUEST

    def error_details(self, error: BaseException) -> ErrorDetails:
        """A code: the HTTP status, or a word where the status is not telling."""
        if isinstance(error, VaultFailure):
            return ErrorDetails(error.code, error.request_id, error.remedy)
        return ErrorDetails()

    def close(self) -> None:
        """End the renewal of the token and close the connections. The token is not revoked."""
        self._closed = True
        self._tokens.close()
        self._client.close()

    # --- one call ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _calling(self, timeout: float) -> Iterator[None]:
        if self._closed:
            raise ClosedError(f"the driver of {self.key_id} is closed", remedy="open a new one")
        from kmsbridge_vault.transport import within

        with within(timeout):
            yield

    def _ask(self, method: Literal["GET", "POST"], path: str, body: Any = None) -> Mapping[str, Any]:
        """The `data` of the answer. A token that died is replaced, and the request made once more."""
        grant = self._tokens.grant()
        try:
            answer = self._client.request(method, path, body, token=grant.token)
        except VaultFailure as failure:
            if failure.kind is ErrorKind.KEY_NOT_FOUND:
                self._checked = not self._derived  # another may come to be under this name
            fresh = self._tokens.after_refusal(grant) if failure.kind is ErrorKind.ACCESS_DENIED else None
            if fresh is None:
                raise
            answer = self._client.request(method, path, body, token=fresh.token)
        data = answer.get("data")
        if not isinstance(data, dict):
            if not path.endswith("/rotate"):  # HashiCorp's answer to a rotation is empty
                raise answers.unreadable()
            data = {}
        self._tokens.learn()
        report_request_id(answer["request_id"])
        return data

    # --- what Vault would not refuse --------------------------------------------------------------

    def _bound(self, context: EncryptionContext) -> dict[str, str]:
        canonical = context.canonical()
        if self._derived:
            return {"context": base64.b64encode(hashlib.sha256(canonical).digest()).decode()}
        return {"associated_data": base64.b64encode(canonical).decode()}

    def _check_derivation(self) -> None:
        """Once: Vault ignores, in silence, the context of a key that is not derived."""
        if not self._checked:
            try:
                self._check(self._ask("GET", self._name.path("keys")))
            except VaultFailure as failure:
                if failure.kind is ErrorKind.ACCESS_DENIED:
                    failure.remedy = (
                        f"grant read on {self._name.path('keys')}: without it nobody can tell "
                        "that the key is derived, and Vault would ignore the context of another"
                    )
                raise

    def _check(self, key: Mapping[str, Any]) -> None:
        remedy = ""
        if key.get("type") not in _AEAD:
            remedy = "use a key of type aes256-gcm96 or another AEAD type"
        elif key.get("convergent_encryption") is True:
            remedy = "use a key without convergent encryption, which shows what is equal"
        elif key.get("derived") is not self._derived:
            remedy = (
                "make a key with derived=true, or remove `derived = true` here"
                if self._derived
                else "set `derived = true` for this key: it was made for derivation"
            )
        if remedy:
            raise VaultFailure(ErrorKind.INVALID_REQUEST, "wrong-key-type", remedy=remedy)
        self._checked = True

    def _is_missing(self) -> bool:
        try:
            self._ask("GET", self._name.path("keys"))
        except VaultFailure as failure:
            if failure.kind not in (ErrorKind.KEY_NOT_FOUND, ErrorKind.ACCESS_DENIED):
                raise
            return failure.kind is ErrorKind.KEY_NOT_FOUND
        return False

    def _wrapped(self, data: Mapping[str, Any]) -> WrappedKey:
        return WrappedKey(self.key_id, *answers.new_ciphertext(data))

    def __repr__(self) -> str:
        return f"VaultTransitDriver({self.key_id!r})"
