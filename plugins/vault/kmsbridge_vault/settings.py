"""Reads and checks a key's options: its server, and how this host logs in there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from kmsbridge.driver import Options, Secret
from kmsbridge.driverkit.addresses import is_loopback, service_url
from kmsbridge.errors import ConfigError
from kmsbridge_vault import logins
from kmsbridge_vault.client import Client, Place
from kmsbridge_vault.logins import Endpoint, Login
from kmsbridge_vault.naming import path

if TYPE_CHECKING:
    from kmsbridge_vault.bootstrap import WrappedSecretId

_ADDRESS: Final = "https://vault.internal:8200"
_METHODS: Final = ("token", "token_file", "approle", "kubernetes", "userpass", "cert")
_DEVELOPMENT_TOKEN: Final = b"root"
_POD_TOKEN: Final = "/var/run/secrets/kubernetes.io/serviceaccount/token"  # noqa: S105 - a path


def place_of(options: Options) -> Place:
    """Return the key's server. Raises `ConfigError`.

    The environment variables of the `bao` and `vault` commands replace missing options.
    """
    address = options.text("address") or standard("ADDR")
    plain = options.flag("allow_plain_http")
    if not address:
        raise ConfigError(
            f"{options.name} has no server address",
            remedy=f"set address, for example to {_ADDRESS}, or the environment variable BAO_ADDR or VAULT_ADDR",
        )
    namespace = options.text("namespace") or standard("NAMESPACE")
    return Place(
        service_url(address, f"{options.name}.address", plain=plain, with_path=True),
        path(namespace, f"{options.name}.namespace") if namespace else "",
        _file(options, "ca_file") or _existing(standard("CACERT"), "BAO_CACERT or VAULT_CACERT"),
        _file(options, "client_cert"),
        _file(options, "client_key"),
    )


def standard(name: str) -> str:
    """Return the environment variable BAO_`name`, else VAULT_`name`, else ""."""
    return os.environ.get(f"BAO_{name}") or os.environ.get(f"VAULT_{name}") or ""


def for_development(place: Place, login: Login) -> list[str]:
    """Return the settings that are not fit for production, as texts."""
    parts, found = urlsplit(place.address), []
    if parts.scheme == "http":
        where = "on this machine" if is_loopback(parts.hostname or "") else "on another machine"
        found.append(f"address is {place.address}, {where} and without TLS")
    if isinstance(login, logins.GivenToken) and login.token.equals(Secret(_DEVELOPMENT_TOKEN)):
        found.append("the token is that of a development server")
    return found


def _file(options: Options, option: str) -> str:
    return _existing(options.path(option, ""), f"{options.name}.{option}")


def _existing(file: str, what: str) -> str:
    if file and not Path(file).is_file():
        raise ConfigError(
            f"the file that {what} names does not exist",
            remedy="check the path; a relative one in a configuration starts at the configuration file",
        )
    return file


# --- the option `auth` ----------------------------------------------------------------------------


def login_of(options: Options, client: Client) -> Login:
    """Return the login in the option `auth`, or with the token in BAO_TOKEN or VAULT_TOKEN. Raises `ConfigError`."""
    auth = options.table("auth")
    method = auth.text("method")
    if method is None:
        token = standard("TOKEN")
        if not token:
            raise ConfigError(
                f"{options.name} does not say how this host logs in",
                remedy=f"set auth = {{ method = ... }}, with one of {', '.join(_METHODS)}, or the environment "
                "variable BAO_TOKEN or VAULT_TOKEN",
            )
        return logins.GivenToken(_header(Secret.of_text(token), f"{options.name}.auth"), renew=True)
    match method:
        case "token":
            token_given = _header(auth.secret("token", required=True), auth.name)
            return logins.GivenToken(token_given, renew=auth.flag("renew", default=True))
        case "token_file":
            return logins.TokenFile(auth.path("file", required=True))
        case "approle":
            return _approle(auth, client)
        case "kubernetes":
            role, jwt_file = auth.text("role", required=True), auth.path("jwt_file", _POD_TOKEN)
            return logins.Kubernetes(_endpoint(auth, "kubernetes"), role, jwt_file)
        case "userpass":
            username = path(auth.text("username", required=True), f"{auth.name}.username")
            return logins.UserPass(
                _endpoint(auth, "userpass"), username, auth.secret("password", required=True)
            )
        case "cert":
            return _certificate(auth, client)
    raise ConfigError(f"{auth.name}.method is unknown", remedy=f"use one of {', '.join(_METHODS)}")


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
