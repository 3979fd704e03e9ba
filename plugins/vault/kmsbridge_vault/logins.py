"""How a host says who it is: each method of the option `auth`, and the token that it gets."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kmsbridge.driver import ErrorKind, Secret
from kmsbridge_vault.client import Client
from kmsbridge_vault.failures import VaultFailure

if TYPE_CHECKING:
    from kmsbridge_vault.bootstrap import WrappedSecretId

MAX_FILE: Final = 65536


class Grant:
    """A token, and how long it holds from `born` on: `ttl` seconds, or without end where that is 0.

    `full` is the ttl of the login: a renewal that gives much less has come near the token's greatest age.
    """

    __slots__ = ("born", "full", "renewable", "token", "ttl")

    def __init__(self, token: Secret, ttl: float = 0.0, renewable: bool = False, full: float = 0.0) -> None:
        self.token, self.ttl, self.renewable, self.full = token, ttl, renewable, full
        self.born = time.monotonic()


class Login(ABC):
    """A way to get a token. Threads may share it; `Tokens` calls it once at a time."""

    learns: bool = False
    """Whether the token's ttl must be asked for."""
    fixed: bool = False
    """Whether it says the same each time, so that what was refused is refused again."""
    namespace: str | None = None
    """Where the token is at home; None is where the key is."""

    @abstractmethod
    def __call__(self, client: Client) -> Grant:
        """A token, maybe the same again. Raises `VaultFailure`; of kind UNAUTHENTICATED where it is refused."""


class GivenToken(Login):
    """A token from the configuration."""

    def __init__(self, token: Secret, *, renew: bool) -> None:
        self.token = token
        self.learns = renew

    def __call__(self, client: Client) -> Grant:
        return Grant(self.token)


class TokenFile(Login):
    """A token in a file that an agent keeps fresh: read again when the token is refused."""

    def __init__(self, file: str) -> None:
        self._file = file

    def __call__(self, client: Client) -> Grant:
        return Grant(read_secret(self._file, "token-file", "check the token file and who writes it"))


class Endpoint(NamedTuple):
    """Where a method of auth is mounted; `namespace` is None where it is the key's, empty for the root."""

    mount: str
    namespace: str | None = None


class _Posted(Login):
    """Asks `auth/MOUNT/PATH`."""

    path = "login"
    remedy = "check the role and the credentials of this host"

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.namespace = endpoint.namespace

    @abstractmethod
    def body(self, client: Client) -> dict[str, str]:
        """What says who this is."""

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
    """Role id and secret id; the latter may come wrapped, see `bootstrap`."""

    remedy = "check role_id and mount, and give this host a new secret id"

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
    """The service account's token, read at each login: the cluster replaces it."""

    remedy = "check the role, and that its service account and namespace are this pod's"

    def __init__(self, endpoint: Endpoint, role: str, jwt_file: str) -> None:
        super().__init__(endpoint)
        self._role, self._jwt_file = role, jwt_file

    def body(self, client: Client) -> dict[str, str]:
        jwt = read_secret(self._jwt_file, "jwt-file", "check jwt_file, and that the pod mounts its token")
        return {"role": self._role, "jwt": jwt.reveal_text()}


class UserPass(_Posted):
    """User name and password."""

    remedy = "check username and password"
    fixed = True

    def __init__(self, endpoint: Endpoint, username: str, password: Secret) -> None:
        super().__init__(endpoint)
        self.path = f"login/{username}"
        self._password = password

    def body(self, client: Client) -> dict[str, str]:
        return {"password": self._password.reveal_text()}


class Certificate(_Posted):
    """The client certificate of the connection, for `role` where one is named."""

    remedy = "check client_cert and client_key, and the certificate that the role allows"

    def __init__(self, endpoint: Endpoint, role: str) -> None:
        super().__init__(endpoint)
        self._role = role

    def body(self, client: Client) -> dict[str, str]:
        return {"name": self._role} if self._role else {}


def grant_of(answer: Mapping[str, Any]) -> Grant:
    """The token in the answer to a login or a renewal."""
    auth = answer.get("auth")
    token = auth.get("client_token") if isinstance(auth, dict) else None
    if not isinstance(auth, dict) or not isinstance(token, str) or not token:
        raise VaultFailure(ErrorKind.UNAVAILABLE, "unreadable")
    ttl = number(auth.get("lease_duration"))
    # A token of few uses is not renewed: that would be one of them.
    renewable = auth.get("renewable") is True and not auth.get("num_uses")
    return Grant(Secret.of_text(token), ttl, renewable, full=ttl)


def number(value: Any) -> float:
    """A length of time in seconds as a server tells it; 0 for what is none."""
    return float(value) if isinstance(value, (int, float)) and 0 < value < 1e10 else 0.0  # noqa: PLR2004


def read_secret(file: str, code: str, remedy: str) -> Secret:
    """The text of a file without the line end; raises `VaultFailure` of kind UNAUTHENTICATED."""
    try:
        with Path(file).open("rb") as opened:
            text = opened.read(MAX_FILE).strip()
    except OSError:
        text = b""
    if not text or not text.isascii() or b"\n" in text or b"\r" in text:
        raise VaultFailure(ErrorKind.UNAUTHENTICATED, code, remedy=remedy)
    return Secret(text)
