"""An emulator in a process of its own, and how a test tells it what to do."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from types import TracebackType
from typing import Any, Final, Self

import grpc

_PATIENCE: Final = 30.0
_RING: Final = "projects/test/locations/global/keyRings/test"


class EmulatorError(Exception):
    """The emulator did not start, or refused what it was told."""


class Emulator:
    """A running emulator at `endpoint`, HOST:PORT without TLS. As a context manager it is closed at the end.

    `start()` runs one, `at(endpoint)` leads to one that runs already, which `close` then leaves running.
    Every method raises `EmulatorError` where the emulator refuses.
    """

    def __init__(self, endpoint: str, process: subprocess.Popen[str] | None = None) -> None:
        self.endpoint = endpoint
        self._process = process

    @classmethod
    def start(cls, *keys: str) -> Self:
        """Run one on a free port of 127.0.0.1, with these symmetric keys, until `close` or this process ends."""
        command = [sys.executable, "-m", "kmsbridge_gcp_emulator", "--until-input-ends"]
        for key in keys:
            command += ["--key", key]
        # In a session of its own: a Ctrl-C is for whoever started it, and ends it by ending its input.
        process = subprocess.Popen(  # noqa: S603 - this interpreter and package
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        emulator = cls(endpoint, process)
        if not endpoint:
            emulator.close()
            raise EmulatorError("the emulator did not start")
        return emulator

    @classmethod
    def at(cls, endpoint: str) -> Self:
        """The one that listens there."""
        return cls(endpoint)

    def create_key(
        self,
        name: str = "",
        *,
        algorithm: str = "GOOGLE_SYMMETRIC_ENCRYPTION",
        protection_level: str = "SOFTWARE",
    ) -> str:
        """The name of a new key with one enabled version; its key ring is made where there is none.

        Without `name` it is one that no other key has. The algorithm decides on the purpose.
        """
        name = name or f"{_RING}/cryptoKeys/key-{secrets.token_hex(8)}"
        self._tell("create_key", name=name, algorithm=algorithm, protection_level=protection_level)
        return name

    def set_state(self, name: str, state: str) -> None:
        """Of a version, or of all versions of a key: ENABLED, DISABLED, DESTROY_SCHEDULED or DESTROYED."""
        self._tell("set_state", name=name, state=state)

    def delete_key(self, name: str) -> None:
        """Forget the key, its versions and its policy: calls for it are NOT_FOUND."""
        self._tell("delete_key", name=name)

    def fail(self, code: str, resource: str = "", *, method: str = "", times: int | None = None) -> None:
        """Answer the next `times` calls, or all until `heal`, with this gRPC status code.

        `resource` is a key ring, a key or a version, and concerns what is below it; `method` is one as
        in "Decrypt". Empty means any. This holds for `delay` and `corrupt` as well.
        """
        self._fault(resource, method, times, code=code)

    def delay(
        self, seconds: float, resource: str = "", *, method: str = "", times: int | None = None
    ) -> None:
        """Answer that much later."""
        self._fault(resource, method, times, delay=seconds)

    def corrupt(self, field: str, resource: str = "", *, method: str = "", times: int | None = None) -> None:
        """Change one field of the answer: a checksum, the data, a `verified_...` or the `name`."""
        self._fault(resource, method, times, corrupt=field)

    def heal(self, resource: str = "") -> None:
        """End all faults of `resource` and of what is below it; without it, all there are."""
        self._tell("heal", resource=resource)

    def grant(self, principal: str, role: str, resource: str) -> None:
        """Give `principal` a role as in "roles/cloudkms.viewer" on a project, key ring or key.

        A principal is who sends `authorization: Bearer PRINCIPAL`. A caller who sends none may do everything.
        """
        self._tell("grant", principal=principal, role=role, resource=resource)

    def revoke(self, principal: str) -> None:
        """Refuse the principal from now on as UNAUTHENTICATED, as if its credentials had expired."""
        self._tell("revoke", principal=principal)

    def requests(self, resource: str = "", *, method: str = "") -> int:
        """How many calls were made, refused ones too."""
        count: int = self._tell("requests", resource=resource, method=method)
        return count

    def log(self, resource: str = "") -> list[dict[str, str]]:
        """The latest calls, oldest first: `method`, `resource`, `principal`, `reason` and `code` of each."""
        entries: list[dict[str, str]] = self._tell("log", resource=resource)
        return entries

    def close(self) -> None:
        """End what `start` ran; may be repeated."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fault(self, resource: str, method: str, left: int | None, **what: Any) -> None:
        self._tell("fault", resource=resource, method=method, left=left, **what)

    def _tell(self, action: str, **arguments: Any) -> Any:
        # A channel for each call: one that stays open would be in the way of a test that forks.
        with grpc.insecure_channel(self.endpoint, [("grpc.enable_http_proxy", 0)]) as channel:
            call = channel.unary_unary("/kmsbridge_gcp_emulator.Control/Call")
            try:
                return json.loads(call(json.dumps({"do": action, **arguments}).encode(), timeout=_PATIENCE))
            except grpc.RpcError as error:
                raise EmulatorError(f"{action}: {error.details()}") from None
