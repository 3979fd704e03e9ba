"""Stands in front of an OpenBao and answers as other servers do, of which the tests have none, by HashiCorp's documents.

- `Vault112`: Vault before 1.13, which does not know `associated_data`. It warns of the field in a request, and says
  nothing of it in the items of a batch (changelog of 1.13; the warning is that of its framework since 1.10).
- `RecoverySecondary`: a secondary for disaster recovery, which serves nothing but its state (status 472 of `sys/health`).
- `StaleStandby`: a standby that has not heard of the last writes yet, for the first requests.
- `BrokenBatches`: a server that fails over a whole batch because of one of its items.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import requests

_TIMEOUT: Final = 30


class Request(NamedTuple):
    """A request. `body` is the JSON object in it, empty if there is none."""

    method: str
    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]


class Answer(NamedTuple):
    """An answer. `location` is the URL of a redirect."""

    status: int
    body: Mapping[str, Any]
    location: str = ""


class VaultFront(ABC):
    """The base class: an HTTP server on a free port of loopback, which forwards to `address`.

    `heard` has every request.
    """

    ca_file = ""

    def __init__(self, address: str) -> None:
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                request = Request(
                    self.command, self.path, json.loads(content or b"{}"), dict(self.headers.items())
                )
                front.heard.append(request)
                status, body, location = front.answer(request)
                answer = json.dumps(body).encode()
                self.send_response(status)
                if location:
                    self.send_header("Location", location)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET  # noqa: N815 - by the name of the method

            def log_message(self, *_: Any) -> None:
                pass

        self.heard: list[Request] = []
        self._behind = address
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @abstractmethod
    def answer(self, request: Request) -> Answer:
        """Return the answer to a request."""

    def forward(self, request: Request) -> Answer:
        """Return the answer of the server behind."""
        headers = {name: value for name, value in request.headers.items() if name.startswith("X-")}
        answer = requests.request(
            request.method,
            self._behind + request.path,
            json=request.body if request.method == "POST" else None,
            headers=headers,
            timeout=_TIMEOUT,
        )
        return Answer(answer.status_code, answer.json() if answer.content else {})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Vault112(VaultFront):
    """Vault before 1.13: it takes no notice of `associated_data`."""

    warns = True
    """Whether it warns, as Vault does since 1.10."""

    def answer(self, request: Request) -> Answer:
        """Forward the request without the field."""
        body = dict(request.body)
        ignored = body.pop("associated_data", None) is not None
        if "batch_input" in body:
            body["batch_input"] = [
                {name: value for name, value in item.items() if name != "associated_data"}
                for item in body["batch_input"]
            ]
        answered = self.forward(request._replace(body=body))
        if ignored and self.warns:
            text = "Endpoint ignored these unrecognized parameters: [associated_data]"
            return answered._replace(body={**answered.body, "warnings": [text]})
        return answered


class RecoverySecondary(VaultFront):
    """A secondary for disaster recovery."""

    def answer(self, request: Request) -> Answer:
        """Refuse everything but the state of the server."""
        if request.path.startswith("/v1/sys/health"):
            return Answer(472, {**self.forward(request).body, "replication_dr_mode": "secondary"})
        return Answer(400, {"errors": ["path disabled in replication DR secondary mode"]})


class StaleStandby(VaultFront):
    """A standby that does not know the last writes while it answers its first `answers` requests for one."""

    def __init__(self, address: str, answers: int) -> None:
        super().__init__(address)
        self._left = answers

    def answer(self, request: Request) -> Answer:
        """Answer from an old state, or forward the request."""
        stale = {
            "/v1/transit/decrypt/": "invalid ciphertext: version is too new",
            "/v1/sys/wrapping/": "wrapping token is not valid or does not exist",
        }
        text = next((text for path, text in stale.items() if request.path.startswith(path)), None)
        if text is None or self._left <= 0:
            return self.forward(request)
        self._left -= 1
        batch = request.body.get("batch_input")
        if batch is None:
            return Answer(400, {"errors": [text]})
        return Answer(200, {"data": {"batch_results": [{"error": text} for _ in batch]}})


class BrokenBatches(VaultFront):
    """A server that answers a batch of several items with `status`; each item alone is fine."""

    def __init__(self, address: str, status: int) -> None:
        super().__init__(address)
        self._status = status

    def answer(self, request: Request) -> Answer:
        """Fail over a batch, or forward the request."""
        if len(request.body.get("batch_input", ())) > 1:
            return Answer(self._status, {"errors": ["1 error occurred:\n\t* internal error\n\n"]})
        return self.forward(request)
