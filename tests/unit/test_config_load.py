"""Which configuration is found, which profile is chosen, and what they amount to."""

import subprocess
import sys

import pytest

from kmsbridge import config
from kmsbridge.errors import ConfigError
from kmsbridge.policy import CallPolicy, DataKeyPolicy

TWO_PROFILES = """
[keys.dev]
uri = "local:dev-keys.json#app"

[keys.vault]
uri = "vault-transit://transit/payments"
address = "https://vault.internal:8200"
auth = { method = "token", token = "env:VAULT" }

[profiles.web]
encrypt_to = ["dev", "vault"]

[profiles.dev]
encrypt_to = ["dev"]
decrypt_with = ["dev"]
"""

ONE_PROFILE = """
[keys.a]
uri = "local:a.json#a"
[profiles.only]
encrypt_to = ["a"]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def two(folder):
    path = folder / "two.toml"
    path.write_text(TWO_PROFILES)
    return path


@pytest.fixture
def one(folder):
    path = folder / "one.toml"
    path.write_text(ONE_PROFILE)
    return path


def test_the_path_argument_wins_over_the_environment(two, one):
    """Neither variable is looked at once a path is given."""
    env = {"KMSBRIDGE_CONFIG": str(two), "KMSBRIDGE_KEY": "local:x#x"}
    assert config.load(one, env=env).name == "only"


def test_the_variable_wins_over_the_file_of_the_folder(one, folder):
    """KMSBRIDGE_CONFIG names the configuration although ./kmsbridge.toml is there."""
    (folder / "kmsbridge.toml").write_text(ONE_PROFILE.replace("only", "here"))
    assert config.load(env={"KMSBRIDGE_CONFIG": str(one)}).name == "only"
    assert config.load(env={}).name == "here"


def test_empty_variables_count_as_not_set(one, folder):
    """An empty variable is how a shell unsets one for a single command."""
    (folder / "kmsbridge.toml").write_text(ONE_PROFILE)
    env = {"KMSBRIDGE_CONFIG": "", "KMSBRIDGE_KEY": "", "KMSBRIDGE_PROFILE": ""}
    assert config.load(env=env).origin == "kmsbridge.toml"


def test_the_process_environment_is_read_at_each_call(one, monkeypatch):
    """A variable set after the import counts."""
    monkeypatch.setenv("KMSBRIDGE_CONFIG", str(one))
    assert config.load().name == "only"
    monkeypatch.delenv("KMSBRIDGE_CONFIG")
    with pytest.raises(ConfigError, match=r"no configuration.*'kmsbridge init'"):
        config.load()


def test_a_key_uri_in_the_environment_is_a_whole_configuration(folder):
    """Encrypts to and decrypts with that key; relative paths start at the current folder."""
    profile = config.load(env={"KMSBRIDGE_KEY": "local:keys.json#app"})
    assert profile.name == profile.origin == "KMSBRIDGE_KEY"
    assert profile.encrypt_to == profile.decrypt_with
    assert str(profile.encrypt_to[0].uri) == "local:keys.json#app"
    assert profile.encrypt_to[0].options.folder == str(folder)


@pytest.mark.parametrize(
    ("env", "profile", "words"),
    (
        pytest.param(
            {"KMSBRIDGE_KEY": "local:x#x", "KMSBRIDGE_CONFIG": "y"},
            None,
            ("KMSBRIDGE_KEY", "KMSBRIDGE_CONFIG"),
            id="with a configuration file",
        ),
        pytest.param(
            {"KMSBRIDGE_KEY": "local:x#x"},
            "web",
            ("KMSBRIDGE_KEY", "a profile is named"),
            id="with an argument",
        ),
        pytest.param(
            {"KMSBRIDGE_KEY": "local:x#x", "KMSBRIDGE_PROFILE": "web"},
            None,
            ("KMSBRIDGE_KEY", "KMSBRIDGE_PROFILE"),
            id="with a profile variable",
        ),
        pytest.param(
            {"KMSBRIDGE_KEY": "env:OTHER"}, None, ("KMSBRIDGE_KEY", "reference"), id="as a reference"
        ),
        pytest.param({"KMSBRIDGE_KEY": "no uri"}, None, ("KMSBRIDGE_KEY", "scheme"), id="without a scheme"),
    ),
)
def test_a_key_variable_that_conflicts_is_refused_by_name(env, profile, words, folder):
    """The error names both sides of the conflict."""
    with pytest.raises(ConfigError) as caught:
        config.load(profile=profile, env=env)
    assert all(word in str(caught.value) for word in words)


def test_the_profile_is_the_argument_then_the_variable_then_the_default(two):
    """Each wins over what comes after it."""
    env = {"KMSBRIDGE_PROFILE": "dev", "VAULT": "token"}
    two.write_text('default_profile = "web"\n' + TWO_PROFILES)
    assert config.load(two, profile="web", env=env).name == "web"
    assert config.load(two, env=env).name == "dev"
    assert config.load(two, env={"VAULT": "token"}).name == "web"


def test_no_choice_among_several_profiles_lists_them(two):
    """Nothing is guessed."""
    with pytest.raises(ConfigError, match="several profiles .dev, web., and none was chosen"):
        config.load(two, env={})


def test_a_profile_holds_its_keys_in_order_with_their_options(two):
    """The options are without what is this library's own, and know their folder and name."""
    profile = config.load(two, profile="web", env={"VAULT": "hvs.secret"})
    dev, vault = profile.encrypt_to
    assert (dev.name, vault.name, profile.decrypt_with) == ("dev", "vault", ())
    assert vault.options.name == "keys.vault"
    assert vault.options.folder == str(two.parent)
    assert vault.options.text("address") == "https://vault.internal:8200"
    token = vault.options.table("auth").secret("token")
    assert token is not None
    assert token.reveal_text() == "hvs.secret"
    assert [name for _, name in vault.options.unknown()] == ["method"]
    assert "hvs.secret" not in repr(profile)


