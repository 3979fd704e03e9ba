"""What a key's URI and its table in the configuration say, checked."""

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
    """Where the service is, and as whom it is called."""

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
    """Which version of a decryption key wraps, and its public key where it is pinned."""

    version: str
    public_key: OaepPublicKey | None


def access(options: Options) -> Access:
    """Raises `ConfigError` for what does not go together, or would send a credential in plain text."""
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
            f"{options.name}.impersonate_service_account is no service account",
            remedy="give its address, NAME@PROJECT.iam.gserviceaccount.com",
        )
    if (found.insecure or found.anonymous) and endpoint is None:
        raise ConfigError(
            f"{options.name} has insecure or anonymous without an endpoint",
            remedy="both are for emulators: give the endpoint of yours, or leave them out",
        )
    _check_channel(options.name, found)
    return found


def for_development(access: Access) -> list[str]:
    """Return what of the settings is not for production, in words."""
    found = [f"{option} is true" for option in ("insecure", "anonymous") if getattr(access, option)]
    if is_loopback(access.endpoint.rpartition(":")[0].strip("[]")):
        found.append(f"endpoint is {access.endpoint}, which is on this machine")
    return found


def asymmetric(options: Options, version_of_uri: str) -> Asymmetric | None:
    """None for a symmetric key."""
    name = options.name
    algorithm, pem = options.text("algorithm"), options.text("public_key")
    version = options.text("version") or version_of_uri
    if algorithm is None:
        if pem or version:
            raise ConfigError(
                f"{name} has a version or a public_key, and no algorithm",
                remedy=f'for an asymmetric key set algorithm = "{ALGORITHM}"; a symmetric key finds its version',
            )
        return None
    if algorithm != ALGORITHM:
        raise ConfigError(f"{name}.algorithm is not one that wraps data keys", remedy=f"use {ALGORITHM!r}")
    if not NUMBER.fullmatch(version) or version_of_uri not in ("", version):
        raise ConfigError(
            f"{name} does not say which version of the asymmetric key wraps",
            remedy='set version = "1", or end the URI with /cryptoKeyVersions/1: each has a public key of its own',
        )
    return Asymmetric(version, OaepPublicKey.of_pem(pem, option=f"{name}.public_key") if pem else None)


def _endpoint(name: str, given: str | None) -> str:
    found = _ENDPOINT.fullmatch(given or DEFAULT_ENDPOINT)
    if given == "" or not found or not 0 < int(found["port"] or 443) <= _MAX_PORT:
        raise ConfigError(
            f"{name}.endpoint is no HOST or HOST:PORT", remedy="leave out https:// and any path"
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
        raise ConfigError(f"{name} has both {given[0]} and {given[1]}", remedy="keep one of them")
    if access.impersonated and (access.anonymous or access.access_token):
        raise ConfigError(
            f"{name} has both {given[0]} and impersonate_service_account",
            remedy="impersonation takes application default credentials or a credentials_file",
        )


def _check_channel(name: str, access: Access) -> None:
    if not access.insecure:
        return
    if access.ca_file:
        raise ConfigError(f"{name} has both insecure and ca_file", remedy="keep one of them")
    if access.credentials_file or access.impersonated:
        raise ConfigError(
            f"{name} would send the tokens of real credentials without TLS",
            remedy="an emulator takes none, or an access_token; for anything else leave insecure out",
        )
    if not is_loopback(access.endpoint.rpartition(":")[0].strip("[]")):
        raise ConfigError(
            f"{name} is insecure, and its endpoint is not on this machine",
            remedy="without TLS only localhost, 127.0.0.1 and [::1] are called",
        )
