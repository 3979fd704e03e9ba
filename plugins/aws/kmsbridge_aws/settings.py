"""Reads and checks a key's URI and options, without the network."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from kmsbridge.driver import KeyURI, Options, Secret
from kmsbridge.driverkit.addresses import is_loopback, service_url
from kmsbridge.driverkit.publickey import ALGORITHM, OaepPublicKey
from kmsbridge.errors import ConfigError
from kmsbridge_aws.naming import REGION, Arn, check_name

_FILES: Final = {
    "AWS_CONFIG_FILE": "~/.aws/config",
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
}
_PROFILE_VARIABLES: Final = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")  # in the SDK's order
_ROLE: Final = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}", re.ASCII)
_EXTERNAL_ID: Final = re.compile(r"[\w+=,.@:/-]{2,1224}", re.ASCII)
_SESSION_NAME: Final = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
_PROFILE: Final = re.compile(r"[^\x00-\x1f\x7f\[\]]{1,256}")
_GRANT_TOKENS: Final = 10
_GRANT_TOKEN: Final = re.compile(r"[\w+/=-]{1,8192}", re.ASCII)
# The SDK renews credentials 15 minutes before they expire, so it would renew shorter ones with each call.
_DURATIONS: Final = (1800, 43200)


@dataclass(frozen=True, slots=True)
class Role:
    """A role to assume. `duration` is the lifetime of its credentials in seconds, None for the role's default."""

    arn: str
    external_id: str = field(repr=False)
    session_name: str
    duration: int | None
    endpoint_url: str | None


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key given in the configuration."""

    id: Secret
    secret: Secret
    token: Secret | None


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one key. `name` is the key's name as the URI has it; `arn` is set if that is an ARN."""

    name: str
    arn: Arn | None
    region: str | None
    endpoint_url: str | None
    profile: str | None
    access_key: AccessKey | None
    role: Role | None
    ca_file: str | None
    allow_plain_http: bool
    asymmetric: bool
    public_key: OaepPublicKey | None
    grant_tokens: tuple[str, ...] = field(repr=False)


def read(uri: KeyURI, options: Options) -> Settings:
    """Return the settings in a key's URI and options. Raises `ConfigError`."""
    if uri.fragment:
        raise ConfigError("an aws-kms URI has a part after '#'", remedy="remove '#' and what follows it")
    query = uri.parameters("region", "endpoint_url", "profile")
    arn = check_name(uri.path)
    plain = options.flag("allow_plain_http")
    asymmetric, public_key = _algorithm(options, arn)
    settings = Settings(
        name=uri.path,
        arn=arn,
        region=_region(query.get("region"), arn),
        endpoint_url=_endpoint(query.get("endpoint_url"), "endpoint_url", plain=plain),
        profile=_matched(query.get("profile"), _PROFILE, "profile", "the name of an AWS profile"),
        access_key=_access_key(options),
        role=_role(options.table("assume_role"), plain=plain),
        ca_file=options.path("ca_file"),
        allow_plain_http=plain,
        asymmetric=asymmetric,
        public_key=public_key,
        grant_tokens=_grant_tokens(options.text("grant_tokens", ""), options.name),
    )
    if settings.access_key and settings.profile:
        raise ConfigError(
            f"{options.name} has an access key, and its URI names a profile",
            remedy="remove one of them: each gives credentials",
        )
    return settings


def _endpoint(url: str | None, option: str, *, plain: bool) -> str | None:
    return None if url is None else service_url(url, option, plain=plain)


def for_development(settings: Settings) -> list[str]:
    """Return the settings that are not fit for production, as texts; also endpoints in environment variables."""
    role = settings.role
    given = {"endpoint_url": settings.endpoint_url, "assume_role.endpoint_url": role and role.endpoint_url}
    found = [f"{name} {what}" for name, url in given.items() if url and (what := _unfit(url))]
    services = {"KMS": settings.endpoint_url, **({"STS": role.endpoint_url} if role else {})}
    variables = dict.fromkeys(_endpoint_variable(name) for name, url in services.items() if not url)
    found += [
        f"{name} {_unfit(os.environ[name]) or 'takes the endpoint from the environment'}"
        for name in variables
        if name
    ]
    return [*found, "allow_plain_http is true"] if settings.allow_plain_http else found


def endpoint(settings: Settings) -> tuple[str, str]:
    """Return the address of AWS KMS that is used, without secrets, and where it came from."""
    if settings.endpoint_url:
        return settings.endpoint_url, "endpoint_url of the URI"
    variable = _endpoint_variable("KMS")
    if variable:
        return _shown(os.environ[variable]), f"environment variable {variable}"
    where = settings.region or "the region of the profile or the environment"
    replaceable = not _ignores_configured_endpoints() and is_in_aws_files(b"endpoint_url")
    origin = "default, unless the AWS profile has an endpoint_url" if replaceable else "default"
    return f"that of AWS KMS in {where}", origin


def is_in_aws_files(text: bytes) -> bool:
    """Return whether a file of AWS profiles contains `text`; without botocore, whose import takes long."""
    return any(text in _content(variable, path) for variable, path in _FILES.items())


def _content(variable: str, path: str) -> bytes:
    try:
        return Path(os.path.expanduser(os.environ.get(variable) or path)).read_bytes()
    except OSError:
        return b""


