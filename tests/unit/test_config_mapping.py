"""A mapping of the same shape as the file: a web framework's settings."""

import asyncio
import copy
from collections import OrderedDict
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

import pytest

from kmsbridge import ConfigError, Decryptor, Encryptor, EnvelopeCipher, RoleError, aio, config
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.observer import Observer
from tests.support import is_library

KEYS = {"app": {"uri": "local:keys.json#app"}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    KeyFile.create(tmp_path / "keys.json", "app").close()
    return tmp_path


def settings(**profile):
    return {"keys": KEYS, "profiles": {"web": {"encrypt_to": ["app"], "decrypt_with": ["app"], **profile}}}


def test_all_six_classes_open_with_it(folder):
    """What one encrypts another decrypts."""
    with Encryptor.from_mapping(settings()) as encryptor, Decryptor.from_mapping(settings()) as decryptor:
        message = encryptor.encrypt(b"text", context={"a": "b"})
        assert decryptor.decrypt(message, context={"a": "b"}) == b"text"
    with EnvelopeCipher.from_mapping(settings()) as cipher:
        assert not cipher.needs_rewrap(message)

    async def main():
        async with aio.EnvelopeCipher.from_mapping(settings()) as cipher:
            assert await cipher.decrypt(message, context={"a": "b"}) == b"text"
        for cls in (aio.Encryptor, aio.Decryptor):
            await cls.from_mapping(settings()).close()

    asyncio.run(main())


def test_it_amounts_to_what_the_file_does(folder):
    """The same profile, but for where it came from."""
    text = """
    [keys.app]
    uri = "local:keys.json#app"
    [profiles.web]
    encrypt_to = ["app"]
    data_keys = { max_age = "5m", max_messages = 7, max_bytes = "1MiB" }
    calls = { deadline = 2 }
    audit = { file = "audit.jsonl", required = true }
    """
    (folder / "c.toml").write_text(text)
    same = settings(
        decrypt_with=[],
        data_keys={"max_age": "5m", "max_messages": 7, "max_bytes": "1MiB"},
        calls={"deadline": 2},
        audit={"file": "audit.jsonl", "required": True},
    )
    one, other = config.load("c.toml", env={}), config.from_mapping(same, env={})
    assert other.origin == "from_mapping"
    assert other._replace(origin="", encrypt_to=()) == one._replace(origin="", encrypt_to=())._replace(
        audit=one.audit._replace(file=str(folder / "audit.jsonl"))
    )


def test_values_are_what_python_has_for_them(folder):
    """Paths, tuples, time spans, and any kind of mapping."""
    mapping = MappingProxyType(
        {
            "keys": OrderedDict(app={"uri": f"local:{folder}/keys.json#app"}),
            "profiles": {
                "web": MappingProxyType(
                    {
                        "encrypt_to": ("app",),
                        "data_keys": {"max_age": timedelta(minutes=2)},
                        "calls": {"attempt_timeout": 0.5, "deadline": timedelta(milliseconds=1500)},
                        "audit": {"file": folder / "audit.jsonl"},
                    }
                )
            },
        }
    )
    profile = config.from_mapping(mapping, env={})
    assert profile.data_keys.max_age == 120
    assert (profile.calls.attempt_timeout, profile.calls.deadline) == (0.5, 1.5)
    assert profile.audit.file == str(folder / "audit.jsonl")
    with Encryptor.from_mapping(mapping) as encryptor:
        encryptor.encrypt(b"x")


def test_relative_paths_start_from_the_current_folder(folder, monkeypatch):
    """Of key files, audit files and `file:` references."""
    (folder / "uri").write_text("local:keys.json#app\n")
    mapping = settings(audit={"file": Path("audit.jsonl")})
    mapping["keys"] = {"app": {"uri": "file:uri"}}
    with Encryptor.from_mapping(mapping) as encryptor:
        encryptor.encrypt(b"x")
    assert (folder / "audit.jsonl").exists()
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    with pytest.raises(ConfigError, match="below"):
        Encryptor.from_mapping(mapping)


def test_the_mapping_is_neither_changed_nor_kept(folder):
    """What becomes of it afterwards makes no difference."""
    mapping = copy.deepcopy(settings(data_keys={"max_messages": 5}))
    before = copy.deepcopy(mapping)
    profile = config.from_mapping(mapping, env={})
    assert mapping == before
    mapping["keys"]["app"]["uri"] = "local:other.json#other"
    mapping["profiles"]["web"]["data_keys"]["max_messages"] = 6
    mapping["profiles"]["web"]["encrypt_to"].clear()
    assert str(profile.encrypt_to[0].uri) == "local:keys.json#app"
    assert profile.data_keys.max_messages == 5


@pytest.mark.parametrize(
    ("arguments", "env", "chosen"),
    (
        ({"profile": "b"}, {"KMSBRIDGE_PROFILE": "c"}, "b"),
        ({}, {"KMSBRIDGE_PROFILE": "c"}, "c"),
        ({}, {}, "a"),
    ),
)
def test_the_profile_is_chosen_as_of_a_file(folder, arguments, env, chosen):
    """The argument, the variable, the default; no configuration is looked for."""
    profiles = {name: {"encrypt_to": ["app"]} for name in "abc"}
    mapping = {"default_profile": "a", "keys": KEYS, "profiles": profiles}
    env = {"KMSBRIDGE_CONFIG": "none.toml", "KMSBRIDGE_KEY": "local:none#none", **env}
    assert config.from_mapping(mapping, env=env, **arguments).name == chosen


def test_references_are_resolved(folder):
    """`env:` from the environment that is given."""
    mapping = settings()
    mapping["keys"] = {"app": {"uri": "env:APP_KEY"}}
    profile = config.from_mapping(mapping, env={"APP_KEY": "local:keys.json#app"})
    assert str(profile.encrypt_to[0].uri) == "local:keys.json#app"
    with pytest.raises(ConfigError, match=r"APP_KEY, which is not set"):
        config.from_mapping(mapping, env={})


WRONG = {
    "table": ({"key": {}}, r"^from_mapping: key is not a table.*'keys'"),
    "profile setting": (settings(encrypt=["app"]), r"profiles\.web\.encrypt is not.*'encrypt_to'"),
    "policy": (settings(data_keys={"max_agee": 1}), r"profiles\.web\.data_keys\.max_agee.*'max_age'"),
    "key": (settings(encrypt_to=["ap"]), r"profiles\.web\.encrypt_to names the key 'ap'.*'app'"),
    "out of bounds": (settings(calls={"deadline": timedelta(days=1)}), r"deadline is 86400.* out of bounds"),
    "a set": (settings(encrypt_to={"app"}), r"encrypt_to is of the wrong type \(set\)"),
    "None": (settings(data_keys=None), r"data_keys is of the wrong type \(NoneType\)"),
    "a number for a name": ({"keys": {1: {}}}, r"keys has a name of the wrong type \(int\)"),
    "no profile": ({}, r"has no profile"),
    "a path for a flag": (settings(direct=Path("x")), r"direct is of the wrong type \(str\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_as_of_a_file(folder, name):
    """By its name, with the nearest valid one."""
    mapping, words = WRONG[name]
    with pytest.raises(ConfigError, match=words) as caught:
        EnvelopeCipher.from_mapping(mapping)
    assert caught.value.remedy


def test_a_mapping_in_itself_is_refused(folder):
    """No recursion without end."""
    mapping = settings()
    mapping["keys"] = {"app": {"uri": "local:keys.json#app", "auth": {}}}
    mapping["keys"]["app"]["auth"]["again"] = mapping["keys"]["app"]["auth"]
    with pytest.raises(ConfigError, match="nested too deeply"):
        EnvelopeCipher.from_mapping(mapping)


@pytest.mark.parametrize("wrong", ("kmsbridge.toml", None, ["keys"], Path("kmsbridge.toml")), ids=repr)
def test_what_is_no_mapping_is_a_type_error(wrong):
    with pytest.raises(TypeError, match="must be a mapping.*from_config"):
        EnvelopeCipher.from_mapping(wrong)


def test_a_profile_for_another_role_is_refused_and_observers_are_told(folder):
    """As of `from_config`."""
    with pytest.raises(RoleError, match="decrypt_with"):
        Decryptor.from_mapping(settings(decrypt_with=()))
    told = []

    class Count(Observer):
        def call_finished(self, call, result):
            told.append(call.operation)

    with Encryptor.from_mapping(settings(), observers=[Count()]) as encryptor:
        encryptor.encrypt(b"x")
    assert "wrap" in told


def test_no_error_shows_what_is_in_it(folder):
    """A secret in the wrong place stays out of the text, and out of the traceback's variables."""
    import traceback

    secret = "correct horse battery staple"
    mapping = settings()
    mapping["keys"] = {"app": {"uri": "local:keys.json#app", "passphras": secret}}
    error = None
    try:
        EnvelopeCipher.from_mapping(mapping)
    except ConfigError as caught:
        error = caught
    assert "did you mean 'passphrase'" in str(error)
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in shown.stack if is_library(frame.filename)]
    assert len(frames) >= 2
    assert all(secret not in repr(frame.locals) for frame in frames)
    assert secret not in str(error)
