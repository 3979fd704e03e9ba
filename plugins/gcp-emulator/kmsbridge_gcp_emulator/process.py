"""`Emulator`: runs the emulator in a process of its own, and controls it from a test."""

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
    """The emulator did not start, or refused an action."""


class Emulator:
    """A running emulator. `endpoint` is its HOST:PORT, without TLS.

    `start()` runs a new one. `at(endpoint)` connects to one that runs already, which `close` leaves running. As a
    context manager it is closed at the end of the block. Methods raise `EmulatorError` if the emulator refuses.
    """

    def __init__(self, endpoint: str, process: subprocess.Popen[str] | None = None) -> None:
        self.endpoint = endpoint
        self._process = process

    @classmethod
    def start(cls, *keys: str) -> Self:
        """Run an emulator on a free port of 127.0.0.1 until `close`, or until this process ends.

        `keys` are names of symmetric keys to make. Raises `EmulatorError` if it does not start.
        """
        command = [sys.executable, "-m", "kmsbridge_gcp_emulator", "--until-input-ends"]
        for key in keys:
            command += ["--key", key]
        # In a session of its own, so that a Ctrl-C does not reach it. It ends when this process closes its input.
        process = subprocess.Popen(  # noqa: S603 - this interpreter and package
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        emulator = cls(endpoint, process)
        if not endpoint:
            emulator.close()
            raise EmulatorError("the emulator did not start; its error is on standard error")
        return emulator

    @classmethod
    def at(cls, endpoint: str) -> Self:
        """Return the emulator that runs at `endpoint`, HOST:PORT. Does not connect."""
        return cls(endpoint)

    def create_key(
        self,
        name: str = "",
        *,
        algorithm: str = "GOOGLE_SYMMETRIC_ENCRYPTION",
        protection_level: str = "SOFTWARE",
    ) -> str:
        """Make a key with one enabled version, and its key ring if there is none. Return the key's name.

        Without `name` the key gets a new one. The algorithm determines the purpose; `protection_level` is SOFTWARE or
        HSM.
        """
        name = name or f"{_RING}/cryptoKeys/key-{secrets.token_hex(8)}"
        self._tell("create_key", name=name, algorithm=algorithm, protection_level=protection_level)
        return name

    def set_state(self, name: str, state: str) -> None:
        """Set the state of a version, or of all versions of a key.

        `state` is ENABLED, DISABLED, DESTROY_SCHEDULED or DESTROYED.
        """
        self._tell("set_state", name=name, state=state)

    def delete_key(self, name: str) -> None:
        """Remove the key, its versions and its policy. Calls for it fail with NOT_FOUND afterwards."""
        self._tell("delete_key", name=name)

    def fail(self, code: str, resource: str = "", *, method: str = "", times: int | None = None) -> None:
        """Refuse the next `times` calls, or all until `heal`, with a gRPC status code such as "UNAVAILABLE".

        `resource` limits the fault to a key ring, key or version and what is below it, and `method` to one method,
        such as "Decrypt"; empty means any. These arguments are the same for `delay` and `corrupt`.
        """
        self._fault(resource, method, times, code=code)

    def delay(
        self, seconds: float, resource: str = "", *, method: str = "", times: int | None = None
    ) -> None:
        """Delay answers by `seconds`."""
        self._fault(resource, method, times, delay=seconds)

    def corrupt(self, field: str, resource: str = "", *, method: str = "", times: int | None = None) -> None:
        """Change one field of answers: a checksum, the data, a `verified_...` field or the `name`."""
        self._fault(resource, method, times, corrupt=field)

    def heal(self, resource: str = "") -> None:
        """End the faults of `resource` and of what is below it; all faults if it is empty."""
        self._tell("heal", resource=resource)

    def grant(self, principal: str, role: str, resource: str) -> None:
        """Grant `principal` a role, such as "roles/cloudkms.viewer", on a project, key ring or key.

        A caller is the principal NAME if it sends the metadata `authorization: Bearer NAME`. A caller that sends no
        authorization may do everything.
        """
        self._tell("grant", principal=principal, role=role, resource=resource)

    def revoke(self, principal: str) -> None:
        """Refuse all further calls of `principal` with UNAUTHENTICATED, as if its credentials had expired."""
        self._tell("revoke", principal=principal)

    def requests(self, resource: str = "", *, method: str = "") -> int:
        """Return the number of calls of `method` on `resource` and what is below it, including refused ones."""
        count: int = self._tell("requests", resource=resource, method=method)
        return count

    def log(self, resource: str = "") -> list[dict[str, str]]:
        """Return the latest calls on `resource` and what is below it, at most 1000, oldest first.

        Each is a dict with `method`, `resource`, `principal`, `reason` and `code`.
        """
        entries: list[dict[str, str]] = self._tell("log", resource=resource)
        return entries

    def close(self) -> None:
        """End the emulator if `start` ran it. May be called twice."""
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
        # A channel for each call: an open channel would disturb tests that fork.
        with grpc.insecure_channel(self.endpoint, [("grpc.enable_http_proxy", 0)]) as channel:
            call = channel.unary_unary("/kmsbridge_gcp_emulator.Control/Call")
            try:
                return json.loads(call(json.dumps({"do": action, **arguments}).encode(), timeout=_PATIENCE))
            except grpc.RpcError as error:
                raise EmulatorError(f"{action}: {error.details()}") from None
