"""Opening ciphers: the role by type and by configuration, and what a profile refuses."""

import pytest

from kmsbridge import ConfigError, Decryptor, Encryptor, EnvelopeCipher, RoleError, aio
from kmsbridge.drivers.local.keyfile import KeyFile

ENCRYPTING = {"encrypt", "encrypt_text", "encrypt_many", "encrypt_file", "encrypt_stream"}
DECRYPTING = {
    "decrypt",
    "decrypt_text",
    "decrypt_secret",
    "decrypt_many",
    "decrypt_file",
    "decrypt_stream",
    "open",
}
REWRAPPING = {"rewrap", "rewrap_file", "needs_rewrap"}

CONFIG = """
default_profile = "both"
[keys.app]
uri = "local:keys.json#app"
[profiles.web]
encrypt_to = ["app"]
[profiles.worker]
decrypt_with = ["app"]
[profiles.both]
encrypt_to = ["app"]
decrypt_with = ["app"]
[profiles.prod]
encrypt_to = ["app"]
production = true
[profiles.typo]
encrypt_to = ["bad"]
[keys.bad]
uri = "local:keys.json#app"
pasphrase = "x"
"""


@pytest.fixture
def config(tmp_path):
    """A configuration beside a key file."""
    KeyFile.create(tmp_path / "keys.json", "app")
    path = tmp_path / "kmsbridge.toml"
    path.write_text(CONFIG)
    return path


def operations(cls):
    return {name for name in dir(cls) if name in ENCRYPTING | DECRYPTING | REWRAPPING}


@pytest.mark.parametrize(
    ("name", "able"),
    (
        ("Encryptor", ENCRYPTING),
        ("Decryptor", DECRYPTING),
        ("EnvelopeCipher", ENCRYPTING | DECRYPTING | REWRAPPING),
    ),
)
def test_the_type_says_what_a_host_may_do(name, able):
    """No other operation exists on it; asynchronous or not."""
    import kmsbridge

    assert operations(getattr(kmsbridge, name)) == able
    assert operations(getattr(aio, name)) == able


def test_an_encryptor_holds_nothing_to_decrypt_with(config):
    """And the reverse."""
    with Encryptor.from_config(config) as encryptor, Decryptor.from_config(config) as decryptor:
        assert not hasattr(encryptor, "_decryption")
        assert not hasattr(decryptor, "_encryption")


@pytest.mark.parametrize(
    ("cls", "profile", "missing"),
    (
        (Encryptor, "worker", "encrypt_to"),
        (EnvelopeCipher, "worker", "encrypt_to"),
        (Decryptor, "web", "decrypt_with"),
        (EnvelopeCipher, "web", "decrypt_with"),
        (aio.Encryptor, "worker", "encrypt_to"),
        (aio.Decryptor, "web", "decrypt_with"),
    ),
)
def test_a_profile_that_does_not_allow_the_role_is_refused_at_open(config, cls, profile, missing):
    """`RoleError` names the profile and what it lacks."""
    with pytest.raises(RoleError, match=f"'{profile}' has no {missing}"):
        cls.from_config(config, profile=profile)


def test_web_encrypts_what_worker_decrypts(config):
    """Two hosts, one configuration."""
    with (
        Encryptor.from_config(config, profile="web") as web,
        Decryptor.from_config(config, profile="worker") as worker,
    ):
        message = web.encrypt(b"x", context={"tenant": "acme"}, aad=b"1")
        assert worker.decrypt(message, context={"tenant": "acme"}, aad=b"1") == b"x"


def test_production_refuses_a_development_key_unless_it_says_otherwise(config):
    """A local key is for development."""
    with pytest.raises(ConfigError, match="local key.*'prod'.*production.*allow_in_production"):
        Encryptor.from_config(config, profile="prod")
    config.write_text(CONFIG.replace("[keys.app]", "[keys.app]\nallow_in_production = true"))
    Encryptor.from_config(config, profile="prod").close()


def test_an_option_that_nobody_asked_for_is_refused(config):
    """With the nearest word."""
    with pytest.raises(ConfigError, match="pasphrase.*passphrase"):
        Encryptor.from_config(config, profile="typo")


def test_arguments_win_over_the_environment_and_that_over_the_default(config, monkeypatch, tmp_path):
    """`path`, then KMSBRIDGE_CONFIG, then KMSBRIDGE_KEY, then ./kmsbridge.toml; and likewise for profiles."""
    env = {"KMSBRIDGE_CONFIG": str(config), "KMSBRIDGE_PROFILE": "worker"}
    assert repr(Decryptor.from_config(env=env)) == "Decryptor(profile='worker')"
    assert repr(Decryptor.from_config(profile="both", env=env)) == "Decryptor(profile='both')"
    with pytest.raises(ConfigError):
        Decryptor.from_config(tmp_path / "other.toml", env=env)
    monkeypatch.chdir(tmp_path)
    assert repr(EnvelopeCipher.from_config(env={})) == "EnvelopeCipher(profile='both')"
    with EnvelopeCipher.from_config(env={"KMSBRIDGE_KEY": f"local:{tmp_path}/keys.json#app"}) as cipher:
        assert cipher.decrypt(cipher.encrypt(b"x")) == b"x"


def test_a_uri_alone_is_enough(config, tmp_path):
    """And options are those of a key's table or a profile."""
    uri = f"local:{tmp_path}/keys.json#app"
    with EnvelopeCipher.from_uri(uri, data_keys={"max_messages": 1}) as cipher:
        assert cipher.decrypt(cipher.encrypt(b"x")) == b"x"


def test_what_was_opened_before_a_failure_is_closed(service, monkeypatch, tmp_path):
    """The second key cannot be opened: the first is let go."""
    from kmsbridge.keys import ManagedKey

    closed = []
    monkeypatch.setattr(ManagedKey, "close", lambda self: closed.append(self.name))
    with pytest.raises(ConfigError):
        EnvelopeCipher.from_uri("fake:app", decrypt_uris=["local:/nowhere.json"])
    assert "uri" in closed
