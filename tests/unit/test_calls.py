"""One call to a driver: deadline, attempts, classes of error, and what a faulty driver cannot do to us."""

import traceback

import pytest

from kmsbridge import errors
from kmsbridge.clock import Deadline
from kmsbridge.context import EncryptionContext
from kmsbridge.driver import Capability, ErrorDetails, ErrorKind, KeyURI, Options, WrappedKey
from kmsbridge.keys import ManagedKey, retry
from kmsbridge.policy import CallPolicy
from kmsbridge.testing import CallLog
from kmsbridge.testing.fakes.fake import FakeDriver, UnboundFakeDriver
from tests.support import Clock

CONTEXT = EncryptionContext.of({"tenant": "acme"})
DATA_KEY = bytes(range(32))
RETRIED = {ErrorKind.UNAVAILABLE, ErrorKind.THROTTLED, ErrorKind.TIMEOUT}
CLASSES = {
    ErrorKind.UNAVAILABLE: errors.KmsUnavailable,
    ErrorKind.THROTTLED: errors.KmsThrottled,
    ErrorKind.TIMEOUT: errors.KmsTimeout,
    ErrorKind.ACCESS_DENIED: errors.KmsAccessDenied,
    ErrorKind.KEY_NOT_FOUND: errors.KmsKeyNotFound,
    ErrorKind.KEY_DISABLED: errors.KmsKeyDisabled,
    ErrorKind.INVALID_REQUEST: errors.KmsInvalidRequest,
    ErrorKind.UNAUTHENTICATED: errors.KmsUnauthenticated,
    ErrorKind.CREDENTIAL_MISUSED: errors.KmsCredentialMisused,
    ErrorKind.NOT_AUTHENTIC: errors.AuthenticationError,
    ErrorKind.TOO_LARGE: errors.LimitExceeded,
}


def attempts_of(kind):
    return 5 if kind is ErrorKind.THROTTLED else 3 if kind in RETRIED else 1


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log():
    """The calls that ended."""
    return CallLog()


@pytest.fixture
def open_key(service, clock, log):
    """Opens a `ManagedKey` on the fake service's key app, behind a driver class with these attributes changed."""

    def open_key(base=FakeDriver, policy=None, **changed):
        driver = type("Driver", (base,), {"service": service, **changed})
        uri = KeyURI.parse(f"{base.scheme}:app")
        return ManagedKey(
            "app",
            lambda: driver.open(uri, Options({})),
            policy,
            observer=log,
            clock=clock,
            sleep=clock.sleep,
        )

    return open_key


@pytest.mark.parametrize("kind", ErrorKind, ids=lambda kind: kind.name)
def test_each_kind_of_failure_is_its_own_class_and_says_what_to_do(service, open_key, kind):
    """The class, the key, the operation, the provider's code and request id, and a remedy."""
    service.app.fail("wrap", kind)
    key = open_key()
    assert key.key_id == "fake:app"
    with pytest.raises(CLASSES[kind]) as caught:
        key.wrap(DATA_KEY, CONTEXT)
    error = caught.value
    assert type(error) is CLASSES[kind]
    assert error.remedy
    if isinstance(error, errors.KmsError):
        assert (error.key_id, error.operation, error.provider_code) == ("fake:app", "wrap", kind.name)
        assert error.request_id.startswith("fake-")
        assert error.attempts == attempts_of(kind)
        assert "fake:app" in str(error)
        assert kind.name in str(error)


@pytest.mark.parametrize("kind", ErrorKind, ids=lambda kind: kind.name)
def test_only_what_may_pass_is_retried(service, open_key, kind):
    """Unavailable and timeout: three attempts; throttled five; every other once."""
    service.app.fail("wrap", kind)
    with pytest.raises(errors.KmsBridgeError):
        open_key().wrap(DATA_KEY, CONTEXT)
    assert service.app.calls["wrap"] == attempts_of(kind)


