"""The `fake-http` driver for `HttpKeyService`: an example of a driver of a service behind HTTP, with `http.client`."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import ssl
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Self
from urllib.parse import quote, urlsplit

from kmsbridge.driver import (
    Capability,
    EncryptionContext,
    ErrorDetails,
    ErrorKind,
    KeyDescription,
    KeyDriver,
    KeyState,
    KeyURI,
    Operation,
    Options,
    Secret,
    WrappedKey,
    report_request_id,
)
from kmsbridge.driverkit.deadline import within
from kmsbridge.driverkit.http import connect, tls_within_deadline
from kmsbridge.errors import ConfigError
from kmsbridge.testing.fakes.fake import caller_of, checked_name
from kmsbridge.testing.fakes.service import BATCH_LIMIT, MAX_PLAINTEXT
from kmsbridge_testing.fakes.http_service import from_json, to_json

_KINDS: Final = {429: ErrorKind.THROTTLED, 408: ErrorKind.TIMEOUT, 504: ErrorKind.TIMEOUT}
"""The kind for a status without the service's own code; for any other it is UNAVAILABLE."""
_SHAPES: Final[dict[str, type | tuple[type, ...]]] = {
    "wrap": (str, bytes),
    "rewrap": (str, bytes),
    "wrap_many": list,
    "unwrap": bytes,
    "unwrap_many": list,
    "describe": (str, str),
    "rotate": (str, str),
}


class HttpStatusError(Exception):
    """An answer with another status than 200. Of its body, only the service's own code is kept."""

    def __init__(self, status: int, code: str, request_id: str) -> None:
        super().__init__(status, code, request_id)
        self.status, self.code, self.request_id = status, code, request_id


class UnreadableAnswer(Exception):
    """An answer that does not follow the service's protocol."""


