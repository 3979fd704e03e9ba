"""Reads and checks a key's option `auth`: how this host logs in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kmsbridge.driver import Options, Secret
from kmsbridge.errors import ConfigError
from kmsbridge_vault import logins
from kmsbridge_vault.client import Client
from kmsbridge_vault.logins import Endpoint, Login
from kmsbridge_vault.naming import path
from kmsbridge_vault.place import standard

if TYPE_CHECKING:
    from kmsbridge_vault.bootstrap import WrappedSecretId

_METHODS: Final = ("none", "token", "token_file", "approle", "kubernetes", "userpass", "cert")
_DEVELOPMENT_TOKEN: Final = b"root"
_POD_TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path


def login_of(options: Options, client: Client) -> Login:
    """Return the login in the option `auth`, or with the token in BAO_TOKEN or VAULT_TOKEN. Raises `ConfigError`."""
    auth = options.table("auth")
    method = auth.text("method")
    match method:
        case None:
            return _standard_token(options)
        case "none":
            return logins.NoToken()
        case "token":
            token = _header(auth.secret("token", required=True), auth.name)
            return logins.GivenToken(token, renew=auth.flag("renew", default=True))
        case "token_file":
            return logins.TokenFile(auth.path("file", required=True))
        case "approle":
            return _approle(auth, client)
        case "kubernetes":
            role, jwt_file = auth.text("role", required=True), auth.path("jwt_file", _POD_TOKEN)
            return logins.Kubernetes(_endpoint(auth, "kubernetes"), role, jwt_file)
        case "userpass" | "cert":
            return _user_pass(auth) if method == "userpass" else _certificate(auth, client)
    raise ConfigError(f"{auth.name}.method is unknown", remedy=f"use one of {', '.join(_METHODS)}")


def _standard_token(options: Options) -> Login:
    token = standard("TOKEN")
    if not token:
        raise ConfigError(
            f"{options.name} does not say how this host logs in",
            remedy=f"set auth = {{ method = ... }}, with one of {', '.join(_METHODS)}, or the environment "
            "variable BAO_TOKEN or VAULT_TOKEN",
        )
    return logins.GivenToken(_header(Secret.of_text(token), f"{options.name}.auth"), renew=True)


def _user_pass(auth: Options) -> Login:
    username = path(auth.text("username", required=True), f"{auth.name}.username")
    return logins.UserPass(_endpoint(auth, "userpass"), username, auth.secret("password", required=True))


def for_development(login: Login) -> list[str]:
    """Return what is not fit for production in the login, as texts."""
    if isinstance(login, logins.GivenToken) and login.token.equals(Secret(_DEVELOPMENT_TOKEN)):
        return ["the token is that of a development server"]
    return []


def _approle(auth: Options, client: Client) -> Login:
    endpoint = _endpoint(auth, "approle")
    role_id, secret_id = auth.secret("role_id", required=True), auth.secret("secret_id")
    wrapped = _wrapped(auth, client, endpoint)
    if secret_id is not None and wrapped is not None:
        raise ConfigError(
            f"{auth.name} has both a secret_id and a wrapped secret id", remedy="remove one of them"
        )
    return logins.AppRole(endpoint, role_id, secret_id or wrapped)


def _wrapped(auth: Options, client: Client, endpoint: Endpoint) -> WrappedSecretId | None:
    given, variable = auth.secret("wrapped_secret_id"), auth.text("wrapped_secret_id_env", "")
    file, role_name = auth.path("wrapped_secret_id_file", ""), auth.text("role_name", "")
    sources = [source for source in (given, variable, file) if source]
    if len(sources) > 1:
        raise ConfigError(
            f"{auth.name} has more than one wrapped secret id",
            remedy="keep one of wrapped_secret_id, wrapped_secret_id_env and wrapped_secret_id_file",
        )
    if not sources:
        return None
    from kmsbridge_vault.bootstrap import WrappedSecretId

    wrapped = WrappedSecretId(
        client,
        endpoint.mount,
        role_name,
        namespace=endpoint.namespace,
        file=file,
        variable=variable,
        given=given,
    )
    if not wrapped.is_there:
        raise ConfigError(
            f"the environment variable that {auth.name}.wrapped_secret_id_env names is not set",
            remedy="set it to a new wrapping token at each start: a token can be used by one process, once",
        )
    return wrapped


def _certificate(auth: Options, client: Client) -> Login:
    if not client.place.client_cert:
        raise ConfigError(
            f"{auth.name} has the method cert, but there is no client certificate",
            remedy="set the key's options client_cert and client_key",
        )
    return logins.Certificate(_endpoint(auth, "cert"), auth.text("role", ""))


def _endpoint(auth: Options, mount: str) -> Endpoint:
    given, namespace = auth.text("mount"), auth.text("namespace")
    return Endpoint(
        path(given, f"{auth.name}.mount") if given else mount,
        path(namespace, f"{auth.name}.namespace") if namespace else namespace,
    )


def _header(token: Secret, name: str) -> Secret:
    """Return the token without a line end. Raises `ConfigError` if it cannot be sent as an HTTP header."""
    text = token.reveal().strip()
    if not text.isascii() or not text.decode().isprintable() or b" " in text:
        raise ConfigError(
            f"{name} has a token that is not valid",
            remedy="give the token alone, without spaces or other lines",
        )
    return Secret(text)
