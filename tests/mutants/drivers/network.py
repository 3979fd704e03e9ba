"""Drivers that believe whoever answers, or hold on to what is over."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from kmsbridge_testing.fakes.harnesses import FakeHttpHarness, PublicKeyFakeHarness
from kmsbridge_testing.fakes.http_fake import FakeHttpDriver, HttpStatusError
from kmsbridge_testing.fakes.http_service import from_json, to_json
from kmsbridge_testing.fakes.public_fake import PublicKeyFakeDriver

from kmsbridge.driver import EncryptionContext, ErrorKind, Operation, WrappedKey
from kmsbridge.driverkit.deadline import is_over
from kmsbridge.testing.fakes.fake import FakeDriver
from tests.mutants.drivers.base import caught_by

FAULT = "test_fault_is_told_and_survived"
WHY = "test_unreachable_service_is_told"


class _FollowsRedirects(FakeHttpDriver):
    statuses: tuple[bytes, ...]

    def _answer(self, operation: str, received: bytes) -> Any:
        _, found, rest = received.partition(b"Location: ")
        if found and received[9:12] in self.statuses:
            there = urlsplit(rest.partition(b"\r\n")[0].decode())
            with socket.create_connection((there.hostname, there.port), 5) as sock:
                self._send(sock, operation, b"null")
        return super()._answer(operation, received)


@caught_by("test_redirect_is_not_followed[a redirect to another host-unwrap]", FakeHttpHarness)
class FollowsRedirects(_FollowsRedirects):
    """Goes, with its token, where it is sent."""

    statuses = (b"302", b"307")


@caught_by(
    "test_redirect_is_not_followed[a redirect to another host with the request-rewrap]", FakeHttpHarness
)
class FollowsRedirectsThatKeepTheRequest(_FollowsRedirects):
    """Goes there where the status says that the request may be sent again."""

    statuses = (b"307",)


@caught_by(f"{FAULT}[an empty answer-unwrap]", FakeHttpHarness)
class TakesNothingForSuccess(FakeHttpDriver):
    """Takes a status of 200 for a success, whatever came with it."""

    def _answer(self, operation: str, received: bytes) -> Any:
        if received.startswith(b"HTTP/1.1 200") and received.endswith(b"\r\n\r\n"):
            return b"" if operation == "unwrap" else ["", b""]
        return super()._answer(operation, received)


class _TakesStatusesForRefusals(FakeHttpDriver):
    status: int
    kind: ErrorKind

    def classify(self, error: BaseException, operation: Operation) -> ErrorKind:
        its_own = isinstance(error, HttpStatusError) and error.status == self.status
        return self.kind if its_own else super().classify(error, operation)


@caught_by(f"{FAULT}[status 404 with a page-unwrap]", FakeHttpHarness)
class TakesAnyPageForAMissingKey(_TakesStatusesForRefusals):
    """Says of a web server at the wrong address that the key is gone."""

    status, kind = 404, ErrorKind.KEY_NOT_FOUND


@caught_by(f"{FAULT}[status 403 with a page-describe]", FakeHttpHarness)
class TakesAnyPageForADenial(_TakesStatusesForRefusals):
    """Says of a firewall's page that the key service denies access."""

    status, kind = 403, ErrorKind.ACCESS_DENIED


@caught_by(f"{FAULT}[status 520-wrap]", FakeHttpHarness)
class KnowsFourOutages(_TakesStatusesForRefusals):
    """Takes a status that it was not told of for a request that is wrong."""

    status, kind = 520, ErrorKind.INVALID_REQUEST


@caught_by(f"{FAULT}[an answer of another shape-describe]", FakeHttpHarness)
class TrustsTheShape(FakeHttpDriver):
    """Fails over JSON that is not what it expects with whatever Python raises."""

    def _answer(self, operation: str, received: bytes) -> Any:
        if received.endswith(b"[]"):
            raise TypeError
        return super()._answer(operation, received)


@caught_by("test_endless_answer_takes_little_memory[an answer without end-unwrap]", FakeHttpHarness)
class ReadsWithoutEnd(FakeHttpDriver):
    """Reads whatever comes, as long as it comes in time."""

    def _receive(self, sock: socket.socket) -> bytes:
        data = bytearray()
        while not is_over():
            sock.settimeout(0.5)
            block = socket.socket.recv(sock, 1 << 20)
            if not block:
                break
            data += block
        return bytes(data)


@caught_by("test_dead_connection_is_replaced[idle connections gone silent-describe]", FakeHttpHarness)
class KeepsADeadConnection(FakeHttpDriver):
    """Keeps one connection, whatever becomes of it."""

    _kept: http.client.HTTPConnection | None = None

    def _call(self, operation: str, arguments: Any, timeout: float) -> Any:
        if self._kept is None:
            self._kept = http.client.HTTPConnection(self._address.netloc, timeout=timeout)
        body = json.dumps(to_json(arguments)).encode()
        headers = {"Authorization": self._authorization.reveal_text()}
        self._kept.request("POST", f"/v1/{self.name}/{operation}", body, headers)
        return from_json(json.loads(self._kept.getresponse().read()))

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
        super().close()


@caught_by(f"{WHY}[a certificate of another host-wrap]", FakeHttpHarness)
class IgnoresTheHostsName(FakeHttpDriver):
    """Is content with any certificate of the CA."""

    def _tls(self) -> ssl.SSLContext:
        context = super()._tls()
        context.check_hostname = False
        return context


@caught_by("test_local_wrap_works_without_a_network[connection refused]", PublicKeyFakeHarness)
class AsksBeforeItWraps(PublicKeyFakeDriver):
    """Has the service say that the key is enabled, before it uses the public key."""

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        self.describe(timeout=timeout)
        return super().wrap(plaintext, context, timeout=timeout)


@caught_by("test_resolve_keeps_its_timeout[no answer]")
class ResolvesAtLeisure(FakeDriver):
    """Asks for its id when it first needs it, with a timeout of its own."""

    asked = False

    def resolve(self, *, timeout: float) -> str:
        if not self.asked:
            self.call("describe", None, 4.0)
            self.asked = True
        return super().resolve(timeout=timeout)