def test_a_key_of_both_lists_is_one_object(two):
    """So that one driver serves both directions."""
    profile = config.load(two, profile="dev", env={})
    assert profile.encrypt_to[0] is profile.decrypt_with[0]


def test_a_key_that_the_profile_does_not_use_is_not_resolved(two):
    """The missing variable of another profile's key stops nobody."""
    assert config.load(two, profile="dev", env={}).name == "dev"
    with pytest.raises(ConfigError, match=r"keys\.vault\.auth\.token.*VAULT"):
        config.load(two, profile="web", env={})


def test_every_setting_of_a_profile_arrives(folder):
    """Durations in seconds, sizes in bytes, the audit file beside the configuration."""
    path = folder / "sub" / "all.toml"
    path.parent.mkdir()
    path.write_text("""
        [keys.a]
        uri = "local:a.json#a"
        allow_in_production = true
        [profiles.p]
        encrypt_to = []
        decrypt_with = ["a"]
        data_keys = { max_age = "1.5h", max_messages = 7, max_bytes = "10MiB", max_entries = 5 }
        calls = { attempt_timeout = "500ms", deadline = 2, max_attempts = 1 }
        audit = { file = "log/audit.jsonl", required = true }
        production = true
        direct = true
    """)
    profile = config.load(path, env={})
    assert profile.encrypt_to == ()
    assert profile.decrypt_with[0].allow_in_production
    assert profile.data_keys == DataKeyPolicy(5400.0, 7, 10 * 2**20, 5)
    assert profile.calls == CallPolicy(0.5, 2.0, 1)
    assert profile.audit.file == str(path.parent / "log" / "audit.jsonl")
    assert profile.audit.required
    assert profile.production
    assert profile.direct
    assert profile.origin == str(path)


def test_two_keys_may_have_one_uri(folder):
    """Only a repeated name is a mistake."""
    path = folder / "c.toml"
    path.write_text(
        '[keys.a]\nuri = "local:k#k"\n[keys.b]\nuri = "local:k#k"\n[profiles.p]\ndecrypt_with = ["a", "b"]'
    )
    assert [key.name for key in config.load(path, env={}).decrypt_with] == ["a", "b"]


def test_a_short_deadline_alone_shortens_the_attempt(folder):
    """The default of the one does not forbid a value of the other."""
    path = folder / "c.toml"
    path.write_text(ONE_PROFILE + "calls = { deadline = 1 }")
    assert config.load(path, env={}).calls.attempt_timeout == 1.0


def test_a_relative_path_keeps_its_folder_after_chdir(folder, monkeypatch):
    """The folder is absolute from the start."""
    (folder / "kmsbridge.toml").write_text(ONE_PROFILE)
    profile = config.load(env={})
    monkeypatch.chdir("/")
    assert profile.encrypt_to[0].options.folder == str(folder)


