"""The client of one driver, made on first use and made again after a failure of the network."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import grpc
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.kms_v1 import KeyManagementServiceClient

from kmsbridge.driverkit.forks import ForkGate
from kmsbridge.errors import ClosedError
from kmsbridge_gcp.credentials import Caller
from kmsbridge_gcp.settings import Access
from kmsbridge_gcp.transport import Transport, open_channel

_LEAST: Final = 0.001

forks: Final = ForkGate()
"""If a process forks during a gRPC call of another thread, the child can hang at its first call: gRPC's own fork
hooks do nothing in that case."""
_ANSWERS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAUTHENTICATED,
    }
)
"""Codes that show that the service was reached. After any other code the channel is not used again."""


class _Channel:
    """A channel, its client, and the number of calls that use it. It closes after the last call once given up."""

    def __init__(self, access: Access) -> None:
        self._channel = open_channel(access)
        self.client = KeyManagementServiceClient(transport=Transport(channel=self._channel))
        self.users = 0
        self.given_up = False

    def close_if_done(self) -> None:
        if self.given_up and not self.users:
            self._channel.close()


class Client:
    """Calls Cloud KMS, one request per call. Safe for threads."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._caller = Caller(access)
        self._lock = threading.Lock()
        self._current: _Channel | None = None
        self._closed = False

    def call(self, method: str, request: Any, timeout: float, reason: str) -> Any:
        """Send one request and return the answer. Raises google-api-core's errors, or those of `Caller.metadata`.

        `reason` is an id for the request, which Cloud Audit Logs record.
        """
        deadline = time.monotonic() + timeout
        metadata = [("x-goog-request-reason", reason), *self._caller.metadata(timeout)]
        with forks.call(), self._lent() as client:
            left = max(deadline - time.monotonic(), _LEAST)
            return getattr(client, method)(request=request, retry=None, timeout=left, metadata=metadata)

    def close(self) -> None:
        """Refuse further calls; calls in progress finish."""
        with forks.call(), self._lock:
            self._closed = True
            channel, self._current = self._current, None
            self._give_up(channel)

    @contextlib.contextmanager
    def _lent(self) -> Iterator[Any]:
        with self._lock:
            if self._closed:
                raise ClosedError("the driver of a Cloud KMS key is closed", remedy="open a new one")
            channel = self._current = self._current or _Channel(self._access)
            channel.users += 1
        try:
            yield channel.client
        except BaseException as error:
            self._consider(channel, error)
            raise
        finally:
            with self._lock:
                channel.users -= 1
                channel.close_if_done()

    def _consider(self, channel: _Channel, error: BaseException) -> None:
        """Give the channel up after a failure of the network, so that the next call connects at once.

        gRPC would wait before it reconnects.
        """
        if isinstance(error, GoogleAPICallError) and error.grpc_status_code in _ANSWERS:
            return
        with self._lock:
            if self._current is channel:
                self._current = None
            self._give_up(channel)

    @staticmethod
    def _give_up(channel: _Channel | None) -> None:
        if channel is not None:
            channel.given_up = True
            channel.close_if_done()
