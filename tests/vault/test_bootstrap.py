"""The wrapped secret id of a new host: opened once, by who should; anything else is a security event."""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from kmsbridge_testing.contract.base import bound
from kmsbridge_testing.contract.lifetime import in_child
from kmsbridge_vault import bootstrap
from kmsbridge_vault.failures import VaultFailure

from kmsbridge import Encryptor
from kmsbridge.driver import ErrorKind
from kmsbridge.errors import ConfigError, KmsCredentialMisused, KmsUnauthenticated, KmsUnavailable
from kmsbridge.testing import FaultProxy
from localstack.vault_front import StaleStandby

PATH = "wrapped-secret-id"
VARIABLE = "KMSBRIDGE_TEST_WRAPPED_SECRET_ID"


class Role:
    """An AppRole for one key, and the secret ids that are made for its hosts."""

    def __init__(self, vault, policies):
        self.vault, self.key = vault, vault.key()
        self.mount = f"approle-{secrets.token_hex(4)}"
        vault.ask("POST", f"sys/auth/{self.mount}", {"type": "approle"})
        roles = policies(vault, self.key, "encryptor", "decryptor")
        for name in ("web", "worker"):
            vault.ask("POST", f"auth/{self.mount}/role/{name}", {"token_policies": roles, "token_ttl": "1h"})
        self._wrapped = []
        self.mounts = [self.mount]
        self.role_id = vault.ask("GET", f"auth/{self.mount}/role/web/role-id")["data"]["role_id"]

    def wrapped(self, *, role="web", ttl="60s"):
        """A wrapping token that holds a new secret id."""
        made = self.vault.ask("POST", f"auth/{self.mount}/role/{role}/secret-id", X_Vault_Wrap_TTL=ttl)
        self._wrapped.append(made["wrap_info"]["token"])
        return self._wrapped[-1]

    def wrapped_elsewhere(self):
        """The same of a mount whose name differs in a capital."""
        mount = self.mount.capitalize()
        self.mounts.append(mount)
        self.vault.ask("POST", f"sys/auth/{mount}", {"type": "approle"})
        self.vault.ask("POST", f"auth/{mount}/role/web", {})
        made = self.vault.ask("POST", f"auth/{mount}/role/web/secret-id", X_Vault_Wrap_TTL="60s")
        return made["wrap_info"]["token"]

    def auth(self, **source):
        """The option `auth`, for a wrapped secret id from `source`."""
        return {"method": "approle", "mount": self.mount, "role_id": self.role_id, **source}

    def unwraps(self, since):
        """How often the server was asked to unwrap one of these."""
        ours = {self.vault.audited_as(each) for each in self._wrapped}
        asked = [each for each in self.vault.audited(since) if each["path"] == "sys/wrapping/unwrap"]
        return sum(each.get("client_token") in ours for each in asked)


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    """The servers here are never stale, so what they call unknown is asked for again once."""
    monkeypatch.setattr(bootstrap, "PATIENCE", 0.1)


@pytest.fixture
def role(vault, policies):
    """Removed after the test."""
    role = Role(vault, policies)
    yield role
    for mount in role.mounts:
        vault.ask("DELETE", f"sys/auth/{mount}")


@pytest.fixture
def host(role, open_key):
    """Opens the key as a new host does, with the token in a file."""
    return lambda **more: open_key(
        role.vault, role.key, auth=role.auth(wrapped_secret_id_file=PATH, role_name="web", **more)
    )


def test_file_is_opened_once_and_removed(role, host, write, works):
    """The host works, the file is gone, and a later login needs no other."""
    file = write(PATH, role.wrapped() + "\n")
    since = role.vault.audit_file.stat().st_size
    key = host()
    assert works(key)
    assert not file.exists()
    token = key.driver._tokens._grant.token.reveal_text()
    role.vault.ask("POST", "auth/token/revoke", {"token": token})
    assert works(key)
    assert role.unwraps(since) == 1


def test_variable_is_opened_once_and_unset(role, open_key, monkeypatch, works):
    """No child of this process inherits it, from the moment that the key is opened."""
    monkeypatch.setenv(VARIABLE, role.wrapped())
    keys = []
    for _ in range(2):
        keys.append(open_key(role.vault, role.key, auth=role.auth(wrapped_secret_id_env=VARIABLE)))
        assert VARIABLE not in os.environ
    shown = subprocess.run(["env"], capture_output=True, text=True, check=True).stdout
    assert VARIABLE not in shown
    assert all(map(works, keys))


