"""What a driver tells the library by the newer parts of its interface, and what the library makes of it."""

import pickle
import threading
from typing import get_args

import pytest

from kmsbridge import EnvelopeCipher, errors, registry
from kmsbridge.context import EncryptionContext
from kmsbridge.driver import (
    Capability,
    DriverError,
    ErrorKind,
    KeyURI,
    Operation,
    Options,
    WrappedKey,
    report_request_id,
)
from kmsbridge.keys import ManagedKey
from kmsbridge.testing import installed
from kmsbridge.testing.fakes.fake import FakeDriver, UnboundFakeDriver
from tests.support import Clock

CONTEXT = EncryptionContext.of({"tenant": "acme"})
DATA_KEY = bytes(range(32))
CANARY = "canary-text"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def open_key(service, clock):
    """Opens the fake service's key app behind a driver class with these attributes changed."""

    def open_key(base=FakeDriver, sleep=clock.sleep, **changed):
        driver = type("Driver", (base,), {"service": service, **changed})
        uri = KeyURI.parse(f"{base.scheme}:app")
        return ManagedKey("app", lambda: driver.open(uri, Options({})), clock=clock, sleep=sleep)

    return open_key


def raising(error):
    def method(self, *arguments, **options):
        raise error

    return method


# --- DriverError ----------------------------------------------------------------------------------


def test_a_driver_error_is_told_without_asking_classify(open_key):
    """With the code, the remedy and the request id that it holds."""
    error = DriverError(ErrorKind.ACCESS_DENIED, code="E7", remedy="ask the owner", request_id="r-1")
    asked = raising(AssertionError("asked"))
    key = open_key(wrap=raising(error), classify=asked, error_details=asked)
    with pytest.raises(errors.KmsAccessDenied, match=r"\(E7\); ask the owner") as caught:
        key.wrap(DATA_KEY, CONTEXT)
    assert (caught.value.provider_code, caught.value.request_id, caught.value.attempts) == ("E7", "r-1", 1)


@pytest.mark.parametrize("may_wait", (True, False), ids=("on a thread", "here"))
def test_a_driver_error_without_a_request_id_has_the_reported_one(open_key, may_wait):
    """Of the same call, on whichever thread it runs."""

    def describe(self, *, timeout):
        report_request_id("r-2")
        raise DriverError(ErrorKind.KEY_DISABLED)

    with pytest.raises(errors.KmsKeyDisabled) as caught:
        open_key(describe=describe, may_wait=may_wait).describe()
    assert caught.value.request_id == "r-2"


def test_a_driver_error_is_tried_again_where_its_kind_is(open_key):
    """As what `classify` says is."""
    calls = []

    def unwrap(self, wrapped, context, *, timeout):
        calls.append(1)
        raise DriverError(ErrorKind.UNAVAILABLE)

    with pytest.raises(errors.KmsUnavailable):
        open_key(unwrap=unwrap).unwrap(WrappedKey("fake:app", "1", b"x"), CONTEXT)
    assert len(calls) == 3


@pytest.mark.parametrize("kind", ("UNAVAILABLE", None, 1))
def test_a_driver_error_has_a_kind(kind):
    with pytest.raises(TypeError, match="must be an ErrorKind"):
        DriverError(kind)


def test_a_driver_error_shows_its_kind_and_code_alone():
    """Not the remedy, nor what caused it."""
    try:
        try:
            raise ValueError(CANARY)
        except ValueError as first:
            raise DriverError(ErrorKind.THROTTLED, code="429", remedy=CANARY) from first
    except DriverError as error:
        assert (str(error), repr(error)) == ("THROTTLED (429)", "DriverError(THROTTLED (429))")
        assert str(DriverError(ErrorKind.TIMEOUT)) == "TIMEOUT"
        again = pickle.loads(pickle.dumps(error))
        assert (again.kind, again.code, str(again)) == (error.kind, "429", str(error))


def test_the_cause_of_a_driver_error_does_not_show_in_the_librarys(open_key):
    """A provider's text stays out, wherever it hangs."""
    error = DriverError(ErrorKind.ACCESS_DENIED)
    error.__cause__ = ValueError(CANARY)
    with pytest.raises(errors.KmsAccessDenied) as caught:
        open_key(wrap=raising(error)).wrap(DATA_KEY, CONTEXT)
    cause = caught.value.__cause__
    assert CANARY not in f"{cause} {cause!r} {cause.__cause__!r} {cause.__context__!r}"


# --- classify -------------------------------------------------------------------------------------

