"""The server of a key, and the way there: from the key's options and from the commands' own environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from kmsbridge.driver import Options
from kmsbridge.driverkit.addresses import is_loopback, service_url
from kmsbridge.errors import ConfigError
from kmsbridge_vault.naming import path

_ADDRESS: Final = "https://vault.internal:8200"
_SOCKET: Final = "unix://"
_HOST: Final = re.compile(r"[A-Za-z0-9_.:-]{1,253}")

Found = tuple[str, str]
"""An option that the configuration does not have: its name, and where its value comes from."""


class Place(NamedTuple):
    """A server: its address and namespace, and what the connection needs; each but the address may be empty.

    The files are absolute paths. `from_environment` lists what came from environment variables.
    """

    address: str
    namespace: str = ""
    ca_file: str = ""
    client_cert: str = ""
    client_key: str = ""
    tls_server_name: str = ""
    proxy: str = ""
    from_environment: Sequence[Found] = ()

    @property
    def socket(self) -> str:
        """The path of the Unix socket that the address is; "" if it is none."""
        return self.address.removeprefix(_SOCKET) if self.address.startswith(_SOCKET) else ""

    @property
    def origin(self) -> str:
        """Where the address came from, for people."""
        origins = (origin for option, origin in self.from_environment if option == "address")
        return next(origins, "the key's option address")

    @property
    def url(self) -> str:
        """The URL that requests begin with."""
        return "http://localhost" if self.socket else self.address


def place_of(options: Options) -> Place:
    """Return the key's server. Raises `ConfigError`.

    The environment variables of the `bao` and `vault` commands replace missing options.
    """
    found: list[Found] = []

    def text(option: str, *names: str) -> str:
        return options.text(option) or _standard(option, names, found)

    def file(option: str, *names: str) -> str:
        given = options.path(option, "")
        what = f"the file that {options.name}.{option} names"
        if not given:
            given = _standard(option, names, found)
            what = f"the file that the {found[-1][1]} names" if given else ""
        # Unlike Path.exists, this is false in a folder that the user may not search.
        if given and not os.path.exists(given):
            raise ConfigError(
                f"{what} does not exist",
                remedy="check the path; a relative one in a configuration starts at the configuration file",
            )
        return os.path.abspath(given) if given else ""

    address, plain = text("address", "AGENT_ADDR", "ADDR"), options.flag("allow_plain_http")
    if not address:
        raise ConfigError(
            f"{options.name} has no server address",
            remedy=f"set address, for example to {_ADDRESS}, or the environment variable BAO_ADDR or VAULT_ADDR",
        )
    namespace = text("namespace", "NAMESPACE")
    place = Place(
        _checked_address(address, f"{options.name}.address", plain=plain),
        path(namespace, f"{options.name}.namespace") if namespace else "",
        file("ca_file", "CACERT", "CAPATH"),
        file("client_cert", "CLIENT_CERT"),
        file("client_key", "CLIENT_KEY"),
        _server_name(text("tls_server_name", "TLS_SERVER_NAME"), options),
        text("proxy", "PROXY_ADDR", "HTTP_PROXY"),
        found,
    )
    return place._replace(proxy=_checked_proxy(place, options)) if place.proxy else place


def standard(name: str) -> str:
    """Return the environment variable BAO_`name`, else VAULT_`name`, else ""."""
    return _standard("", (name,), [])


def for_development(place: Place) -> list[str]:
    """Return what is not fit for production in the way to the server, as texts."""
    parts, texts = urlsplit(place.address), []
    if parts.scheme == "http":
        where = "on this machine" if is_loopback(parts.hostname or "") else "on another machine"
        texts.append(f"address is {place.address}, {where} and without TLS")
    texts += [
        f"{option} is taken from the {origin}"
        for option, origin in place.from_environment
        if option in ("address", "proxy")
    ]
    return texts


def _standard(option: str, names: Sequence[str], found: list[Found]) -> str:
    for variable in (f"{prefix}_{name}" for name in names for prefix in ("BAO", "VAULT")):
        value = os.environ.get(variable)
        if value:
            found.append((option, f"environment variable {variable}"))
            return value
    return ""


def _checked_address(address: str, option: str, *, plain: bool) -> str:
    if not address.startswith(_SOCKET):
        return service_url(address, option, plain=plain, with_path=True)
    if not address.removeprefix(_SOCKET).startswith("/") or not address.isprintable():
        raise ConfigError(
            f"{option} is not the address of a Unix socket", remedy="write unix:// and an absolute path"
        )
    return address


def _checked_proxy(place: Place, options: Options) -> str:
    option = f"{options.name}.proxy"
    if not place.proxy.startswith("http://"):
        raise ConfigError(f"{option} is not the URL of a proxy", remedy="write http://HOST:PORT")
    if not place.address.startswith("https://"):
        raise ConfigError(
            f"{option} is for an address that begins with https://: the proxy would see the data keys",
            remedy="remove it, or the environment variable that it comes from; or use an address with TLS",
        )
    return service_url(place.proxy, option, plain=True)


def _server_name(name: str, options: Options) -> str:
    if name and not _HOST.fullmatch(name):
        raise ConfigError(
            f"{options.name}.tls_server_name is not the name of a host",
            remedy="write the name in the server's certificate",
        )
    return name
