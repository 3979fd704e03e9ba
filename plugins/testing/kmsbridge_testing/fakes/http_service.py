"""The fake key service behind HTTP, and a driver for it over `http.client`: for tests of the network.

`POST /v1/NAME/OPERATION` takes and gives JSON, bytes in base64; `Authorization: Bearer ROLE/TOKEN`
says who calls. It listens on the loopback interface and protects nothing.
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
"""The HTTP status for each kind of failure."""

_PATIENCE: Final = 30.0
_LARGEST: Final = 2**24


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256


class HttpKeyService:
    """A `FakeService`, its `keys`, at `http://HOST:PORT` of `host` and `port`, from construction to `close`."""

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
        """Stop serving; may be repeated."""
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
            # A client that went away, or a proxy that cut the connection, is none of our business.
            with contextlib.suppress(OSError):
                super().handle()

        def log_message(self, *_args: Any) -> None:
            """Log nothing: a request's line names keys, and tests would be flooded."""

    return Handler


def to_json(value: Any) -> Any:
    """Bytes, enumerations, tuples and lists as JSON holds them; `from_json` gives them back."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, ErrorKind):
        return {"failed": value.name}
    if isinstance(value, (tuple, list)):
        return [to_json(each) for each in value]
    return getattr(value, "value", value)


def from_json(value: Any) -> Any:
    """What `to_json` was given, a tuple as a list. Raises `ValueError`, `KeyError` or `TypeError`."""
    if isinstance(value, list):
        return [from_json(each) for each in value]
    if isinstance(value, dict):
        if "failed" in value:
            return ErrorKind[value["failed"]]
        return base64.b64decode(value["bytes"], validate=True)
    return value
