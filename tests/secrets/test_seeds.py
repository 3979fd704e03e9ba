"""The seed of a key pair: made, wrapped, unwrapped and used, it is shown by no error, object, log or file."""

import copy
import functools
import gc
import logging
import pickle
from types import SimpleNamespace

import pytest

from kmsbridge import Decryptor, Encryptor, config
from kmsbridge.cipher.session import configured_key
from kmsbridge.cli.app import app
from kmsbridge.cli.options import Settings as CommandSettings
from kmsbridge.driver import ErrorKind, KeyURI, Options
from kmsbridge.drivers.hpke import HpkeDriver, pairs, privatefile
from kmsbridge.drivers.hpke.suites import HYBRID, SUITES, Suite
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.errors import AuthenticationError, ConfigError, KmsAccessDenied
from tests.interrupts import LIBRARY, interrupted_at
from tests.secrets.canaries import (
    CONTEXT,
    EXPANDED,
    SEED,
    Quoting,
    assert_clean,
    assert_discreet,
    failure_of,
)
from tests.secrets.reporters import REPORTERS
from tests.support import install

both_suites = pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
FILES = tuple(f"{LIBRARY}/{name}" for name in ("drivers/hpke", "keys", "secret.py"))
"""The modules that handle a seed; in the rest of the library an interrupt finds the same as in any call."""


@pytest.fixture(autouse=True)
def seeds_are_canaries(monkeypatch):
    """Every seed made is the canary."""
    monkeypatch.setattr(pairs, "os", SimpleNamespace(urandom=_urandom))


def _urandom(length):
    return SEED.reveal() if length == len(SEED.reveal()) else bytes(length)


@pytest.fixture(autouse=True)
def logs_are_discreet(caplog):
    """No log record at any level has a canary, in its message or in any attribute."""
    caplog.set_level(logging.DEBUG)
    yield
    for record in caplog.records:
        assert_clean(record.getMessage() + repr(vars(record)), f"a log record of {record.name}")


class Pair:
    """A pair of one suite, in a folder, whose seed the key at `uri` protects."""

    def __init__(self, folder, uri, suite):
        self.folder, self.suite, self.protecting = folder, suite, {"uri": uri}
        self.path = str(folder / "private.toml")
        self.key = configured_key(config.from_uri(uri, options={}).encrypt_to[0], config.Profile("keygen"))
        privatefile.create(self.path, self.make())
        line = privatefile.PrivateFile(self.path).document()
        (self.pair,) = line.pairs.values()
        self.uri = f"hpke:{self.pair.public_key.name}"
        with Encryptor.from_uri(self.uri, public_key=self.pair.public_key.line()) as encryptor:
            self.message = encryptor.encrypt(b"x", context=CONTEXT)

    def make(self):
        now = privatefile.now()
        return pairs.new_pair(
            "pair@0123456789abcdef",
            self.suite,
            self.key.wrap,
            self.key.unwrap,
            created=now,
            encrypt_from=now,
        )

    @property
    def options(self):
        return {"private_file": self.path, "protect_with": self.protecting}

    def decryptor(self, **options):
        return Decryptor.from_uri(self.uri, **self.options, **options)

    def decrypt(self, **options):
        with self.decryptor(**options) as worker:
            return worker.decrypt(self.message, context=CONTEXT)


@pytest.fixture
def pair(tmp_path):
    """Makes a pair that a local key protects."""
    keys = tmp_path / "keys.json"
    KeyFile.create(keys, "seeds").close()
    made = []

    def make(suite):
        made.append(Pair(tmp_path, f"local:{keys}#seeds", suite))
        return made[-1]

    yield make
    for each in made:
        each.key.close()


@pytest.fixture
def quoting(tmp_path, service, monkeypatch):
    """Makes a pair that a key of a service protects which quotes in its errors what it was sent."""
    driver = type("Driver", (Quoting,), {"service": service, "kind": ErrorKind.ACCESS_DENIED})
    install(monkeypatch, driver)
    made = []

    def make(suite):
        made.append(Pair(tmp_path, "quoting:app", suite))
        return driver, made[-1]

    yield make
    for each in made:
        each.key.close()


# --- exceptions -----------------------------------------------------------------------------------------


def test_no_line_shows_the_seed_when_it_is_made(pair):
    """keygen is interrupted at each line in turn."""
    made = pair(HYBRID)
    number, more = 0, True
    while more:
        error, more = interrupted_at(number, made.make, places=FILES)
        assert (error is not None) == more, f"line {number} was swallowed"
        if error is not None:
            assert_discreet(error)
        number += 1
    assert number > 40


def test_no_line_shows_the_seed_when_it_is_opened(pair):
    """A worker's first message is interrupted at each line in turn."""
    made, number, more = pair(HYBRID), 0, True
    while more:
        with made.decryptor() as worker:
            use = functools.partial(worker.decrypt, made.message, context=CONTEXT)
            error, more = interrupted_at(number, use, places=FILES)
            assert (error is not None) == more, f"line {number} was swallowed"
            if error is not None:
                assert_discreet(error)
                assert use() == b"x"  # nothing is left half done
        number += 1
    assert number > 60


def test_no_line_shows_the_seed_to_who_uses_the_driver_itself(pair):
    """As where it is given to a cipher as an object, or used in a test."""
    made, number, more = pair(HYBRID), 0, True
    context = pairs.EMPTY
    wrapped = made.pair.public_key.wrap(bytes(32), context)
    while more:
        driver = HpkeDriver.open(KeyURI.parse(made.uri), Options(made.options))
        whole = pairs.WrappedKey(driver.resolve(timeout=5), made.pair.public_key.version, wrapped)
        error, more = interrupted_at(
            number, functools.partial(driver.unwrap, whole, context, timeout=5), places=FILES
        )
        if error is not None:
            assert_discreet(error)
        driver.close()
        number += 1
    assert number > 20


