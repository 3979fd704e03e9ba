"""Throttling: a service that refuses because of the rate costs latency, and is no outage."""

import heapq
import itertools
import random
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kmsbridge import errors
from kmsbridge.clock import Deadline
from kmsbridge.context import EncryptionContext
from kmsbridge.driver import ErrorKind, KeyURI, Options
from kmsbridge.keys import ManagedKey
from kmsbridge.keys.breaker import LEAST
from kmsbridge.keys.limiter import LOOKS, SENDS, Limiter, Turns
from kmsbridge.policy import CallPolicy
from kmsbridge.testing import CallLog
from kmsbridge.testing.fakes.fake import FakeDriver
from kmsbridge.testing.fakes.service import FakeError
from tests.support import Clock

CONTEXT = EncryptionContext.of({})
DATA_KEY = bytes(range(32))
SEEDS = range(6)


class Simulation:
    """Calls in a time of their own, each as `Tries` makes it: looks, sends, waits, within its deadline."""

    def __init__(self, seed, takes, *, clients=1, latency=0.02, deadline=10.0):
        self.now = 0.0
        self.random = random.Random(seed)
        self.sent, self.answered, self.refused = [], [], 0
        self._takes, self._latency, self._deadline = takes, latency, deadline
        self._limiters = [Limiter(lambda: self.now, self.random.uniform) for _ in range(clients)]
        self._events, self._numbers = [], itertools.count()

    def run(self, calls, rate):
        for number in range(calls):
            limiter = self._limiters[number % len(self._limiters)]
            self._at(number / rate, lambda limiter=limiter: self._call(limiter))
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            event()
        return self

    def _at(self, when, event):
        heapq.heappush(self._events, (when, next(self._numbers), event))

    def _call(self, limiter):
        turns, end = Turns(limiter), self.now + self._deadline

        def after(pause):
            if pause is None or self.now + pause >= end:
                self.refused += 1
            else:
                self._at(self.now + pause, look)

        def look():
            pause = turns.wait()
            if pause == 0.0:
                self.sent.append(self.now)
                taken = self._takes(self)
                self._at(self.now + self._latency, lambda: come_back(taken))
            else:
                after(pause)

        def come_back(taken):
            limiter.answered(throttled=not taken)
            if taken:
                self.answered.append(self.now)
            else:
                after(turns.throttled())

        look()


def now_and_then(share):
    """A service that refuses this share of the calls, whatever their rate."""
    return lambda simulation: simulation.random.random() >= share


def quota(rate):
    """A service that takes so many calls in a second, from everybody together."""
    tokens, since = rate, 0.0

    def takes(simulation):
        nonlocal tokens, since
        tokens, since = min(rate, tokens + (simulation.now - since) * rate), simulation.now
        if tokens < 1:
            return False
        tokens -= 1
        return True

    return takes


def in_each_second(times, begin, end):
    return [sum(second <= when < second + 1 for when in times) for second in range(begin, end)]


@pytest.mark.parametrize(("share", "least"), ((0.5, 340), (0.7, 190)))
def test_calls_that_are_refused_half_of_the_time_get_through(share, least):
    """Of 400, at 25 a second: the median of six."""
    answered = [len(Simulation(seed, now_and_then(share)).run(400, 25).answered) for seed in SEEDS]
    assert statistics.median(answered) >= least


@pytest.mark.parametrize("clients", (1, 20))
@pytest.mark.parametrize("latency", (0.01, 0.2))
def test_a_quota_is_used_up_and_not_stormed(clients, latency):
    """100 a second where 1,000 are offered: all of it is used, in every second, by few sends a success."""
    seen = Simulation(1, quota(100), clients=clients, latency=latency).run(30_000, 1000)
    answered, sent = in_each_second(seen.answered, 5, 30), in_each_second(seen.sent, 5, 30)
    assert min(answered) >= 95
    assert max(answered) <= 105
    assert sum(sent) < 4 * sum(answered)
    assert max(sent) < 2.5 * statistics.median(sent)  # no waves
    assert min(sent) > 0.4 * statistics.median(sent)


def test_a_service_that_recovers_is_used_in_full_soon():
    """Refusing everything for a minute leaves no trace ten seconds later."""
    seen = Simulation(1, lambda simulation: not 5 <= simulation.now < 65).run(25 * 90, 25)
    assert sum(in_each_second(seen.answered, 75, 90)) >= 25 * 15 * 0.98
    assert max(in_each_second(seen.sent, 15, 65)) <= 15


def test_who_is_not_throttled_never_waits_and_nothing_is_counted():
    """However many calls are under way, answered, or failing otherwise."""
    limiter = Limiter(Clock())
    before = dict(vars(limiter))
    for _ in range(1000):
        assert limiter.allows()
        limiter.answered(throttled=False)
    assert vars(limiter) == before


def test_a_limiter_forgets(monkeypatch):
    """Refusals of half a minute ago slow nobody down."""
    clock = Clock()
    limiter = Limiter(clock)
    for _ in range(1000):
        limiter.answered(throttled=True)
    assert not all(limiter.allows() for _ in range(20))
    clock.now += 30
    assert all(limiter.allows() for _ in range(1000))


