"""The botocore client of one key: it is made on first use, and each of its calls keeps a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from kmsbridge.driver import report_request_id
from kmsbridge.driverkit.addresses import refuse_plain_http
from kmsbridge.driverkit.bounded import SharedCall
from kmsbridge.driverkit.deadline import left, within
from kmsbridge.errors import ClosedError
from kmsbridge_aws import failures
from kmsbridge_aws.quiet import muted
from kmsbridge_aws.settings import Settings

if TYPE_CHECKING:
    from kmsbridge_aws.credentials import HeldCredentials
    from kmsbridge_aws.transport import Sender


_PATIENCE: Final = 600.0
"""Seconds for a person to look up and type a code, and for AWS to take it."""
_WITH_GRANT_TOKENS: Final = ("decrypt", "describe_key", "encrypt", "get_public_key", "re_encrypt")


class Client:
    """Calls AWS KMS. Safe for threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings: Settings | None = settings
        self._grant_tokens = list(settings.grant_tokens)
        self._lock = threading.Lock()
        # botocore applies no overall timeout to the sources of credentials: an instance's metadata service, a
        # credential process, a single sign-on.
        self._fetching = SharedCall("aws-kms", self._fetch)
        self._opened: tuple[Any, HeldCredentials, Sender] | None = None
        self._client: Any = None
        self._refused: Any = None

    def call(self, operation: str, deadline: float, **parameters: Any) -> Mapping[str, Any]:
        """Send one request and return its answer. Raises botocore's exceptions, `TimeoutError` and `ClosedError`.

        `operation` is the name of botocore's method, such as "describe_key"; `deadline` is a monotonic time.
        """
        with muted(), within(deadline - time.monotonic()):
            before = self._credentials()
            try:
                answer = self._send(operation, parameters)
            except Exception as error:
                # The credentials in a file may have been replaced since they were read. A refused request has had no
                # effect, so that it can be sent again.
                if not failures.refuses_credentials(error) or not self._read_again(before):
                    raise
                answer = self._send(operation, parameters)
        report_request_id(str(answer.get("ResponseMetadata", {}).get("RequestId", "")))
        return answer

    def _send(self, operation: str, parameters: dict[str, Any]) -> Mapping[str, Any]:
        client = self._client or self._make()
        self._refresh()
        if self._grant_tokens and operation in _WITH_GRANT_TOKENS:
            parameters = {**parameters, "GrantTokens": self._grant_tokens}
        answer: dict[str, Any] = getattr(client, operation)(**parameters)
        return answer

    def sign_in(self, ask: Callable[[str], str]) -> None:
        """Find the credentials in the foreground, where `ask` can ask a person for a code.

        Raises what the last step raised if it asked; other failures are left to the first call.
        """
        from kmsbridge_aws import credentials

        asked = False

        def asking(prompt: str) -> str:
            nonlocal asked
            asked = True
            return ask(prompt)

        assert self._settings is not None
        try:
            with muted(), within(_PATIENCE):
                credentials.open_session(self._settings, asking)[2].close()
        except Exception:
            if asked:
                raise

    def check_open(self) -> None:
        """Raise `ClosedError` after `close`."""
        if self._settings is None:
            raise ClosedError("the driver of an AWS KMS key is closed", remedy="open a new one")

    def close(self) -> None:
        """Close the connections and forget the credentials. May be called twice."""
        with self._lock:
            opened, self._opened, self._client, self._settings = self._opened, None, None, None
            self._refused = None
        if opened is not None:
            opened[2].close()

    def _make(self) -> Any:
        if not self._lock.acquire(timeout=left()):
            raise TimeoutError
        try:
            self.check_open()
            if self._client is None:
                self._client = self._connected()
            return self._client
        finally:
            self._lock.release()

    def _connected(self) -> Any:
        settings = self._settings
        assert settings is not None
        if self._opened is None:
            self._fetching.wait(left())
        opened = self._opened
        assert opened is not None
        session = opened[0]
        client = session.create_client("kms", settings.region, endpoint_url=settings.endpoint_url)
        refuse_plain_http(client.meta.endpoint_url, "the AWS endpoint", plain=settings.allow_plain_http)
        return client

    def _credentials(self) -> Any:
        """Return the credentials that sign requests now, None before they are found."""
        return self._opened[1].get_frozen_credentials() if self._opened else None

    def _read_again(self, refused: Any) -> bool:
        """Read refused credentials again from where they were found; return whether there are others now."""
        if refused is None:
            return False  # they were read for this call
        if self._credentials() == refused:
            self._refused = refused
            self._fetching.wait(left())
        return bool(self._credentials() != refused)

    def _refresh(self) -> None:
        """Start fetching new temporary credentials before the present ones expire; wait only if they have expired."""
        opened = self._opened
        if opened is not None and opened[1].are_ending:
            if opened[1].have_ended:
                self._fetching.wait(left())
            else:
                self._fetching.begin()

    def _fetch(self) -> None:
        """Find the credentials, or fetch new ones if they were found before. May take long."""
        from kmsbridge_aws import credentials

        settings, opened = self._settings, self._opened
        with muted():
            if opened is not None:
                opened[1].fetch(anew=self._refused == opened[1].get_frozen_credentials())
            elif settings is not None:
                found = credentials.open_session(settings)
                if self._settings is not None:  # not closed meanwhile
                    self._opened = found
