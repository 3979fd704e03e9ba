"""The token of a driver: obtained on first use, renewed before it expires, and replaced when Vault refuses it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import Any, Final, Literal

from kmsbridge.driver import ErrorKind
from kmsbridge.driverkit.background import Background
from kmsbridge.driverkit.bounded import Outcome
from kmsbridge.driverkit.deadline import left, within
from kmsbridge_vault.client import Client
from kmsbridge_vault.failures import VaultFailure
from kmsbridge_vault.logins import Grant, Login, grant_of, number

_DUE: Final = 2 / 3
"""The share of a token's ttl after which it is renewed."""
_NEAR_ITS_END: Final = 1 / 2
"""A renewal that gives less than this share of the login's ttl means that the token's maximum age is near."""
_RENEWAL: Final = 10.0
_LEARN_AFTER: Final = 0.5
_LEAST_PAUSE: Final = 0.5
_REFUSED_FOR: Final = 5.0
"""Seconds for which a refused login is not repeated: a server counts refusals, and may lock the account."""


class Tokens:
    """Holds a driver's token. Safe for threads: if several need a token, one of them logs in for all.

    A background thread renews a token that expires. It ends with `close`, or when this object is deleted.
    """

    def __init__(self, client: Client, login: Login) -> None:
        self._client, self._login = client, login
        self._lock = threading.Lock()
        self._grant: Grant | None = None
        self._login_under_way: Outcome[Grant] | None = None
        self._learnt = not login.learns
        self._learn_at: float | None = None
        self._renewal = Background("vault", self._next_step)
        self._owes_thread = False
        self._refusal: VaultFailure | None = None
        self._refused_until = 0.0
        self._closed = False

    def grant(self) -> Grant:
        """Return the token, logging in if there is none. Raises `VaultFailure`."""
        return self._grant or self._replace(None)

    def after_refusal(self, refused: Grant) -> Grant | None:
        """Return another token if the server no longer accepts this one; None if it does, so that access is denied.

        Raises `VaultFailure`, of kind UNAUTHENTICATED if the token is invalid and there is no other.
        """
        if self._grant is refused and self._is_valid(refused):
            return None
        return self._replace(refused)

    def learn(self) -> None:
        """Have the background thread find out when a configured token expires. Call it after a successful request.

        It does so once, half a second later, which saves the request in programs that end sooner. If the system
        could not start the thread before, this tries again.
        """
        if self._grant is None or (self._learnt and not self._owes_thread):
            return
        with self._lock:
            if self._closed:
                return
            if not self._learnt:
                self._learnt, self._learn_at = True, time.monotonic() + _LEARN_AFTER
        self._wake()

    def close(self) -> None:
        """End the renewal. May be called twice."""
        with self._lock:
            self._closed = True
        self._renewal.close()

    def _is_valid(self, grant: Grant) -> bool:
        try:
            self._request("GET", "auth/token/lookup-self", grant)
        except VaultFailure as failure:
            if failure.kind is not ErrorKind.ACCESS_DENIED:
                raise
            return failure.denied
        return True

    def _request(self, method: Literal["GET", "POST"], path: str, grant: Grant) -> Mapping[str, Any]:
        """Send a request about the token itself, in the token's own namespace."""
        return self._client.request(method, path, token=grant.token, namespace=self._login.namespace)

    # --- one login for all ------------------------------------------------------------------------

    def _replace(self, old: Grant | None) -> Grant:
        with self._lock:
            if self._grant is not None and self._grant is not old:
                return self._grant
            if self._refusal is not None and time.monotonic() < self._refused_until:
                raise self._refusal.again()
            login, leads = self._login_under_way, self._login_under_way is None
            if login is None:
                login = self._login_under_way = Outcome()
        if leads:
            return self._log_in(login, old)
        if not login.wait(left()):
            raise VaultFailure(ErrorKind.TIMEOUT, "timeout")
        if isinstance(login.error, VaultFailure):
            raise login.error.again()
        return login.get()

    def _log_in(self, login: Outcome[Grant], old: Grant | None) -> Grant:
        failure = VaultFailure(ErrorKind.UNAVAILABLE, "login-interrupted")
        try:
            grant = self._login(self._client)
            if old is not None and grant.token.reveal() == old.token.reveal():
                raise VaultFailure(
                    ErrorKind.UNAUTHENTICATED, "token-refused", remedy=self._login.when_refused
                )
            self._adopt(grant)
        except VaultFailure as error:
            failure = error.again()
            if self._login.fixed and error.kind is ErrorKind.UNAUTHENTICATED:
                self._refusal, self._refused_until = error.again(), time.monotonic() + _REFUSED_FOR
            raise
        else:
            login.set(grant)
            return grant
        finally:
            with self._lock:
                self._login_under_way = None
            login.set(None, failure)  # does nothing after `login.set(grant)`

    def _adopt(self, grant: Grant) -> None:
        with self._lock:
            self._grant = grant
        if grant.ttl > 0:
            self._wake()

    def _wake(self) -> None:
        # If the system cannot start a thread, the token is used all the same.
        self._owes_thread = not self._renewal.wake()

    # --- in the thread ----------------------------------------------------------------------------

    def _next_step(self) -> float | None:
        """Renew the token if that is due. Return the seconds until the next step, or None if nothing is left to do."""
        if self._learn_at is not None:
            pause = self._learn_at - time.monotonic()
            if pause > 0 and not self._closed:
                return pause
            self._look_up_ttl()
        grant = self._grant
        if grant is not None and grant.ttl > 0 and time.monotonic() >= _due(grant):
            with contextlib.suppress(VaultFailure, TimeoutError):
                self._renew(grant)
        now = time.monotonic()
        with self._lock:
            after = self._grant
            ended = after is None or after.ttl <= 0 or now >= after.born + after.ttl
            if self._closed or after is None or ended:
                return None
        if after is grant and now >= _due(grant):
            return max(
                (grant.born + grant.ttl - now) / 4, _LEAST_PAUSE
            )  # it failed: try again before the end
        return max(_due(after) - now, _LEAST_PAUSE)

    def _look_up_ttl(self) -> None:
        self._learn_at, grant = None, self._grant
        if grant is None or self._closed:
            return
        with contextlib.suppress(VaultFailure, TimeoutError), within(_RENEWAL):
            data = self._request("GET", "auth/token/lookup-self", grant).get("data")
            if isinstance(data, dict) and data.get("renewable") is True and not data.get("num_uses"):
                ttl = number(data.get("ttl"))
                self._adopt(Grant(grant.token, ttl, renewable=True, full=number(data.get("creation_ttl"))))

    def _renew(self, grant: Grant) -> None:
        with within(_RENEWAL):
            renewed = self._renewed(grant) if grant.renewable else None
            if renewed is not None and renewed.ttl >= grant.full * _NEAR_ITS_END:
                self._adopt(renewed)
                return
            try:
                self._replace(grant)
            except VaultFailure:
                if renewed is None or renewed.ttl <= _LEAST_PAUSE:
                    raise
                self._adopt(renewed)

    def _renewed(self, grant: Grant) -> Grant | None:
        try:
            answer = self._request("POST", "auth/token/renew-self", grant)
        except VaultFailure as failure:
            if failure.kind not in (ErrorKind.ACCESS_DENIED, ErrorKind.INVALID_REQUEST):
                raise
            return None
        renewed = grant_of(answer)
        return Grant(grant.token, renewed.ttl, renewed.renewable, grant.full)


def _due(grant: Grant) -> float:
    return grant.born + grant.ttl * _DUE