class FakeHttpDriver(KeyDriver):
    """The driver for `fake-http:NAME`.

    Options: `address`, `http://HOST:PORT` or `https://HOST:PORT`; `ca_file` for https; `role` and `token` as for
    `FakeDriver`.
    """

    scheme: ClassVar[str] = "fake-http"
    capabilities: frozenset[Capability] = frozenset(Capability) - {
        Capability.LOCAL_WRAP,
        Capability.CHECKS_VERSION,
    }
    max_plaintext: int = MAX_PLAINTEXT
    batch_limit: int = BATCH_LIMIT

    def __init__(self, name: str, address: str, ca_file: str | None, authorization: Secret) -> None:
        self.name = name
        self._address, self._ca_file = urlsplit(address), ca_file
        self._authorization = authorization
        self._key_id = f"{self.scheme}:{name}"

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        """Return a driver. Raises `ConfigError`; connects at the first call only."""
        name, caller = checked_name(uri), caller_of(options)
        address = options.text("address", required=True)
        if urlsplit(address).scheme not in ("http", "https") or not urlsplit(address).hostname:
            raise ConfigError(f"{options.name}.address is not a URL", remedy="write http://HOST:PORT")
        authorization = Secret.of_text(f"Bearer {caller.role}/{caller.credential.reveal_text()}")
        return cls(name, address, options.path("ca_file"), authorization)

    def resolve(self, *, timeout: float) -> str:
        """Return `fake-http:NAME`, without a call."""
        return self._key_id

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Encrypt under the current version."""
        return WrappedKey(self._key_id, *self._call("wrap", (plaintext, context.canonical()), timeout))

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        """Decrypt under the version that the ciphertext names."""
        plaintext: bytes = self._call("unwrap", (wrapped.ciphertext, context.canonical()), timeout)
        return plaintext

    def wrap_many(
        self, items: Sequence[tuple[bytes, EncryptionContext]], *, timeout: float
    ) -> list[WrappedKey | ErrorKind]:
        """Wrap all items in one request."""
        batch = [(plaintext, context.canonical()) for plaintext, context in items]
        results: list[WrappedKey | ErrorKind] = []
        for answer in self._call("wrap_many", batch, timeout):
            if isinstance(answer, ErrorKind):
                results.append(answer)
            elif _fits(answer, _SHAPES["wrap"]):
                results.append(WrappedKey(self._key_id, *answer))
            else:
                raise UnreadableAnswer
        return results

    def unwrap_many(
        self, items: Sequence[tuple[WrappedKey, EncryptionContext]], *, timeout: float
    ) -> list[bytes | ErrorKind]:
        """Unwrap all items in one request."""
        batch = [(wrapped.ciphertext, context.canonical()) for wrapped, context in items]
        results: list[bytes | ErrorKind] = self._call("unwrap_many", batch, timeout)
        return results

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        """Have the service wrap the same payload under the current version."""
        arguments = (self.name, wrapped.ciphertext, context.canonical())
        return WrappedKey(self._key_id, *self._call("rewrap", arguments, timeout))

    def describe(self, *, timeout: float) -> KeyDescription:
        """Return the state and version."""
        state, version = self._call("describe", None, timeout)
        return KeyDescription(self._key_id, KeyState(state), version, rotation="by hand")

    def rotate(self, *, timeout: float) -> None:
        """Make a new version."""
        self._call("rotate", None, timeout)

    def development_settings(self) -> Sequence[str]:
        """Return that the key is a fake, which protects nothing."""
        return ("the key is a fake, for tests",)

    def classify(self, error: BaseException, operation: Operation) -> ErrorKind:
        """Return the kind for the service's code; without one, TIMEOUT, THROTTLED or UNAVAILABLE.

        A status without the service's code is never a refusal: a proxy or the like may have sent it.
        """
        if isinstance(error, HttpStatusError):
            return ErrorKind[error.code] if error.code else _KINDS.get(error.status, ErrorKind.UNAVAILABLE)
        if isinstance(error, TimeoutError):
            return ErrorKind.TIMEOUT
        if isinstance(error, (OSError, http.client.HTTPException, UnreadableAnswer)):
            return ErrorKind.UNAVAILABLE
        return ErrorKind.INVALID_REQUEST

    def error_details(self, error: BaseException) -> ErrorDetails:
        """Return the service's code, or else the status, and the request id."""
        if isinstance(error, HttpStatusError):
            return ErrorDetails(code=error.code or str(error.status), request_id=error.request_id)
        return ErrorDetails()

    def close(self) -> None:
        """Do nothing: each call has its own connection, which it closes."""

    def _call(self, operation: str, arguments: Any, timeout: float) -> Any:
        with within(timeout), self._connect() as sock:
            self._send(sock, operation, json.dumps(to_json(arguments)).encode())
            received = self._receive(sock)
        return self._answer(operation, received)

    def _send(self, sock: socket.socket, operation: str, body: bytes) -> None:
        connection = http.client.HTTPConnection(self._address.netloc)
        connection.sock = sock
        connection.request(
            "POST",
            f"/v1/{quote(self.name)}/{operation}",
            body,
            {"Authorization": self._authorization.reveal_text(), "Connection": "close"},
        )

    def _connect(self) -> socket.socket:
        host, tls = self._address.hostname or "", self._address.scheme == "https"
        sock = connect(host, self._address.port or (443 if tls else 80))
        if not tls:
            return sock
        try:
            return tls_within_deadline(self._tls()).wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._ca_file)

    def _receive(self, sock: socket.socket) -> bytes:
        """Read the answer to its end. The socket keeps the deadline, and limits the length of the answer."""
        data = bytearray()
        while block := sock.recv(65536):
            data += block
        return bytes(data)

    def _answer(self, operation: str, received: bytes) -> Any:
        status, request_id, body = _parsed(received)
        report_request_id(request_id)
        if status != http.client.OK:
            raise HttpStatusError(status, _code(body), request_id)
        answer = _decoded(body)
        if not _fits(answer, _SHAPES[operation]):
            raise UnreadableAnswer
        return answer

    def __repr__(self) -> str:
        return f"FakeHttpDriver({self._key_id!r})"


class _Received:
    """Received bytes, in place of the socket that `http.client` reads from."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def _parsed(data: bytes) -> tuple[int, str, bytes]:
    answer = http.client.HTTPResponse(_Received(data))  # type: ignore[arg-type]
    answer.begin()
    return answer.status, answer.headers.get("X-Request-Id", ""), answer.read()


def _code(body: bytes) -> str:
    """Return the name of the `ErrorKind` in the service's answer; "" if the answer is not the service's."""
    with contextlib.suppress(ValueError):
        answer = json.loads(body)
        code = answer.get("code") if isinstance(answer, dict) else None
        return code if isinstance(code, str) and code in ErrorKind.__members__ else ""
    return ""


def _decoded(body: bytes) -> Any:
    # The exception is dropped, because it contains the answer.
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return from_json(json.loads(body))
    return None


def _fits(answer: Any, shape: type | tuple[type, ...]) -> bool:
    if isinstance(shape, type):
        return isinstance(answer, shape)
    return isinstance(answer, list) and tuple(map(type, answer)) == shape
