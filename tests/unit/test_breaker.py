"""The breaker: when a failing service is left alone, and how it is found well again."""

import pytest

from kmsbridge import errors
from kmsbridge.context import EncryptionContext
from kmsbridge.driver import ErrorKind, KeyURI, Options
from kmsbridge.keys import ManagedKey
from kmsbridge.keys.breaker import LEAST, PAUSE, WINDOW, Breaker
from kmsbridge.policy import CallPolicy
from kmsbridge.testing import FakeDriver, FakeKeyPair, FakeService, PublicKeyFakeDriver
from tests.support import Clock

CONTEXT = EncryptionContext.of({})
DATA_KEY = bytes(range(32))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker(clock)


def call(breaker, *outcomes):
    for succeeded in outcomes:
        (breaker.succeeded if succeeded else breaker.failed)()


def test_it_opens_at_half_of_twenty_calls(breaker):
    """Not at nineteen, and not while more than half succeed."""
    call(breaker, *[True] * 10, *[False] * 9)
    assert breaker.allows()
    call(breaker, False)
    assert not breaker.allows()


def test_it_stays_closed_while_most_calls_succeed(breaker):
    call(breaker, *[True, True, False] * 100)
    assert breaker.allows()


def test_it_opens_at_twenty_failures_in_a_row(breaker):
    """However many calls succeeded just before."""
    call(breaker, *[True] * 2000, *[False] * (LEAST - 1), True, *[False] * (LEAST - 1))
    assert breaker.allows()
    call(breaker, False)
    assert not breaker.allows()


def test_only_the_last_ten_seconds_count(breaker, clock):
    """Nineteen failures of long ago and one of now are no outage."""
    call(breaker, *[False] * (LEAST - 1))
    clock.now += WINDOW + 1
    call(breaker, False)
    assert breaker.allows()


def test_one_probe_goes_through_about_every_five_seconds(breaker, clock):
    call(breaker, *[False] * LEAST)
    assert not breaker.allows()
    clock.now += PAUSE * 1.2
    assert [breaker.allows() for _ in range(5)] == [True, False, False, False, False]
    breaker.failed()
    assert not breaker.allows()
    clock.now += PAUSE * 1.2
    assert breaker.allows()


def test_a_probe_that_succeeds_closes_it(breaker, clock):
    """And what failed before is forgotten."""
    call(breaker, *[False] * LEAST)
    clock.now += PAUSE * 1.2
    assert breaker.allows()
    breaker.succeeded()
    assert all(breaker.allows() for _ in range(5))
    call(breaker, *[False] * (LEAST // 2 - 1))
    assert breaker.allows()


def test_a_probe_whose_caller_was_lost_keeps_nobody_out_for_long(breaker, clock):
    """Interrupted, it never told an outcome."""
    call(breaker, *[False] * LEAST)
    clock.now += PAUSE * 1.2
    assert breaker.allows()
    clock.now += PAUSE * 1.2
    assert breaker.allows()


@pytest.fixture
def service():
    service = FakeService()
    service.app = service.create("app")
    return service


@pytest.fixture
def key(service, clock):
    driver = type("Driver", (FakeDriver,), {"service": service})
    uri = KeyURI.parse("fake:app")
    policy = CallPolicy(max_attempts=1)
    return ManagedKey("app", lambda: driver.open(uri, Options({})), policy, clock=clock, sleep=clock.sleep)


def test_an_open_breaker_answers_at_once_and_says_why(service, key, clock):
    """Which key, that nothing was tried, for how long it has failed, and when it will be asked again."""
    service.app.fail("wrap", ErrorKind.UNAVAILABLE)
    for _ in range(LEAST):
        with pytest.raises(errors.KmsUnavailable):
            key.wrap(DATA_KEY, CONTEXT)
        clock.now += 0.25
    with pytest.raises(
        errors.KmsUnavailable, match=r"wrap with fake:app: not tried.* for 5 s;.* in [45] s"
    ) as caught:
        key.wrap(DATA_KEY, CONTEXT)
    assert caught.value.attempts == 0
    assert service.app.calls["wrap"] == LEAST - 1  # finding out the key's id was a call too


def test_the_service_is_found_well_again(service, key, clock):
    """By the first call after a pause."""
    service.app.fail("wrap", ErrorKind.TIMEOUT)
    for _ in range(2 * LEAST):
        with pytest.raises(errors.KmsError):
            key.wrap(DATA_KEY, CONTEXT)
    service.app.heal()
    clock.now += PAUSE * 1.2
    assert key.wrap(DATA_KEY, CONTEXT)
    assert key.wrap(DATA_KEY, CONTEXT)


@pytest.mark.parametrize(
    "kind",
    [ErrorKind.ACCESS_DENIED, ErrorKind.KEY_DISABLED, ErrorKind.KEY_NOT_FOUND, ErrorKind.UNAUTHENTICATED],
    ids=lambda kind: kind.name,
)
def test_a_service_that_refuses_is_not_a_service_that_fails(service, key, kind):
    """However often it does."""
    service.app.fail("wrap", kind)
    for _ in range(5 * LEAST):
        with pytest.raises(errors.KmsError):
            key.wrap(DATA_KEY, CONTEXT)
    assert service.app.calls["wrap"] == 5 * LEAST
    assert not key.unhealthy


def test_retries_end_when_the_breaker_opens(service, clock):
    """A call that is under way makes no further attempt."""
    driver = type("Driver", (FakeDriver,), {"service": service})
    uri = KeyURI.parse("fake:app")
    key = ManagedKey(
        "app",
        lambda: driver.open(uri, Options({})),
        CallPolicy(max_attempts=10),
        clock=clock,
        sleep=clock.sleep,
    )
    service.app.fail("wrap", ErrorKind.UNAVAILABLE)
    for _ in range(LEAST):
        with pytest.raises(errors.KmsUnavailable):
            key.wrap(DATA_KEY, CONTEXT)
    assert service.app.calls["wrap"] <= LEAST + 2


def test_wrapping_here_does_not_wait_for_the_service(clock):
    """A pinned public key needs none; nor does it say that the service is well."""
    options = {"public_key": FakeKeyPair("pinned").public_pem}
    uri = KeyURI.parse("fake-public:pinned")
    key = ManagedKey(
        "app", lambda: PublicKeyFakeDriver.open(uri, Options(options)), clock=clock, sleep=clock.sleep
    )
    call(key._calls.health.breaker, *[False] * LEAST)
    assert key.wrap(DATA_KEY, CONTEXT).ciphertext
    assert key.unhealthy
    assert not key._calls.health.breaker.allows()
