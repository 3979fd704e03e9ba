"""Settings that are armored messages: decrypted on load, and an error that names the field and shows no value."""

# mypy: disable-error-code="call-arg, valid-type"

import os
import traceback
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, PostgresDsn, Secret, SecretBytes, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

import kmsbridge
from kmsbridge import SecretValue
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.integrations.pydantic_settings import Encrypted
from tests.secrets.canaries import PLAINTEXT, assert_clean, assert_discreet, failure_of

CONTEXT = {"service": "billing"}


@pytest.fixture
def encrypted(cipher):
    """`encrypted(**options)`: the mark of a field, which is decrypted with `cipher`."""
    return lambda **options: Encrypted(cipher=lambda: cipher, **options)


@pytest.fixture
def settings(encrypted):
    """A settings class with one field of each type."""

    class Database(BaseModel):
        password: Annotated[SecretStr, encrypted(context=CONTEXT, aad=("database", "password"))]

    class Settings(BaseSettings):
        model_config = SettingsConfigDict(env_nested_delimiter="__")

        text: Annotated[SecretStr, encrypted()]
        data: Annotated[SecretBytes, encrypted()]
        number: Annotated[Secret[int], encrypted()]
        url: Annotated[Secret[PostgresDsn] | None, encrypted()] = None
        value: Annotated[SecretValue, encrypted()]
        database: Database

    return Settings


