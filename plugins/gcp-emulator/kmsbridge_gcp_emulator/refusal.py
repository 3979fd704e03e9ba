"""Errors that the emulator answers with: the codes, texts and details of Cloud KMS."""

from __future__ import annotations

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]


class Refusal(Exception):
    """An error status: its code, text and, where Cloud KMS gives one, the violated precondition."""

    def __init__(self, code: grpc.StatusCode, text: str, *, violation: str = "", subject: str = "") -> None:
        super().__init__(text)
        self.code, self.text = code, text
        self._violation, self._subject = violation, subject

    def trailer(self) -> tuple[tuple[str, bytes], ...]:
        """Return the trailing metadata in which gRPC sends the details of an error."""
        if not self._violation:
            return ()
        failure = error_details_pb2.PreconditionFailure()
        failure.violations.add(type=self._violation, subject=self._subject)
        number = code_pb2.Code.Value(self.code.name)
        status = status_pb2.Status(code=number, message=self.text)
        status.details.add().Pack(failure)
        return (("grpc-status-details-bin", status.SerializeToString()),)


def invalid(text: str) -> Refusal:
    """Return an INVALID_ARGUMENT error."""
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, text)


def precondition(text: str, violation: str = "", subject: str = "") -> Refusal:
    """Return a FAILED_PRECONDITION error, with a detail if `violation` is given."""
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION, text, violation=violation, subject=subject)


def missing(kind: str, name: str) -> Refusal:
    """Return a NOT_FOUND error."""
    return Refusal(grpc.StatusCode.NOT_FOUND, f"{kind} {name} not found.")


def denied(permission: str, resource: str) -> Refusal:
    """Return a PERMISSION_DENIED error, whose text does not reveal whether the resource exists."""
    return Refusal(
        grpc.StatusCode.PERMISSION_DENIED,
        f"Permission '{permission}' denied on resource '{resource}' (or it may not exist).",
    )


def unauthenticated() -> Refusal:
    """Return an UNAUTHENTICATED error."""
    return Refusal(
        grpc.StatusCode.UNAUTHENTICATED,
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or "
        "other valid authentication credential.",
    )