# --- in a key -------------------------------------------------------------------------------------


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log():
    """The calls that ended."""
    return CallLog()


@pytest.fixture
def key(service, clock, log):
    driver = type("Driver", (FakeDriver,), {"service": service})
    uri = KeyURI.parse("fake:app")
    return ManagedKey(
        "app", lambda: driver.open(uri, Options({})), observer=log, clock=clock, sleep=clock.sleep
    )


@pytest.fixture
def wrapped(key):
    return key.wrap(DATA_KEY, CONTEXT)


def test_throttling_is_no_outage(service, key, wrapped):
    """It never opens the breaker, makes the key no unhealthy one, and spends none of the retries."""
    service.app.fail("unwrap", ErrorKind.THROTTLED)
    for _ in range(5 * LEAST):
        with pytest.raises(errors.KmsThrottled):
            key.unwrap(wrapped, CONTEXT)
        assert not key.unhealthy
        assert key._calls.health.breaker.allows()
    assert key._calls.health.budget._savings == 10.0


def test_a_refused_call_is_sent_five_times_and_told_so(service, key, wrapped, log):
    """How often it was sent, for how long, and what to do."""
    service.app.fail("unwrap", ErrorKind.THROTTLED)
    with pytest.raises(
        errors.KmsThrottled,
        match=rf"unwrap with fake:app: .* after {SENDS} attempts in \d\.\d s .*raise the quota",
    ) as caught:
        key.unwrap(wrapped, CONTEXT)
    assert caught.value.attempts == service.app.calls["unwrap"] == log.last.attempts == SENDS
    assert caught.value.request_id.startswith("fake-")


def test_refusals_are_no_attempts_of_the_three(service, key, wrapped, log):
    """Four of them, and an outage twice, and there is an answer."""
    kinds = [ErrorKind.THROTTLED] * 2 + [ErrorKind.UNAVAILABLE] * 2 + [ErrorKind.THROTTLED] * 2
    service.before = lambda operation: fail(kinds.pop(0)) if kinds else None
    assert key.unwrap(wrapped, CONTEXT) == DATA_KEY
    assert log.last.attempts == 7


def fail(kind):
    raise FakeError(kind)


def test_a_call_that_is_not_let_through_says_that_it_was_not_sent(service, clock, key, wrapped):
    """After six looks, within the deadline; `attempts` is 0."""
    for _ in range(100_000):
        key._calls.health.limiter.answered(throttled=True)
    before, began = service.app.calls["unwrap"], clock.now
    clock.slept.clear()
    with pytest.raises(
        errors.KmsThrottled, match=r"unwrap with fake:app: not sent, .*rate, in \d\.\d s; raise the quota"
    ) as caught:
        key.unwrap(wrapped, CONTEXT)
    assert caught.value.attempts == 0
    assert service.app.calls["unwrap"] == before
    assert len(clock.slept) == LOOKS - 1
    assert all(0 <= pause <= 1 for pause in clock.slept)
    assert clock.now - began < 10


def test_nobody_waits_for_a_turn_past_the_deadline(service, clock, key, wrapped):
    """It is told at once where the wait would be too long."""
    service.app.fail("unwrap", ErrorKind.THROTTLED)
    for _ in range(50):
        deadline, began = Deadline(0.3, clock), clock.now
        with pytest.raises(errors.KmsThrottled):
            key.unwrap(wrapped, CONTEXT, deadline=deadline)
        assert clock.now - began <= 0.3


def test_where_another_key_may_serve_nobody_waits(service, clock, key, wrapped):
    """One attempt is one: refused, or not let through, it is over."""
    service.app.fail("unwrap", ErrorKind.THROTTLED)
    clock.slept.clear()
    for _ in range(50):
        with pytest.raises(errors.KmsThrottled) as caught:
            key.unwrap(wrapped, CONTEXT, attempts=1)
        assert caught.value.attempts <= 1
    assert clock.slept == []
    assert 5 <= service.app.calls["unwrap"] < 45


def test_a_batch_is_limited_as_well(service, key, wrapped, log):
    """It is one call."""
    service.app.fail("unwrap_many", ErrorKind.THROTTLED, times=3)
    assert key.unwrap_many([(wrapped, CONTEXT)] * 2) == [DATA_KEY] * 2
    assert log.last.attempts == 4


@pytest.mark.slow
def test_half_of_the_calls_throttled_costs_latency_and_not_the_service(service):
    """400 calls at 25 a second by real threads, in real time."""
    driver = type("Driver", (FakeDriver,), {"service": service})
    key = ManagedKey("app", lambda: driver.open(KeyURI.parse("fake:app"), Options({})), CallPolicy())
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    lock, chance = threading.Lock(), random.Random(7)

    def before(_):
        with lock:
            refused = chance.random() < 0.5
        if refused:
            fail(ErrorKind.THROTTLED)

    service.before = before
    began = time.monotonic()

    def call(number):
        time.sleep(max(0.0, began + number / 25 - time.monotonic()))
        try:
            return key.unwrap(wrapped, CONTEXT) == DATA_KEY
        except errors.KmsThrottled:
            return False

    with ThreadPoolExecutor(100) as pool:
        assert sum(pool.map(call, range(400))) >= 340
    key.close()
