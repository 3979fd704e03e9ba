"""A server in front of LocalStack that answers like AWS where LocalStack does not.

It enforces what each access key may do, counts requests, and gives every documented refusal on demand. All other
answers are LocalStack's. It does not check signatures.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import threading
import uuid
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

MAX_PLAINTEXT, MAX_CONTEXT = 4096, 8192
_STATUS: Final = {
    "DependencyTimeoutException": 503,
    "DryRunOperationException": 412,
    "InternalFailure": 500,
    "KMSInternalException": 500,
    "KeyUnavailableException": 500,
    "ServiceUnavailable": 503,
}
_USES: Final = {
    "Encrypt": (("KeyId", "EncryptionAlgorithm"),),
    "Decrypt": (("KeyId", "EncryptionAlgorithm"),),
    "ReEncrypt": (
        ("SourceKeyId", "SourceEncryptionAlgorithm"),
        ("DestinationKeyId", "DestinationEncryptionAlgorithm"),
    ),
}
_CREDENTIAL: Final = re.compile(r"Credential=([^/,\s]+)/")
_RSA_LENGTHS: Final = (256, 384, 512)
_LOCALSTACK_KEY_ID: Final = 36
"""The length of the key's id at the start of LocalStack's symmetric ciphertexts."""


class Refusal(Exception):
    """A refusal by AWS, with the documented status of its code unless `status` is given; `text` is its message."""

    def __init__(self, code: str, status: int = 0, text: str = "") -> None:
        super().__init__(code)
        self.code, self.status, self.text = code, status or _STATUS.get(code, 400), text


@dataclass
class _Request:
    action: str
    caller: str
    body: dict[str, Any]
    headers: dict[str, str]


class AwsFront:
    """A server at `address` in front of LocalStack at `endpoint`.

    `counts` are the numbers of requests by action and key, as the requests name the key.
    """

    def __init__(self, endpoint: str) -> None:
        url = urlsplit(endpoint)
        self._target = (url.hostname or "", url.port or 80)
        self._lock = threading.Lock()
        self._may: dict[str, Collection[str] | None] = {}
        self._expired: set[str] = set()
        self._deleted: set[str] = set()
        # An RSA decryption takes LocalStack 50 ms, so that many at once would delay all other calls.
        self._few = threading.Semaphore(2)
        self._fit: dict[str, list[str]] = {}
        self._hides_materials = False
        self._material: dict[str, str] = {}
        self._made_by: dict[bytes, str] = {}
        self._played: Refusal | None = None
        self._lost: dict[str, threading.Event] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.front = self
        self.address: tuple[str, int] = ("127.0.0.1", self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def allow(self, access_key_id: str, actions: Collection[str] | None = None) -> None:
        """Accept this caller for `actions`, or for all if None. Unknown callers are refused."""
        self._may[access_key_id] = actions

    def expire(self, access_key_id: str) -> None:
        """Refuse the caller's credentials as expired from now on."""
        self._expired.add(access_key_id)

    def delete(self, arn: str) -> None:
        """Answer as if the key had been deleted, which takes at least a week in AWS."""
        self._deleted.add(arn)

    def forget_materials(self) -> None:
        """Ask for the keys' current materials again, after a rotation that did not pass here."""
        self._material.clear()

    def hide_materials(self) -> None:
        """Answer as for a key in a custom key store: without ids of key materials."""
        self._hides_materials = True

    def play(self, code: str, status: int = 0, text: str = "") -> None:
        """Refuse all requests with `code` and the message `text` until `heal`.

        With KMSInvalidStateException and a text of AWS's documentation, it stands for a key in an external key store.
        """
        self._played = Refusal(code, status, text)

    def lose(self, action: str, *, hang: bool = False) -> None:
        """Carry out the requests for `action`, but close their connections without an answer, until `heal`.

        With `hang` the connections are closed at `heal` or `close` only.
        """
        self._lost[action] = threading.Event()
        if not hang:
            self._lost[action].set()

    def heal(self) -> None:
        """End `play` and `lose`."""
        self._played = None
        lost, self._lost = self._lost, {}
        for event in lost.values():
            event.set()

    def close(self) -> None:
        """End the server. May be called twice."""
        self.heal()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.end_connections()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- one request ------------------------------------------------------------------------------

    def answer(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, str]:
        """Return the status, body and request id of the answer to a request; status 0 for no answer."""
        found = _CREDENTIAL.search(headers.get("authorization", ""))
        caller = found[1] if found else ""
        target = headers.get("x-amz-target", "")
        if not target:  # STS, in another protocol
            return self._forward(body, headers)
        request = _Request(target.rpartition(".")[2], caller, json.loads(body), headers)
        with self._lock:
            self.counts[request.action, _key_of(request.body)] += 1
        try:
            self._check(request)
            return self._unless_lost(request.action, self._as_aws(request))
        except Refusal as refusal:
            text = refusal.text or f"{refusal.code} of {request.action}"
            answer = {"__type": refusal.code, "message": text}
            return refusal.status, json.dumps(answer).encode(), str(uuid.uuid4())

    def _unless_lost(self, action: str, answer: tuple[int, bytes, str]) -> tuple[int, bytes, str]:
        event = self._lost.get(action)
        if event is None:
            return answer
        event.wait()
        return 0, b"", ""

    def _check(self, request: _Request) -> None:
        """Raise `Refusal` for a request that AWS refuses and LocalStack does not."""
        if self._played is not None:
            raise self._played
        if not request.caller:
            raise Refusal("MissingAuthenticationTokenException")
        if request.caller in self._expired:
            raise Refusal("ExpiredTokenException")
        if request.caller not in self._may:
            raise Refusal("UnrecognizedClientException")
        _check_sizes(request.body)
        allowed = self._may[request.caller]
        if allowed is not None and request.action not in allowed:
            raise Refusal("AccessDeniedException")
        if self._deleted & set(map(str, request.body.values())):
            raise Refusal("NotFoundException")
        self._check_usage(request)
        if request.body.get("DryRun"):
            raise Refusal("DryRunOperationException")

    def _check_usage(self, request: _Request) -> None:
        for field, algorithm in _USES.get(request.action, ()):
            fit = self._algorithms(request, request.body.get(field, ""))
            if fit and request.body.get(algorithm, "SYMMETRIC_DEFAULT") not in fit:
                raise Refusal("InvalidKeyUsageException")

    def _algorithms(self, request: _Request, key: str) -> list[str]:
        """Return the key's algorithms, which never change; an empty list if there is no such key."""
        if key and key not in self._fit:
            status, body, _ = self._ask(request, "DescribeKey", {"KeyId": key})
            if status != http.HTTPStatus.OK:
                return []
            self._fit[key] = json.loads(body)["KeyMetadata"].get("EncryptionAlgorithms", ["none"])
        return self._fit.get(key, [])

    def _as_aws(self, request: _Request) -> tuple[int, bytes, str]:
        body = request.body
        if request.action == "ReEncrypt" and "SourceKeyId" not in body:
            blob = base64.b64decode(body["CiphertextBlob"])
            body = {**body, "SourceKeyId": blob[:_LOCALSTACK_KEY_ID].decode("ascii", "replace")}
        of_rsa = request.action == "Decrypt" and str(body.get("EncryptionAlgorithm", "")).startswith("RSA")
        if of_rsa and len(base64.b64decode(body["CiphertextBlob"])) not in _RSA_LENGTHS:
            raise Refusal("InvalidCiphertextException")
        with self._few if of_rsa else contextlib.nullcontext():
            status, answer, request_id = self._ask(request, request.action, body)
        if of_rsa and status == http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Refusal("InvalidCiphertextException")
        if request.action == "RotateKeyOnDemand":
            self.forget_materials()
        if status == http.HTTPStatus.OK and request.action in _USES and not self._hides_materials:
            answer = self._with_materials(request, answer)
        return status, answer, request_id

    def _with_materials(self, request: _Request, answer: bytes) -> bytes:
        """Add the ids of the key materials, which AWS tells in its answers and LocalStack does not."""
        told = json.loads(answer)
        used = self._made_by.get(base64.b64decode(request.body.get("CiphertextBlob", "")), "")
        if used:
            told["KeyMaterialId" if request.action == "Decrypt" else "SourceKeyMaterialId"] = used
        if request.action != "Decrypt" and (current := self._current_material(request, told["KeyId"])):
            self._made_by[base64.b64decode(told["CiphertextBlob"])] = current
            if request.action == "ReEncrypt":  # the answer of Encrypt does not tell it
                told["DestinationKeyMaterialId"] = current
        return json.dumps(told).encode()

    def _current_material(self, request: _Request, arn: str) -> str:
        if arn not in self._material:
            _, body, _ = self._ask(request, "DescribeKey", {"KeyId": arn})
            metadata = json.loads(body).get("KeyMetadata", {})
            self._material[arn] = str(metadata.get("CurrentKeyMaterialId") or "")
        return self._material[arn]

    def _ask(self, request: _Request, action: str, body: dict[str, Any]) -> tuple[int, bytes, str]:
        headers = {**request.headers, "x-amz-target": f"TrentService.{action}"}
        return self._forward(json.dumps(body).encode(), headers)

    def _forward(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, str]:
        connection = http.client.HTTPConnection(*self._target, timeout=60)
        kept = {name: headers[name] for name in headers if name not in ("content-length", "connection")}
        try:
            connection.request("POST", "/", body, kept)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers.get("x-amzn-RequestId", "")
        finally:
            connection.close()


def _key_of(body: dict[str, Any]) -> str:
    return str(body.get("KeyId") or body.get("DestinationKeyId") or "")


def _check_sizes(body: dict[str, Any]) -> None:
    if "Plaintext" in body and not 1 <= len(base64.b64decode(body["Plaintext"])) <= MAX_PLAINTEXT:
        raise Refusal("ValidationException")
    for name in ("EncryptionContext", "SourceEncryptionContext", "DestinationEncryptionContext"):
        pairs = body.get(name) or {}
        if sum(len(part.encode()) for pair in pairs.items() for part in pair) > MAX_CONTEXT:
            raise Refusal("ValidationException")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    front: AwsFront

    def __init__(self, *arguments: Any) -> None:
        self._connections: set[Any] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """End the connections that clients keep open."""
        for connection in list(self._connections):
            self.shutdown_request(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore broken connections, which are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in two parts would wait for the client's delayed acknowledgement
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, answer, request_id = self.server.front.answer(body, headers)
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        kind = "application/x-amz-json-1.1" if "x-amz-target" in headers else "text/xml"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("x-amzn-RequestId", request_id)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class calls it so
        pass
