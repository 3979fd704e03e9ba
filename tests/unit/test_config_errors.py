"""What is wrong with a configuration is said by name, with what to do, and without its secrets."""

import os
import traceback

import pytest

from kmsbridge import config
from kmsbridge.config.document import check_key_names
from kmsbridge.errors import ConfigError
from tests.support import is_library

KEYS = """
[keys.app]
uri = "local:a.json#a"
[keys.other]
uri = "local:b.json#b"
"""


@pytest.fixture
def load(tmp_path):
    """Load this text as a configuration file."""

    def load(text, **arguments):
        path = tmp_path / "c.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return config.load(path, env=arguments.pop("env", {}), **arguments)

    return load


def refused(load, text, **arguments):
    with pytest.raises(ConfigError) as caught:
        load(text, **arguments)
    assert caught.value.remedy
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "name", "nearest"),
    (
        pytest.param("[key.a]", "key", "keys", id="table"),
        pytest.param("default-profile = 'p'", "default-profile", "default_profile", id="top-level setting"),
        pytest.param(
            "[profiles.p]\nencrypt = ['app']", "profiles.p.encrypt", "encrypt_to", id="profile setting"
        ),
        pytest.param("[profiles.p]\nencrypt_to = ['ap']", "profiles.p.encrypt_to", "app", id="key name"),
        pytest.param(
            "[profiles.p.data_keys]\nmax_agee = 1", "profiles.p.data_keys.max_agee", "max_age", id="policy"
        ),
        pytest.param(
            "[profiles.p.calls]\nDeadline = 1", "profiles.p.calls.Deadline", "deadline", id="other case"
        ),
        pytest.param("[profiles.p.audit]\nfiel = ''", "profiles.p.audit.fiel", "file", id="audit"),
        pytest.param(
            "default_profile = 'prd'\n[profiles.prod]", "default_profile", "prod", id="default profile"
        ),
    ),
)
def test_an_unknown_word_names_the_nearest_valid_one(load, text, name, nearest):
    """Also in a profile that is not the one being opened."""
    text = text + KEYS if text.startswith("default") else KEYS + text
    message = refused(load, text + "\n[profiles.good]\nencrypt_to = ['app']", profile="good")
    assert name in message
    assert f"did you mean '{nearest}'?" in message


def test_an_unknown_profile_names_the_nearest(load):
    """And who asked for it."""
    message = refused(load, KEYS + "[profiles.prod]\nencrypt_to = ['app']", env={"KMSBRIDGE_PROFILE": "prd"})
    assert "'prd' (environment variable KMSBRIDGE_PROFILE)" in message
    assert "did you mean 'prod'?" in message


@pytest.mark.parametrize("chosen", ("p", "q"))
def test_a_direct_profile_with_several_keys_is_refused_when_it_is_opened(load, chosen):
    """Also where another profile of the file was chosen; the error says why, and what to do."""
    text = KEYS + "[profiles.p]\nencrypt_to = ['app', 'env:OTHER']\ndirect = true\n"
    message = refused(
        load, text + "[profiles.q]\nencrypt_to = ['app']\n", profile=chosen, env={"OTHER": "other"}
    )
    assert "profiles.p.direct is true, and profiles.p.encrypt_to names several keys" in message
    assert "name one key, or leave direct out" in message
    assert "two readers decrypt to different payloads" in message


def test_a_direct_profile_may_have_one_key_and_decrypt_with_several(load):
    """What is read needs no such rule: each message has one recipient."""
    lists = "encrypt_to = ['app']\ndecrypt_with = ['app', 'other']"
    assert load(f"{KEYS}[profiles.p]\n{lists}\ndirect = true").direct
    assert not load(f"{KEYS}[profiles.p]\nencrypt_to = ['app', 'other']\ndirect = false").direct


