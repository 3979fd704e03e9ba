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


class DeadlineAdapter(HTTPAdapter):
    """An adapter for a `requests.Session` whose requests are made inside `deadline.within` blocks."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
