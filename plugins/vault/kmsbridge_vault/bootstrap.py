"""The first secret of a host: a response-wrapped secret id, which can be unwrapped once."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from kmsbridge.driver import ErrorKind, Secret
from kmsbridge.driverkit.deadline import left
from kmsbridge_vault.client import Client
from kmsbridge_vault.failures import UNWRAPPABLE, VaultFailure

_NEW: Final = "issue a new wrapped secret id for this host"
_LARGEST: Final = 4096
_FIRST_PAUSE: Final = 0.05
_RESERVE: Final = 0.5
"""Seconds before the deadline in which what was found is told."""
PATIENCE: float = 5.0
"""The most seconds for which a server that calls a wrapping token unknown is asked again."""


class _Kept:
    """The state of one wrapped secret id, shared by all drivers of this process until it ends."""

    def __init__(self, *, given: bool) -> None:
        self.given = given
        """Whether the configuration itself contains the wrapping token."""
        self.lock = threading.Lock()
        self.wrapping: Secret | None = None
        """A wrapping token that was taken and is not unwrapped yet."""
        self.sent = False
        """Whether an unwrap of it was sent before and no answer arrived."""
        self.secret_id: Secret | None = None
        self.failure: VaultFailure | None = None

    def was_taken(self) -> bool:
        """Return whether the wrapping token was taken, whether or not its unwrap succeeded."""
        return any(value is not None for value in (self.wrapping, self.secret_id, self.failure))


_kept: dict[bytes, _Kept] = {}


class WrappedSecretId:
    """A wrapped secret id: from a `file`, from the environment variable `variable`, or `given` directly.

    The process that takes the token removes the file or unsets the variable, so that only one of several processes
    has it. `role_name` is the role that the secret id must be for; empty allows any role of `mount`.
    """

    def __init__(
        self,
        client: Client,
        mount: str,
        role_name: str,
        *,
        namespace: str | None = None,
        file: str = "",
        variable: str = "",
        given: Secret | None = None,
    ) -> None:
        self._namespace = namespace
        # Vault ignores the case of role names, but not of mounts.
        role = f"(?i:{re.escape(role_name)})" if role_name else "[^/]+"
        self._path = re.compile(f"auth/{re.escape(mount)}/role/{role}/secret-id")
        self._file, self._given = file, given
        place = client.place
        source = (place.address, namespace or place.namespace, mount, role_name, file, variable)
        self._kept = _kept_of("\0".join(source).encode(), given)
        taken = os.environ.pop(variable, "") if variable else ""
        if taken:
            self._take(Secret.of_text(taken.strip()))
        self.is_there = not variable or self._kept.was_taken()
        """False if the variable is not set, and no other key of this process took it before."""

    def get(self, client: Client) -> Secret:
        """Return the secret id, unwrapping it if that was not done before. Raises `VaultFailure`."""
        kept = self._kept
        with kept.lock:
            if self._file:
                self._take_file(client)
            elif self._given is not None and not kept.was_taken():
                self._take(self._given)
            if kept.wrapping is not None:
                self._open(client, kept.wrapping)
            if kept.secret_id is not None:
                return kept.secret_id
            if kept.failure is not None:
                raise kept.failure.again()
        raise VaultFailure(
            ErrorKind.UNAUTHENTICATED,
            "no-wrapped-secret-id",
            remedy=f"{_NEW}: there is none in the configured place, or another process took it",
        )

    def _take(self, wrapping: Secret) -> None:
        self._kept.wrapping, self._kept.sent = wrapping, False

    def _take_file(self, client: Client) -> None:
        """Read and remove the file. Called each time, because a new file may be put there."""
        try:
            with Path(self._file).open("rb") as file:
                wrapping = Secret(file.read(_LARGEST).strip())
        except FileNotFoundError:
            return
        except OSError:
            wrapping = Secret(b"")
        if not re.fullmatch(rb"[\w.-]+", wrapping.reveal()):
            self._unreadable("the file of the wrapped secret id is empty, unreadable or not a token")
        if self._look_up(client, wrapping, self._remove) and self._remove():
            self._take(wrapping)

    def _remove(self) -> bool:
        """Remove the file, and return whether this process did so and no other."""
        try:
            os.unlink(self._file)
        except FileNotFoundError:
            return False
        except OSError:
            self._unreadable("the file of the wrapped secret id cannot be removed")
        return True

    def _unreadable(self, what: str) -> NoReturn:
        raise VaultFailure(
            ErrorKind.UNAUTHENTICATED,
            "wrapped-secret-id-file",
            remedy=f"let this user own the file, in a folder where it may remove files: {what}",
        )

    def _look_up(self, client: Client, wrapping: Secret, forget: Callable[[], bool]) -> bool:
        """Return True if the token is unused and was made for this role.

        Otherwise call `forget` and raise `VaultFailure`; but return False if `forget` shows that another process of
        this host took the token, which may have used it.
        """
        try:
            answer = _asked(
                lambda: client.request(
                    "POST",
                    "sys/wrapping/lookup",
                    {"token": wrapping.reveal_text()},
                    namespace=self._namespace,
                ),
                unless=self._is_taken,
            )
        except VaultFailure as failure:
            if failure.code != UNWRAPPABLE:
                raise
            used, misused = True, self._misused(UNWRAPPABLE, failure.request_id)
        else:
            data = answer.get("data")
            made_at = data.get("creation_path") if isinstance(data, dict) else None
            if isinstance(made_at, str) and self._path.fullmatch(made_at):
                return True
            used, misused = False, self._misused("wrapping-token-of-another-path", "")
        if not forget() and used:
            return False
        self._kept.failure, self._kept.secret_id = misused, None
        raise misused.again()

    def _open(self, client: Client, wrapping: Secret) -> None:
        """Unwrap the secret id, which works once.

        If the token is already used, `sent` tells whether this host may have used it: it sent an unwrap before whose
        answer was lost.
        """
        kept = self._kept
        if not self._file and not kept.sent:
            self._look_up(client, wrapping, self._drop)
        asked_before, kept.sent = kept.sent, True
        try:
            answer = _asked(
                lambda: client.request(
                    "POST", "sys/wrapping/unwrap", token=wrapping, namespace=self._namespace
                )
            )
        except VaultFailure as failure:
            if failure.code != UNWRAPPABLE:
                raise
            lost = VaultFailure(
                ErrorKind.UNAUTHENTICATED,
                "wrapped-secret-id-lost",
                request_id=failure.request_id,
                remedy=f"{_NEW}: this host sent an unwrap before and got no answer; if the server's audit "
                "log has no unwrap by this host, someone else used the token",
            )
            kept.failure = lost if asked_before else self._misused(UNWRAPPABLE, failure.request_id)
            self._drop()
            raise kept.failure.again() from None
        data = answer.get("data")
        secret_id = data.get("secret_id") if isinstance(data, dict) else None
        self._drop()
        if not isinstance(secret_id, str) or not secret_id:
            kept.failure = self._misused("wrapping-token-of-another-path", "")
            raise kept.failure.again()
        kept.secret_id, kept.failure = Secret.of_text(secret_id), None

    def _is_taken(self) -> bool:
        return bool(self._file) and not os.path.lexists(self._file)

    def _drop(self) -> bool:
        self._kept.wrapping, self._kept.sent = None, False
        return True

    def _misused(self, code: str, request_id: str) -> VaultFailure:
        remedy = f"find out who used or replaced the wrapped secret id, revoke that secret id, and {_NEW}"
        return VaultFailure(ErrorKind.CREDENTIAL_MISUSED, code, request_id=request_id, remedy=remedy)

    def __repr__(self) -> str:
        return "WrappedSecretId(...)"


def _asked(
    send: Callable[[], Mapping[str, Any]], unless: Callable[[], bool] = lambda: False
) -> Mapping[str, Any]:
    """Return the answer to a request about a wrapping token. Raises `VaultFailure`.

    A standby that has not heard of the token yet calls it unknown, as if someone had used it. So the request is
    repeated until shortly before the deadline, `unless` another process took the token.
    """
    pause, started = _FIRST_PAUSE, time.monotonic()
    while True:
        try:
            return send()
        except VaultFailure as failure:
            over = time.monotonic() - started + pause > PATIENCE or left() < pause + _RESERVE
            if failure.code != UNWRAPPABLE or over or unless():
                raise
        time.sleep(pause)
        pause *= 2


def _kept_of(source: bytes, given: Secret | None) -> _Kept:
    secret = given.reveal() if given is not None else b""
    key = hashlib.sha256(source + b"\0" + secret).digest()
    return _kept.setdefault(key, _Kept(given=given is not None))  # atomic, so that no lock is needed


def _after_fork() -> None:
    """Keep in the child what the parent unwrapped, and leave to the parent what it has not unwrapped yet.

    The locks are replaced because a thread that exists only in the parent may hold one.
    """
    for kept in _kept.values():
        kept.lock = threading.Lock()
        if kept.wrapping is not None or (kept.given and not kept.was_taken()):
            kept.wrapping, kept.sent = None, False
            kept.failure = VaultFailure(
                ErrorKind.UNAUTHENTICATED,
                "wrapped-secret-id-in-parent",
                remedy="use the key once before forking, or give each process a wrapped secret id of its own "
                "after the fork: this one was left to the parent",
            )


os.register_at_fork(after_in_child=_after_fork)