def test_token_in_the_configuration_is_opened_once(role, open_key, works):
    """However it was put there, as by `env:`."""
    auth = role.auth(wrapped_secret_id=role.wrapped())
    since = role.vault.audit_file.stat().st_size
    assert all(works(open_key(role.vault, role.key, auth=auth)) for _ in range(2))
    assert role.unwraps(since) == 1


def test_keys_of_one_process_share_it(role, host, write, works):
    """Two keys with one file: one unwrap, though one was closed before the other was opened."""
    write(PATH, role.wrapped())
    since = role.vault.audit_file.stat().st_size
    first = host()
    assert works(first)
    first.close()
    assert works(host())
    assert role.unwraps(since) == 1


def test_child_shares_it(role, host, write, works):
    """A process that forks after the first use hands the secret id on."""
    write(PATH, role.wrapped())
    assert works(host())
    assert in_child(lambda: works(host()) or pytest.fail("it does not work")) == "ok"


def test_new_file_replaces_what_is_known(role, host, write, works):
    """Whoever issues a new secret id puts it into the file of the running host."""
    write(PATH, role.wrapped())
    assert works(host())
    file = write(PATH, role.wrapped())
    since = role.vault.audit_file.stat().st_size
    assert works(host())
    assert not file.exists()
    assert role.unwraps(since) == 1


# --- security events ------------------------------------------------------------------------------


def test_used_token_is_a_security_event(role, host, write, works):
    """Someone opened it before: so it is told, again and again, until there is a new one."""
    wrapped = role.wrapped()
    role.vault.ask("POST", "sys/wrapping/unwrap", token=wrapped)
    file = write(PATH, wrapped)
    for _ in range(2):
        with pytest.raises(KmsCredentialMisused) as caught:
            works(host())
        assert caught.value.provider_code == "wrapping-token-used"
        assert "someone else" in str(caught.value)
        assert wrapped not in str(caught.value)
        assert not file.exists()
    write(PATH, role.wrapped())
    assert works(host())


@pytest.mark.parametrize(
    "make",
    [
        lambda role: role.wrapped(role="worker"),
        lambda role: role.wrapped_elsewhere(),
        lambda role: role.vault.ask("POST", "sys/wrapping/wrap", {"secret_id": "x"}, X_Vault_Wrap_TTL="60s")[
            "wrap_info"
        ]["token"],
        lambda role: role.vault.ask("POST", "auth/token/create", {}, X_Vault_Wrap_TTL="60s")["wrap_info"][
            "token"
        ],
    ],
    ids=["another role", "another mount", "wrapped by hand", "a token"],
)
def test_token_made_elsewhere_is_a_security_event(role, host, write, works, make):
    """It is not opened: whoever put it there wants this host to be somebody else."""
    wrapped = make(role)
    file = write(PATH, wrapped)
    since = role.vault.audit_file.stat().st_size
    with pytest.raises(KmsCredentialMisused) as caught:
        works(host())
    assert caught.value.provider_code == "wrapping-token-of-another-path"
    assert role.unwraps(since) == 0
    assert not file.exists()


def test_any_role_of_the_mount_will_do_where_none_is_named(role, open_key, write, works):
    """Without `role_name` the mount alone is held against the creation path; the login then decides."""
    write(PATH, role.wrapped(role="worker"))
    key = open_key(role.vault, role.key, auth=role.auth(wrapped_secret_id_file=PATH))
    with pytest.raises(KmsUnauthenticated) as caught:
        works(key)
    assert caught.value.provider_code == "login-refused"


def test_misuse_reaches_the_audit_trail(role, write, tmp_path):
    """The public API raises it and records it under its name."""
    wrapped = role.wrapped()
    role.vault.ask("POST", "sys/wrapping/unwrap", token=wrapped)
    write(PATH, wrapped)
    configuration = write("kmsbridge.toml", _configuration(role))
    with Encryptor.from_config(configuration) as encryptor, pytest.raises(KmsCredentialMisused):
        encryptor.encrypt(b"x", context={"tenant": "acme"})
    events = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert "KmsCredentialMisused" in {each.get("outcome") for each in events}