CALLS = {
    "resolve": lambda key, wrapped: key.key_id,
    "wrap": lambda key, wrapped: key.wrap(DATA_KEY, CONTEXT),
    "wrap_many": lambda key, wrapped: key.wrap_many([(DATA_KEY, CONTEXT)]),
    "unwrap": lambda key, wrapped: key.unwrap(wrapped, CONTEXT),
    "unwrap_many": lambda key, wrapped: key.unwrap_many([(wrapped, CONTEXT)]),
    "rewrap": lambda key, wrapped: key.rewrap(wrapped, CONTEXT),
    "describe": lambda key, wrapped: key.describe(),
    "rotate": lambda key, wrapped: key.rotate(),
}


@pytest.mark.parametrize("method", CALLS)
def test_classify_is_told_the_operation(open_key, method):
    """Of a batch, that of its items."""
    asked = []

    def classify(self, error, operation):
        asked.append((type(error), operation))
        return ErrorKind.INVALID_REQUEST

    wrapped = open_key().wrap(DATA_KEY, CONTEXT)
    with pytest.raises(errors.KmsInvalidRequest) as caught:
        CALLS[method](open_key(classify=classify, **{method: raising(KeyError())}), wrapped)
    operation = method.removesuffix("_many")
    assert asked == [(KeyError, operation)]
    assert caught.value.operation == operation
    assert operation in get_args(Operation)


# --- batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", (FakeDriver, UnboundFakeDriver), ids=("bound", "unbound"))
def test_wrap_many_wraps_each_in_its_place(service, open_key, base):
    """In one call, and bound to its own context also where the service binds none."""
    key = open_key(base)
    items = [(bytes([n]) * 32, EncryptionContext.of({"n": str(n)})) for n in range(3)]
    results = key.wrap_many(items)
    assert service.app.calls["wrap_many"] == 1
    assert [key.unwrap(each, context) for each, (_, context) in zip(results, items, strict=True)] == [
        plaintext for plaintext, _ in items
    ]
    with pytest.raises(errors.AuthenticationError):
        key.unwrap(results[0], items[1][1])


def test_a_failed_wrap_of_a_batch_is_an_error_in_its_place(service, open_key):
    """The others are there."""
    service.app.answer("wrap_many", [("1", b"a" * 40), ErrorKind.KEY_DISABLED, ("1", b"b" * 40)])
    first, second, third = open_key().wrap_many([(DATA_KEY, CONTEXT)] * 3)
    assert (first.ciphertext, third.ciphertext) == (b"a" * 40, b"b" * 40)
    assert isinstance(second, errors.KmsKeyDisabled)
    assert second.operation == "wrap"


@pytest.mark.parametrize(
    ("answer", "match"),
    (
        ([WrappedKey("fake:app", "1", b"x" * 40), None], "no WrappedKey"),
        ([WrappedKey("fake:app", "1", b"x" * 40), WrappedKey("fake:b", "1", b"x" * 40)], "another key's id"),
        ([WrappedKey("fake:app", "1", b"x" * 40), WrappedKey("fake:app", "1", b"")], "does not fit"),
        ([WrappedKey("fake:app", "1", b"x" * 40), WrappedKey("fake:app", "1", DATA_KEY)], "unencrypted"),
    ),
    ids=("nothing", "another key's", "empty", "plain"),
)
def test_what_wrap_many_returns_is_checked(open_key, answer, match):
    """As what `wrap` returns is, for each item; what is wrong with one is the error in its place."""
    key = open_key(wrap_many=lambda self, items, *, timeout: answer)
    sound, faulty = key.wrap_many([(DATA_KEY, CONTEXT)] * 2)
    assert sound.ciphertext == b"x" * 40
    with pytest.raises(errors.KmsError, match=f"driver is faulty.*{match}"):
        raise faulty


@pytest.mark.parametrize("answer", ([WrappedKey("fake:app", "1", b"x" * 40)], "ab"), ids=("too few", "text"))
def test_a_batch_with_the_wrong_number_of_results_fails_as_a_whole(open_key, answer):
    """Whose result is whose is not known."""
    key = open_key(wrap_many=lambda self, items, *, timeout: answer)
    with pytest.raises(errors.KmsError, match="driver is faulty.*wrong number"):
        key.wrap_many([(DATA_KEY, CONTEXT)] * 2)


def test_a_batch_with_a_payload_beyond_the_limit_is_not_sent(service, open_key):
    """`LimitExceeded`, as of one."""
    with pytest.raises(errors.LimitExceeded):
        open_key().wrap_many([(DATA_KEY, CONTEXT), (bytes(4097), CONTEXT)])
    assert not service.app.calls


