"""`explain` shows every effective value and its origin, and no secret."""

import pytest

from kmsbridge import config

TEXT = """
default_profile = "p"
[keys.a]
uri = "aws-kms://alias/app?region=eu-west-1"
address = "https://user:canary@host/x?sig=canary&n=1"
role_id = "shown"
retries = 3
tls = true
token = "canary"
api_key = "canary"
token_file = "/run/token"
auth = { method = "approle", role_id = "r", secret = { value = "canary" }, hosts = ["h1", "env:HOST"], header = "canary" }
auth_method = "approle"
headers = { X-One = "canary" }
cookie = "canary"
bearer = ["canary"]
database_dsn = "canary"
authorization = "Bearer canary"
proxy = "http://canary@canary@proxy:3128"
slash = "http://user:can/canary@proxy:3128/path"
several = "http://u:canary@h1,http://u:canary@h2"
mark = "http://u:canary?canary@proxy"
hash = "http://u:canary#canary@proxy"
fragment = "https://host/x#canary"
mail = "app@project.example"
from_env = "env:CANARY"
from_file = "file:canary"
[keys.b]
uri = "env:B"
[keys.unused]
uri = "env:NOT_SET"
[profiles.p]
encrypt_to = ["a", "env:B_NAME"]
decrypt_with = ["a"]
data_keys = { max_age = "5m", max_bytes = "1GiB" }
audit = { file = "env:LOG" }
"""


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "c.toml").write_text(TEXT)
    (tmp_path / "canary").write_text("canary of the file")
    env = {"CANARY": "canary", "HOST": "canary", "B": "local:canary#b", "B_NAME": "b", "LOG": "canary.jsonl"}
    found = config.explain(tmp_path / "c.toml", env=env)
    file = str(tmp_path / "c.toml")
    return {each.name: (each.value, each.origin.replace(file, "FILE")) for each in found}


@pytest.mark.parametrize(
    ("name", "value", "origin"),
    (
        ("profile", "p", "FILE: default_profile"),
        ("profiles.p.encrypt_to", "a, ***", "FILE: [profiles.p] encrypt_to"),
        ("profiles.p.data_keys.max_age", "300 s", "FILE: [profiles.p.data_keys] max_age"),
        ("profiles.p.data_keys.max_bytes", "1073741824 bytes", "FILE: [profiles.p.data_keys] max_bytes"),
        ("profiles.p.data_keys.max_messages", "1000000", "default"),
        ("profiles.p.calls.deadline", "10 s", "default"),
        ("profiles.p.audit.file", "***", "environment variable LOG (FILE: [profiles.p.audit] file)"),
        ("profiles.p.production", "false", "default"),
        ("keys.a.uri", "aws-kms://alias/app?region=...", "FILE: [keys.a] uri"),
        ("keys.a.allow_in_production", "false", "default"),
        ("keys.a.address", "https://***@host/x?sig=***&n=***", "FILE: [keys.a] address"),
        ("keys.a.role_id", "shown", "FILE: [keys.a] role_id"),
        ("keys.a.retries", "3", "FILE: [keys.a] retries"),
        ("keys.a.tls", "true", "FILE: [keys.a] tls"),
        ("keys.a.token", "***", "FILE: [keys.a] token"),
        ("keys.a.api_key", "***", "FILE: [keys.a] api_key"),
        ("keys.a.token_file", "/run/token", "FILE: [keys.a] token_file"),
        ("keys.a.auth.method", "approle", "FILE: [keys.a.auth] method"),
        ("keys.a.auth.role_id", "r", "FILE: [keys.a.auth] role_id"),
        ("keys.a.auth.header", "***", "FILE: [keys.a.auth] header"),
        ("keys.a.auth_method", "approle", "FILE: [keys.a] auth_method"),
        ("keys.a.headers.X-One", "***", "FILE: [keys.a.headers] X-One"),
        ("keys.a.cookie", "***", "FILE: [keys.a] cookie"),
        ("keys.a.bearer[0]", "***", "FILE: [keys.a] bearer[0]"),
        ("keys.a.database_dsn", "***", "FILE: [keys.a] database_dsn"),
        ("keys.a.authorization", "***", "FILE: [keys.a] authorization"),
        ("keys.a.proxy", "http://***@proxy:3128", "FILE: [keys.a] proxy"),
        ("keys.a.slash", "http://***@proxy:3128/path", "FILE: [keys.a] slash"),
        ("keys.a.several", "http://***@h2", "FILE: [keys.a] several"),
        ("keys.a.mark", "http://***?***", "FILE: [keys.a] mark"),
        ("keys.a.hash", "http://***#***", "FILE: [keys.a] hash"),
        ("keys.a.fragment", "https://host/x#***", "FILE: [keys.a] fragment"),
        ("keys.a.mail", "app@project.example", "FILE: [keys.a] mail"),
        ("keys.a.auth.secret.value", "***", "FILE: [keys.a.auth.secret] value"),
        ("keys.a.auth.hosts[0]", "h1", "FILE: [keys.a.auth] hosts[0]"),
        ("keys.a.auth.hosts[1]", "***", "environment variable HOST (FILE: [keys.a.auth] hosts[1])"),
        ("keys.a.from_env", "***", "environment variable CANARY (FILE: [keys.a] from_env)"),
        ("keys.b.uri", "***", "environment variable B (FILE: [keys.b] uri)"),
    ),
    ids=lambda value: None if value is None else str(value)[:40],
)
def test_a_value_is_shown_with_its_origin(settings, name, value, origin):
    """What people ask: what is it, and who said so."""
    assert settings[name] == (value, origin)


