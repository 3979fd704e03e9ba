"""Group 6: faults of the network give the right error, within the deadline, and leave the driver usable."""

from __future__ import annotations

import contextlib
import socket
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Literal
from unittest import mock

import pytest

from kmsbridge.driver import ErrorKind, WrappedKey
from kmsbridge.errors import KmsError, KmsThrottled, KmsTimeout, KmsUnavailable
from kmsbridge.keys import ManagedKey
from kmsbridge.keys.limiter import SENDS
from kmsbridge.policy import CallPolicy
from kmsbridge_testing.contract.base import Cases, Keys, T, bound, kind_of, needs, refused
from kmsbridge_testing.contract.refusals import Call, every_call, needs_no_service
from kmsbridge_testing.contract.watch import network_events_of
from kmsbridge_testing.harness import Fault, Harness, Misdirection

OVERCOME: Final = (Fault.DELAY, Fault.STALE, Fault.VANISHED)
FAILURES: Final = tuple(fault for fault in Fault if fault not in OVERCOME)
SLOW: Final = (Fault.HANG, Fault.TRICKLE, Fault.STALLED, Fault.CONTINUE, Fault.EARLY_HINTS)
ENDLESS: Final = (Fault.ENDLESS_BODY, Fault.ENDLESS_HEAD)
REDIRECTS: Final = (Fault.REDIRECT, Fault.REDIRECT_307)
EITHER: Final = (KmsUnavailable, KmsTimeout)
ERRORS: Final[dict[Fault, tuple[type[KmsError], ...]]] = {
    **dict.fromkeys(FAILURES, (KmsUnavailable,)),
    **dict.fromkeys((Fault.HANG, Fault.TRICKLE, Fault.STALLED), (KmsTimeout,)),
    **dict.fromkeys((Fault.CONTINUE, Fault.EARLY_HINTS, *ENDLESS), EITHER),
    **dict.fromkeys((Fault.REQUEST_TIMEOUT, Fault.GATEWAY_TIMEOUT), EITHER),
    Fault.THROTTLED: (KmsThrottled,),
}
"""The errors of each fault, all of which are retried: an answer that is not the service's is never a refusal."""
IMPATIENT: Final = CallPolicy(attempt_timeout=0.25, deadline=0.5, max_attempts=3)
PATIENT: Final = CallPolicy(attempt_timeout=5, deadline=30, max_attempts=3)
BRISK: Final = CallPolicy(attempt_timeout=1, deadline=10, max_attempts=3)
MAX_OVERRUN: Final = 1.2
NOISE: Final = 1.5
"""The seconds that a busy machine may add to a call."""
MAX_ATTEMPTS_WHILE_LOADING: Final = 12
"""The most attempts that are made until one arrives, while a driver may be loading its client."""
MAX_MEMORY: Final = 2**26
"""The most bytes of memory that a call may use for an endless answer."""

every_fault = pytest.mark.parametrize("fault", FAILURES, ids=lambda fault: fault.value)
every_misdirection = pytest.mark.parametrize("why", Misdirection, ids=lambda why: why.value)