def _ignores_configured_endpoints() -> bool:
    return os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"


def _endpoint_variable(service: str) -> str:
    """Return the variable from which the SDK takes the endpoint of a service, "" if there is none."""
    if _ignores_configured_endpoints():
        return ""
    names = (f"AWS_ENDPOINT_URL_{service}", "AWS_ENDPOINT_URL")
    return next((name for name in names if os.environ.get(name)), "")


def _shown(url: str) -> str:
    """Return the URL's scheme and host: the rest can contain a password."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.hostname or ''}" + (f":{parts.port}" if parts.port else "")
    except ValueError:
        return "no URL"


def profile_in_force(profile: str | None) -> str:
    """Return the AWS profile that the SDK uses: `profile`, or that of its variables; "" for the default one."""
    found = profile or next(filter(None, map(os.environ.get, _PROFILE_VARIABLES)), "")
    return found if _PROFILE.fullmatch(found) else ""


def _unfit(url: str) -> str:
    """Return why an endpoint is not fit for production, or "". Shows its scheme and host, but no secret in its URL."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return ""  # the SDK refuses it
    if is_loopback(host):
        return f"points at {parts.scheme}://{host}, which is this machine"
    return "" if parts.scheme == "https" else f"points at {parts.scheme}://{host}, which is not https"


def _region(region: str | None, arn: Arn | None) -> str | None:
    _matched(region, REGION, "region", "a region such as eu-west-1")
    if arn is not None and region not in (None, arn.region):
        raise ConfigError(
            f"an aws-kms URI has the region {region} and an ARN of {arn.region}",
            remedy="remove the parameter region: the ARN contains the region",
        )
    return arn.region if arn else region


def _access_key(options: Options) -> AccessKey | None:
    key, secret, token = map(options.secret, ("access_key_id", "secret_access_key", "session_token"))
    if key and secret:
        return AccessKey(key, secret, token)
    if key or secret or token:
        missing = "access_key_id" if not key else "secret_access_key"
        raise ConfigError(
            f"{options.name} has a part of an access key, but no {missing}",
            remedy="set access_key_id and secret_access_key, and session_token for temporary credentials",
        )
    return None


def _grant_tokens(text: str, where: str) -> tuple[str, ...]:
    tokens = text.replace(",", " ").split()
    if len(tokens) > _GRANT_TOKENS or not all(map(_GRANT_TOKEN.fullmatch, tokens)):
        raise ConfigError(
            f"{where}.grant_tokens is not valid",
            remedy=f"write up to {_GRANT_TOKENS} grant tokens of CreateGrant, with blanks between them",
        )
    return tuple(tokens)


def _role(table: Options, *, plain: bool) -> Role | None:
    arn, external_id = table.text("role_arn"), table.text("external_id")
    session_name, duration = table.text("session_name"), table.number("duration")
    endpoint_url = table.text("endpoint_url")
    if arn is None:
        if external_id or session_name or duration or endpoint_url:
            raise ConfigError(
                f"{table.name} has no role_arn", remedy="set it to the ARN of the role to assume"
            )
        return None
    where = table.name
    _matched(arn, _ROLE, f"{where}.role_arn", "arn:aws:iam::ACCOUNT:role/NAME")
    _matched(external_id, _EXTERNAL_ID, f"{where}.external_id", "2 to 1224 of A-Z a-z 0-9 _+=,.@:/-")
    _matched(session_name, _SESSION_NAME, f"{where}.session_name", "2 to 64 of A-Z a-z 0-9 _+=,.@-")
    if duration is not None and not _DURATIONS[0] <= duration <= _DURATIONS[1]:
        raise ConfigError(f"{where}.duration is out of range", remedy="set it to 1800 to 43200 seconds")
    return Role(
        arn,
        external_id or "",
        session_name or "kmsbridge",
        int(duration) if duration else None,
        _endpoint(endpoint_url, f"{where}.endpoint_url", plain=plain),
    )


def _algorithm(options: Options, arn: Arn | None) -> tuple[bool, OaepPublicKey | None]:
    algorithm, pem = options.text("algorithm"), options.text("public_key")
    if algorithm not in (None, ALGORITHM):
        raise ConfigError(
            f"{options.name}.algorithm is unknown",
            remedy=f'set it to "{ALGORITHM}" for an RSA key, and leave it out for a symmetric one',
        )
    if pem is None:
        return algorithm is not None, None
    if algorithm is None:
        raise ConfigError(
            f"{options.name} has a public_key but no algorithm", remedy=f'add algorithm = "{ALGORITHM}"'
        )
    if arn is None or not arn.is_key:
        raise ConfigError(
            f"{options.name} has a public_key, but its URI does not contain the key's ARN",
            remedy="write the key's ARN in the URI, so that its id is known without a call",
        )
    return True, OaepPublicKey.of_pem(pem, option=f"{options.name}.public_key")


def _matched(value: str | None, pattern: re.Pattern[str], what: str, form: str) -> str | None:
    # The error does not quote the value, which may be a secret in the wrong place.
    if value is not None and not pattern.fullmatch(value):
        raise ConfigError(f"{what} is not valid", remedy=f"write {form}")
    return value