def test_a_file_is_named_and_its_content_masked(settings, tmp_path):
    """The path is what a person needs to look there."""
    value, origin = settings["keys.a.from_file"]
    assert value == "***"
    assert origin == f"file {tmp_path}/canary (FILE: [keys.a] from_file)"


def test_no_secret_is_shown_anywhere(settings):
    """Canaries stand in tokens, references, addresses and nested tables."""
    shown = {name: value for name, (value, _) in settings.items() if "canary" in value}
    assert shown == {}


def test_a_key_that_is_not_used_is_not_explained(settings):
    """Its missing variable stops nobody."""
    assert not [name for name in settings if name.startswith("keys.unused")]


def test_every_setting_of_a_profile_is_explained(settings):
    """Defaults included."""
    profile = {name.removeprefix("profiles.p.") for name in settings if name.startswith("profiles.p.")}
    assert profile == {
        "encrypt_to",
        "decrypt_with",
        "data_keys.max_age",
        "data_keys.max_messages",
        "data_keys.max_bytes",
        "data_keys.max_entries",
        "calls.attempt_timeout",
        "calls.deadline",
        "calls.max_attempts",
        "audit.file",
        "audit.required",
        "production",
        "direct",
        "mixed_recipients",
        "environment",
        "accept_unmarked_until",
    }


@pytest.mark.parametrize(
    ("arguments", "env", "origins"),
    (
        pytest.param({"path": "c.toml", "profile": "p"}, {}, ("argument", "argument"), id="arguments"),
        pytest.param(
            {},
            {"KMSBRIDGE_CONFIG": "c.toml", "KMSBRIDGE_PROFILE": "p"},
            ("environment variable KMSBRIDGE_CONFIG", "environment variable KMSBRIDGE_PROFILE"),
            id="variables",
        ),
        pytest.param({"path": "c.toml"}, {}, ("argument", "c.toml: [profiles] p"), id="the only profile"),
    ),
)
def test_the_choice_of_file_and_profile_is_explained(tmp_path, monkeypatch, arguments, env, origins):
    """Which of the ways to say it was the one that counted."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text("[keys.a]\nuri = 'local:a#a'\n[profiles.p]\nencrypt_to = ['a']")
    found = {each.name: each.origin for each in config.explain(env=env, **arguments)}
    assert (found["config"], found["profile"]) == origins


def test_a_key_variable_explains_itself():
    """Every value is the variable's, or a default."""
    found = config.explain(env={"KMSBRIDGE_KEY": "aws-kms://alias/app?region=canary"})
    uri = next(each for each in found if each.name == "keys.KMSBRIDGE_KEY.uri")
    assert uri.value == "aws-kms://alias/app?region=..."
    assert {each.origin for each in found} == {"environment variable KMSBRIDGE_KEY", "default"}