def test_batches_are_cut_by_the_drivers_limit(service):
    """Which an object may have for itself."""
    asked = []

    class Small(FakeDriver):
        scheme = "small"

        def __init__(self, name, caller):
            super().__init__(name, caller)
            self.batch_limit = 3

        def unwrap_many(self, items, *, timeout):
            asked.append(len(items))
            return super().unwrap_many(items, timeout=timeout)

    Small.service = service
    with installed(Small):
        with EnvelopeCipher.from_uri("small:app", data_keys={"max_messages": 1}) as cipher:
            messages = cipher.encrypt_many([b"x"] * 7)
        with EnvelopeCipher.from_uri("small:app") as cipher:
            assert cipher.decrypt_many(messages) == [b"x"] * 7
    assert sorted(asked) == [1, 3, 3]


@pytest.mark.parametrize("limit", (0, -1, 1))
def test_a_limit_that_is_none_is_one(open_key, limit):
    """A driver's mistake must not have the library ask for nothing, for ever."""
    assert open_key(batch_limit=limit).batch_limit == 1


# --- what the library does by itself --------------------------------------------------------------


def test_a_key_rewraps_from_itself_without_being_asked(open_key):
    """The driver knows of others alone."""
    key = open_key(rewraps_from=lambda self, key_id: key_id == "fake:other")
    assert [key.rewraps_from(each) for each in ("fake:app", "fake:other", "fake:third")] == [
        True,
        True,
        False,
    ]
    without = open_key(capabilities=FakeDriver.capabilities - {Capability.SERVER_REWRAP})
    assert not without.rewraps_from("fake:app")


def test_the_id_is_asked_for_once(open_key):
    """And no property of the driver's is read."""
    asked = []

    def resolve(self, *, timeout):
        asked.append(timeout)
        return "fake:app"

    key = open_key(resolve=resolve)
    for _ in range(3):
        key.unwrap(key.wrap(DATA_KEY, CONTEXT), CONTEXT)
        key.describe()
    assert len(asked) == 1


def test_a_key_that_is_closed_between_two_attempts_makes_no_other(service, open_key):
    """A driver need not refuse what comes after `close`, because nothing does."""
    keys = []
    key = open_key(sleep=lambda seconds: keys[0].close())
    keys.append(key)
    service.app.fail("wrap", ErrorKind.UNAVAILABLE)
    with pytest.raises(errors.ClosedError):
        key.wrap(DATA_KEY, CONTEXT)
    assert service.app.calls["wrap"] == 1


# --- production -----------------------------------------------------------------------------------


class Settled(FakeDriver):
    """For production, unless the options say otherwise."""

    scheme = "settled"

    @classmethod
    def open(cls, uri, options):
        driver = super().open(uri, options)
        driver.settings = [each for each in (options.text("one"), options.text("two")) if each]
        return driver

    def development_settings(self):
        return self.settings

    def close(self):
        closed.append(threading.get_ident())


closed = []


@pytest.fixture
def settled(monkeypatch, service):
    monkeypatch.setattr(Settled, "service", service)
    closed.clear()
    with installed(Settled):
        yield


@pytest.mark.usefixtures("settled")
def test_production_takes_a_key_without_development_settings():
    with EnvelopeCipher.from_uri("settled:app", production=True) as cipher:
        assert cipher.decrypt(cipher.encrypt(b"x")) == b"x"


@pytest.mark.usefixtures("settled")
def test_production_lists_every_development_setting_and_says_how_to_allow_them():
    """And lets go of the key."""
    options = {"one": "address is not https", "two": "the token is a test's"}
    with pytest.raises(
        errors.ConfigError,
        match=r"settled key .*production: address is not https; the token is a test's; .*allow_in_production = true",
    ):
        EnvelopeCipher.from_uri("settled:app", production=True, **options)
    assert closed
    EnvelopeCipher.from_uri("settled:app", **options).close()
    EnvelopeCipher.from_uri("settled:app", production=True, allow_in_production=True, **options).close()


# --- drivers of before ----------------------------------------------------------------------------


def test_a_driver_without_an_abstract_method_is_named_with_what_it_lacks():
    """Before it is opened; so is the plugin of another version."""

    class Old(FakeDriver):
        scheme = "old"

    Old.__abstractmethods__ = frozenset({"resolve"})
    with pytest.raises(
        errors.ProviderLoadError, match=r"Old is made for another version of kmsbridge: it lacks resolve"
    ):
        registry.register(Old)


def test_a_driver_that_still_sets_development_only_is_refused():
    """It would be taken for one that is for production."""

    class Old(FakeDriver):
        scheme = "old"
        development_only = True

    with pytest.raises(errors.ProviderLoadError, match="it sets development_only"):
        registry.register(Old)
