"""`shared` gives everybody in a process the same cipher of a profile."""

import asyncio
import json
import subprocess
import sys

import pytest

from kmsbridge import ClosedError, ConfigError, Decryptor, Encryptor, EnvelopeCipher, RoleError, aio, shared
from kmsbridge.cipher import sharing
from kmsbridge.drivers.local.keyfile import KeyFile
from tests.support import finish, fork, on_threads

CONFIG = """
default_profile = "dev"
[keys.app]
uri = "local:keys.json#app"
[profiles.dev]
encrypt_to = ["app"]
decrypt_with = ["app"]
[profiles.web]
encrypt_to = ["app"]
[profiles.worker]
decrypt_with = ["app"]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a configuration; what was opened in a test is closed after it."""
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    KeyFile.create("keys.json", "app").close()
    (tmp_path / "kmsbridge.toml").write_text(CONFIG)
    monkeypatch.setattr(sharing._ciphers, "_opened", {})
    yield tmp_path
    for opened in sharing._ciphers._opened.values():
        opened.session.close()


def test_every_call_gives_the_same_one():
    """By default an `EnvelopeCipher`, by its name or as the default profile."""
    cipher = shared()
    assert type(cipher) is EnvelopeCipher
    assert shared() is cipher
    assert shared("dev") is cipher
    assert shared(profile="dev", cls=EnvelopeCipher) is cipher
    assert cipher.decrypt(shared().encrypt(b"text")) == b"text"


def test_the_name_first_and_the_default_then_are_one():
    """Whichever is asked for first."""
    cipher = shared("dev")
    assert shared() is cipher


def test_each_class_has_its_own(folder):
    """An `Encryptor` holds nothing that could decrypt, so it is no part of another's."""
    encryptor, decryptor = shared("web", Encryptor), shared("worker", Decryptor)
    assert (type(encryptor), type(decryptor)) == (Encryptor, Decryptor)
    assert decryptor.decrypt(encryptor.encrypt(b"text")) == b"text"
    assert shared("web", Encryptor) is encryptor
    assert shared("dev", Encryptor) is not encryptor
    assert type(shared("dev", Encryptor)) is Encryptor
    with pytest.raises(RoleError, match="decrypt_with"):
        shared("web")
    with pytest.raises(RoleError, match="encrypt_to"):
        shared("worker", Encryptor)


def test_asyncio_s_are_shared_too():
    """Event loops one after the other use the same one."""
    cipher = shared(cls=aio.EnvelopeCipher)
    assert shared("dev", aio.EnvelopeCipher) is cipher

    async def roundtrip():
        return await cipher.decrypt(await shared(cls=aio.EnvelopeCipher).encrypt(b"text"))

    assert [asyncio.run(roundtrip()) for _ in range(2)] == [b"text"] * 2


def test_it_is_found_as_by_from_config(folder, monkeypatch):
    """By the environment and the folder of the moment; one for each configuration."""
    here = shared()
    monkeypatch.setenv("KMSBRIDGE_PROFILE", "web")
    assert shared(cls=Encryptor) is shared("web", Encryptor)
    monkeypatch.delenv("KMSBRIDGE_PROFILE")
    monkeypatch.setenv("KMSBRIDGE_CONFIG", str(folder / "kmsbridge.toml"))
    assert shared() is here
    monkeypatch.delenv("KMSBRIDGE_CONFIG")
    monkeypatch.setenv("KMSBRIDGE_KEY", "local:keys.json#app")
    by_key = shared()
    assert by_key is not here
    assert shared() is by_key
    with pytest.raises(ConfigError, match="KMSBRIDGE_KEY"):
        shared("dev")
    monkeypatch.delenv("KMSBRIDGE_KEY")
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    with pytest.raises(ConfigError, match="there is no configuration"):
        shared()
    monkeypatch.chdir(folder)
    assert shared() is here


@pytest.mark.parametrize("wrong", ("none", "de"))
def test_a_profile_that_does_not_exist_is_said(wrong):
    """As of `from_config`, each time."""
    for _ in range(2):
        with pytest.raises(ConfigError, match="there is no profile"):
            shared(wrong)


@pytest.mark.parametrize("wrong", (int, 7, EnvelopeCipher.from_uri))
def test_another_class_is_refused(wrong):
    with pytest.raises(TypeError):
        shared("dev", wrong)


def test_after_close_the_next_call_opens_another():
    """The closed one stays closed, for whoever has it."""
    cipher = shared()
    cipher.close()
    again = shared("dev")
    assert again is not cipher
    assert shared() is again
    again.encrypt(b"x")
    with pytest.raises(ClosedError):
        cipher.encrypt(b"x")


def test_threads_that_come_at_once_get_one(monkeypatch):
    """It is opened once."""
    opened, load = [], sharing.config.load

    def counted(*arguments, **names):
        opened.append(names)
        return load(*arguments, **names)

    with monkeypatch.context() as patch:
        patch.setattr(sharing.config, "load", counted)
        outcomes = on_threads(16, shared)
    assert [outcome.error for outcome in outcomes] == [None] * 16
    assert len({id(outcome.value) for outcome in outcomes}) == 1
    assert len({id(shared(cls=Encryptor)) for _ in range(3)}) == 1


def test_a_forked_child_uses_its_parent_s(folder):
    """With data keys of its own; also where another thread of the parent was just opening one."""
    cipher = shared()
    before = cipher.encrypt(b"parent")

    def in_child():
        assert shared() is cipher
        assert shared().decrypt(before) == b"parent"
        shared("web", Encryptor).encrypt(b"x")

    with sharing._ciphers._lock:
        children = [fork(in_child)]
    finish(children)


PROGRAM = """
from kmsbridge import shared
for _ in range(10):
    shared("dev").decrypt(shared().encrypt(b"x"))
"""


def test_a_program_that_ends_has_its_counts_in_the_audit_trail(folder):
    """As of every other cipher that nobody closed."""
    (folder / "kmsbridge.toml").write_text(
        CONFIG.replace("[profiles.web]", 'audit = { file = "audit.jsonl" }\n[profiles.web]')
    )
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=folder, check=True)
    events = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
    counts = {event["operation"]: event["messages"] for event in events if event["source"] == "cache"}
    assert counts == {"encrypt": 10, "decrypt": 10}
