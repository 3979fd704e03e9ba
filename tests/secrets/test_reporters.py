"""The error reporters that print local variables show nothing of ours."""

import asyncio
import faulthandler
import sys
from typing import Annotated

import click
import pytest
from pydantic import Secret, SecretStr
from pydantic_settings import BaseSettings

from kmsbridge import EnvelopeCipher, SecretValue, aio, message
from kmsbridge.cli.app import app
from kmsbridge.cli.options import Settings as CommandSettings
from kmsbridge.driver import ErrorKind
from kmsbridge.integrations.pydantic_settings import Encrypted
from kmsbridge.message import cobblestone, compact
from tests.secrets.canaries import CONTEXT, DATA_KEY, PLAINTEXT, Quoting, assert_clean, failure_of
from tests.secrets.reporters import REPORTERS
from tests.support import install

each_reporter = pytest.mark.parametrize("report", REPORTERS.values(), ids=REPORTERS)


@pytest.fixture
def failing(service, monkeypatch):
    """A driver that quotes what it was sent, and fails from now on; a message for its key."""
    monkeypatch.setattr(cobblestone, "new_key", DATA_KEY.reveal)
    driver = type("Driver", (Quoting,), {"service": service, "kind": ErrorKind.ACCESS_DENIED})
    install(monkeypatch, driver)
    with EnvelopeCipher.from_uri("quoting:app") as writer:
        text = writer.encrypt_text(PLAINTEXT.text(), context=CONTEXT)
        odd = message.armor(writer.encrypt(PLAINTEXT.reveal() + b"\xff", context=CONTEXT))
    with EnvelopeCipher.from_uri("quoting:app", calls={"max_attempts": 1}) as cipher:
        driver.fails = {"wrap", "unwrap"}
        yield Failing(cipher, driver, text, odd)


class Failing:
    def __init__(self, cipher, driver, text, odd):
        self.cipher, self.driver, self.text, self.odd = cipher, driver, text, odd

    def settings(self, value, **options):
        class Settings(BaseSettings):
            password: Annotated[SecretStr, Encrypted(cipher=lambda: self.cipher, **options)]
            number: Annotated[Secret[int], Encrypted(cipher=lambda: self.cipher, **options)]

        return Settings(password=value, number=value)


def in_the_cipher(failing, call):
    """It fails after the key service answered, where the plaintext is."""
    failing.driver.fails = frozenset()

    def broken(*arguments):
        copy = list(arguments)
        raise MemoryError(len(copy))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("encrypt", "decrypt"):
            patch.setattr(compact, name, broken)
        call(failing)


def decrypted(failing, text):
    failing.driver.fails = frozenset()
    return failing.cipher.decrypt_secret(text, context=CONTEXT)


async def asynchronous(failing):
    async with aio.EnvelopeCipher.from_uri("quoting:app") as cipher:
        await cipher.decrypt_secret(failing.text, context=CONTEXT)


def refusing(secret):
    copy = secret * 2
    raise ConnectionError(len(copy))


def settings_of(failing, value, **options):
    failing.driver.fails = frozenset()
    failing.settings(value, **options)


FAILURES = {
    "encrypt": lambda f: f.cipher.encrypt(PLAINTEXT.reveal(), context=CONTEXT),
    "encrypt in the cipher": lambda f: in_the_cipher(
        f, lambda f: f.cipher.encrypt(PLAINTEXT.reveal(), context=CONTEXT)
    ),
    "decrypt": lambda f: f.cipher.decrypt_text(f.text, context=CONTEXT),
    "decrypt in the cipher": lambda f: in_the_cipher(
        f, lambda f: f.cipher.decrypt_text(f.text, context=CONTEXT)
    ),
    "decrypt_secret": lambda f: f.cipher.decrypt_secret(f.text, context=CONTEXT),
    "decrypt_secret in the cipher": lambda f: in_the_cipher(
        f, lambda f: f.cipher.decrypt_secret(f.text, context=CONTEXT)
    ),
    "decrypt_secret of asyncio": lambda f: asyncio.run(asynchronous(f)),
    "reveal_text of what is not text": lambda f: decrypted(f, f.odd).reveal_text(),
    "use": lambda f: decrypted(f, f.text).use(refusing),
    "use_text": lambda f: decrypted(f, f.text).use_text(refusing),
    "settings": lambda f: f.settings(f.text, context=CONTEXT),
    "settings of a wrong context": lambda f: settings_of(f, f.text),
    "settings of a wrong type": lambda f: settings_of(f, f.text, context=CONTEXT),
    "settings that are not text": lambda f: settings_of(f, f.odd, context=CONTEXT),
}