def test_misuse_has_an_exit_code_of_its_own(role, write, tmp_path):
    """11, for who restarts hosts to tell it from an outage."""
    wrapped = role.wrapped()
    role.vault.ask("POST", "sys/wrapping/unwrap", token=wrapped)
    write(PATH, wrapped)
    configuration = write("kmsbridge.toml", _configuration(role))
    kmsbridge = Path(sys.executable).with_name("kmsbridge")
    command = [str(kmsbridge), "encrypt", "--config", str(configuration), "--context", "tenant=acme"]
    done = subprocess.run(command, input=b"x", capture_output=True, cwd=tmp_path)
    assert done.returncode == 11, done.stderr.decode()
    assert b"security event" in done.stderr
    assert wrapped.encode() not in done.stderr


# --- what is no security event --------------------------------------------------------------------


def test_missing_file_is_no_security_event(host, works):
    """Nobody issued one, or another process of this host took it."""
    with pytest.raises(KmsUnauthenticated) as caught:
        works(host())
    assert type(caught.value) is KmsUnauthenticated
    assert caught.value.provider_code == "no-wrapped-secret-id"


@pytest.mark.parametrize("text", ["", "two\nlines", "é" * 10], ids=["empty", "two lines", "no token"])
def test_unusable_file_is_told_and_left(host, write, works, text):
    """What is no token is not sent."""
    file = write(PATH, text)
    with pytest.raises(KmsUnauthenticated) as caught:
        works(host())
    assert caught.value.provider_code == "wrapped-secret-id-file"
    assert file.exists()


def test_wrong_namespace_is_no_security_event(role, host, write, works):
    """The token may be good, so it stays where it is."""
    file = write(PATH, role.wrapped())
    with pytest.raises(KmsUnauthenticated) as caught:
        works(host(namespace="no-such-namespace"))
    assert type(caught.value) is KmsUnauthenticated
    assert file.exists()


def test_variable_that_is_not_set_is_told_when_opened(role, open_driver):
    """A `ConfigError`, before anything is sent."""
    with pytest.raises(ConfigError):
        open_driver(role.vault, role.key, auth=role.auth(wrapped_secret_id_env=VARIABLE))


def test_outage_before_the_unwrap_leaves_the_file(role, open_key, write, works):
    """The server was never asked, so the next attempt works with the same token."""
    file = write(PATH, role.wrapped())
    with FaultProxy("127.0.0.1", int(role.vault.address.rpartition(":")[2])) as proxy:
        address = "http://{}:{}".format(*proxy.address)
        auth = role.auth(wrapped_secret_id_file=PATH)
        key = open_key(role.vault, role.key, address=address, auth=auth)
        proxy.refuse()
        with pytest.raises(KmsUnavailable):
            works(key)
        assert file.exists()
        proxy.heal()
        assert works(key)
        assert not file.exists()
        key.close()


def test_lost_answer_is_no_security_event(role, open_driver, write, monkeypatch):
    """The unwrap was done and its answer got lost: this host knows that it was itself who asked."""
    write(PATH, role.wrapped())
    auth = role.auth(wrapped_secret_id_file=PATH)
    driver = open_driver(role.vault, role.key, auth=auth)
    real = driver._client._send

    def lossy(method, path, *rest):
        answer = real(method, path, *rest)
        if path == "sys/wrapping/unwrap":
            monkeypatch.undo()
            raise VaultFailure(ErrorKind.UNAVAILABLE, "network")
        return answer

    monkeypatch.setattr(driver._client, "_send", lossy)
    codes = []
    for _ in range(3):
        with pytest.raises(VaultFailure) as caught:
            driver.wrap(b"x", bound(), timeout=10)
        codes.append((caught.value.kind, caught.value.code))
    lost = (ErrorKind.UNAUTHENTICATED, "wrapped-secret-id-lost")
    assert codes == [(ErrorKind.UNAVAILABLE, "network"), lost, lost]


def test_token_that_another_process_takes_meanwhile_is_no_security_event(
    role, open_driver, write, monkeypatch
):
    """It removes the file and opens the token after this one has read the file: the token is the other's."""
    wrapped = role.wrapped()
    file = write(PATH, wrapped)
    driver = open_driver(role.vault, role.key, auth=role.auth(wrapped_secret_id_file=PATH))
    real = driver._client._send

    def late(method, path, *rest):
        if path == "sys/wrapping/lookup":
            file.unlink()
            role.vault.ask("POST", "sys/wrapping/unwrap", token=wrapped)
        return real(method, path, *rest)

    monkeypatch.setattr(driver._client, "_send", late)
    for _ in range(2):
        with pytest.raises(VaultFailure) as caught:
            driver.wrap(b"x", bound(), timeout=10)
        assert (caught.value.kind, caught.value.code) == (ErrorKind.UNAUTHENTICATED, "no-wrapped-secret-id")


