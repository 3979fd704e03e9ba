"""The way to the server: sockets, proxies, names in certificates, the commands' own variables, and names of any kind."""

import json
import os
import socket
import threading
import types
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from kmsbridge_testing.contract.base import bound
from kmsbridge_vault.failures import VaultFailure

from kmsbridge import ConfigError, Encryptor
from kmsbridge.cli.app import app
from kmsbridge.driver import ErrorKind
from kmsbridge.errors import KmsUnauthenticated, KmsUnavailable
from localstack.vault_front import Answer, VaultFront

TOKEN = "canary-token"
NOWHERE = types.SimpleNamespace(address="http://127.0.0.1:1", ca_file="")


@pytest.fixture
def root(vault):
    """The options of a caller that may do everything."""
    return {"auth": {"method": "token", "token": vault.token, "renew": False}}


# --- an agent or proxy of the server's own ---------------------------------------------------------


class Agent(VaultFront):
    """Vault Agent with `use_auto_auth_token = "force"` and `require_request_header = true`."""

    token = ""

    def answer(self, request):
        """Forward the request with the agent's token."""
        if request.headers.get("X-Vault-Request") != "true":
            return Answer(412, {"errors": ["missing 'X-Vault-Request' header"]})
        return self.forward(request._replace(headers={"X-Vault-Token": self.token}))


def test_agent_that_adds_the_token_needs_none(vault, policies, open_key, works):
    """`auth.method = "none"`: this host sends no token at all."""
    name = vault.key()
    with Agent(vault.address) as agent:
        agent.token = vault.new_token(*policies(vault, name, "encryptor", "decryptor"))
        assert works(open_key(agent, name, auth={"method": "none"}))
        assert not any("X-Vault-Token" in each.headers for each in agent.heard)


def test_server_that_wants_a_token_where_none_is_sent_is_told(vault, open_key, works):
    """With what to look at."""
    with pytest.raises(KmsUnauthenticated) as caught:
        works(open_key(vault, vault.key(), auth={"method": "none"}))
    assert "agent" in caught.value.remedy


# --- Unix sockets -----------------------------------------------------------------------------------