@pytest.mark.parametrize(
    ("setting", "name"),
    (
        pytest.param("encrypt_to = 'app'", "encrypt_to", id="text for a list"),
        pytest.param("encrypt_to = [1]", "encrypt_to[0]", id="number for a name"),
        pytest.param("encrypt_to = ['app', 'app']", "encrypt_to", id="a name twice"),
        pytest.param("decrypt_with = ['app', 'none']", "decrypt_with", id="a key that is not there"),
        pytest.param("production = 'true'", "production", id="text for a flag"),
        pytest.param("direct = 1", "direct", id="number for a flag"),
        pytest.param("production = 'env:X'", "production", id="reference for a flag"),
        pytest.param("data_keys = 5", "data_keys", id="number for a table"),
        pytest.param("data_keys = { max_age = true }", "data_keys.max_age", id="true for a duration"),
        pytest.param("data_keys = { max_age = '5' }", "data_keys.max_age", id="duration without a unit"),
        pytest.param("data_keys = { max_age = '5M' }", "data_keys.max_age", id="duration in an unknown unit"),
        pytest.param("data_keys = { max_age = '-5s' }", "data_keys.max_age", id="negative duration"),
        pytest.param("data_keys = { max_age = '٣s' }", "data_keys.max_age", id="digits of another script"),
        pytest.param(
            "data_keys = { max_age = nan }", "data_keys.max_age", id="duration that is not a number"
        ),
        pytest.param("data_keys = { max_age = inf }", "data_keys.max_age", id="endless duration"),
        pytest.param("data_keys = { max_age = 0 }", "data_keys.max_age", id="no duration"),
        pytest.param("data_keys = { max_age = '366d' }", "data_keys.max_age", id="duration out of bounds"),
        pytest.param(f"data_keys = {{ max_age = {'9' * 400} }}", "data_keys.max_age", id="huge duration"),
        pytest.param("data_keys = { max_bytes = 1.5 }", "data_keys.max_bytes", id="fraction for bytes"),
        pytest.param("data_keys = { max_bytes = '0.3B' }", "data_keys.max_bytes", id="fraction of a byte"),
        pytest.param(
            "data_keys = { max_bytes = '1XB' }", "data_keys.max_bytes", id="size in an unknown unit"
        ),
        pytest.param("data_keys = { max_messages = '5' }", "data_keys.max_messages", id="text for a count"),
        pytest.param("data_keys = { max_messages = true }", "data_keys.max_messages", id="true for a count"),
        pytest.param("data_keys = { max_messages = 0 }", "data_keys.max_messages", id="count out of bounds"),
        pytest.param(
            "calls = { attempt_timeout = 20 }", "calls.attempt_timeout", id="attempt beyond the deadline"
        ),
        pytest.param("calls = { deadline = -1 }", "calls.deadline", id="negative deadline"),
        pytest.param("calls = { max_attempts = 1000 }", "calls.max_attempts", id="too many attempts"),
        pytest.param("audit = { file = 5 }", "audit.file", id="number for a path"),
        pytest.param("audit = { file = '\\u0000' }".replace("'", '"'), "audit.file", id="NUL in a path"),
        pytest.param("audit = { required = 'no' }", "audit.required", id="text for required"),
        pytest.param("audit = { required = true }", "audit.required", id="required without a file"),
    ),
)
def test_a_setting_of_the_wrong_kind_is_refused_by_its_dotted_name(load, setting, name):
    """Type, unit and bounds are checked when the configuration is opened, not at first use."""
    assignment = "" if setting.startswith("encrypt_to") else "encrypt_to = ['app']\n"
    message = refused(load, f"{KEYS}[profiles.p]\n{assignment}{setting}")
    assert f"profiles.p.{name}" in message


@pytest.mark.parametrize(
    ("text", "words"),
    (
        pytest.param("keys = 5", "keys is of the wrong type", id="keys that are a number"),
        pytest.param("[keys]\na = 5", "keys.a is of the wrong type", id="key that is a number"),
        pytest.param("[keys.a]", "keys.a has no uri", id="key without a URI"),
        pytest.param("[keys.a]\nuri = 5", "keys.a.uri is of the wrong type", id="URI that is a number"),
        pytest.param(
            "[keys.a]\nuri = 'x:y'\nallow_in_production = 1", "keys.a.allow_in_production", id="flag"
        ),
        pytest.param(
            '[keys."a\\nb"]\nuri = "x:y"', "keys.'a\\nb' is not a valid name", id="newline in a name"
        ),
        pytest.param('[keys.""]\nuri = "x:y"', "keys.'' is not a valid name", id="empty name"),
        pytest.param('[keys."env:A"]\nuri = "x:y"', "is not a valid name", id="name like a reference"),
        pytest.param(
            "[profiles.p]\nencrypt_to = [" + ", ".join(f"'env:A{n}'" for n in range(17)) + "]",
            "profiles.p.encrypt_to names more than 16 keys",
            id="more keys than a message holds",
        ),
        pytest.param(
            "[keys.a]\nuri='vault://root:canary@host/k'\n[profiles.p]\nencrypt_to=['a']",
            "keys.a.uri: a vault URI has a user or password",
            id="URI with a password",
        ),
        pytest.param(KEYS, "the configuration has no profile", id="no profiles"),
        pytest.param("", "the configuration has no profile", id="empty file"),
        pytest.param(
            KEYS + "[profiles.p]", "'p' has no key in encrypt_to or decrypt_with", id="profile without keys"
        ),
        pytest.param(
            "[keys.a]\nuri='nothing'\n[profiles.p]\nencrypt_to=['a']",
            "keys.a.uri: a key URI",
            id="broken URI",
        ),
        pytest.param(
            f"[keys.a]\nuri='x:y'\no = {'[' * 30}{']' * 30}\n[profiles.p]\nencrypt_to=['a']",
            "nested too deeply",
            id="deep option",
        ),
    ),
)
def test_a_misshapen_configuration_is_refused_by_name(load, text, words):
    """One line, naming the table."""
    message = refused(load, text)
    assert words in message
    assert "\n" not in message


