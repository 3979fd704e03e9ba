"""Faults: calls that fail, take long, or return corrupted answers, because a test wants that."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Final

import grpc

from kmsbridge_gcp_emulator.refusal import Refusal, invalid

_BYTES: Final = ("ciphertext", "plaintext", "pem")


@dataclass(slots=True)
class Fault:
    """A fault of calls of `method` (any if empty) on `resource` and what is below it.

    `left` is the number of calls that it still affects, None for all. It refuses them with the status `code`, delays
    them by `delay` seconds, or changes the field `corrupt` of the answer.
    """

    resource: str
    method: str
    left: int | None
    code: str = ""
    delay: float = 0.0
    corrupt: str = ""

    def concerns(self, method: str, resource: str) -> bool:
        """Return whether the fault affects a call."""
        below = not self.resource or f"{resource}/".startswith(f"{self.resource}/")
        return below and self.method in ("", method)


class Faults:
    """The faults that are in effect. Safe for threads."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        """Put a fault into effect. Raises INVALID_ARGUMENT if its code is not a gRPC status code."""
        if fault.code and fault.code not in grpc.StatusCode.__members__:
            raise invalid(f"{fault.code} is not a gRPC status code")
        with self._lock:
            self._faults.append(fault)

    def heal(self, resource: str) -> None:
        """End the faults of `resource` and of what is below it; all if it is empty."""
        with self._lock:
            self._faults = [
                fault
                for fault in self._faults
                if resource and not f"{fault.resource}/".startswith(f"{resource}/")
            ]

    def of(self, method: str, resource: str) -> list[Fault]:
        """Return the faults that affect a call, and count the call off their `left`."""
        with self._lock:
            found = [fault for fault in self._faults if fault.concerns(method, resource)]
            for fault in found:
                if fault.left is not None:
                    fault.left -= 1
            self._faults = [fault for fault in self._faults if fault.left != 0]
        return found


def before(found: list[Fault], context: Any) -> None:
    """Apply faults before a call is answered: wait, or raise `Refusal`. A caller that goes away ends the wait."""
    for fault in found:
        if fault.delay:
            cancelled = threading.Event()
            if context.add_callback(cancelled.set):
                cancelled.wait(fault.delay)
        if fault.code:
            raise Refusal(grpc.StatusCode[fault.code], "The emulator was told to fail.")


def after(found: list[Fault], response: Any) -> Any:
    """Apply faults to the response and return it: a changed byte, checksum, confirmation or name."""
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