@pytest.fixture
def environment(cipher, monkeypatch):
    """A right value for each."""
    values = {
        "TEXT": cipher.encrypt_text("text"),
        "DATA": kmsbridge.message.armor(cipher.encrypt(b"\xff")),
        "NUMBER": cipher.encrypt_text("17"),
        "URL": cipher.encrypt_text("postgresql://user:password@host/db"),
        "VALUE": cipher.encrypt_text("value"),
        "DATABASE__PASSWORD": cipher.encrypt_text("nested", context=CONTEXT, aad=("database", "password")),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def refusal(call):
    """The errors of what `call()` raises, by their place, once no form of it shows a canary."""
    error = failure_of(call)
    assert isinstance(error, ValidationError)
    assert_discreet(error)
    for shown in (str(error), repr(error.errors()), error.json()):
        assert_clean(shown, "a ValidationError")
    return {".".join(map(str, each["loc"])): each for each in error.errors()}


def test_every_type_of_secret_is_decrypted(settings, environment):
    """At the top and in a nested model."""
    loaded = settings()
    assert loaded.text.get_secret_value() == "text"
    assert loaded.data.get_secret_value() == b"\xff"
    assert loaded.number.get_secret_value() == 17
    assert str(loaded.url.get_secret_value()) == "postgresql://user:password@host/db"
    assert loaded.value.reveal_text() == "value"
    assert loaded.database.password.get_secret_value() == "nested"


def test_loaded_settings_show_nothing(cipher, encrypted):
    """Printed, dumped, and as JSON."""

    class Settings(BaseSettings):
        text: Annotated[SecretStr, encrypted()]
        value: Annotated[SecretValue, encrypted()]

    message = cipher.encrypt_text(PLAINTEXT.text())
    loaded = Settings(text=message, value=message)
    assert loaded.value.reveal() == PLAINTEXT.reveal()
    for shown in (repr(loaded), str(loaded), repr(loaded.model_dump()), loaded.model_dump_json()):
        assert_clean(shown, "settings")


def test_a_dotenv_file_and_a_folder_of_secrets_are_read(cipher, encrypted, tmp_path):
    """With the white space that a file ends with."""

    class Settings(BaseSettings):
        first: Annotated[SecretStr, encrypted()]
        second: Annotated[SecretStr, encrypted()]

    (tmp_path / ".env").write_text(f"FIRST={cipher.encrypt_text('one')}\n")
    (tmp_path / "second").write_text(f"{cipher.encrypt_text('two')}\n")
    loaded = Settings(_env_file=tmp_path / ".env", _secrets_dir=tmp_path)
    assert (loaded.first.get_secret_value(), loaded.second.get_secret_value()) == ("one", "two")


def test_only_the_value_that_is_used_is_decrypted(cipher, encrypted, tmp_path, monkeypatch):
    """One that another source overrides may be of a key that this host has not."""

    class Settings(BaseSettings):
        text: Annotated[SecretStr, encrypted()]

    (tmp_path / ".env").write_text("TEXT=kmsb1_junk\n")
    monkeypatch.setenv("TEXT", cipher.encrypt_text("right"))
    assert Settings(_env_file=tmp_path / ".env").text.get_secret_value() == "right"


def test_a_field_is_bound_to_its_context_and_aad(settings, environment, cipher, monkeypatch):
    """A message that was moved from another field is refused; the error names the field and says what to do."""
    monkeypatch.setenv("DATABASE__PASSWORD", cipher.encrypt_text(PLAINTEXT.text(), context=CONTEXT))
    errors = refusal(settings)
    assert list(errors) == ["database.password"]
    assert errors["database.password"]["type"] == "decryption"
    assert errors["database.password"]["ctx"]["error"] == "AuthenticationError"
    assert "pass the context and aad" in errors["database.password"]["msg"]


@pytest.mark.parametrize("value", (PLAINTEXT.text(), ""), ids=("plain", "empty"))
def test_a_plain_value_is_refused_and_not_shown(settings, environment, monkeypatch, value):
    """pydantic's own error would quote it, and the frames of pydantic's functions have it."""
    monkeypatch.setenv("TEXT", value)
    error = failure_of(settings)
    for shown in (str(error), repr(error.errors()), error.json()):
        assert_clean(shown, "a ValidationError")
    (only,) = error.errors()
    assert (only["type"], only["loc"], only["input"]) == ("plaintext", ("text",), "(hidden)")
    assert "armored message" in only["msg"]


@pytest.mark.parametrize("kind", (SecretStr, SecretBytes, SecretValue))
def test_a_plain_value_is_accepted_where_that_is_asked_for(encrypted, monkeypatch, kind):
    """For development; a message is decrypted all the same."""

    class Settings(BaseSettings):
        text: Annotated[kind, encrypted(allow_plain=True)]

    monkeypatch.setenv("TEXT", "plain")
    text = Settings().text
    assert (text.reveal_text() if kind is SecretValue else text.get_secret_value()) in ("plain", b"plain")
    monkeypatch.setenv("TEXT", "kmsb1_junk")
    assert list(refusal(Settings)) == ["text"]


def test_a_secret_that_the_program_gives_is_taken_as_it_is(encrypted, service):
    """As in an application's tests."""

    class Settings(BaseSettings):
        text: Annotated[SecretStr, encrypted()]

    assert Settings(text=SecretStr("given")).text.get_secret_value() == "given"
    assert service.app.calls["unwrap"] == 0


def test_a_plaintext_that_the_type_refuses_is_not_shown(cipher, encrypted):
    """Not even by the texts of pydantic, which can quote it."""

    class Settings(BaseSettings):
        number: Annotated[Secret[int], encrypted()]
        url: Annotated[Secret[PostgresDsn], encrypted()]
        short: Annotated[SecretStr, Field(max_length=3), encrypted()]
        outer: Annotated[SecretStr, encrypted(), Field(max_length=3)]

    message = cipher.encrypt_text(PLAINTEXT.text())
    errors = refusal(lambda: Settings(number=message, url=message, short=message, outer=message))
    assert {name: each["type"] for name, each in errors.items()}.items() >= {
        "number": "int_parsing",
        "url": "url_parsing",
        "short": "too_long",
    }.items()
    assert "outer" in errors


def test_a_payload_that_is_no_text_is_refused(cipher, encrypted):
    """Where the field is text."""

    class Settings(BaseSettings):
        text: Annotated[SecretStr, encrypted()]

    message = kmsbridge.message.armor(cipher.encrypt(PLAINTEXT.reveal() + b"\xff"))
    assert "SecretBytes" in refusal(lambda: Settings(text=message))["text"]["msg"]


def test_every_field_that_cannot_be_decrypted_is_named(cipher, encrypted):
    """In one error."""

    class Settings(BaseSettings):
        first: Annotated[SecretStr, encrypted()]
        second: Annotated[SecretStr, encrypted()]

    first, second = (cipher.encrypt_text(PLAINTEXT.text(), context={"n": n}) for n in "12")
    errors = refusal(lambda: Settings(first=first, second=second))
    assert set(errors) == {"first", "second"}


@pytest.mark.parametrize("kind", (str, int, SecretStr | int, list[SecretStr], BaseModel))
def test_a_type_that_shows_its_value_is_refused(encrypted, kind):
    """When the class is made."""
    with pytest.raises(TypeError, match="would show the plaintext"):

        class Settings(BaseModel):
            text: Annotated[kind, encrypted()]


def test_the_process_s_own_decryptor_is_used_by_default(tmp_path, monkeypatch):
    """Found through the environment, when a value is decrypted and not before."""

    class Settings(BaseSettings):
        text: Annotated[SecretStr, Encrypted()]

    monkeypatch.chdir(tmp_path)
    assert refusal(lambda: Settings(text="kmsb1_junk"))["text"]["ctx"]["error"] == "ConfigError"
    KeyFile.create(tmp_path / "keys.json", "app").close()
    monkeypatch.setenv("KMSBRIDGE_KEY", f"local:{tmp_path}/keys.json#app")
    with kmsbridge.EnvelopeCipher.from_config() as cipher:
        message = cipher.encrypt_text("text")
    assert Settings(text=message).text.get_secret_value() == "text"
    kmsbridge.shared(cls=kmsbridge.Decryptor).close()


def test_the_frames_of_an_error_hold_no_plaintext(cipher, encrypted):
    """What is decrypted never stands among the input that pydantic's own frames have."""

    class Settings(BaseSettings):
        first: Annotated[SecretStr, encrypted()]
        second: int

    first = cipher.encrypt_text(PLAINTEXT.text())
    error = failure_of(lambda: Settings(first=first, second=first))
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert_clean("".join(told.format()), "the traceback")
    assert_discreet(error)
    assert PLAINTEXT.text() not in os.environ.values()
