"""The `vault-transit` driver."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
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
from kmsbridge_vault import answers, batches, failures, naming, place, policies, settings
from kmsbridge_vault.client import Client
from kmsbridge_vault.credentials import Tokens
from kmsbridge_vault.failures import VaultFailure
from kmsbridge_vault.naming import KeyId, KeyName
from kmsbridge_vault.place import place_of
from kmsbridge_vault.settings import login_of

Send = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Sends a request's body, and returns the answer's data."""

_AEAD: Final = ("aes256-gcm96", "aes128-gcm96", "chacha20-poly1305", "xchacha20-poly1305")
_EITHER: Final = frozenset(
    {
        Capability.BINDS_CONTEXT,
        Capability.BATCH_WRAP,
        Capability.BATCH_UNWRAP,
        Capability.REPORTS_VERSION,
    }
)
_INVALID: Final = "!"
"""No base64, so that a server which reads it refuses it."""
_FORGED: Final = 60
"""The length of a ciphertext that contains a data key: nonce, 32 bytes and tag."""


class VaultTransitDriver(KeyDriver):
    """A key of Vault's Transit engine, `vault-transit://MOUNT/KEY`.

    It is an AEAD key, and the context is bound as associated data. With the option `derived = true` it is a key with
    derivation, which derives from a hash of the context; the server can then rewrap.
    """

    scheme: ClassVar[str] = "vault-transit"
    capabilities: frozenset[Capability] = _EITHER | {Capability.ROTATE}
    max_plaintext: int = 12_000
    """The ciphertext of so many bytes, in base64 with a prefix, stays below a wrapped key's limit of 16384 bytes."""
    batch_limit: int = 200
    """A batch of so many of the largest payloads stays far below the 32 MiB that Vault accepts in a request."""

    def __init__(
        self, name: KeyName, client: Client, tokens: Tokens, *, derived: bool = False, instance: str = ""
    ) -> None:
        self._name, self._client, self._tokens = name, client, tokens
        self._id = KeyId(instance, client.place.namespace, f"{name.mount}/{name.key}")
        self._derived = derived
        self._checked = not derived
        self._binds = derived  # or else the server has to show that it does
        self._version = "1"
        self._development: Sequence[str] = ()
        if derived:
            self.capabilities = type(self).capabilities | {Capability.SERVER_REWRAP}

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """Return a driver. Raises `ConfigError`; connects and logs in at the first call only."""
        name, derived = KeyName.of(uri, options), options.flag("derived")
        client = Client(place_of(options))
        login = login_of(options, client)
        driver = cls(name, client, Tokens(client, login), derived=derived, instance=naming.instance(options))
        naming.check_length(driver._id)
        driver._development = [*place.for_development(client.place), *settings.for_development(login)]
        return driver

    def resolve(self, *, timeout: float) -> str:
        """Return `vault-transit:INSTANCE:NAMESPACE:MOUNT/KEY`.

        Without the option `instance`, it is the server's cluster id, which the first call asks for. That needs no
        token.
        """
        with within(timeout):
            return self._key_id()

    def has_former_id(self, key_id: str) -> bool:
        """Return whether the id has the same path, and another cluster's id or no instance."""
        scheme, _, rest = key_id.partition(":")
        return scheme == self.scheme and KeyId.parse(rest).is_former_id_of(self._id)

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt under the latest version. Does not create a key that does not exist, as Vault itself would."""
        with within(timeout):
            return self._wrap(plaintext, context)

    def wrap_many(
        self, items: Sequence[tuple[bytes, EncryptionContext]], *, timeout: float
    ) -> list[WrappedKey | ErrorKind]:
        """Encrypt all items in one request, and those alone that it leaves unexplained."""
        with within(timeout):
            batch = [self._item(plaintext, context) for plaintext, context in items]
            return batches.in_one_request(
                lambda: self._batch(self._encrypt, batch),
                self._wrapped,
                lambda n: self._wrap(*items[n]),
                len(batch),
            )

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """Decrypt under the version that the ciphertext names."""
        with within(timeout):
            return self._unwrap(wrapped, context)

    def unwrap_many(
        self, items: Sequence[tuple[WrappedKey, EncryptionContext]], *, timeout: float
    ) -> list[bytes | ErrorKind]:
        """Decrypt all items in one request, which leaves out items that are not ciphertexts of Vault."""
        with within(timeout):
            results: list[bytes | ErrorKind] = [ErrorKind.NOT_AUTHENTIC] * len(items)
            valid = [
                number
                for number, (wrapped, _) in enumerate(items)
                if answers.version_of_ciphertext(wrapped.ciphertext) is not None
            ]
            if not valid:
                return results
            batch = [self._wrapped_item(*items[number]) for number in valid]
            plaintexts = batches.in_one_request(
                lambda: self._batch(self._decrypt, batch),
                answers.plaintext,
                lambda n: self._unwrap(*items[valid[n]]),
                len(batch),
            )
            for number, result in zip(valid, plaintexts, strict=True):
                results[number] = result
            return results

    def version_of(self, ciphertext: bytes) -> str | None:
        """Return N of `vault:vN:...`, by which Vault chooses the version to decrypt with."""
        return answers.version_of_ciphertext(ciphertext)

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Have the server rewrap under the latest version. Only a derived key can."""
        if not self._derived:
            raise NotImplementedError
        with within(timeout):
            self._check_derivation()
            body = self._wrapped_item(wrapped, context)
            try:
                return self._wrapped(self._ask("POST", self._name.path("rewrap"), body))
            except VaultFailure as failure:
                raise self._stale_or_forged(failure, wrapped) from None

    def describe(self, *, timeout: float) -> KeyDescription:
        """Read the key's configuration, and what the token may do if it may look that up."""
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
                self._key_id(),
                answers.state(key),
                self._version,
                answers.rotation(key),
                *(answers.may_update(rights.get(path)) for path in paths),
            )

    def rotate(self, *, timeout: float) -> None:
        """Make a new version."""
        with within(timeout):
            self._ask("POST", f"{self._name.path('keys')}/rotate", {})

    def policy(self, role: PolicyRole) -> str:
        """Return the policy as HCL for `bao policy write` or `vault policy write`."""
        return policies.policy(self._name, role, derived=self._derived)

    def forgeries(self) -> Sequence[WrappedKey]:
        """Return random bytes under the latest version that `describe` saw: older ones may no longer decrypt."""
        noise = base64.b64encode(os.urandom(_FORGED)).decode()
        return (
            WrappedKey(
                f"{self.scheme}:{self._id}", self._version, f"vault:v{self._version}:{noise}".encode()
            ),
        )

    def endpoint(self) -> tuple[str, str]:
        """Return the server's address, and where it came from."""
        return self._client.place.address, self._client.place.origin

    def development_settings(self) -> Sequence[str]:
        """Return an address without TLS or from the environment, and the token of a development server."""
        return self._development

    def classify(self, error: BaseException, operation: Operation) -> ErrorKind:
        """Return the kind of an exception other than `VaultFailure`."""
        return ErrorKind.TIMEOUT if isinstance(error, TimeoutError) else ErrorKind.INVALID_REQUEST

    def close(self) -> None:
        """End the renewal of the token and close the connections. The token is not revoked."""
        self._tokens.close()
        self._client.close()

    # --- one call ---------------------------------------------------------------------------------

    def _key_id(self) -> str:
        if not self._id.instance:
            self._id = self._id._replace(instance=self._client.cluster_id())
        return f"{self.scheme}:{self._id}"

    def _item(self, plaintext: bytes, context: EncryptionContext) -> dict[str, str]:
        return {"plaintext": base64.b64encode(plaintext).decode(), **self._bound(context)}

    def _wrapped_item(self, wrapped: WrappedKey, context: EncryptionContext) -> dict[str, str]:
        return {"ciphertext": answers.ciphertext_text(wrapped.ciphertext), **self._bound(context)}

    def _wrap(self, plaintext: bytes, context: EncryptionContext) -> WrappedKey:
        return self._wrapped(self._one(self._encrypt, self._item(plaintext, context)))

    def _unwrap(self, wrapped: WrappedKey, context: EncryptionContext) -> bytes:
        item = self._wrapped_item(wrapped, context)
        try:
            return answers.plaintext(self._one(self._decrypt, item))
        except VaultFailure as failure:
            raise self._stale_or_forged(failure, wrapped) from None

    def _decrypt(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        self._check_derivation()
        return self._ask("POST", self._name.path("decrypt"), body)

    def _encrypt(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        self._check_derivation()
        try:
            return self._ask("POST", self._name.path("encrypt"), {"type": failures.NO_SUCH_TYPE, **body})
        except VaultFailure as failure:
            if failure.kind is not ErrorKind.ACCESS_DENIED:
                raise
            refusal = failure
        # Vault answers 403 for an unknown key if the token may not create keys.
        if self._is_missing():
            refusal = VaultFailure(ErrorKind.KEY_NOT_FOUND, "no-key", request_id=refusal.request_id)
        raise refusal

    def _ask(self, method: Literal["GET", "POST"], path: str, body: Any = None) -> Mapping[str, Any]:
        """Send a request and return the answer's `data`. If the token is no longer valid, send it again with another."""
        grant = self._tokens.grant()
        try:
            answer = self._client.request(method, path, body, token=grant.token)
        except VaultFailure as failure:
            if failure.kind is ErrorKind.KEY_NOT_FOUND:
                self._checked = not self._derived  # a key of this name made later may be another kind of key
            fresh = self._tokens.after_refusal(grant) if failure.kind is ErrorKind.ACCESS_DENIED else None
            if fresh is None:
                raise
            answer = self._client.request(method, path, body, token=fresh.token)
        report_request_id(answer["request_id"])
        if answers.ignores_associated_data(answer):
            raise failures.ignored()
        data = answer.get("data")
        if not isinstance(data, dict):
            if path != f"{self._name.path('keys')}/rotate":  # HashiCorp's answer to a rotation is empty
                raise answers.unreadable()
            data = {}
        self._tokens.learn()
        return data

    # --- checks that Vault does not make ----------------------------------------------------------

    def _one(self, send: Send, item: dict[str, str]) -> Mapping[str, Any]:
        """Return the answer to one item, which is a batch while the server has not shown that it binds the context."""
        if self._binds:
            return send(item)
        (result,) = self._batch(send, [item])
        return send(item) if result.get("error") else result  # alone it is refused with a reason

    def _batch(self, send: Send, items: list[dict[str, str]]) -> list[Mapping[str, Any]]:
        """Return the results of a batch.

        Until one succeeds, the last item is also sent with associated data that are not valid. A server that does
        not refuse it ignores associated data, as Vault before 1.13 does, and warns of it outside batches only.
        """
        proof = [] if self._binds else [{**items[-1], "associated_data": _INVALID}]
        body = {"batch_input": items + proof, "partial_failure_response_code": 200}
        results = answers.batch_items(send(body), len(items) + len(proof))
        if proof and not results.pop().get("error"):
            raise failures.ignored()
        self._binds = self._binds or not all(each.get("error") for each in results)
        return results

    def _stale_or_forged(self, failure: VaultFailure, wrapped: WrappedKey) -> VaultFailure:
        """Return the failure; for a version more than one beyond the server's latest, that it is not authentic.

        A node that lags misses the last rotation. Where the token may not read the key, it is taken for that.
        """
        if failure.code == failures.STALE:
            with contextlib.suppress(VaultFailure):
                latest = answers.key_version(self._ask("GET", self._name.path("keys")).get("latest_version"))
                if int(answers.version_of_ciphertext(wrapped.ciphertext) or 0) > int(latest) + 1:
                    return VaultFailure(
                        ErrorKind.NOT_AUTHENTIC, "invalid-ciphertext", request_id=failure.request_id
                    )
        return failure

    def _bound(self, context: EncryptionContext) -> dict[str, str]:
        canonical = context.canonical()
        if self._derived:
            return {"context": base64.b64encode(hashlib.sha256(canonical).digest()).decode()}
        return {"associated_data": base64.b64encode(canonical).decode()}

    def _check_derivation(self) -> None:
        """Check once that the key is derived: Vault would silently ignore the context of one that is not."""
        if not self._checked:
            try:
                self._check(self._ask("GET", self._name.path("keys")))
            except VaultFailure as failure:
                if failure.kind is ErrorKind.ACCESS_DENIED:
                    failure.remedy = (
                        f"grant read on {self._name.path('keys')}: the driver must check that the key is derived, "
                        "because Vault ignores the context of a key that is not"
                    )
                raise

    def _check(self, key: Mapping[str, Any]) -> None:
        remedy = ""
        if key.get("type") not in _AEAD:
            remedy = "use a key of type aes256-gcm96 or another AEAD type"
        elif key.get("convergent_encryption") is True:
            remedy = "use a key without convergent encryption, which shows that two plaintexts are equal"
        elif key.get("derived") is not self._derived:
            remedy = (
                "make a key with derived=true, or remove `derived = true` here"
                if self._derived
                else "set `derived = true` for this key: it was made with derivation"
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
        version, ciphertext = answers.new_ciphertext(data)
        return WrappedKey(self._key_id(), version, ciphertext)

    def __repr__(self) -> str:
        return f"VaultTransitDriver({f'{self.scheme}:{self._id}'!r})"