@pytest.mark.parametrize("source", ["wrapped_secret_id", "wrapped_secret_id_env"])
def test_child_leaves_an_unopened_token_to_its_parent(role, open_key, works, monkeypatch, source):
    """Of a server that loads first and forks then, no worker opens what another opened: no false alarm."""
    wrapped = role.wrapped()
    monkeypatch.setenv(VARIABLE, wrapped)
    auth = role.auth(**{source: VARIABLE if source.endswith("env") else wrapped})
    key = open_key(role.vault, role.key, auth=auth)
    since = role.vault.audit_file.stat().st_size

    def work():
        for each in (key, open_key(role.vault, role.key, auth=auth)):
            with pytest.raises(KmsUnauthenticated) as caught:
                works(each)
            assert caught.value.provider_code == "wrapped-secret-id-in-parent"
            assert type(caught.value) is KmsUnauthenticated

    assert [in_child(work) for _ in range(2)] == ["ok", "ok"]
    assert role.unwraps(since) == 0
    assert works(key)


def test_wrapped_secret_id_is_not_shown(role, open_driver, write):
    """Neither by the driver nor by what it holds."""
    wrapped = role.wrapped()
    driver = open_driver(role.vault, role.key, auth=role.auth(wrapped_secret_id=wrapped))
    assert wrapped not in repr((driver, driver._tokens, vars(driver._tokens._login)))


def _configuration(role):
    return f"""
[keys.app]
uri = "vault-transit://transit/{role.key}"
address = "{role.vault.address}"

[keys.app.auth]
method = "approle"
mount = "{role.mount}"
role_id = "{role.role_id}"
role_name = "web"
wrapped_secret_id_file = "{PATH}"

[profiles.default]
encrypt_to = ["app"]
audit = {{ file = "audit.jsonl" }}
"""


# --- a standby that has not heard of the token yet --------------------------------------------------


@pytest.mark.parametrize("source", ["file", "configuration"])
def test_stale_answer_is_no_alarm(role, open_key, write, works, monkeypatch, source):
    """The file stays until the token is known, and the host works, within the first call."""
    monkeypatch.setattr(bootstrap, "PATIENCE", 2)
    wrapped = role.wrapped()
    where = {"wrapped_secret_id": wrapped}
    if source == "file":
        write(PATH, wrapped)
        where = {"wrapped_secret_id_file": PATH}
    with StaleStandby(role.vault.address, 2) as front:
        assert works(open_key(front, role.key, auth=role.auth(role_name="web", **where)))


def test_file_is_not_removed_while_the_token_may_be_known_soon(role, open_driver, write, monkeypatch):
    """But it is after the alarm."""
    file = write(PATH, role.wrapped())
    there = []
    with StaleStandby(role.vault.address, 100) as front:
        driver = open_driver(front, role.key, auth=role.auth(wrapped_secret_id_file=PATH), instance="x")
        real = bootstrap.time.sleep

        def sleep(seconds):
            there.append(file.exists())
            real(seconds)

        monkeypatch.setattr(bootstrap.time, "sleep", sleep)
        with pytest.raises(VaultFailure) as caught:
            driver.wrap(b"x", bound(), timeout=10)
    assert caught.value.kind is ErrorKind.CREDENTIAL_MISUSED
    assert there
    assert all(there)
    assert not file.exists()


def test_alarm_comes_within_the_deadline(role, open_driver, write, monkeypatch):
    """However long a server would be asked again."""
    monkeypatch.setattr(bootstrap, "PATIENCE", 1000)
    write(PATH, role.wrapped())
    with StaleStandby(role.vault.address, 1000) as front:
        driver = open_driver(front, role.key, auth=role.auth(wrapped_secret_id_file=PATH), instance="x")
        with pytest.raises(VaultFailure) as caught:
            driver.wrap(b"x", bound(), timeout=1.5)
    assert caught.value.kind is ErrorKind.CREDENTIAL_MISUSED