@each_reporter
@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES)
def test_a_reporter_shows_nothing_of_ours(failing, fail, report):
    """Whatever failed."""
    shown = report(failure_of(lambda: fail(failing)))
    assert_clean(shown, "a report")


@pytest.mark.parametrize(
    "payload", (b"\0", b"\xff", b"no such command"), ids=("NUL", "not text", "no command")
)
@each_reporter
def test_a_reporter_shows_nothing_of_exec(failing, monkeypatch, report, payload):
    """The environment that the command would have had is in its frames."""
    failing.driver.fails = frozenset()
    text = message.armor(failing.cipher.encrypt(PLAINTEXT.reveal() + payload, context=CONTEXT))
    monkeypatch.setenv("KMSBRIDGE_KEY", "quoting:app")
    monkeypatch.setenv("PASSWORD", text)

    def execute():
        arguments = ["exec", "--context", "tenant=acme", "--", "/nowhere/command"]
        with app.make_context("kmsbridge", arguments, obj=CommandSettings()) as context:
            app.invoke(context)

    error = failure_of(execute)
    assert not isinstance(error, click.UsageError)
    assert_clean(report(error), "a report")


def test_a_crash_in_the_middle_of_a_call_shows_names_alone(failing, service, tmp_path):
    """faulthandler writes this report when the process dies."""
    told = tmp_path / "crash"
    with told.open("w") as file:
        service.before = lambda operation: faulthandler.dump_traceback(file)
        failure_of(lambda: failing.cipher.encrypt(PLAINTEXT.reveal(), context={"tenant": "other"}))
    assert "in encrypt" in told.read_text()
    assert_clean(told.read_text(), "the crash report")


@each_reporter
def test_a_secret_value_in_the_callers_own_frame_is_not_shown(failing, report):
    """A value that a program keeps as it was returned, and lends out or closes, is safe in every frame."""
    secret = decrypted(failing, failing.text)

    def caller():
        kept = {"password": secret, "others": [secret]}
        with secret as value:
            raise LookupError(len(kept) + len([value]))

    shown = report(failure_of(caller))
    assert_clean(shown, "a report")


@each_reporter
def test_a_reporter_shows_what_the_callers_own_frame_holds(failing, report):
    """So that the tests above can fail: all but the log, which has no local variables, tell a plain `str`."""

    def careless():
        shown = PLAINTEXT.text()
        raise LookupError(len(shown))

    told = report(failure_of(careless))
    if report is REPORTERS["better_exceptions"] and sys.version_info >= (3, 13):
        assert "careless" in told  # which it tells there, and no variables
    else:
        assert PLAINTEXT.is_in(told) == (report is not REPORTERS["logging"])


@pytest.mark.skipif("cgitb" not in REPORTERS, reason="this Python has no cgitb")
def test_a_reporter_that_follows_attributes_is_why_frames_are_cleared():
    """It finds what a secret holds wherever a frame of its methods is left, though the repr is redacted."""

    class Careless(SecretValue):
        __slots__ = ()

        def fail(self):
            value = self.reveal()
            return value.missing

    error = failure_of(Careless(PLAINTEXT.reveal()).fail)
    assert PLAINTEXT.is_in(REPORTERS["cgitb"](error))