def test_a_byte_order_mark_is_no_obstacle(folder):
    """Some editors write one."""
    path = folder / "c.toml"
    path.write_bytes(b"\xef\xbb\xbf" + ONE_PROFILE.encode())
    assert config.load(path, env={}).name == "only"


def test_from_uri_encrypts_to_the_first_and_decrypts_with_all(folder):
    """Options of the key go to the keys of its scheme, settings to the profile."""
    profile = config.from_uri(
        "local:new.json#app",
        decrypt_uris=["local:old.json#app", "aws-kms://alias/app?region=eu-west-1"],
        options={
            "passphrase": "canary",
            "allow_in_production": True,
            "data_keys": {"max_age": "1m"},
            "audit": {"file": "audit.jsonl"},
            "production": True,
        },
    )
    new, old, aws = profile.decrypt_with
    assert profile.encrypt_to == (new,)
    assert (profile.name, profile.origin) == ("default", "from_uri")
    assert [bool(key.options.secret("passphrase")) for key in (new, old, aws)] == [True, True, False]
    assert all(key.allow_in_production for key in (new, old, aws))
    assert profile.data_keys.max_age == 60.0
    assert profile.audit.file == str(folder / "audit.jsonl")
    assert profile.production
    assert "canary" not in repr(profile)


def test_from_uri_resolves_references_in_the_process_environment(folder, monkeypatch):
    """In URIs, in options, and in the profile's settings."""
    monkeypatch.setenv("APP_URI", "local:k.json#k")
    monkeypatch.setenv("APP_PASS", "canary")
    (folder / "age").write_text("2m\n")
    profile = config.from_uri(
        "env:APP_URI", options={"passphrase": "env:APP_PASS", "data_keys": {"max_age": "file:age"}}
    )
    secret = profile.encrypt_to[0].options.secret("passphrase")
    assert secret is not None
    assert secret.reveal() == b"canary"
    assert profile.data_keys.max_age == 120.0


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    (
        pytest.param(
            {"options": {"data_keys": {"max_aeg": 1}}}, ConfigError, "data_keys.max_aeg", id="unknown setting"
        ),
        pytest.param(
            {"options": {"production": "yes"}}, ConfigError, "production is of", id="text for a flag"
        ),
        pytest.param({"options": {"data_keys": 5}}, ConfigError, "data_keys is of", id="number for a table"),
        pytest.param(
            {"options": {"allow_in_production": 1}},
            ConfigError,
            "allow_in_production",
            id="number for a flag",
        ),
        pytest.param(
            {"options": {"token": "env:NOT_SET"}},
            ConfigError,
            "options.token refers to.*NOT_SET",
            id="unset variable",
        ),
        pytest.param(
            {"options": {"token": "env:"}},
            ConfigError,
            "options.token does not refer",
            id="nameless variable",
        ),
        pytest.param(
            {"decrypt_uris": ["no uri"], "options": {}},
            ConfigError,
            r"decrypt_uris\[0\]",
            id="bad second URI",
        ),
        pytest.param(
            {"decrypt_uris": "local:x#x", "options": {}}, TypeError, "list of key URIs", id="one str"
        ),
    ),
)
def test_from_uri_names_the_argument_that_is_wrong(arguments, error, words):
    """Tables that the caller never wrote are not mentioned."""
    with pytest.raises(error, match=words):
        config.from_uri("local:k.json#k", **arguments)


def test_an_unknown_option_names_the_nearest_that_the_driver_asked_for(two):
    """Also inside a table of options."""
    vault = config.load(two, profile="web", env={"VAULT": "t"}).encrypt_to[1]
    auth = vault.options.table("auth")
    auth.text("methods")
    [(_, address), (table, name), *_] = vault.options.unknown()
    assert address == "address"
    error = config.unknown_option_error(table, table.known(), name)
    assert str(error).startswith(
        "keys.vault.auth.method is not an option of this key; did you mean 'methods'?"
    )


def test_importing_config_imports_no_parser():
    """`tomllib` and `difflib` cost time that a program with a key URI need not spend."""
    code = "import sys, kmsbridge.config; print(sorted({'tomllib', 'difflib'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", ({"path": 7}, {"profile": 7}), ids=("path", "profile"))
def test_an_argument_of_the_wrong_type_is_a_type_error(one, arguments):
    """A number is neither a path nor a name."""
    with pytest.raises(TypeError):
        config.load(**{"path": one, "env": {}, **arguments})
