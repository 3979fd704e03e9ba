"""One botocore client for one key, made on first use, each of whose calls ends at its deadline."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from kmsbridge.driver import report_request_id
from kmsbridge.errors import ClosedError
from kmsbridge_aws.quiet import muted
from kmsbridge_aws.settings import Settings, check_endpoint
from kmsbridge_aws.waiting import InBackground

if TYPE_CHECKING:
    from kmsbridge_aws.credentials import HeldCredentials
    from kmsbridge_aws.transport import Sender

_FETCHING: Final = 30.0
"""Seconds that fetching credentials may go on after the call that began it has given up."""


class Client:
    """Calls AWS KMS. Safe for threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings: Settings | None = settings
        self._lock = threading.Lock()
        self._background = InBackground()
        self._opened: tuple[Any, HeldCredentials, Sender] | None = None
        self._client: Any = None

    def call(self, operation: str, deadline: float, **parameters: Any) -> Mapping[str, Any]:
        """One request, and its answer; raises botocore's exceptions.

        `operation` is as botocore calls it, `deadline` a monotonic time.
        """
        client = self._client or self._make(deadline)
        from kmsbridge_aws import transport

        with muted(), transport.deadline(deadline):
            self._refresh(deadline)
            answer: dict[str, Any] = getattr(client, operation)(**parameters)
        report_request_id(str(answer.get("ResponseMetadata", {}).get("RequestId", "")))
        return answer

    def check_open(self) -> None:
        """Raises `ClosedError` after `close`."""
        if self._settings is None:
            raise ClosedError("the driver of an AWS KMS key is closed", remedy="open a new one")

    def close(self) -> None:
        """Close the connections and forget the credentials; may be repeated."""
        with self._lock:
            opened, self._opened, self._client, self._settings = self._opened, None, None, None
        if opened is not None:
            opened[2].close()

    def _make(self, deadline: float) -> Any:
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        try:
            self.check_open()
            if self._client is None:
                self._client = self._connected(deadline)
            return self._client
        finally:
            self._lock.release()

    def _connected(self, deadline: float) -> Any:
        from kmsbridge_aws import credentials

        settings = self._settings
        assert settings is not None

        def open_session() -> None:
            opened = credentials.open_session(settings)
            if self._settings is not None:  # else it came after the end
                self._opened = opened

        with muted():
            if self._opened is None:
                self._background.finish(functools.partial(_fetch, open_session), deadline)
            opened = self._opened
            assert opened is not None
            session = opened[0]
            client = session.create_client("kms", settings.region, endpoint_url=settings.endpoint_url)
        check_endpoint(client.meta.endpoint_url, plain=settings.allow_plain_http, option="the AWS endpoint")
        return client

    def _refresh(self, deadline: float) -> None:
        """Have temporary credentials fetched anew ahead of their end, and wait only for what cannot wait."""
        opened = self._opened
        if opened is not None and opened[1].are_ending:
            fetch = functools.partial(_fetch, opened[1].fetch)
            if opened[1].have_ended:
                self._background.finish(fetch, deadline)
            else:
                self._background.begin(fetch)


def _fetch(work: Callable[[], None]) -> None:
    """`work`, in a thread of its own with a deadline of its own."""
    from kmsbridge_aws import transport

    with muted(), transport.deadline(time.monotonic() + _FETCHING):
        work()
