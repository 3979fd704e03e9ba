"""HTTP for the package requests that keeps a deadline. Import it on first use only: it imports requests.

The timeouts of requests and urllib3 apply to each read separately.
"""

from __future__ import annotations

from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.ssl_ import create_urllib3_context

from kmsbridge.driverkit import http


class _Connection(HTTPConnection):
    def _new_conn(self) -> http.DeadlineSocket:
        return http.connect(self._dns_host, self.port)


class _TlsConnection(HTTPSConnection):
    def _new_conn(self) -> http.DeadlineSocket:
        return http.connect(self._dns_host, self.port)

    def connect(self) -> None:
        # A new context for each connection: urllib3 loads the certificate files into it, which may have been renewed.
        self.ssl_context = http.tls_within_deadline(create_urllib3_context())
        super().connect()


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


def _unix_pool(path: str) -> type[HTTPConnectionPool]:
    class Connection(HTTPConnection):
        def _new_conn(self) -> http.DeadlineSocket:
            return http.connect_unix(path)

    class Pool(HTTPConnectionPool):
        ConnectionCls = Connection

    return Pool


class DeadlineAdapter(HTTPAdapter):
    """An adapter for a `requests.Session` whose requests are made inside `deadline.within` blocks.

    With `socket`, requests to http go to that Unix socket. With `server_name`, the server's certificate must have that
    name in place of the host's.
    """

    def __init__(self, *, socket: str, server_name: str, **options: Any) -> None:
        self._pools = {"http": _unix_pool(socket) if socket else _Pool, "https": _TlsPool}
        self._names: dict[str, Any] = (
            {"server_hostname": server_name, "assert_hostname": server_name} if server_name else {}
        )
        super().__init__(**options)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **(options | self._names))
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **(options | self._names))
        manager.pool_classes_by_scheme = self._pools
        return manager
