"""What the options of a key say: its server, and how this host logs in there."""

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
    """The server; raises `ConfigError`. The standard variables of `bao` and `vault` stand in for options."""
    address = options.text("address") or standard("ADDR")
    plain = options.flag("allow_plain_http")
    if not address:
        raise ConfigError(
            f"{options.name} has no address of a server",
            remedy=f"set address, as in {_ADDRESS}, or the variable BAO_ADDR or VAULT_ADDR",
        )
    namespace = options.text("namespace") or standard("NAMESPACE")
    return Place(
        service_url(address, f"{options.name}.address", plain=plain, with_path=True),
        path(namespace, f"{options.name}.namespace") if namespace else "",
        _file(options, "ca_file") or _existing(standard("CACERT"), "the variable of the CA file"),
        _file(options, "client_cert"),
        _file(options, "client_key"),
    )


def standard(name: str) -> str:
    """What the provider's own variable of this name says, `bao`'s before `vault`'s; empty where none does."""
    return os.environ.get(f"BAO_{name}") or os.environ.get(f"VAULT_{name}") or ""


def for_development(place: Place, login: Login) -> list[str]:
    """Return what of the settings is not for production, in words."""
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
        raise ConfigError(f"{what} names no file", remedy="check its path, which starts at the configuration")
    return file


# --- the option `auth` ----------------------------------------------------------------------------


def login_of(options: Options, client: Client) -> Login:
    """From the table; without one, the token of the standard variables. Raises `ConfigError`."""
    auth = options.table("auth")
    method = auth.text("method")
    if method is None:
        token = standard("TOKEN")
        if not token:
            raise ConfigError(
                f"{options.name} does not say how this host logs in",
                remedy=f"set auth = {{ method = ... }}, one of {', '.join(_METHODS)}, or the variable "
                "BAO_TOKEN or VAULT_TOKEN",
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
            f"{auth.name} has a secret_id and a wrapped one as well", remedy="keep the one that is meant"
        )
    return logins.AppRole(endpoint, role_id, secret_id or wrapped)


def _wrapped(auth: Options, client: Client, endpoint: Endpoint) -> WrappedSecretId | None:
    given, variable = auth.secret("wrapped_secret_id"), auth.text("wrapped_secret_id_env", "")
    file, role_name = auth.path("wrapped_secret_id_file", ""), auth.text("role_name", "")
    sources = [each for each in (given, variable, file) if each]
    if len(sources) > 1:
        raise ConfigError(f"{auth.name} has more than one wrapped secret id", remedy="keep one of them")
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
            remedy="set it to a wrapping token: it holds one start of one process",
        )
    return wrapped


def _certificate(auth: Options, client: Client) -> Login:
    if not client.place.client_cert:
        raise ConfigError(
            f"{auth.name} has the method cert, and there is no client certificate",
            remedy="set client_cert and client_key beside auth",
        )
    return logins.Certificate(_endpoint(auth, "cert"), auth.text("role", ""))


def _endpoint(auth: Options, mount: str) -> Endpoint:
    given, namespace = auth.text("mount"), auth.text("namespace")
    return Endpoint(
        path(given, f"{auth.name}.mount") if given else mount,
        path(namespace, f"{auth.name}.namespace") if namespace else namespace,
    )


def _header(token: Secret, name: str) -> Secret:
    """The token without a line end; it goes into a header."""
    text = token.reveal().strip()
    if not text.isascii() or not text.decode().isprintable() or b" " in text:
        raise ConfigError(f"{name} has a token that is none", remedy="give it without spaces or other lines")
    return Secret(text)