def test_a_retry_that_succeeds_is_an_answer(service, open_key, log):
    """With the number of attempts for the audit trail."""
    service.app.fail("wrap", ErrorKind.UNAVAILABLE, times=2)
    key = open_key()
    assert key.wrap(DATA_KEY, CONTEXT).key_id == "fake:app"
    assert log.last.attempts == 3
    assert log.last.request_id


def test_pauses_are_random_between_zero_and_a_growing_bound(service, clock, open_key):
    """Full jitter: up to 0.2 s, then 0.4, 0.8, and never beyond 1 s."""
    service.app.fail("wrap", ErrorKind.UNAVAILABLE)
    bounds = [0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    pauses = []
    for _ in range(100):
        clock.slept.clear()
        with pytest.raises(errors.KmsUnavailable):
            open_key(policy=CallPolicy(max_attempts=10, deadline=600.0)).wrap(DATA_KEY, CONTEXT)
        pauses.append(list(clock.slept))
    for bound, column in zip(bounds, zip(*pauses, strict=True), strict=True):
        assert all(0 <= pause <= bound for pause in column)
        assert min(column) < bound * 0.2
        assert max(column) > bound * 0.8


def test_the_deadline_bounds_all_attempts_together(clock, open_key):
    """An attempt gets what is left of it, and none is begun without time for its pause."""
    timeouts = []

    def slow(self, plaintext, context, *, timeout):
        timeouts.append(timeout)
        clock.now += timeout
        raise TimeoutError

    key = open_key(
        policy=CallPolicy(attempt_timeout=4.0, deadline=10.0, max_attempts=10),
        wrap=slow,
        classify=lambda self, error, operation: ErrorKind.TIMEOUT,
    )
    began = clock.now
    with pytest.raises(errors.KmsTimeout, match="3 attempts"):
        key.wrap(DATA_KEY, CONTEXT)
    assert timeouts[:2] == [4.0, 4.0]
    assert 0 < timeouts[2] < 2.0
    assert clock.now - began <= 10.0


def test_a_driver_never_gets_a_timeout_that_is_over(clock, open_key):
    """Even where a sleep took longer than asked for."""
    timeouts = []

    def failing(self, plaintext, context, *, timeout):
        timeouts.append(timeout)
        raise ConnectionError

    clock.sleep = lambda seconds: setattr(clock, "now", clock.now + 60)
    with pytest.raises(errors.KmsUnavailable):
        open_key(wrap=failing, classify=lambda self, error, operation: ErrorKind.UNAVAILABLE).wrap(
            DATA_KEY, CONTEXT
        )
    assert len(timeouts) == 2
    assert all(timeout > 0 for timeout in timeouts)


def fail_every_third(service, key, times):
    """As a service does that is in trouble and not down, so that the breaker stays closed; gives the failures."""
    failures = 0
    for number in range(times):
        if number % 3 == 0:
            service.app.fail("wrap", ErrorKind.UNAVAILABLE, times=1)
        try:
            key.wrap(DATA_KEY, CONTEXT)
        except errors.KmsUnavailable:
            failures += 1
    return failures


def test_a_service_in_trouble_gets_a_tenth_more_calls(service, open_key):
    """After the first few, retries are at most 10 % of the calls."""
    assert fail_every_third(service, open_key(), 1000) > 100
    assert 1000 < service.app.calls["wrap"] <= 1000 * 1.1 + 10


def test_retries_come_back_when_the_service_does(service, open_key):
    """Calls that succeed earn them again."""
    key = open_key()
    fail_every_third(service, key, 100)
    for _ in range(100):
        key.wrap(DATA_KEY, CONTEXT)
    service.app.calls.clear()
    service.app.fail("wrap", ErrorKind.UNAVAILABLE, times=2)
    key.wrap(DATA_KEY, CONTEXT)
    assert service.app.calls["wrap"] == 3


# --- faulty drivers -------------------------------------------------------------------------------


def answer(value):
    return lambda self, *arguments, **options: value


def sealed(length=48, key_id="fake:app", version="1"):
    return WrappedKey(key_id, version, b"c" * length)


FAULTS = {
    "another key's id": (sealed(key_id="fake:other"), "another key's id"),
    "the payload itself": (WrappedKey("fake:app", "1", DATA_KEY), "unencrypted"),
    "the payload inside": (WrappedKey("fake:app", "1", b"v1:" + DATA_KEY + b"."), "unencrypted"),
    "nothing": (None, "returned no"),
    "bytes": (b"c" * 48, "returned no"),
    "text for ciphertext": (WrappedKey("fake:app", "1", "c" * 48), "returned no"),
    "an empty ciphertext": (sealed(0), "does not fit"),
    "a ciphertext beyond the format": (sealed(16385), "does not fit"),
    "a version beyond the format": (sealed(version="é" * 128), "does not fit"),
}


@pytest.mark.parametrize(("value", "words"), FAULTS.values(), ids=FAULTS)
def test_a_wrong_answer_to_wrap_is_the_drivers_fault(open_key, value, words):
    """It never becomes a message."""
    with pytest.raises(errors.KmsError, match=f"faulty.*{words}"):
        open_key(wrap=answer(value)).wrap(DATA_KEY, CONTEXT)


@pytest.mark.parametrize("value", (None, "text", bytearray(32), 7), ids=("None", "str", "bytearray", "int"))
@pytest.mark.parametrize("base", (FakeDriver, UnboundFakeDriver), ids=("bound", "unbound"))
def test_a_wrong_answer_to_unwrap_is_the_drivers_fault(open_key, base, value):
    """It never becomes a data key."""
    with pytest.raises(errors.KmsError, match="faulty"):
        open_key(base, unwrap=answer(value)).unwrap(sealed(), CONTEXT)


@pytest.mark.parametrize("value", (None, [], [b"x"] * 3, b"xx"), ids=("None", "too few", "too many", "bytes"))
def test_a_wrong_answer_to_a_batch_is_the_drivers_fault(open_key, value):
    """Results that cannot be matched with what was asked."""
    with pytest.raises(errors.KmsError, match="faulty.*batch"):
        open_key(unwrap_many=answer(value)).unwrap_many([(sealed(), CONTEXT)] * 2)


def test_each_result_of_a_batch_stands_in_its_place(open_key):
    """A plaintext, a refusal, something that is neither."""
    key = open_key(unwrap_many=answer([b"x", ErrorKind.ACCESS_DENIED, None]))
    first, second, third = key.unwrap_many([(sealed(), CONTEXT)] * 3)
    assert first == b"x"
    assert type(second) is errors.KmsAccessDenied
    assert "faulty" in str(third)


@pytest.mark.parametrize(
    "key_id",
    (None, b"fake:app", "app", "fake:", "other:app", "fake:" + "x" * 1020),
    ids=lambda each: repr(each)[:20],
)
def test_a_key_id_that_fits_no_message_is_refused(open_key, key_id):
    """`ConfigError`, before anything is wrapped."""
    with pytest.raises(errors.ConfigError, match="key id"):
        open_key(key_id=key_id).wrap(DATA_KEY, CONTEXT)


def quoting(self, *arguments, **options):
    raise ConnectionError(f"the payload is {DATA_KEY.hex()}")


def raising(self, error):
    raise ValueError(f"cannot classify {error}") from error


@pytest.mark.parametrize(
    ("changed", "expected"),
    (
        ({"classify": raising}, "classify"),
        ({"classify": answer("unavailable")}, "classify"),
        ({"classify": answer(None)}, "classify"),
        ({"classify": answer(ErrorKind.ACCESS_DENIED), "error_details": raising}, "access denied"),
        ({"classify": answer(ErrorKind.ACCESS_DENIED), "error_details": answer(None)}, "access denied"),
    ),
    ids=(
        "classify raises",
        "classify gives text",
        "classify gives None",
        "details raise",
        "details are None",
    ),
)
def test_a_driver_that_cannot_tell_what_failed_does_not_hide_that_something_did(open_key, changed, expected):
    """A `KmsError`, and not a word of the provider's text anywhere in it."""
    with pytest.raises(errors.KmsError, match=expected) as caught:
        open_key(wrap=quoting, **changed).wrap(DATA_KEY, CONTEXT)
    whole = "".join(traceback.format_exception(caught.value))
    assert "00010203" not in whole
    assert "builtins." in whole  # the type of what the provider raised is told
    assert caught.value.__context__ is None or caught.value.__context__ is caught.value.__cause__


def test_the_drivers_own_advice_wins(open_key):
    """`ErrorDetails.remedy` instead of the general one."""
    details = ErrorDetails(code="E42", request_id="r-1", remedy="turn it off and on again")
    key = open_key(wrap=quoting, classify=answer(ErrorKind.INVALID_REQUEST), error_details=answer(details))
    with pytest.raises(errors.KmsInvalidRequest, match="E42.*turn it off") as caught:
        key.wrap(DATA_KEY, CONTEXT)
    assert caught.value.request_id == "r-1"


def test_a_config_error_of_a_driver_passes_as_it_is(open_key):
    """It is ours already, and not retried."""
    told = errors.ConfigError("the key file is gone", remedy="restore it")

    def refuse(self, *arguments, **options):
        raise told

    with pytest.raises(errors.ConfigError) as caught:
        open_key(wrap=refuse).wrap(DATA_KEY, CONTEXT)
    assert caught.value is told


# --- limits and what a driver cannot do -----------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "most"), ((FakeDriver, 4096), (UnboundFakeDriver, 4064)), ids=("bound", "unbound")
)
def test_a_payload_beyond_the_limit_makes_no_call(service, open_key, base, most):
    """`LimitExceeded` names the limit; where the context must travel along it is 32 bytes lower."""
    key = open_key(base)
    assert key.unwrap(key.wrap(bytes(most), CONTEXT), CONTEXT) == bytes(most)
    service.app.calls.clear()
    with pytest.raises(errors.LimitExceeded, match=str(most)):
        key.wrap(bytes(most + 1), CONTEXT)
    assert not service.app.calls


