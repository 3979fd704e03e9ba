"""What the emulator is told to do wrong."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Final

import grpc

from kmsbridge_gcp_emulator.refusal import Refusal, invalid

_BYTES: Final = ("ciphertext", "plaintext", "pem")


@dataclass(slots=True)
class Fault:
    """Of calls of `method` (any if empty) on `resource` and what is below it; `left` more times, or always."""

    resource: str
    method: str
    left: int | None
    code: str = ""
    delay: float = 0.0
    corrupt: str = ""

    def concerns(self, method: str, resource: str) -> bool:
        """Whether a call suffers it."""
        below = not self.resource or f"{resource}/".startswith(f"{self.resource}/")
        return below and self.method in ("", method)


class Faults:
    """All that are in force."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """From now on."""
        if fault.code and fault.code not in grpc.StatusCode.__members__:
            raise invalid(f"{fault.code} is no gRPC status code")
        with self._lock:
            self._faults.append(fault)

    def heal(self, resource: str) -> None:
        """End those of `resource` and of what is below it; of everything if it is empty."""
        with self._lock:
            self._faults = [
                each
                for each in self._faults
                if resource and not f"{each.resource}/".startswith(f"{resource}/")
            ]

    def of(self, method: str, resource: str) -> list[Fault]:
        """Those that a call suffers, one time fewer from now on."""
        with self._lock:
            found = [each for each in self._faults if each.concerns(method, resource)]
            for each in found:
                if each.left is not None:
                    each.left -= 1
            self._faults = [each for each in self._faults if each.left != 0]
        return found


def before(found: list[Fault], context: Any) -> None:
    """Take the time, or refuse, as told."""
    for fault in found:
        if fault.delay:
            gone = threading.Event()
            if context.add_callback(gone.set):
                gone.wait(fault.delay)
        if fault.code:
            raise Refusal(grpc.StatusCode[fault.code], "The emulator was told to fail.")


def after(found: list[Fault], response: Any) -> Any:
    """The response, corrupted as told: a checksum or a byte changed, a confirmation taken back, another name."""
    for fault in found:
        field = fault.corrupt
        if not field or field not in type(response).meta.fields:
            continue
        value = getattr(response, field)
        if isinstance(value, bool):
            setattr(response, field, not value)
        elif field in _BYTES and value:
            flipped = value.encode() if isinstance(value, str) else value
            flipped = flipped[:-1] + bytes((flipped[-1] ^ 1,))
            setattr(response, field, flipped.decode() if isinstance(value, str) else flipped)
        elif isinstance(value, str):
            setattr(response, field, value.replace("/cryptoKeys/", "/cryptoKeys/not-"))
        else:
            setattr(response, field, value ^ 1)
    return response
