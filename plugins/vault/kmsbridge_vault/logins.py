"""The login methods of the option `auth`, and the tokens that they give."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kmsbridge.driver import ErrorKind, Secret
from kmsbridge_vault.client import Client
from kmsbridge_vault.failures import UNREADABLE, VaultFailure

if TYPE_CHECKING:
    from kmsbridge_vault.bootstrap import WrappedSecretId

MAX_FILE: Final = 65536


class Grant:
    """A token and its lifetime.

    It is valid for `ttl` seconds from the monotonic time `born`; a `ttl` of 0 means that it does not expire, or that
    this is not known. `full` is the ttl at login: a renewal that gives much less shows that the token is close to its
    maximum age.
    """

    __slots__ = ("born", "full", "renewable", "token", "ttl")

    def __init__(self, token: Secret, ttl: float = 0.0, renewable: bool = False, full: float = 0.0) -> None:
        self.token, self.ttl, self.renewable, self.full = token, ttl, renewable, full
        self.born = time.monotonic()


class Login(ABC):
    """A way to obtain a token. Safe for threads; `Tokens` calls it once at a time."""

    learns: bool = False
    """Whether the token's ttl must be looked up."""
    fixed: bool = False
    """Whether each login sends the same credentials, so that a refused login would be refused again."""
    namespace: str | None = None
    """The namespace of the token; None is the key's namespace."""
    when_refused: str = "give this host a new token: this one is expired, revoked or used up"
    """What to do if the server refuses the token, and there is no other."""

    @abstractmethod
    def __call__(self, client: Client) -> Grant:
        """Return a token, possibly the same as before. Raises `VaultFailure`, of kind UNAUTHENTICATED if refused."""


class GivenToken(Login):
    """A token from the configuration."""

    def __init__(self, token: Secret, *, renew: bool) -> None:
        self.token = token
        self.learns = renew

    def __call__(self, client: Client) -> Grant:
        return Grant(self.token)


class NoToken(Login):
    """No token: an agent or a proxy of the server's own, at the key's address, adds one to each request."""

    when_refused = "have the agent or proxy at this address log in, and add its token (use_auto_auth_token)"

    def __call__(self, client: Client) -> Grant:
        return Grant(Secret(b""))


class TokenFile(Login):
    """A token in a file that an agent keeps current. The file is read again when Vault refuses the token."""

    def __init__(self, file: str) -> None:
        self._file = file

    def __call__(self, client: Client) -> Grant:
        return Grant(
            read_secret(self._file, "token-file", "check the token file, and the agent that writes it")
        )


class Endpoint(NamedTuple):
    """The mount of an auth method. `namespace` is None for the key's namespace and "" for the root."""

    mount: str
    namespace: str | None = None


class _Posted(Login):
    """A login by a POST to `auth/MOUNT/PATH`."""

    path = "login"
    remedy = "check the role and the credentials of this host"

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.namespace = endpoint.namespace

    @abstractmethod
    def body(self, client: Client) -> dict[str, str]:
        """Return the body of the login request, which contains the credentials."""

    def __call__(self, client: Client) -> Grant:
        try:
            answer = client.request(
                "POST",
                f"auth/{self._endpoint.mount}/{self.path}",
                self.body(client),
                namespace=self.namespace,
            )
        except VaultFailure as failure:
            if failure.kind in _REFUSALS:
                raise VaultFailure(
                    ErrorKind.UNAUTHENTICATED,
                    "login-refused",
                    request_id=failure.request_id,
                    remedy=self.remedy,
                ) from None
            raise
        return grant_of(answer)


_REFUSALS: Final = (ErrorKind.ACCESS_DENIED, ErrorKind.INVALID_REQUEST, ErrorKind.KEY_NOT_FOUND)


class AppRole(_Posted):
    """A login with a role id and a secret id, which may come wrapped: see `bootstrap`."""

    remedy = "check role_id and mount, or give this host a new secret id"

    def __init__(
        self, endpoint: Endpoint, role_id: Secret, secret_id: Secret | WrappedSecretId | None
    ) -> None:
        super().__init__(endpoint)
        self._role_id, self._secret_id = role_id, secret_id
        self.fixed = secret_id is None or isinstance(secret_id, Secret)

    def body(self, client: Client) -> dict[str, str]:
        secret_id = self._secret_id
        if secret_id is not None and not isinstance(secret_id, Secret):
            secret_id = secret_id.get(client)
        given = {"secret_id": secret_id.reveal_text()} if secret_id is not None else {}
        return {"role_id": self._role_id.reveal_text(), **given}


class Kubernetes(_Posted):
    """A login with the token of the pod's service account, read at each login because the cluster replaces it."""

    remedy = "check the role, and that it allows this pod's service account and namespace"

    def __init__(self, endpoint: Endpoint, role: str, jwt_file: str) -> None:
        super().__init__(endpoint)
        self._role, self._jwt_file = role, jwt_file

    def body(self, client: Client) -> dict[str, str]:
        jwt = read_secret(self._jwt_file, "jwt-file", "check jwt_file, and that the pod mounts its token")
        return {"role": self._role, "jwt": jwt.reveal_text()}


class UserPass(_Posted):
    """A login with a user name and a password."""

    remedy = "check username and password"
    fixed = True

    def __init__(self, endpoint: Endpoint, username: str, password: Secret) -> None:
        super().__init__(endpoint)
        self.path = f"login/{username}"
        self._password = password

    def body(self, client: Client) -> dict[str, str]:
        return {"password": self._password.reveal_text()}


class Certificate(_Posted):
    """A login with the connection's client certificate, for the certificate role `role` unless that is empty."""

    remedy = "check client_cert and client_key, and which certificates the role allows"

    def __init__(self, endpoint: Endpoint, role: str) -> None:
        super().__init__(endpoint)
        self._role = role

    def body(self, client: Client) -> dict[str, str]:
        return {"name": self._role} if self._role else {}


def grant_of(answer: Mapping[str, Any]) -> Grant:
    """Return the token in the answer to a login or a renewal. Raises `VaultFailure`."""
    auth = answer.get("auth")
    token = auth.get("client_token") if isinstance(auth, dict) else None
    if not isinstance(auth, dict) or not isinstance(token, str) or not token:
        raise VaultFailure(ErrorKind.UNAVAILABLE, UNREADABLE)
    ttl = number(auth.get("lease_duration"))
    # A renewal would count as one of a token's limited uses.
    renewable = auth.get("renewable") is True and not auth.get("num_uses")
    return Grant(Secret.of_text(token), ttl, renewable, full=ttl)


def number(value: Any) -> float:
    """Return a duration in seconds from an answer; 0 if `value` is not one."""
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e10 else 0.0  # noqa: PLR2004


def read_secret(file: str, code: str, remedy: str) -> Secret:
    """Return the one line of text in a file. Raises `VaultFailure` of kind UNAUTHENTICATED with `code` and `remedy`."""
    try:
        with Path(file).open("rb") as opened:
            text = opened.read(MAX_FILE).strip()
    except OSError:
        text = b""
    if not text or not text.isascii() or b"\n" in text or b"\r" in text:
        raise VaultFailure(ErrorKind.UNAUTHENTICATED, code, remedy=remedy)
    return Secret(text)
