"""Checks of a service's address."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from kmsbridge.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Return whether `host` is `localhost` or a loopback address. Looks up no name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def service_url(text: str, option: str, *, plain: bool = False, with_path: bool = False) -> str:
    """Return the http or https URL `text`, without a slash at its end.

    Raises `ConfigError`, naming `option`, if it is not such a URL, contains a query, a fragment or a user name,
    or contains a path and `with_path` is false; and as `refuse_plain_http` does.
    """
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        parts, sound = urlsplit(""), False
    extra = parts.query or parts.fragment or "@" in parts.netloc
    if not sound or extra or not text.isprintable() or (parts.path.strip("/") and not with_path):
        raise ConfigError(
            f"{option} is not the URL of a service", remedy="write https://HOST or https://HOST:PORT"
        )
    refuse_plain_http(text, option, plain=plain)
    return text.rstrip("/")


def refuse_plain_http(url: str, option: str, *, plain: bool = False) -> None:
    """Raise `ConfigError`, naming `option`, if `url` is http to another host, unless `plain` is true.

    Over plain http, others could read the data keys.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" or plain or is_loopback(parts.hostname or ""):
        return
    raise ConfigError(
        f"{option} would send data keys over plain http to another host",
        remedy="use https, or set allow_plain_http = true if something else encrypts the connection",
    )