def test_a_long_list_of_keys_is_checked_without_comparing_each_with_each():
    """What reading a list costs grows with its length, not with the square of it."""
    compared = 0

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    names = [Name(f"env:A{n}") for n in range(1000)]
    check_key_names(names, "decrypt_with", {})
    assert compared < 10 * len(names)


@pytest.mark.parametrize(
    ("content", "words"),
    (
        pytest.param(b"[keys.a]\nuri = canary", "is not valid TOML at line 2, column 7", id="unquoted text"),
        pytest.param(b'[keys.a]\nuri = "canary', "is not valid TOML at", id="cut short"),
        pytest.param(b"a = 1\na = 2\n", "is not valid TOML at line 2", id="a name twice"),
        pytest.param(b"token = '\xff canary'", "is not UTF-8 at byte 9", id="not UTF-8"),
        pytest.param(b"canary\0", "is not valid TOML at", id="a NUL"),
        pytest.param(b"a = " + b"9" * 5000, "is not valid TOML", id="an endless number"),
        pytest.param(b"a = " + b"[" * 50_000, "is n", id="endless nesting"),
        pytest.param(b"#" * (64 * 1024 + 1), "is larger than 64 KiB", id="too large"),
    ),
)
def test_an_unreadable_file_is_refused_without_quoting_it(load, content, words):
    """The place is named; the line may hold a secret, and is in no traceback either."""
    with pytest.raises(ConfigError) as caught:
        load(content)
    assert "c.toml" in str(caught.value)
    assert words in str(caught.value)
    assert "canary" not in told(caught.value)