def test_a_driver_that_binds_no_context_has_it_bound_for_it(open_key):
    """Another context is `AuthenticationError` all the same."""
    key = open_key(UnboundFakeDriver)
    wrapped = key.wrap(DATA_KEY, CONTEXT)
    assert key.unwrap(wrapped, CONTEXT) == DATA_KEY
    with pytest.raises(errors.AuthenticationError):
        key.unwrap(wrapped, EncryptionContext.of({"tenant": "other"}))
    [result] = key.unwrap_many([(wrapped, EncryptionContext.of(None))])
    assert isinstance(result, errors.AuthenticationError)


def test_rotating_what_cannot_be_rotated_says_so(open_key):
    """`KmsInvalidRequest` that names the driver."""
    with pytest.raises(errors.KmsInvalidRequest, match="fake driver does not rotate"):
        open_key(capabilities=FakeDriver.capabilities - {Capability.ROTATE}).rotate()


def test_a_closed_key_refuses_every_call(open_key):
    """`ClosedError`; closing twice is nothing."""
    key = open_key()
    key.close()
    key.close()
    for call in (
        lambda: key.wrap(DATA_KEY, CONTEXT),
        lambda: key.unwrap(sealed(), CONTEXT),
        key.describe,
        key.rotate,
    ):
        with pytest.raises(errors.ClosedError):
            call()


