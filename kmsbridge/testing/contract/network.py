"""Group 6: what the network does to a call is told apart, ends in time, and is over when it is over."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from unittest import mock

import pytest

from kmsbridge.calls import Key
from kmsbridge.driver import Capability, WrappedKey
from kmsbridge.errors import KmsError, KmsThrottled, KmsTimeout, KmsUnavailable
from kmsbridge.policy import CallPolicy
from kmsbridge.testing.contract.base import Cases, Keys, T, bound, needs, refused
from kmsbridge.testing.contract.refusals import CALLS, Call, every_call
from kmsbridge.testing.contract.watch import network_events_of
from kmsbridge.testing.harness import Fault, Harness, Misdirection

FAILURES: Final = tuple(fault for fault in Fault if fault is not Fault.DELAY)
SLOW: Final = (Fault.HANG, Fault.TRICKLE)
ERRORS: Final[dict[Fault, tuple[type[KmsError], ...]]] = {
    **dict.fromkeys(FAILURES, (KmsUnavailable,)),
    **dict.fromkeys(SLOW, (KmsTimeout,)),
    Fault.THROTTLED: (KmsThrottled,),
    Fault.GATEWAY_TIMEOUT: (KmsUnavailable, KmsTimeout),
}
IMPATIENT: Final = CallPolicy(attempt_timeout=0.25, deadline=0.5, max_attempts=3)
PATIENT: Final = CallPolicy(attempt_timeout=5, deadline=30, max_attempts=3)
MAX_OVERRUN: Final = 1.2
NOISE: Final = 1.5
"""Seconds that a busy machine may add to any call."""

every_fault = pytest.mark.parametrize("fault", FAILURES, ids=lambda fault: fault.value)
every_misdirection = pytest.mark.parametrize("why", Misdirection, ids=lambda why: why.value)


class NetworkCases(Cases):
    """Faults between an open driver and its service, and services that are not where they should be."""

    @needs("break_network")
    @every_call
    @every_fault
    def test_fault_is_told_and_survived(
        self, harness: Harness, keys: Keys, plaintext: bytes, fault: Fault, call: Call
    ) -> None:
        """The right class, after the attempts that are told and no others, within the deadline.

        The same object works when the fault is over.
        """
        policy = IMPATIENT if fault in SLOW else PATIENT
        key = keys.open(policy=policy)
        wrapped = keys.open().wrap(plaintext, bound())
        assert key.key_id == wrapped.key_id
        harness.break_network(fault)
        error, seconds = _failure(key, wrapped, call, fault)
        arrivals = harness.arrivals()
        harness.heal_network()
        assert seconds <= policy.deadline * MAX_OVERRUN + NOISE
        if error is not None:
            assert arrivals <= error.attempts, "something beneath the library tries again"
            assert fault in SLOW or error.attempts == policy.max_attempts
        assert keys.open().unwrap(wrapped, bound()) == plaintext
        assert _again(lambda: key.unwrap(wrapped, bound())) == plaintext
        assert _again(lambda: key.wrap(plaintext, bound())).key_id == key.key_id

    @needs("break_network")
    @pytest.mark.parametrize(
        "fault", [each for each in FAILURES if each not in SLOW], ids=lambda fault: fault.value
    )
    def test_passing_fault_is_overcome(
        self, harness: Harness, keys: Keys, plaintext: bytes, fault: Fault
    ) -> None:
        """A fault that is over at the second attempt is no failure."""
        key = keys.at(harness.address("first"), PATIENT, sleep=lambda _: harness.heal_network())
        wrapped = key.wrap(plaintext, bound())
        harness.break_network(fault)
        assert key.unwrap(wrapped, bound()) == plaintext
        assert key.last_answer.attempts == 2  # noqa: PLR2004

    @needs("break_network")
    @every_call
    @pytest.mark.parametrize("fault", [Fault.REFUSED], ids=lambda fault: fault.value)
    def test_attempt_connects_once(
        self, harness: Harness, keys: Keys, plaintext: bytes, fault: Fault, call: Call
    ) -> None:
        """Nothing arrives where connections are refused, so the client's side is counted."""
        key = keys.open(policy=PATIENT)
        wrapped = keys.open().wrap(plaintext, bound())
        assert key.key_id == wrapped.key_id
        harness.break_network(fault)
        events = network_events_of(lambda: _failure(key, wrapped, call, fault))
        connects = Counter(each for each in events if each.startswith("socket.connect "))
        assert max(connects.values(), default=0) <= PATIENT.max_attempts

    @needs("break_network")
    @every_call
    @pytest.mark.parametrize("fault", [Fault.DELAY], ids=lambda fault: fault.value)
    def test_late_answer_is_waited_for(
        self, harness: Harness, keys: Keys, plaintext: bytes, fault: Fault, call: Call
    ) -> None:
        """Well within the timeout it is a success, of the first attempt."""
        key = keys.open(policy=PATIENT)
        wrapped = keys.open().wrap(plaintext, bound())
        assert key.key_id == wrapped.key_id
        harness.break_network(fault)
        assert call(key, wrapped)
        assert key.last_answer.attempts == 1

    @needs("misdirected")
    @every_call
    @every_misdirection
    def test_unreachable_service_is_told(
        self, harness: Harness, keys: Keys, plaintext: bytes, why: Misdirection, call: Call
    ) -> None:
        """`KmsUnavailable`, by a driver that opened without complaint."""
        wrapped = keys.open().wrap(plaintext, bound())
        with _no_invalid_host():
            key = keys.at(harness.misdirected(why), PATIENT)
            if not _needs_no_network(key, call):
                refused(lambda: call(key, wrapped), KmsUnavailable)


def _failure(key: Key, wrapped: WrappedKey, call: Call, fault: Fault) -> tuple[KmsError | None, float]:
    """The error and how long it took; none for what needs no network."""
    started = time.monotonic()
    if _needs_no_network(key, call):
        call(key, wrapped)
        return None, 0.0
    error = refused(lambda: call(key, wrapped), *ERRORS[fault])
    assert isinstance(error, KmsError)
    return error, time.monotonic() - started


def _again(call: Callable[[], T]) -> T:
    """The result of a call that should work again, though an impatient one may find the machine busy."""
    for _ in range(9):
        with contextlib.suppress(KmsTimeout):
            return call()
    return call()


def _needs_no_network(key: Key, call: Call) -> bool:
    return call is CALLS["wrap"] and Capability.LOCAL_WRAP in key.capabilities


def _no_invalid_host() -> Any:
    """Names under .invalid are not found at once (RFC 6761), whatever the machine's resolver does."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "name not known")
        return real(host, *rest, **options)

    return mock.patch.object(socket, "getaddrinfo", getaddrinfo)
