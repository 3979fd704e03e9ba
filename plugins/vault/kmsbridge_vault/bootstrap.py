"""The first secret of a host: a response-wrapped secret id, which opens once."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from kmsbridge.driver import ErrorKind, Secret
from kmsbridge_vault.client import Client
from kmsbridge_vault.failures import UNWRAPPABLE, VaultFailure

_NEW: Final = "issue a new wrapped secret id for this host"
_LARGEST: Final = 4096


class _Kept:
    """What this process has of one wrapped secret id; kept as long as it lives, for every driver."""

    def __init__(self, *, given: bool) -> None:
        self.given = given
        """Whether the configuration itself holds the wrapping token."""
        self.lock = threading.Lock()
        self.wrapping: Secret | None = None
        """A wrapping token that was taken and not opened yet."""
        self.sent = False
        """Whether its opening was asked for already, and no answer came."""
        self.secret_id: Secret | None = None
        self.failure: VaultFailure | None = None

    def has_any(self) -> bool:
        """Whether the wrapping token was taken, whatever became of it."""
        return any(each is not None for each in (self.wrapping, self.secret_id, self.failure))


_kept: dict[bytes, _Kept] = {}


class WrappedSecretId:
    """A wrapped secret id from a `file`, the environment variable `variable`, or `given` as it is.

    The file is removed and the variable unset by whoever takes the token, so that of several processes one
    has it. `role_name` is the role that it must be for; any of `mount` where that is empty.
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
        # The names of roles are the same in small letters and in capitals, those of mounts are not.
        role = f"(?i:{re.escape(role_name)})" if role_name else "[^/]+"
        self._path = re.compile(f"auth/{re.escape(mount)}/role/{role}/secret-id")
        self._file, self._given = file, given
        place = client.place
        source = (place.address, namespace or place.namespace, mount, role_name, file, variable)
        self._kept = _kept_of("\0".join(source).encode(), given)
        taken = os.environ.pop(variable, "") if variable else ""
        if taken:
            self._take(Secret.of_text(taken.strip()))
        self.is_there = not variable or self._kept.has_any()
        """False where the variable is not set, and was not set for another key of this process."""

    def get(self, client: Client) -> Secret:
        """The secret id; opens the wrapped one where that was not done yet. Raises `VaultFailure`."""
        kept = self._kept
        with kept.lock:
            if self._file:
                self._take_file(client)
            elif self._given is not None and not kept.has_any():
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
            remedy=f"{_NEW}: there is none where the configuration says, or another process took it",
        )

    def _take(self, wrapping: Secret) -> None:
        self._kept.wrapping, self._kept.sent = wrapping, False

    def _take_file(self, client: Client) -> None:
        """Read and remove the file; a new one may be there at any time."""
        try:
            with Path(self._file).open("rb") as file:
                wrapping = Secret(file.read(_LARGEST).strip())
        except FileNotFoundError:
            return
        except OSError:
            wrapping = Secret(b"")
        if not re.fullmatch(rb"[\w.-]+", wrapping.reveal()):
            self._unreadable("the file of the wrapped secret id is empty, unreadable or no token")
        if self._look_up(client, wrapping, self._remove) and self._remove():
            self._take(wrapping)

    def _remove(self) -> bool:
        """Whether it was this process that removed the file."""
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
            remedy=f"{what}: have this user own it, in a folder where it may remove it",
        )

    def _look_up(self, client: Client, wrapping: Secret, forget: Callable[[], bool]) -> bool:
        """Raise, and have the token forgotten, unless it was made for this role and nobody used it.

        False where it was used by another process of this host, which takes it before it opens it.
        """
        try:
            answer = client.request(
                "POST",
                "sys/wrapping/lookup",
                {"token": wrapping.reveal_text()},
                namespace=self._namespace,
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
        """Unwrap, once; what can be told of a lost answer is that this host asked before."""
        kept = self._kept
        if not self._file and not kept.sent:
            self._look_up(client, wrapping, self._drop)
        asked_before, kept.sent = kept.sent, True
        try:
            answer = client.request("POST", "sys/wrapping/unwrap", token=wrapping, namespace=self._namespace)
        except VaultFailure as failure:
            if failure.code != UNWRAPPABLE:
                raise
            lost = VaultFailure(
                ErrorKind.UNAUTHENTICATED,
                "wrapped-secret-id-lost",
                request_id=failure.request_id,
                remedy=f"{_NEW}: this host asked for it before and got no answer; if the server's audit "
                "log has no unwrap by this host, someone else used it",
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

    def _drop(self) -> bool:
        self._kept.wrapping, self._kept.sent = None, False
        return True

    def _misused(self, code: str, request_id: str) -> VaultFailure:
        remedy = f"find out who used or replaced it, revoke that secret id, and {_NEW}"
        return VaultFailure(ErrorKind.CREDENTIAL_MISUSED, code, request_id=request_id, remedy=remedy)

    def __repr__(self) -> str:
        return "WrappedSecretId(...)"


def _kept_of(source: bytes, given: Secret | None) -> _Kept:
    secret = given.reveal() if given is not None else b""
    key = hashlib.sha256(source + b"\0" + secret).digest()
    return _kept.setdefault(key, _Kept(given=given is not None))  # atomic, so that no lock is needed


def _after_fork() -> None:
    """What the parent opened is kept, what it has still to open is left to it.

    Another of its threads may have held a lock.
    """
    for kept in _kept.values():
        kept.lock = threading.Lock()
        if kept.wrapping is not None or (kept.given and not kept.has_any()):
            kept.wrapping, kept.sent = None, False
            kept.failure = VaultFailure(
                ErrorKind.UNAUTHENTICATED,
                "wrapped-secret-id-in-parent",
                remedy="use the key once before forking, or open it after the fork with a wrapped secret id "
                "for each process: this one was left to the parent",
            )


os.register_at_fork(after_in_child=_after_fork)