class NetworkCases(Cases):
    """Cases for faults between an open driver and its service, and for addresses where there is no service."""

    @needs("break_network")
    @every_call
    @every_fault
    def test_fault_is_told_and_survived(
        self, harness: Harness, keys: Keys, plaintext: bytes, fault: Fault, call: Call
    ) -> None:
        """The error is of the right class, after as many requests as it says, within the deadline.

        The same driver works when the fault is over.
        """
        policy = IMPATIENT if fault in (*SLOW, *ENDLESS) else PATIENT
        key = keys.open(policy=policy)
        wrapped = keys.open().wrap(plaintext, bound())
        assert key.key_id == wrapped.key_id
        harness.break_network(fault)
        error, seconds = _failure(key, wrapped, call, fault)
        attempts = error.attempts if error else 0
        while (
            error and policy is IMPATIENT and not harness.arrivals() and attempts < MAX_ATTEMPTS_WHILE_LOADING
        ):
            # The driver may have been loading its client. What it began meanwhile may arrive now, so it counts.
            error, seconds = _failure(key, wrapped, call, fault)
            attempts += error.attempts if error else 0
        arrivals = harness.arrivals()
        harness.heal_network()
        assert seconds <= policy.deadline * MAX_OVERRUN + NOISE
        if error is not None:
            assert arrivals <= attempts, "the driver or its client retries; only the library may"
            assert arrivals or fault is Fault.REFUSED
            assert policy is IMPATIENT or error.attempts == _attempts(fault, policy)
        assert keys.open().unwrap(wrapped, bound()) == plaintext
        assert _again(lambda: key.unwrap(wrapped, bound())) == plaintext
        assert _again(lambda: key.wrap(plaintext, bound())).key_id == key.key_id

    @needs("break_network")
    @pytest.mark.parametrize(
        "fault", [fault for fault in FAILURES if fault not in SLOW], ids=lambda fault: fault.value
    )
    def test_passing_fault_is_overcome(
        self, harness: Harness, keys: Keys, plaintext: bytes, fault: Fault
    ) -> None:
        """A call succeeds if the fault is over at the second attempt."""
        key = keys.at(harness.address("first"), PATIENT, sleep=lambda _: harness.heal_network())
        wrapped = key.wrap(plaintext, bound())
        harness.break_network(fault)
        assert key.unwrap(wrapped, bound()) == plaintext
        assert keys.calls.last.attempts == 2  # noqa: PLR2004

    @needs("break_network")
    @every_call
    @pytest.mark.parametrize("fault", [Fault.REFUSED], ids=lambda fault: fault.value)
    def test_attempt_connects_once(
        self, harness: Harness, keys: Keys, plaintext: bytes, fault: Fault, call: Call
    ) -> None:
        """Each attempt connects at most once; counted at the client, because refused connections do not arrive."""
        key = keys.open(policy=PATIENT)
        wrapped = keys.open().wrap(plaintext, bound())
        assert key.key_id == wrapped.key_id
        harness.break_network(fault)
        events = network_events_of(lambda: _failure(key, wrapped, call, fault))
        connects = Counter(event for event in events if event.startswith("socket.connect "))
        assert max(connects.values(), default=0) <= PATIENT.max_attempts

    @needs("break_network")
    @every_call
    @pytest.mark.parametrize("fault", [Fault.DELAY], ids=lambda fault: fault.value)
    def test_late_answer_is_waited_for(
        self, harness: Harness, keys: Keys, plaintext: bytes, fault: Fault, call: Call
    ) -> None:
        """An answer that is late but well within the timeout is a success of the first attempt."""
        key = keys.open(policy=PATIENT)
        wrapped = keys.open().wrap(plaintext, bound())
        assert key.key_id == wrapped.key_id
        harness.break_network(fault)
        assert call(key, wrapped)
        assert keys.calls.last.attempts == 1

    @needs("break_network")
    @every_call
    @pytest.mark.parametrize("fault", [Fault.STALE, Fault.VANISHED], ids=lambda fault: fault.value)
    def test_dead_connection_is_replaced(
        self, harness: Harness, keys: Keys, plaintext: bytes, fault: Fault, call: Call
    ) -> None:
        """A kept connection that died meanwhile costs at most one more attempt, and no error."""
        key = keys.open(policy=BRISK)
        wrapped = key.wrap(plaintext, bound())
        assert key.unwrap(wrapped, bound()) == plaintext
        harness.break_network(fault)
        assert call(key, wrapped)
        # On a busy machine a silent connection may cost two attempts.
        assert fault is Fault.VANISHED or keys.calls.last.attempts <= 2  # noqa: PLR2004
        assert key.unwrap(wrapped, bound()) == plaintext

    @needs("break_network")
    @every_call
    @pytest.mark.parametrize("fault", REDIRECTS, ids=lambda fault: fault.value)
    def test_redirect_is_not_followed(
        self, harness: Harness, keys: Keys, plaintext: bytes, fault: Fault, call: Call
    ) -> None:
        """The other host gets no connection, and so neither the request nor the credentials."""
        key = keys.open(policy=PATIENT)
        wrapped = key.wrap(plaintext, bound())
        harness.break_network(fault)
        _failure(key, wrapped, call, fault)
        assert harness.astray() == 0

    @needs("break_network")
    @every_call
    @pytest.mark.parametrize("fault", ENDLESS, ids=lambda fault: fault.value)
    def test_endless_answer_takes_little_memory(
        self, harness: Harness, keys: Keys, plaintext: bytes, fault: Fault, call: Call
    ) -> None:
        """An endless answer takes at most 64 MiB of memory, although there is time to read more."""
        key = keys.open(policy=CallPolicy(attempt_timeout=10, deadline=20, max_attempts=1))
        wrapped = key.wrap(plaintext, bound())
        harness.break_network(fault)
        tracemalloc.start()
        try:
            _failure(key, wrapped, call, fault)
            assert tracemalloc.get_traced_memory()[1] <= MAX_MEMORY
        finally:
            tracemalloc.stop()

    @needs("break_network")
    @every_call
    @pytest.mark.parametrize("fault", [Fault.HANG], ids=lambda fault: fault.value)
    def test_first_use_keeps_the_deadline(
        self, harness: Harness, keys: Keys, plaintext: bytes, fault: Fault, call: Call
    ) -> None:
        """The first call keeps the deadline, also if it has to find the key's id; the driver works afterwards."""
        wrapped = keys.open().wrap(plaintext, bound())
        key = keys.open(policy=IMPATIENT)
        harness.break_network(fault)
        _, seconds = _failure(key, wrapped, call, fault)
        harness.heal_network()
        assert seconds <= IMPATIENT.deadline * MAX_OVERRUN + NOISE
        assert _again(lambda: key.unwrap(wrapped, bound())) == plaintext

    @needs("break_network")
    @pytest.mark.parametrize("fault", [Fault.HANG], ids=lambda fault: fault.value)
    def test_resolve_keeps_its_timeout(self, harness: Harness, keys: Keys, fault: Fault) -> None:
        """`resolve` returns the id without a call or times out; afterwards the same driver returns the id."""
        driver, expected = keys.driver(), keys.open().key_id
        harness.break_network(fault)
        started = time.monotonic()
        try:
            assert driver.resolve(timeout=IMPATIENT.attempt_timeout) == expected
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 - the driver's own
            assert kind_of(driver, error, "resolve") is ErrorKind.TIMEOUT, repr(error)  # noqa: PT017 - or none is raised
        assert time.monotonic() - started <= IMPATIENT.attempt_timeout * MAX_OVERRUN + NOISE
        harness.heal_network()
        assert driver.resolve(timeout=PATIENT.attempt_timeout) == expected

    @needs("break_network")
    @pytest.mark.parametrize("operation", ["unwrap", "describe"])
    @pytest.mark.parametrize("fault", SLOW, ids=lambda fault: fault.value)
    def test_driver_keeps_its_timeout(
        self,
        harness: Harness,
        keys: Keys,
        plaintext: bytes,
        fault: Fault,
        operation: Literal["unwrap", "describe"],
    ) -> None:
        """The driver itself keeps the timeout: if the library must give up on it, its thread stays occupied."""
        driver, timeout = keys.driver(), IMPATIENT.attempt_timeout
        wrapped = driver.wrap(plaintext, bound(), timeout=PATIENT.attempt_timeout)
        arguments = (wrapped, bound()) if operation == "unwrap" else ()
        harness.break_network(fault)
        started = time.monotonic()
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's own
            getattr(driver, operation)(*arguments, timeout=timeout)
        assert time.monotonic() - started <= timeout * MAX_OVERRUN + NOISE
        kind = kind_of(driver, caught.value, operation)
        assert kind in (ErrorKind.TIMEOUT, ErrorKind.UNAVAILABLE), repr(caught.value)

    @needs("misdirected")
    @every_call
    @every_misdirection
    def test_unreachable_service_is_told(
        self, harness: Harness, keys: Keys, plaintext: bytes, why: Misdirection, call: Call
    ) -> None:
        """`open` succeeds, and the first call is a `KmsUnavailable`."""
        wrapped = keys.open().wrap(plaintext, bound())
        with _no_invalid_host():
            key = keys.at(harness.misdirected(why), PATIENT)
            if not needs_no_service(key, call):
                refused(lambda: call(key, wrapped), KmsUnavailable)


def _attempts(fault: Fault, policy: CallPolicy) -> int:
    """Return how many attempts the library makes: more for a throttled request, because the service works."""
    return SENDS if fault is Fault.THROTTLED else policy.max_attempts


def _failure(key: ManagedKey, wrapped: WrappedKey, call: Call, fault: Fault) -> tuple[KmsError | None, float]:
    """Return the call's error and how many seconds it took; None and 0 for a call that needs no network."""
    started = time.monotonic()
    if needs_no_service(key, call):
        call(key, wrapped)
        return None, 0.0
    error = refused(lambda: call(key, wrapped), *ERRORS[fault])
    assert isinstance(error, KmsError)
    return error, time.monotonic() - started


def _again(call: Callable[[], T]) -> T:
    """Return the result of a call that should work again, repeating it if a short timeout ends on a busy machine."""
    for _ in range(9):
        with contextlib.suppress(KmsTimeout):
            return call()
    return call()


def _no_invalid_host() -> Any:
    """Have lookups of names under .invalid (RFC 6761) fail at once, whatever the machine's resolver does."""
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "name not known")
        return real(host, *rest, **options)

    return mock.patch.object(socket, "getaddrinfo", getaddrinfo)
