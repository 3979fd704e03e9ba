"""Where a service is, as an option says it."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from kmsbridge.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Return whether `host` is this machine, by the name localhost or by its address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def service_url(text: str, option: str, *, plain: bool = False, with_path: bool = False) -> str:
    """Return the URL of a service without a slash at its end.

    Raises `ConfigError`, which names `option`, for what is none or has a query, a user or, unless `with_path`, a
    path; and as `refuse_plain_http`.
    """
    try:
        parts = urlsplit(text)
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        parts, sound = urlsplit(""), False
    extra = parts.query or parts.fragment or "@" in parts.netloc
    if not sound or extra or not text.isprintable() or (parts.path.strip("/") and not with_path):
        raise ConfigError(
            f"{option} is not the address of a service", remedy="write https://HOST or https://HOST:PORT"
        )
    refuse_plain_http(text, option, plain=plain)
    return text.rstrip("/")


def refuse_plain_http(url: str, option: str, *, plain: bool = False) -> None:
    """Raise `ConfigError` for http to another host, unless `plain` allows it: data keys would be readable."""
    parts = urlsplit(url)
    if parts.scheme == "https" or plain or is_loopback(parts.hostname or ""):
        return
    raise ConfigError(
        f"{option} would send data keys over plain http to another host",
        remedy="use https, or set allow_plain_http = true where something else encrypts the way",
    )
