"""What the options of a key say of its server."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from kmsbridge.driver import Options
from kmsbridge.errors import ConfigError
from kmsbridge_vault.names import path
from kmsbridge_vault.server import Place

_ADDRESS: Final = "https://vault.internal:8200"


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
        _checked(address, options.name, plain=plain),
        path(namespace, f"{options.name}.namespace") if namespace else "",
        file_of(options, "ca_file") or _existing(standard("CACERT"), "the variable of the CA file"),
        file_of(options, "client_cert"),
        file_of(options, "client_key"),
    )


def standard(name: str) -> str:
    """What the provider's own variable of this name says, `bao`'s before `vault`'s; empty where none does."""
    return os.environ.get(f"BAO_{name}") or os.environ.get(f"VAULT_{name}") or ""


def file_of(options: Options, option: str) -> str:
    """The absolute path of a file that must be there; empty where the option is not given."""
    return _existing(relative(options, option), f"{options.name}.{option}")


def relative(options: Options, option: str) -> str:
    """The absolute path that an option gives, seen from the configuration file; empty where it is not given."""
    text = options.text(option)
    return os.path.abspath(os.path.join(options.folder, text)) if text else ""


def _existing(file: str, what: str) -> str:
    if file and not Path(file).is_file():
        raise ConfigError(f"{what} names no file", remedy="check its path, which starts at the configuration")
    return file


def _checked(address: str, name: str, *, plain: bool) -> str:
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts = urlsplit("")
        host = None
    extra = parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in ("http", "https") or not host or extra or not address.isprintable():
        raise ConfigError(f"{name} has an address that is none", remedy=f"write it as in {_ADDRESS}")
    if parts.scheme == "http" and not plain and not _is_loopback(host):
        raise ConfigError(
            f"{name} has an address without TLS: data keys and tokens would be readable on the way",
            remedy="use https, or set allow_plain_http = true where something else encrypts the way",
        )
    return address.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