class Relay:
    """Accepts connections on `listener`, and passes bytes to and from `address`; keeps what a proxy was asked for."""

    def __init__(self, listener, address, *, is_proxy=False):
        self._listener, self._address, self._is_proxy = listener, address, is_proxy
        self.asked = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            if self._is_proxy:
                self.asked.append(inner.recv(65536).split(b"\r\n")[0].decode())
                inner.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            outer = socket.create_connection(self._address)
            for one, other in ((inner, outer), (outer, inner)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def of_address(address):
    """The host and port of a URL."""
    host, _, port = address.partition("://")[2].partition(":")
    return host, int(port)


def test_unix_socket_is_an_address(vault, root, open_key, works, tmp_path):
    """Of an agent on this machine; it is no plain http over a network."""
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        Relay(listener, of_address(vault.address))
        key = open_key(types.SimpleNamespace(address=f"unix://{path}", ca_file=""), vault.key(), **root)
        assert works(key)
        assert key.driver.development_settings() == ["the token is that of a development server"]


def test_unix_socket_that_is_not_there_is_an_outage(root, open_key, works, tmp_path):
    """An agent may start later."""
    server = types.SimpleNamespace(address=f"unix://{tmp_path}/none.sock", ca_file="")
    with pytest.raises(KmsUnavailable):
        works(open_key(server, "app", **root))


def test_unix_socket_that_does_not_answer_is_a_timeout(root, open_driver, tmp_path):
    """Within the deadline of the call."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "slow.sock"))
        listener.listen()
        server = types.SimpleNamespace(address=f"unix://{tmp_path}/slow.sock", ca_file="")
        with pytest.raises(VaultFailure) as caught:
            open_driver(server, "app", instance="x", **root).wrap(b"x", bound(), timeout=0.3)
    assert caught.value.kind is ErrorKind.TIMEOUT


# --- TLS and proxies --------------------------------------------------------------------------------


def test_name_in_the_certificate_may_differ_from_the_host(production, open_key, works):
    """`tls_server_name`; another name is refused."""
    auth = {"method": "token", "token": production.token, "renew": False}
    name = production.key()
    assert works(open_key(production, name, tls_server_name="localhost", auth=auth))
    with pytest.raises(KmsUnavailable) as caught:
        works(open_key(production, name, tls_server_name="vault.example", auth=auth))
    assert caught.value.provider_code == "tls"


@pytest.mark.parametrize("how", ["option", "BAO_HTTP_PROXY", "VAULT_PROXY_ADDR"])
def test_outbound_proxy_passes_tls_through(production, open_key, works, monkeypatch, how):
    """It sees the name of the server, and nothing else."""
    auth = {"method": "token", "token": production.token, "renew": False}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        relay = Relay(listener, of_address(production.address), is_proxy=True)
        option = {"proxy": proxy} if how == "option" else {}
        if not option:
            monkeypatch.setenv(how, proxy)
        key = open_key(production, production.key(), auth=auth, **option)
        assert works(key)
        host, port = of_address(production.address)
        assert {each.rpartition(" ")[0] for each in relay.asked} == {f"CONNECT {host}:{port}"}
        told = [f"proxy is taken from the environment variable {how}"] if not option else []
        assert key.driver.development_settings() == told


@pytest.mark.parametrize(
    "options",
    [
        {"proxy": "http://127.0.0.1:3128"},
        {"address": "https://vault.internal", "proxy": "socks5://127.0.0.1:3128"},
        {"address": "https://vault.internal", "proxy": "http://user:password@127.0.0.1:3128"},
        {"address": "https://vault.internal", "tls_server_name": "a/b"},
        {"address": "unix://agent.sock"},
        {"address": "unix:///agent\n.sock"},
        {"address": "unix:///agent.sock", "proxy": "http://127.0.0.1:3128"},
    ],
    ids=str,
)
def test_way_to_the_server_that_is_wrong_is_refused_when_opened(open_driver, root, options):
    """`ConfigError`; a proxy must not see data keys."""
    with pytest.raises(ConfigError) as caught:
        open_driver(NOWHERE, "app", **root, **options)
    assert "password" not in str(caught.value)


# --- the commands' own variables --------------------------------------------------------------------


def test_variables_of_the_command_replace_missing_options(open_driver, root, monkeypatch, tmp_path):
    """All that a connection needs; an option of the configuration wins, and BAO_ wins over VAULT_."""
    for name in ("ca", "cert", "key"):
        (tmp_path / name).write_text("x")
    variables = {
        "VAULT_AGENT_ADDR": "https://agent.internal:8200",
        "VAULT_ADDR": "https://vault.internal:8200",
        "VAULT_NAMESPACE": "theirs",
        "BAO_NAMESPACE": "team",
        "VAULT_CACERT": str(tmp_path / "ca"),
        "VAULT_CLIENT_CERT": str(tmp_path / "cert"),
        "BAO_CLIENT_KEY": str(tmp_path / "key"),
        "VAULT_TLS_SERVER_NAME": "vault.internal",
        "VAULT_SKIP_VERIFY": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    unset = types.SimpleNamespace(address=None, ca_file="")
    place = open_driver(unset, "app", **root)._client.place
    assert place[:6] == (
        "https://agent.internal:8200",
        "team",
        *(str(tmp_path / name) for name in ("ca", "cert", "key")),
        "vault.internal",
    )
    assert open_driver(NOWHERE, "app", **root)._client.place.address == NOWHERE.address


def test_relative_file_of_a_variable_starts_at_the_current_folder(open_driver, root, monkeypatch, tmp_path):
    """Where the program is when the key is opened, wherever it goes afterwards."""
    (tmp_path / "ca.pem").write_text("x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BAO_CACERT", "ca.pem")
    assert open_driver(NOWHERE, "app", **root)._client.place.ca_file == str(tmp_path / "ca.pem")


def test_folder_of_cas_is_trusted(production, open_key, works, monkeypatch, tmp_path):
    """`BAO_CAPATH`, with the names that OpenSSL wants."""
    import subprocess

    done = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", production.ca_file],
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / f"{done.stdout.strip()}.0").symlink_to(production.ca_file)
    monkeypatch.setenv("BAO_CAPATH", str(tmp_path))
    auth = {"method": "token", "token": production.token, "renew": False}
    assert works(open_key(production, production.key(), ca_file=None, auth=auth))


@pytest.mark.parametrize("variable", ["BAO_ADDR", "VAULT_ADDR", "VAULT_AGENT_ADDR"])
def test_production_refuses_an_address_from_the_environment(monkeypatch, variable):
    """Whoever sets it would choose where data keys go; `config explain` shows it."""
    monkeypatch.setenv(variable, "https://elsewhere.example")
    key = {"uri": "vault-transit://transit/app", "auth": {"method": "token", "token": TOKEN}}
    profile = {"encrypt_to": ["app"], "production": True}
    with pytest.raises(ConfigError, match=f"address is taken from the environment variable {variable}"):
        Encryptor.from_mapping({"keys": {"app": key}, "profiles": {"test": profile}})


def test_explain_shows_the_address_in_force_and_its_origin(write, monkeypatch):
    """That of the environment, or that of the file; and no token."""
    monkeypatch.setenv("BAO_ADDR", "https://elsewhere.example")
    monkeypatch.setenv("BAO_TOKEN", TOKEN)
    text = '[keys.app]\nuri = "vault-transit://transit/app"\n{}[profiles.test]\nencrypt_to = ["app"]\n'
    for address, expected in (
        ("", ("https://elsewhere.example", "environment variable BAO_ADDR")),
        ('address = "https://vault.internal"\n', ("https://vault.internal", "the key's option address")),
    ):
        file = write("kmsbridge.toml", text.format(address))
        done = CliRunner().invoke(app, ["--config", str(file), "config", "explain", "--json"])
        rows = {row["name"]: (row["value"], row["origin"]) for row in json.loads(done.output)}
        assert rows["keys.app (endpoint)"] == expected
        assert TOKEN not in done.output


# --- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mount",
    [
        "a b",
        "a+b",
        "a:b",
        "\u00e9",
        "a@b",
        "a%b",
        'a"b',
        "a\\b",
        "a?b",
        "a#b",
        "a*b",
        ".a",
        "-a",
        "a/b/c/d/e/f",
    ],
)
def test_mount_may_be_all_that_the_server_takes(vault, open_key, policies, works, mount):
    """In requests, policies and the key's id."""
    mount = f"{mount}{os.urandom(4).hex()}"
    vault.ask("POST", f"sys/mounts/{quote(mount)}", {"type": "transit"})
    try:
        vault.ask("POST", f"{quote(mount)}/keys/app", {})
        prefix, _, last = mount.rpartition("/")
        options = {"mount": quote(last), **({"mount_prefix": prefix} if prefix else {})}
        token = vault.new_token(*policies(vault, "app", "encryptor", "decryptor", **options))
        key = open_key(vault, "app", auth={"method": "token", "token": token, "renew": False}, **options)
        assert works(key)
        assert key.describe().may_wrap
        other = open_key(vault, "app", instance="x", auth={"method": "token", "token": token}, **options)
        assert key.driver.has_former_id(other.key_id) is False
        assert other.driver.has_former_id(key.key_id)
    finally:
        vault.ask("DELETE", f"sys/mounts/{quote(mount)}")


@pytest.mark.parametrize("name", ["a" * 300, "a..b", "_a", "a-_.b"])
def test_key_name_may_be_all_that_the_server_takes(vault, root, open_key, works, name):
    """Longer than 128 characters, and with dots in the middle."""
    vault.ask("POST", f"transit/keys/{name}", {})
    assert works(open_key(vault, name, **root))


@pytest.mark.parametrize("mount", ["+", "..", ".", "a{{b", "a${b", "a%0ab", " a", ""])
def test_mount_that_a_policy_would_read_otherwise_is_refused(vault, open_driver, root, mount):
    """Or a URL."""
    with pytest.raises(ConfigError):
        open_driver(vault, "app", mount=mount, **root)


def test_names_that_are_too_long_for_a_message_are_refused_when_opened(vault, open_driver, root):
    """Not at the first message."""
    with pytest.raises(ConfigError, match="characters"):
        open_driver(vault, "a" * 500, mount_prefix="b" * 500, **root)
