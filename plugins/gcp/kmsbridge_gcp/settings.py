"""Reads and checks a key's options, without the network."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from kmsbridge.driver import Options, Secret
from kmsbridge.driverkit.addresses import is_loopback
from kmsbridge.driverkit.publickey import ALGORITHM, OaepPublicKey
from kmsbridge.errors import ConfigError
from kmsbridge_gcp.naming import NUMBER

DEFAULT_ENDPOINT: Final = "cloudkms.googleapis.com:443"
_ENDPOINT: Final = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::(?P<port>\d{1,5}))?", re.ASCII)
_MEMBER: Final = re.compile(r"[^@\s/]+@[^@\s/]+", re.ASCII)
_MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Access:
    """The endpoint of the service, and the credentials to call it with."""

    endpoint: str = DEFAULT_ENDPOINT
    insecure: bool = False
    ca_file: str = ""
    anonymous: bool = False
    credentials_file: str = ""
    access_token: Secret | None = field(default=None, repr=False)
    impersonated: str = ""
    quota_project: str = ""


@dataclass(frozen=True, slots=True)
class Asymmetric:
    """The version of an asymmetric key that wraps, and its public key if the configuration contains it."""

    version: str
    public_key: OaepPublicKey | None


def access(options: Options) -> Access:
    """Return the endpoint and credentials in a key's options.

    Raises `ConfigError` for options that contradict each other or would send a credential without TLS.
    """
    endpoint = options.text("endpoint")
    found = Access(
        endpoint=_endpoint(options.name, endpoint),
        insecure=options.flag("insecure"),
        ca_file=options.path("ca_file", ""),
        anonymous=options.flag("anonymous"),
        credentials_file=options.path("credentials_file", ""),
        access_token=options.secret("access_token"),
        impersonated=options.text("impersonate_service_account", ""),
        quota_project=options.text("quota_project", ""),
    )
    _check_credentials(options.name, found)
    if found.impersonated and not _MEMBER.fullmatch(found.impersonated):
        raise ConfigError(
            f"{options.name}.impersonate_service_account is not a service account",
            remedy="give the account's email address, NAME@PROJECT.iam.gserviceaccount.com",
        )
    if (found.insecure or found.anonymous) and endpoint is None:
        raise ConfigError(
            f"{options.name} has insecure or anonymous, which are for emulators, but no endpoint",
            remedy="set endpoint to the emulator's, or remove them",
        )
    _check_channel(options.name, found)
    return found


def for_development(access: Access) -> list[str]:
    """Return the settings that are not fit for production, as texts."""
    found = [f"{option} is true" for option in ("insecure", "anonymous") if getattr(access, option)]
    if is_loopback(access.endpoint.rpartition(":")[0].strip("[]")):
        found.append(f"endpoint is {access.endpoint}, which is on this machine")
    return found


def asymmetric(options: Options, version_of_uri: str) -> Asymmetric | None:
    """Return the version and public key of an asymmetric key, or None for a symmetric one. Raises `ConfigError`."""
    name = options.name
    algorithm, pem = options.text("algorithm"), options.text("public_key")
    version = options.text("version") or version_of_uri
    if algorithm is None:
        if pem or version:
            raise ConfigError(
                f"{name} has a version or a public_key, but no algorithm",
                remedy=f'set algorithm = "{ALGORITHM}" for an asymmetric key; for a symmetric key remove them',
            )
        return None
    if algorithm != ALGORITHM:
        raise ConfigError(f"{name}.algorithm is unknown", remedy=f'set it to "{ALGORITHM}"')
    if not NUMBER.fullmatch(version) or version_of_uri not in ("", version):
        raise ConfigError(
            f"{name} does not name one version of its asymmetric key, each of which has its own public key",
            remedy='set version, for example to "1", or end the URI with /cryptoKeyVersions/1',
        )
    return Asymmetric(version, OaepPublicKey.of_pem(pem, option=f"{name}.public_key") if pem else None)


def _endpoint(name: str, given: str | None) -> str:
    found = _ENDPOINT.fullmatch(given or DEFAULT_ENDPOINT)
    if given == "" or not found or not 0 < int(found["port"] or 443) <= _MAX_PORT:
        raise ConfigError(
            f"{name}.endpoint is not HOST or HOST:PORT", remedy="leave out https:// and any path"
        )
    return f"{found['host']}:{found['port'] or 443}"


def _check_credentials(name: str, access: Access) -> None:
    given = [
        option
        for option, value in (
            ("anonymous", access.anonymous),
            ("credentials_file", access.credentials_file),
            ("access_token", access.access_token),
        )
        if value
    ]
    if len(given) > 1:
        raise ConfigError(f"{name} has both {given[0]} and {given[1]}", remedy="remove one of them")
    if access.impersonated and (access.anonymous or access.access_token):
        raise ConfigError(
            f"{name} has both {given[0]} and impersonate_service_account",
            remedy=f"remove {given[0]}: impersonation uses application default credentials or a credentials_file",
        )


def _check_channel(name: str, access: Access) -> None:
    if not access.insecure:
        return
    if access.ca_file:
        raise ConfigError(f"{name} has both insecure and ca_file", remedy="remove one of them")
    if access.credentials_file or access.impersonated:
        raise ConfigError(
            f"{name} is insecure and would send the tokens of real credentials without TLS",
            remedy="remove insecure; for an emulator, remove the credentials or set an access_token",
        )
    if not is_loopback(access.endpoint.rpartition(":")[0].strip("[]")):
        raise ConfigError(
            f"{name} is insecure, but its endpoint is not on this machine",
            remedy="remove insecure, or set endpoint to localhost, 127.0.0.1 or [::1]",
        )
