"""The `vault-transit` driver."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, Self

from kmsbridge.driver import (
    Capability,
    EncryptionContext,
    ErrorKind,
    KeyDescription,
    KeyDriver,
    KeyURI,
    Operation,
    Options,
    PolicyRole,
    WrappedKey,
    report_request_id,
)
from kmsbridge.driverkit.deadline import within
from kmsbridge_vault import answers, failures, policies
from kmsbridge_vault.client import Client
from kmsbridge_vault.credentials import Tokens
from kmsbridge_vault.failures import VaultFailure
from kmsbridge_vault.naming import KeyName
from kmsbridge_vault.settings import for_development, login_of, place_of

_AEAD: Final = ("aes256-gcm96", "aes128-gcm96", "chacha20-poly1305", "xchacha20-poly1305")
_EITHER: Final = frozenset(
    {
        Capability.BINDS_CONTEXT,
        Capability.BATCH_WRAP,
        Capability.BATCH_UNWRAP,
        Capability.REPORTS_VERSION,
    }
)
_FORGED: Final = 60
"""Bytes of a ciphertext that holds a data key: nonce, 32 bytes and tag."""


class VaultTransitDriver(KeyDriver):
    """`vault-transit://MOUNT/KEY`: an AEAD key, with the context as associated data.

    With the option `derived = true` a key made for derivation, with a hash of the context to derive from;
    then the server can rewrap.
    """

    scheme: ClassVar[str] = "vault-transit"
    capabilities: frozenset[Capability] = _EITHER | {Capability.ROTATE}
    max_plaintext: int = 12_000
    """Bytes whose ciphertext, base64 with a prefix, is within the 16384 of a wrapped key."""
    batch_limit: int = 200
    """So that a batch of the largest payloads is far from the 32 MiB of a request."""

    def __init__(self, name: KeyName, client: Client, tokens: Tokens, *, derived: bool) -> None:
        self._name, self._client, self._tokens = name, client, tokens
        self._derived = derived
        self._checked = not derived
        self._version = "1"
        self._development: Sequence[str] = ()
        parts = filter(None, (client.place.namespace, name.mount, name.key))
        self._key_id = f"{self.scheme}:{'/'.join(parts)}"
        if derived:
            self.capabilities = type(self).capabilities | {Capability.SERVER_REWRAP}

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """A driver; nothing is connected or logged in before the first call."""
        name, derived = KeyName.of(uri, options), options.flag("derived")
        client = Client(place_of(options))
        login = login_of(options, client)
        driver = cls(name, client, Tokens(client, login), derived=derived)
        driver._development = for_development(client.place, login)
        return driver

    def resolve(self, *, timeout: float) -> str:
        """`vault-transit:`, then the namespace where there is one, mount and key. No call."""
        return self._key_id

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt under the latest version; a key that does not exist is not made."""
        with within(timeout):
            return self._wrapped(self._encrypt(self._item(plaintext, context)))

    def wrap_many(
        self, items: Sequence[tuple[bytes, EncryptionContext]], *, timeout: float
    ) -> list[WrappedKey | ErrorKind]:
        """All in one request."""
        with within(timeout):
            data = self._encrypt(_batch([self._item(*each) for each in items]))
            return answers.of_batch(data, len(items), self._wrapped)

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """Decrypt, whatever version the ciphertext names."""
        with within(timeout):
            self._check_derivation()
            asked = {"ciphertext": answers.ciphertext_text(wrapped.ciphertext), **self._bound(context)}
            return answers.plaintext(self._ask("POST", self._name.path("decrypt"), asked))

    def unwrap_many(
        self, items: Sequence[tuple[WrappedKey, EncryptionContext]], *, timeout: float
    ) -> list[bytes | ErrorKind]:
        """All in one request; those that are no ciphertext are not sent."""
        with within(timeout):
            self._check_derivation()
            results: list[bytes | ErrorKind] = [ErrorKind.NOT_AUTHENTIC] * len(items)
            sound = [
                number
                for number, (wrapped, _) in enumerate(items)
                if answers.version_of_ciphertext(wrapped.ciphertext) is not None
            ]
            if not sound:
                return results
            batch = [
                {"ciphertext": answers.ciphertext_text(wrapped.ciphertext), **self._bound(context)}
                for wrapped, context in (items[number] for number in sound)
            ]
            data = self._ask("POST", self._name.path("decrypt"), _batch(batch))
            opened = answers.of_batch(data, len(batch), answers.plaintext)
            for number, result in zip(sound, opened, strict=True):
                results[number] = result
            return results

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """By the server, under the latest version; of a derived key alone."""
        if not self._derived:
            raise NotImplementedError
        with within(timeout):
            self._check_derivation()
            asked = {"ciphertext": answers.ciphertext_text(wrapped.ciphertext), **self._bound(context)}
            return self._wrapped(self._ask("POST", self._name.path("rewrap"), asked))

    def describe(self, *, timeout: float) -> KeyDescription:
        """From the key's own page, and what the token may do where it may ask."""
        with within(timeout):
            paths = [self._name.path("encrypt"), self._name.path("decrypt")]
            try:
                rights = self._ask("POST", "sys/capabilities-self", {"paths": paths})
            except VaultFailure as failure:
                if failure.kind is not ErrorKind.ACCESS_DENIED:
                    raise
                rights = {}
            key = self._ask("GET", self._name.path("keys"))
            self._check(key)
            self._version = answers.key_version(key.get("latest_version"))
            return KeyDescription(
                self._key_id,
                answers.state(key),
                self._version,
                answers.rotation(key),
                *(answers.may(rights.get(path)) for path in paths),
            )

    def rotate(self, *, timeout: float) -> None:
        """Make a new version."""
        with within(timeout):
            self._ask("POST", f"{self._name.path('keys')}/rotate", {})

    def policy(self, role: PolicyRole) -> str:
        """HCL for `bao policy write`."""
        return policies.policy(self._name, role, derived=self._derived)

    def forgeries(self) -> Sequence[WrappedKey]:
        """Under the latest version that was seen, for an older one may no longer decrypt."""
        noise = base64.b64encode(os.urandom(_FORGED)).decode()
        return (WrappedKey(self._key_id, self._version, f"vault:v{self._version}:{noise}".encode()),)

    def development_settings(self) -> Sequence[str]:
        """An address without TLS, or a development server's token."""
        return self._development

    def classify(self, error: BaseException, operation: Operation) -> ErrorKind:
        """Of what is no `VaultFailure`."""
        return ErrorKind.TIMEOUT if isinstance(error, TimeoutError) else ErrorKind.INVALID_REQUEST

    def close(self) -> None:
        """End the renewal of the token and close the connections. The token is not revoked."""
        self._tokens.close()
        self._client.close()

    # --- one call ---------------------------------------------------------------------------------

    def _item(self, plaintext: bytes, context: EncryptionContext) -> dict[str, str]:
        return {"plaintext": base64.b64encode(plaintext).decode(), **self._bound(context)}

    def _encrypt(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        self._check_derivation()
        try:
            return self._ask("POST", self._name.path("encrypt"), {"type": failures.NO_SUCH_TYPE, **asked})
        except VaultFailure as failure:
            if failure.kind is not ErrorKind.ACCESS_DENIED:
                raise
            refusal = failure
        # To a token that may not create, an unknown key is denied.
        if self._is_missing():
            refusal = VaultFailure(ErrorKind.KEY_NOT_FOUND, "no-key", request_id=refusal.request_id)
        raise refusal

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
        report_request_id(answer["request_id"])
        data = answer.get("data")
        if not isinstance(data, dict):
            if not path.endswith("/rotate"):  # HashiCorp's answer to a rotation is empty
                raise answers.unreadable()
            data = {}
        self._tokens.learn()
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
        return WrappedKey(self._key_id, *answers.new_ciphertext(data))

    def __repr__(self) -> str:
        return f"VaultTransitDriver({self._key_id!r})"


def _batch(items: list[dict[str, str]]) -> dict[str, Any]:
    return {"batch_input": items, "partial_failure_response_code": 200}
