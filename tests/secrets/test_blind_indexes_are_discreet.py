"""No error of a blind index shows a value, an index key or a data key, wherever it comes from."""

import itertools

import pytest

from kmsbridge import EnvelopeCipher, SecretValue
from kmsbridge.blindindex import BlindIndex, Normalizer, Row, backfill, index_keys, new_index_key
from kmsbridge.blindindex import index as index_module
from kmsbridge.blindindex import keys as keys_module
from kmsbridge.driver import ErrorKind
from kmsbridge.message import cobblestone
from kmsbridge.partial import LAST4
from tests.secrets.canaries import DATA_KEY, PLAINTEXT, Quoting, assert_clean, assert_discreet, failure_of
from tests.secrets.test_errors_are_discreet import ENTRIES, SoftLimit, _innermost, interrupted
from tests.support import install


@pytest.fixture
def settings(service, monkeypatch):
    """A configuration with an index whose key is the canary, as are all data keys."""
    driver = type("Driver", (Quoting,), {"service": service, "kind": ErrorKind.ACCESS_DENIED})
    install(monkeypatch, driver)
    monkeypatch.setattr(cobblestone, "new_key", DATA_KEY.reveal)

    class Random:
        @staticmethod
        def urandom(_length):
            return DATA_KEY.reveal()

    profile = {"encrypt_to": ["app"], "decrypt_with": ["app"]}
    settings = {"keys": {"app": {"uri": "quoting:app"}}, "profiles": {"p": profile}}
    with monkeypatch.context() as patch, EnvelopeCipher.from_mapping(settings) as cipher:
        patch.setattr(keys_module, "os", Random)
        message = new_index_key(cipher, "phone")
    (key,) = index_keys("phone", {**settings, "indexes": {"phone": {"profile": "p", "keys": [message]}}})
    assert key == SecretValue(DATA_KEY.reveal())
    return {**settings, "indexes": {"phone": {"profile": "p", "keys": [message]}}, "driver": driver}


def index_of(settings, **options):
    configured = {name: table for name, table in settings.items() if name != "driver"}
    return BlindIndex("users.phone", keys=lambda: index_keys("phone", configured), **options)


def opened(settings):
    configured = {name: table for name, table in settings.items() if name != "driver"}
    return EnvelopeCipher.from_mapping(configured)


CALLS = {
    "of": lambda index: index.of(PLAINTEXT.text(), tenant="acme"),
    "queries": lambda index: index.queries(PLAINTEXT.text(), tenant="acme"),
    "load_keys": lambda index: index.load_keys(),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("worse", ("", "classify fails", "no kind", "details fail"))
def test_a_key_service_that_quotes_is_not_quoted(settings, name, worse):
    settings["driver"].fails, settings["driver"].worse = {"unwrap"}, worse
    assert_discreet(failure_of(lambda: CALLS[name](index_of(settings))))


@pytest.mark.parametrize("name", CALLS)
def test_a_failure_within_shows_nothing(settings, monkeypatch, name):
    def broken(*_arguments):
        raise MemoryError

    monkeypatch.setattr(index_module.hmac, "digest", broken)
    monkeypatch.setattr(index_module, "_checked", broken)
    assert isinstance(failure_of(lambda: CALLS[name](index_of(settings))), MemoryError)
    assert_discreet(failure_of(lambda: CALLS[name](index_of(settings))))


@pytest.mark.parametrize("normalize", ("digits", "email", "e164"))
def test_a_value_that_is_refused_is_not_shown(settings, normalize):
    index = index_of(settings, normalize=normalize)
    assert_discreet(failure_of(lambda: index.normalize(PLAINTEXT.text())))
    assert_discreet(failure_of(lambda: index.of(PLAINTEXT.text(), tenant="acme")))
    assert_discreet(failure_of(lambda: index.queries(PLAINTEXT.text(), tenant="acme")))


def test_a_normalizer_that_fails_shows_no_value_of_its_frames(settings):
    def function(value):
        kept = value.upper()
        raise RuntimeError(len(kept))

    index = index_of(settings, normalize=Normalizer("mine", function))
    assert_discreet(failure_of(lambda: index.of(PLAINTEXT.text(), tenant="acme")))


def test_backfill_shows_no_value(settings):
    with opened(settings) as cipher:
        row = Row(1, cipher.encrypt(PLAINTEXT.reveal()), None, "acme")
        assert_discreet(
            failure_of(lambda: list(backfill(index_of(settings, normalize="digits"), cipher, [row])))
        )
        assert_clean(repr(row), "the repr of a row")


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_at_any_line_shows_nothing(settings, torture, name):
    """The exception of a signal handler, at every line (a part of them, by turns)."""
    stride = 1 if torture.scale == 1.0 else 29
    points = 0
    CALLS[name](index_of(settings))
    for nth in itertools.count(torture.rng(name).randrange(stride), stride):
        index = index_of(settings, normalize="casefold")
        error = interrupted(lambda index=index: CALLS[name](index), nth)
        if error is None:
            break
        points += 1
        assert isinstance(error, SoftLimit)
        # At its first line an entry point has what its caller gave it, and can let go of nothing yet.
        if _innermost(error) not in ENTRIES:
            assert_discreet(error)
    assert points


def test_a_part_is_made_without_an_error():
    assert not PLAINTEXT.is_in(LAST4.of(PLAINTEXT.text()))