@pytest.mark.parametrize("kind", ("missing", "folder", "pipe", "device", "forbidden", "loop", "nul", "empty"))
def test_what_is_not_a_readable_file_is_refused_at_once(kind, tmp_path, monkeypatch):
    """A folder, a pipe nobody writes to, a link to itself: never a wait, never an OSError."""
    path = str(tmp_path / "c.toml")
    if kind == "folder":
        os.mkdir(path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        os.symlink(path, path)
    elif kind == "forbidden":
        monkeypatch.setattr(os, "open", denied)
    path = {"device": "/dev/zero", "nul": "a\0b", "empty": ""}.get(kind, path)
    with pytest.raises(ConfigError, match=r"configuration file .*; "):
        config.load(path, env={})


def denied(*args):
    raise PermissionError(13, "Permission denied")


@pytest.fixture
def with_token(load, tmp_path):
    """Load a configuration whose key has this token."""

    def load_token(token, **arguments):
        text = f"[keys.a]\nuri = 'local:a#a'\nnested = {{ list = ['x', '{token}'] }}\n[profiles.p]\nencrypt_to = ['a']"
        return load(text, **arguments).encrypt_to[0].options.table("nested")._values["list"][1]

    return load_token


def test_a_variable_is_read_from_the_given_environment(with_token, monkeypatch):
    """`env` replaces the process's environment for `env:` values too."""
    monkeypatch.setenv("TOKEN", "of the process")
    assert with_token("env:TOKEN", env={"TOKEN": "given"}) == "given"
    with pytest.raises(
        ConfigError, match=r"keys\.a\.nested\.list\[1\] refers to the environment variable TOKEN"
    ):
        with_token("env:TOKEN", env={})
    with pytest.raises(ConfigError, match="TOKEN, which is not set"):
        with_token("env:TOKEN", env={"TOKEN": ""})


@pytest.mark.parametrize(
    ("content", "value"),
    (
        pytest.param(b"plain", "plain", id="without a newline"),
        pytest.param(b"line\n", "line", id="one newline is stripped"),
        pytest.param(b"line\r\n", "line", id="one newline of two bytes is stripped"),
        pytest.param(b"line\n\n", "line\n", id="only one"),
        pytest.param(b" spaced ", " spaced ", id="spaces stay"),
        pytest.param("schlüssel\n".encode(), "schlüssel", id="UTF-8"),
        pytest.param(b"", "", id="empty"),
        pytest.param(b"env:HOME", "env:HOME", id="a reference in it is text"),
        pytest.param(b"file:secret", "file:secret", id="a file that names itself is text"),
    ),
)
def test_a_file_is_read_from_the_configurations_folder(with_token, tmp_path, content, value):
    """One level only: what is read is never a reference again."""
    (tmp_path / "secret").write_bytes(content)
    assert with_token("file:secret") == value
    assert with_token(f"file:{tmp_path}/secret") == value


@pytest.mark.parametrize(
    ("kind", "words"),
    (
        pytest.param("missing", "does not exist", id="missing"),
        pytest.param("folder", "is a folder", id="folder"),
        pytest.param("pipe", "is not a regular file", id="pipe"),
        pytest.param("large", "is larger than 64 KiB", id="too large"),
        pytest.param("binary", "is not UTF-8", id="binary"),
    ),
)
def test_a_file_reference_that_cannot_be_read_names_key_and_path(with_token, tmp_path, kind, words):
    """And tells nothing of the content."""
    path = tmp_path / "secret"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "missing":
        path.write_bytes(b"canary" * 20_000 if kind == "large" else b"canary\xff")
    with pytest.raises(ConfigError) as caught:
        with_token("file:secret")
    assert "keys.a.nested.list[1]" in str(caught.value)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert "canary" not in told(caught.value)


def test_a_uri_by_reference_must_be_a_uri(load):
    """A reference that leads to a reference is refused, with the key named."""
    text = "[keys.a]\nuri = 'env:URI'\n[profiles.p]\nencrypt_to = ['a']"
    assert str(load(text, env={"URI": "local:k#k"}).encrypt_to[0].uri) == "local:k#k"
    message = refused(load, text, env={"URI": "env:URI"})
    assert "keys.a.uri: the reference leads to another reference" in message


def test_names_and_settings_may_be_references(load):
    """A list of keys, a duration and the audit file are text, and may come from outside."""
    text = (
        f"{KEYS}[profiles.p]\nencrypt_to = ['env:KEY']\n"
        "data_keys = { max_age = 'env:AGE', max_bytes = 'env:SIZE' }\naudit = { file = 'env:LOG' }"
    )
    profile = load(text, env={"KEY": "app", "AGE": "1m", "SIZE": "1 KB", "LOG": "/log"})
    assert profile.encrypt_to[0].name == "app"
    assert (profile.data_keys.max_age, profile.data_keys.max_bytes) == (60.0, 1000)
    assert profile.audit.file == "/log"


@pytest.mark.parametrize(
    "setting",
    ("data_keys = { max_messages = 'env:X' }", "audit = { required = 'file:x' }", "direct = 'env:X'"),
    ids=("count", "flag in a table", "flag"),
)
def test_a_reference_stands_only_where_text_may(load, setting):
    """Refused in every profile, before anything is looked up."""
    text = f"{KEYS}[profiles.p]\nencrypt_to = ['app']\n[profiles.other]\n{setting}"
    assert "is of the wrong type (str)" in refused(load, text, profile="p")


def test_references_of_another_profile_are_not_followed(load):
    """Neither its keys' names nor its durations need exist for this one."""
    other = "encrypt_to = ['env:X']\ndata_keys = { max_age = 'env:X' }\ncalls = { deadline = 'file:x' }"
    assert (
        load(f"{KEYS}[profiles.p]\nencrypt_to = ['app']\n[profiles.other]\n{other}", profile="p").name == "p"
    )


@pytest.mark.parametrize(
    "env",
    (
        pytest.param({"KEY": "canary", "AGE": "1s", "SIZE": "1B"}, id="key"),
        pytest.param({"KEY": "app", "AGE": "canary", "SIZE": "1B"}, id="duration"),
        pytest.param({"KEY": "app", "AGE": "1s", "SIZE": "canary"}, id="size"),
        pytest.param({"KEY": "app", "AGE": "1s", "SIZE": "1B", "TOKEN": "canary"}, id="another key's secret"),
    ),
)
def test_what_a_reference_led_to_is_never_quoted(load, env):
    """Neither in the error nor in the local variables its traceback keeps."""
    text = (
        f"{KEYS}token = 'env:TOKEN'\nplain = 'canary'\n[profiles.p]\nencrypt_to = ['env:KEY']\n"
        "decrypt_with = ['other']\ndata_keys = { max_age = 'env:AGE', max_bytes = 'env:SIZE', max_entries = 0 }"
    )
    with pytest.raises(ConfigError) as caught:
        load(text, env=dict(env, TOKEN="canary"))
    assert "canary" not in told(caught.value)


def told(error):
    """All that an error reporter would print, with the local variables of the library's frames."""
    parts = [str(error), repr(error), repr(error.__dict__)]
    seen = error
    while seen is not None:
        for frame, _ in traceback.walk_tb(seen.__traceback__):
            if is_library(frame.f_code.co_filename):
                parts.append(repr(frame.f_locals))
        parts += traceback.format_exception_only(seen)
        parts.append(repr(vars(seen)) + repr(seen.args))
        seen = seen.__context__
    return "".join(parts)
