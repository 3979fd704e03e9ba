"""The token of a driver: got when it is first needed, renewed ahead of its end, replaced when it is refused."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any, Final, Literal

from kmsbridge.driver import ErrorKind
from kmsbridge_vault.client import Client
from kmsbridge_vault.failures import VaultFailure
from kmsbridge_vault.logins import Grant, Login, grant_of, number

_DUE: Final = 2 / 3
"""Of a token's ttl, when it is renewed."""
_NEAR_ITS_END: Final = 1 / 2
"""Of the ttl of the login: where a renewal gives less, the token's greatest age is near."""
_RENEWAL: Final = 10.0
_LEARN_AFTER: Final = 0.5
_LEAST_PAUSE: Final = 0.5
_JOIN: Final = 2.0
_REFUSED_FOR: Final = 5.0
"""Seconds for which a refused login is not repeated: a server counts them, and may lock the account."""


class _Flight:
    """A login under way, and what came of it."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.grant: Grant | None = None
        self.failure = VaultFailure(ErrorKind.UNAVAILABLE, "login-interrupted")


class Tokens:
    """Threads may share it: however many need a token, one of them logs in.

    A thread of its own waits for the time of renewal, only where there is a token that ends, and until
    `close` or until nobody holds this object any more.
    """

    def __init__(self, client: Client, login: Login) -> None:
        self._client, self._login = client, login
        self._lock = threading.Lock()
        self._grant: Grant | None = None
        self._flight: _Flight | None = None
        self._learnt = not login.learns
        self._learn_at: float | None = None
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._owes_thread = False
        self._refusal: VaultFailure | None = None
        self._refused_until = 0.0
        self._closed = False
        weakref.finalize(self, self._wake.set)

    def grant(self) -> Grant:
        """A token. Raises `VaultFailure`."""
        return self._grant or self._instead_of(None)

    def after_refusal(self, refused: Grant) -> Grant | None:
        """Another token where this one is dead; None where it lives, so that the refusal is a denial.

        Raises `VaultFailure`, of kind UNAUTHENTICATED where the token is dead and there is no other.
        """
        if self._grant is refused and self._lives(refused):
            return None
        return self._instead_of(refused)

    def learn(self) -> None:
        """Have a token's end asked for, once, that was given and not got by a login. After a success.

        Not at once: a program that ends sooner needs no renewal, and is spared the request. A thread that
        could not be started before is tried once more.
        """
        if self._grant is None or (self._learnt and not self._owes_thread):
            return
        with self._lock:
            if self._closed:
                return
            if not self._learnt:
                self._learnt, self._learn_at = True, time.monotonic() + _LEARN_AFTER
            self._start()

    def close(self) -> None:
        """End the renewal; may be repeated."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN)

    def _lives(self, grant: Grant) -> bool:
        try:
            self._ask_of("GET", "auth/token/lookup-self", grant)
        except VaultFailure as failure:
            if failure.kind is not ErrorKind.ACCESS_DENIED:
                raise
            return failure.denied
        return True

    def _ask_of(self, method: Literal["GET", "POST"], path: str, grant: Grant) -> Mapping[str, Any]:
        """About the token itself, where it is at home."""
        return self._client.request(method, path, token=grant.token, namespace=self._login.namespace)

    # --- one login for all ------------------------------------------------------------------------

    def _instead_of(self, old: Grant | None) -> Grant:
        from kmsbridge_vault.transport import left

        with self._lock:
            if self._grant is not None and self._grant is not old:
                return self._grant
            if self._refusal is not None and time.monotonic() < self._refused_until:
                raise self._refusal.again()
            flight, leads = self._flight, self._flight is None
            if flight is None:
                flight = self._flight = _Flight()
        if leads:
            return self._fly(flight, old)
        if not flight.ended.wait(left()):
            raise VaultFailure(ErrorKind.TIMEOUT, "timeout")
        if flight.grant is None:
            raise flight.failure.again()
        return flight.grant

    def _fly(self, flight: _Flight, old: Grant | None) -> Grant:
        try:
            grant = self._login(self._client)
            if old is not None and grant.token.reveal() == old.token.reveal():
                remedy = "the token is expired, revoked or used up: give this host another"
                raise VaultFailure(ErrorKind.UNAUTHENTICATED, "token-refused", remedy=remedy)
            self._adopt(grant)
        except VaultFailure as error:
            flight.failure = error.again()
            if self._login.fixed and error.kind is ErrorKind.UNAUTHENTICATED:
                self._refusal, self._refused_until = error.again(), time.monotonic() + _REFUSED_FOR
            raise
        else:
            flight.grant = grant
            return grant
        finally:
            with self._lock:
                self._flight = None
            flight.ended.set()

    def _adopt(self, grant: Grant) -> None:
        with self._lock:
            self._grant = grant
            if self._closed or grant.ttl <= 0:
                return
            self._start()
        self._wake.set()

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(
                target=_renew, args=(weakref.ref(self), self._wake), name="kmsbridge-vault", daemon=True
            )
            self._owes_thread = True
            # Where the system gives no thread, the token serves all the same.
            with contextlib.suppress(RuntimeError):
                thread.start()
                self._thread, self._owes_thread = thread, False

    # --- in the thread ----------------------------------------------------------------------------

    def next_step(self) -> float | None:
        """Renew where it is due; the seconds until the next step, None where there is none."""
        if self._learn_at is not None:
            pause = self._learn_at - time.monotonic()
            if pause > 0 and not self._closed:
                return pause
            self._ask_for_the_end()
        grant = self._grant
        if grant is not None and grant.ttl > 0 and time.monotonic() >= _due(grant):
            with contextlib.suppress(VaultFailure, TimeoutError):
                self._renew(grant)
        now = time.monotonic()
        with self._lock:
            after = self._grant
            ended = after is None or after.ttl <= 0 or now >= after.born + after.ttl
            if self._closed or after is None or ended:
                self._thread = None
                return None
        if after is grant and now >= _due(grant):
            return max((grant.born + grant.ttl - now) / 4, _LEAST_PAUSE)  # it failed; there is some time
        return max(_due(after) - now, _LEAST_PAUSE)

    def _ask_for_the_end(self) -> None:
        from kmsbridge_vault.transport import within

        self._learn_at, grant = None, self._grant
        if grant is None or self._closed:
            return
        with contextlib.suppress(VaultFailure, TimeoutError), within(_RENEWAL):
            data = self._ask_of("GET", "auth/token/lookup-self", grant).get("data")
            if isinstance(data, dict) and data.get("renewable") is True and not data.get("num_uses"):
                ttl = number(data.get("ttl"))
                self._adopt(Grant(grant.token, ttl, renewable=True, full=number(data.get("creation_ttl"))))

    def _renew(self, grant: Grant) -> None:
        from kmsbridge_vault.transport import within

        with within(_RENEWAL):
            renewed = self._renewed(grant) if grant.renewable else None
            if renewed is not None and renewed.ttl >= grant.full * _NEAR_ITS_END:
                self._adopt(renewed)
                return
            try:
                self._instead_of(grant)
            except VaultFailure:
                if renewed is None or renewed.ttl <= _LEAST_PAUSE:
                    raise
                self._adopt(renewed)

    def _renewed(self, grant: Grant) -> Grant | None:
        try:
            answer = self._ask_of("POST", "auth/token/renew-self", grant)
        except VaultFailure as failure:
            if failure.kind not in (ErrorKind.ACCESS_DENIED, ErrorKind.INVALID_REQUEST):
                raise
            return None
        told = grant_of(answer)
        return Grant(grant.token, told.ttl, told.renewable, grant.full)


def _due(grant: Grant) -> float:
    return grant.born + grant.ttl * _DUE


def _renew(tokens: weakref.ref[Tokens], wake: threading.Event) -> None:
    """Until the token ends for good. Nothing here keeps the `Tokens` alive while it waits."""
    while True:
        wake.clear()
        alive = tokens()
        pause = alive.next_step() if alive is not None else None
        del alive
        if pause is None:
            return
        wake.wait(min(pause, threading.TIMEOUT_MAX))
