"""The fake key service behind HTTP, for tests with a network.

`POST /v1/NAME/OPERATION` takes and returns JSON, with bytes in base64. The caller's role and credential are in
`Authorization: Bearer ROLE/TOKEN`. It listens on the loopback interface and protects nothing.
"""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self

from kmsbridge.driver import ErrorKind, Secret
from kmsbridge.testing.fakes.service import ALLOWED, Caller, FakeError, FakeService

STATUS: Final = {
    ErrorKind.INVALID_REQUEST: 400,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.ACCESS_DENIED: 403,
    ErrorKind.KEY_NOT_FOUND: 404,
    ErrorKind.KEY_DISABLED: 409,
    ErrorKind.TOO_LARGE: 413,
    ErrorKind.NOT_AUTHENTIC: 422,
    ErrorKind.THROTTLED: 429,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.TIMEOUT: 504,
}
"""The HTTP status for each kind of refusal."""

_PATIENCE: Final = 30.0
_LARGEST: Final = 2**24


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256


class HttpKeyService:
    """An HTTP server in front of a `FakeService`, which is its attribute `keys`.

    It serves `http://HOST:PORT`, with the attributes `host` and `port`, from its construction until `close`.
    """

    def __init__(self) -> None:
        self.keys = FakeService()
        self._server = _Server(("127.0.0.1", 0), _handler(self.keys))
        self.host, self.port = "127.0.0.1", int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            name="HttpKeyService",
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        """Stop the server. May be called twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _handler(service: FakeService) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = _PATIENCE

        def do_POST(self) -> None:
            request_id = service.next_request()
            try:
                body = self.rfile.read(min(_LARGEST, int(self.headers["Content-Length"])))
                status, answer = 200, self._perform(json.loads(body))
            except FakeError as error:
                status, answer = STATUS[error.kind], {"code": error.kind.name}
            except (ValueError, KeyError, TypeError):
                status, answer = 400, {"code": ErrorKind.INVALID_REQUEST.name}
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("X-Request-Id", request_id)
            self.end_headers()
            self.wfile.write(data)

        def _perform(self, sent: Any) -> Any:
            _, _, name, operation = self.path.split("/")
            scheme, _, credential = self.headers["Authorization"].partition(" ")
            role, _, token = credential.partition("/")
            if scheme != "Bearer" or role not in ALLOWED:
                raise FakeError(ErrorKind.UNAUTHENTICATED)
            caller = Caller(role, Secret.of_text(token))  # type: ignore[arg-type]
            arguments = from_json(sent)
            answer = service.perform(name, operation, caller, arguments, timeout=_PATIENCE)  # type: ignore[arg-type]
            return to_json(answer)

        def handle(self) -> None:
            # Clients and proxies that end a connection are part of the tests.
            with contextlib.suppress(OSError):
                super().handle()

        def log_message(self, *_args: Any) -> None:
            """Log nothing."""

    return Handler


def to_json(value: Any) -> Any:
    """Return bytes, enumeration members, tuples and lists in a form for JSON, which `from_json` reverses."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, ErrorKind):
        return {"failed": value.name}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return getattr(value, "value", value)


def from_json(value: Any) -> Any:
    """Return the value that `to_json` converted; tuples become lists.

    Raises `ValueError`, `KeyError` or `TypeError`.
    """
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, dict):
        if "failed" in value:
            return ErrorKind[value["failed"]]
        return base64.b64decode(value["bytes"], validate=True)
    return value