def test_there_are_only_three_kinds_to_retry():
    """A new kind is not retried by accident."""
    assert retry.RETRIED == RETRIED


# --- one deadline for the whole operation ---------------------------------------------------------


CALLS = {
    "identify": lambda key, wrapped, deadline: key.identify(deadline=deadline),
    "wrap": lambda key, wrapped, deadline: key.wrap(DATA_KEY, CONTEXT, deadline=deadline),
    "unwrap": lambda key, wrapped, deadline: key.unwrap(wrapped, CONTEXT, deadline=deadline),
    "unwrap_many": lambda key, wrapped, deadline: key.unwrap_many([(wrapped, CONTEXT)], deadline=deadline),
    "rewrap": lambda key, wrapped, deadline: key.rewrap(wrapped, CONTEXT, deadline=deadline),
    "describe": lambda key, wrapped, deadline: key.describe(deadline=deadline),
    "rotate": lambda key, wrapped, deadline: key.rotate(deadline=deadline),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@every_call
def test_a_call_whose_time_is_over_makes_no_attempt_and_says_so(service, clock, open_key, call):
    """`KmsTimeout` that names the key and what was not tried; it is nothing against the key."""
    wrapped = open_key().wrap(DATA_KEY, CONTEXT)
    key, deadline = open_key(), Deadline(1.0, clock)
    service.app.calls.clear()
    clock.now += 1
    with pytest.raises(
        errors.KmsTimeout, match=r"with fake.*app.*: not tried, because the time.*; .*deadline"
    ) as caught:
        call(key, wrapped, deadline)
    assert caught.value.attempts == 0
    assert not service.app.calls
    assert not key.unhealthy


@every_call
def test_every_step_of_a_call_has_what_is_left_of_the_one_deadline(clock, open_key, call):
    """Finding the key's id takes from the same time as what is asked of it."""
    timeouts = []

    def slowly(name):
        real = getattr(FakeDriver, name)

        def method(self, *arguments, timeout):
            timeouts.append(timeout)
            clock.now += 0.75
            return real(self, *arguments, timeout=timeout)

        return method

    wrapped = open_key().wrap(DATA_KEY, CONTEXT)
    names = ("resolve", "wrap", "unwrap", "unwrap_many", "rewrap", "describe", "rotate")
    call(open_key(**{name: slowly(name) for name in names}), wrapped, Deadline(2.0, clock))
    assert timeouts == [2.0, 1.25, 0.5][: len(timeouts)]


def test_an_attempt_has_no_more_than_is_left(clock, open_key):
    """Of the operation's time, though the policy would give more; and there is no retry beyond it."""
    timeouts = []

    def slow(self, wrapped, context, *, timeout):
        timeouts.append(timeout)
        clock.now += timeout
        raise TimeoutError

    key = open_key(unwrap=slow, classify=lambda self, error, operation: ErrorKind.TIMEOUT)
    began = clock.now
    with pytest.raises(errors.KmsTimeout, match=r"after 1 attempt in 0\.5 s"):
        key.unwrap(sealed(), CONTEXT, deadline=Deadline(0.5, clock))
    assert timeouts == [0.5]
    assert clock.now - began == 0.5


def test_a_new_deadline_is_the_policys(clock, open_key):
    """Of the time that an operation has."""
    assert open_key(policy=CallPolicy(deadline=7.0)).new_deadline().left() == 7.0


@pytest.mark.parametrize("kind", ErrorKind, ids=lambda kind: kind.name)
def test_a_rotation_is_tried_once(service, open_key, kind):
    """Nobody knows what became of the first, so a second could make one version too many."""
    service.app.fail("rotate", kind)
    with pytest.raises(CLASSES[kind]):
        open_key().rotate()
    assert service.app.calls["rotate"] == 1


def test_an_outage_is_told_with_the_attempts_and_the_time_they_took(service, open_key):
    """Which key, what was tried, how often, for how long."""
    service.app.fail("unwrap", ErrorKind.UNAVAILABLE)
    with pytest.raises(
        errors.KmsUnavailable,
        match=r"unwrap with fake key 'app': .* after 3 attempts in \d\.\d s \(UNAVAILABLE\); check its address",
    ):
        open_key().unwrap(sealed(), CONTEXT)