FAILURES = ("", "classify fails", "no kind", "details fail")


@both_suites
@pytest.mark.parametrize("worse", FAILURES)
@pytest.mark.parametrize("operation", ("wrap", "unwrap"))
def test_a_service_that_quotes_what_it_was_sent_shows_no_seed(quoting, suite, operation, worse):
    """keygen's calls, and a worker's: the driver's own texts, and the exceptions that they come from."""
    driver, made = quoting(suite)
    driver.fails, driver.worse = {operation}, worse
    assert_discreet(failure_of(made.make))
    if operation == "unwrap":
        for options in ({}, {"environment": "prod"}):
            assert_discreet(failure_of(functools.partial(made.decrypt, **options)))


def broken(*arguments):
    copied = list(arguments)
    raise MemoryError(len(copied))


@both_suites
@pytest.mark.parametrize("name", ("load_private", "decrypt"))
def test_a_failure_inside_the_suite_shows_no_seed(pair, suite, name, monkeypatch):
    """Out of memory where the seed, or the private key, is an argument."""
    made = pair(suite)
    monkeypatch.setattr(Suite if name == "decrypt" else type(suite), name, broken)
    for call in (made.make, made.decrypt):
        assert isinstance(failure_of(call), MemoryError)
        assert_discreet(failure_of(call))


@both_suites
def test_a_seed_of_another_pair_is_not_shown(pair, suite):
    """Its public key is compared, and it is of no use."""
    made = pair(suite)
    other = made.pair.public_key._replace(data=made.pair.public_key.data[:-1] + b"\0")
    error = failure_of(
        lambda: pairs.open_pair(made.pair._replace(public_key=other), lambda *_: SEED.reveal())
    )
    assert isinstance(error, ConfigError)
    assert_discreet(error)


# --- reporters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("report", REPORTERS.values(), ids=REPORTERS)
@pytest.mark.parametrize("operation", ("wrap", "unwrap"))
def test_a_reporter_shows_no_seed(quoting, report, operation, monkeypatch):
    """A worker fails, and making a pair, and the command keygen."""
    driver, made = quoting(HYBRID)
    driver.fails = {operation}
    monkeypatch.chdir(made.folder)

    def command():
        arguments = ["keygen", "other", "--protect-with", "quoting:app"]
        with app.make_context("kmsbridge", arguments, obj=CommandSettings()) as context:
            app.invoke(context)

    calls = [made.make, command] + ([made.decrypt] if operation == "unwrap" else [])
    for call in calls:
        error = failure_of(call)
        assert isinstance(error, KmsAccessDenied)
        assert_clean(report(error), "a report")
    assert not (made.folder / "other.hpke.toml").exists()


def test_a_reporter_shows_a_seed_in_a_frame_of_ones_own():
    """So that the test above can fail."""

    def careless():
        shown = SEED.reveal()
        raise LookupError(len(shown))

    assert SEED.is_in(REPORTERS["traceback"](failure_of(careless)))


# --- objects and files ----------------------------------------------------------------------------------


@both_suites
def test_no_object_shows_or_gives_away_a_seed(pair, suite):
    """Every one of the library's that lives while a worker has opened it: its repr, its pickle, its copy."""
    made = pair(suite)
    with made.decryptor(audit={"file": str(made.folder / "audit.jsonl")}) as worker:
        assert worker.decrypt(made.message, context=CONTEXT) == b"x"
        gc.collect()
        objects = [
            each for each in gc.get_objects() if str(type(each).__module__).partition(".")[0] == "kmsbridge"
        ]
        assert {"HpkeDriver", "Protection", "PrivateFile", "ManagedKey"} <= {
            type(each).__name__ for each in objects
        }
        for each in objects:
            for text in (repr(each), str(each), f"{each}"):
                assert_clean(text, f"the repr of {type(each).__name__}")
            for dump in (pickle.dumps, copy.deepcopy):
                try:
                    left = dump(each)
                except Exception as refusal:  # noqa: BLE001 - whatever refuses
                    assert_clean(str(refusal), f"the refusal to pickle {type(each).__name__}")
                else:
                    assert_clean(left if isinstance(left, bytes) else repr(left), type(each).__name__)
        (driver,) = [each for each in objects if type(each) is HpkeDriver]
        for leave in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError):
                leave(driver._protection)
    for path in made.folder.iterdir():
        assert_clean(path.read_bytes(), path.name)


def test_the_canaries_are_the_seed_and_what_it_makes(pair):
    """The bytes that the tests search for are those that are used."""
    made = pair(HYBRID)
    with made.decryptor() as worker:
        worker.decrypt(made.message, context=CONTEXT)
        (key,) = worker._session.keys.values()
        (private,) = key.driver._protection._opened.values()
    assert private is not None
    opened = []

    def unwrap(wrapped, context):
        opened.append(made.key.unwrap(wrapped, context))
        return opened[-1]

    pairs.open_pair(made.pair, unwrap)
    assert opened == [SEED.reveal()]
    assert len(EXPANDED.reveal()) == 96
    with pytest.raises(AuthenticationError):
        made.key.unwrap(pairs.WrappedKey(*made.pair.seed), pairs.EMPTY)
