"""The server itself: TLS, namespaces, redirects, what it is when it cannot serve, and what it writes down."""

import contextlib
import logging
import os
import subprocess
import sys
import types

import pytest
from kmsbridge_testing.contract.base import bound
from kmsbridge_vault.failures import VaultFailure

from kmsbridge import EnvelopeCipher
from kmsbridge.driver import ErrorKind
from kmsbridge.driverkit import http
from kmsbridge.driverkit.deadline import left, within
from kmsbridge.errors import KmsAccessDenied, KmsKeyNotFound, KmsUnauthenticated, KmsUnavailable
from kmsbridge.testing import CallLog, FaultProxy, LoopbackCertificates
from localstack.openbao import OpenBaoProduction
from tests.vault.stub import Stub

TOKEN = "canary-token"


@pytest.fixture
def root(vault):
    """The options of a caller that may do everything."""
    return {"auth": {"method": "token", "token": vault.token}}


@pytest.fixture
def production_root(production):
    """The same for the other server."""
    return {"auth": {"method": "token", "token": production.token}}


# --- TLS ------------------------------------------------------------------------------------------


def test_own_ca_is_trusted(production, production_root, open_key, works):
    """Through `ca_file`."""
    assert works(open_key(production, production.key(), **production_root))


def test_own_ca_may_come_from_the_standard_variable(
    production, production_root, open_key, works, monkeypatch
):
    """As the provider's own command has it."""
    monkeypatch.setenv("BAO_CACERT", production.ca_file)
    assert works(open_key(production, production.key(), ca_file=None, **production_root))


def test_server_of_an_unknown_ca_is_refused(production, production_root, open_key, works):
    """Without `ca_file` only the usual CAs are trusted."""
    with pytest.raises(KmsUnavailable) as caught:
        works(open_key(production, "app", ca_file=None, **production_root))
    assert caught.value.provider_code == "tls"


@pytest.mark.parametrize("part", ["handshake", "answer"])
def test_slow_bytes_within_tls_do_not_stretch_the_timeout(tmp_path, open_driver, part):
    """The whole call has one deadline, whichever part of it comes byte by byte."""
    certificates = LoopbackCertificates.make(tmp_path)
    with Stub(200, {"data": {}}) as stub, contextlib.ExitStack() as end:
        proxies = [FaultProxy("127.0.0.1", int(stub.address.rpartition(":")[2]))]
        tls = FaultProxy(*end.enter_context(proxies[0]).address, tls=certificates.server_context())
        proxies.append(FaultProxy(*end.enter_context(tls).address))
        outer = end.enter_context(proxies[1])
        proxies[part == "handshake"].slow(20)
        stub.address, stub.ca_file = "https://{}:{}".format(*outer.address), certificates.ca_file
        driver = open_driver(stub, "app", auth={"method": "token", "token": TOKEN})
        with pytest.raises(VaultFailure) as caught:
            driver.wrap(b"x", bound(), timeout=0.5)
        driver.close()
    assert caught.value.kind is ErrorKind.TIMEOUT


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_environment_does_not_replace_the_ca(
    production, production_root, open_key, works, monkeypatch, tmp_path, variable
):
    """Neither does it break what works, nor make an unknown CA known."""
    other = LoopbackCertificates.make(tmp_path).ca_file
    monkeypatch.setenv(variable, other)
    assert works(open_key(production, production.key(), **production_root))
    monkeypatch.setenv(variable, production.ca_file)
    with pytest.raises(KmsUnavailable):
        works(open_key(production, "app", ca_file=other, **production_root))


def test_proxies_of_the_environment_get_nothing(vault, root, open_key, works, monkeypatch):
    """Data keys go to the address that is configured."""
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    assert works(open_key(vault, vault.key(), **root))


# --- namespaces -----------------------------------------------------------------------------------


def test_namespace_holds_keys_of_its_own(vault, root, open_key, works):
    """A key there is not found elsewhere, and its id says where it is."""
    namespace = f"team-{os.urandom(4).hex()}"
    vault.ask("POST", f"sys/namespaces/{namespace}", {})
    vault.ask("POST", "sys/mounts/transit", {"type": "transit"}, X_Vault_Namespace=namespace)
    vault.ask("POST", "transit/keys/app-of-team", {}, X_Vault_Namespace=namespace)
    key = open_key(vault, "app-of-team", namespace=namespace, **root)
    assert works(key)
    assert key.key_id.endswith(f":{namespace}:transit/app-of-team")
    with pytest.raises(KmsKeyNotFound):
        works(open_key(vault, "app-of-team", **root))


def test_login_may_be_in_another_namespace(vault, open_key, policies, works):
    """`auth.namespace`, for hosts that log in above their team's namespace."""
    namespace = f"team-{os.urandom(4).hex()}"
    vault.ask("POST", f"sys/namespaces/{namespace}", {})
    vault.ask("POST", "sys/mounts/transit", {"type": "transit"}, X_Vault_Namespace=namespace)
    vault.ask("POST", "transit/keys/app", {}, X_Vault_Namespace=namespace)
    allowed = vault.policy(f'path "{namespace}/transit/+/app" {{ capabilities = ["update", "read"] }}')
    mount = f"userpass-{os.urandom(4).hex()}"
    vault.ask("POST", f"sys/auth/{mount}", {"type": "userpass"})
    users = f"auth/{mount}/users"
    vault.ask("POST", f"{users}/web", {"password": "p", "token_policies": [allowed]})
    auth = {"method": "userpass", "mount": mount, "username": "web", "password": "p"}
    with pytest.raises(KmsUnauthenticated):
        works(open_key(vault, "app", namespace=namespace, auth=auth))
    assert works(open_key(vault, "app", namespace=namespace, auth={**auth, "namespace": ""}))
    # The path of the key is the same where the namespace stands in it; the id may be of either.
    key = open_key(vault, "app", mount_prefix=namespace, auth=auth)
    assert works(key)
    assert key.key_id.endswith(f"::{namespace}/transit/app")
    named = open_key(vault, "app", namespace=namespace, auth={**auth, "namespace": ""})
    assert key.driver.has_former_id(named.key_id)
    assert named.driver.has_former_id(key.key_id)


# --- a server that cannot serve -------------------------------------------------------------------


def test_sealed_server_is_unavailable(tmp_path, open_key, works):
    """And the same object works when it is unsealed."""
    server = OpenBaoProduction(tmp_path)
    try:
        server.start()
        key = open_key(server, "app", auth={"method": "token", "token": server.token})
        assert works(key)
        server.seal()
        with pytest.raises(KmsUnavailable) as caught:
            works(key)
        assert caught.value.provider_code == "503"
        server.unseal()
        assert works(key)
    finally:
        server.close()


def test_standby_serves_while_there_is_a_leader(tmp_path, open_key, works):
    """It asks the leader itself; without one it is unavailable."""
    leader, standby = (OpenBaoProduction(folder(tmp_path, name)) for name in ("leader", "standby"))
    try:
        leader.start()
        standby.start_standby(leader)
        key = open_key(standby, "app", auth={"method": "token", "token": leader.token})
        assert works(key)
        leader.close()
        with pytest.raises(KmsUnavailable):
            works(key)
    finally:
        standby.close()
        leader.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ErrorKind.INVALID_REQUEST),
        (403, ErrorKind.UNAUTHENTICATED),
        (404, ErrorKind.KEY_NOT_FOUND),
        (405, ErrorKind.INVALID_REQUEST),
        (412, ErrorKind.UNAVAILABLE),
        (413, ErrorKind.TOO_LARGE),
        (429, ErrorKind.THROTTLED),
        (472, ErrorKind.UNAVAILABLE),
        (473, ErrorKind.UNAVAILABLE),
        (500, ErrorKind.UNAVAILABLE),
        (502, ErrorKind.UNAVAILABLE),
        (503, ErrorKind.UNAVAILABLE),
    ],
)
def test_status_is_told_apart(open_driver, status, kind):
    """What Vault's documentation says of each, in Vault's own form."""
    with Stub(status, {"errors": ["canary"]}) as stub:
        driver = open_driver(stub, "app", auth={"method": "token", "token": TOKEN})
        with pytest.raises(VaultFailure) as caught:
            driver.wrap(b"x", bound(), timeout=10)
        assert caught.value.kind is kind
        assert "canary" not in repr((caught.value, caught.value.code, caught.value.remedy))
        driver.close()


def test_answer_without_data_is_unreadable_whatever_the_keys_name(open_driver):
    """Only the answer to a rotation may be empty, and not every answer about a key named `rotate`."""
    with Stub(200, {}) as stub:
        auth = {"method": "token", "token": TOKEN}
        driver = open_driver(stub, "rotate", instance="stub", derived=True, auth=auth)
        driver.rotate(timeout=10)
        with pytest.raises(VaultFailure) as caught:
            driver.wrap(b"x", bound(), timeout=10)
        driver.close()
    assert caught.value.code == "unreadable"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_to_another_host_gets_nothing(open_driver, status):
    """Neither the token nor the request; the error says what to configure instead."""
    with Stub(200, {"data": {}}) as other, Stub(status, {}, location=f"{other.address}/v1/x") as stub:
        driver = open_driver(stub, "app", auth={"method": "token", "token": TOKEN})
        with pytest.raises(VaultFailure) as caught:
            driver.wrap(b"x", bound(), timeout=10)
        driver.close()
        assert other.heard == []
        assert [each.headers["X-Vault-Token"] for each in stub.heard] == [TOKEN]
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert "redirect" in caught.value.remedy


# --- what is written down -------------------------------------------------------------------------


def test_audit_events_have_the_ids_of_the_servers_audit_file(vault, policies, open_key, caplog):
    """Of calls that succeed the server's own id; of those that fail the one that it was sent."""
    name = vault.key()
    token = vault.new_token(*policies(vault, name, "encryptor"))
    caplog.set_level(logging.INFO, "kmsbridge.audit")
    options = {"address": vault.address, "auth": {"method": "token", "token": token}}
    since = vault.audit_file.stat().st_size
    with EnvelopeCipher.from_uri(f"vault-transit://transit/{name}", **options) as cipher:
        message = cipher.encrypt(b"x", context={"tenant": "acme"})
    with (
        EnvelopeCipher.from_uri(f"vault-transit://transit/{name}", **options) as cipher,
        pytest.raises(KmsAccessDenied) as caught,
    ):
        cipher.decrypt(message, context={"tenant": "acme"})
    events = [each.kmsbridge for each in caplog.records if hasattr(each, "kmsbridge")]
    told = {each["operation"]: each["request_id"] for each in events if each["source"] == "call"}
    written = vault.audited(since)
    wrap = next(each for each in written if each["path"] == f"transit/encrypt/{name}")
    unwrap = next(each for each in written if each["path"] == f"transit/decrypt/{name}")
    assert told["wrap"] == wrap["id"]
    assert told["unwrap"] == caught.value.request_id
    assert [told["unwrap"]] == unwrap["headers"]["x-request-id"]


def test_request_id_of_a_batch_is_the_servers(vault, root, open_key):
    """Also of a refused one, whose answer has it."""
    log = CallLog()
    key = open_key(vault, vault.key(), observer=log, **root)
    wrapped = key.wrap(b"x", bound())
    since = vault.audit_file.stat().st_size
    key.unwrap_many([(wrapped, bound({"another": "context"}))])
    assert log.last.request_id in {each["id"] for each in vault.audited(since)}


# --- cost -----------------------------------------------------------------------------------------


def test_each_wrap_is_one_request(vault, policies, open_driver):
    """Nothing is asked to be sure of the key, and a token's end not before it matters."""
    name = vault.key()
    token = vault.new_token(*policies(vault, name, "encryptor"))
    driver = open_driver(vault, name, auth={"method": "token", "token": token})
    counts = []
    for _ in range(2):
        since = vault.audit_file.stat().st_size
        driver.wrap(b"x", bound(), timeout=10)
        ours = [each for each in vault.audited(since) if each.get("client_token") == vault.audited_as(token)]
        counts.append([each["path"] for each in ours])
    encrypt = f"transit/encrypt/{name}"
    assert counts == [[encrypt], [encrypt]]


def test_import_loads_no_sdk():
    """Nor does opening a key."""
    program = """
import sys
from kmsbridge_vault import VaultTransitDriver
from kmsbridge.driver import KeyURI, Options
options = Options({"address": "https://127.0.0.1", "auth": {"method": "token", "token": "x"}})
VaultTransitDriver.open(KeyURI.parse("vault-transit://transit/app"), options).close()
print([each for each in ("hvac", "requests", "urllib3", "ssl", "http.client") if each in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_deadline_of_a_block_is_not_longer_than_the_one_around():
    """What is asked on the way has what is left."""
    with within(1):
        with within(100):
            assert left() <= 1
        with within(0.5):
            assert left() <= 0.5


def test_address_that_does_not_answer_leaves_time_for_the_next(vault, root, open_driver, monkeypatch):
    """Each address of a host has its share of the time; the last one serves."""
    real_connect, real_look_up = http.DeadlineSocket.connect, http.socket.getaddrinfo
    given = []

    def connect(sock, address):
        given.append(sock.gettimeout())
        if len(given) < 3:
            raise TimeoutError
        real_connect(sock, address)

    monkeypatch.setattr(http.DeadlineSocket, "connect", connect)
    monkeypatch.setattr(http.socket, "getaddrinfo", lambda *a, **k: real_look_up(*a, **k)[:1] * 3)
    driver = open_driver(vault, vault.key(), **root)
    driver.wrap(b"x", bound(), timeout=30)
    assert given[0] <= 10
    assert given[1] <= 15
    assert len(given) == 3


SOUND = {"ciphertext": "vault:v3:AAAA"}


def wrapped_many(open_driver, status, item):
    """What a driver makes of an answer to a batch of three, with `item` in the middle.

    A fourth item, whose associated data are not valid, is refused.
    """
    with Stub(status, {"data": {"batch_results": [SOUND, item, SOUND, {"error": "illegal base64"}]}}) as stub:
        driver = open_driver(stub, "app", instance="stub", auth={"method": "token", "token": TOKEN})
        try:
            return driver.wrap_many([(b"x", bound())] * 3, timeout=10)
        finally:
            driver.close()


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("1 error occurred: canary", ErrorKind.INVALID_REQUEST),
        ("encryption key not found", ErrorKind.KEY_NOT_FOUND),
        (7, ErrorKind.INVALID_REQUEST),
    ],
    ids=["any text", "known text", "no text"],
)
def test_failed_wrap_of_a_batch_stands_in_its_place(open_driver, status, error, kind):
    """And the others are what they are."""
    first, second, third = wrapped_many(open_driver, status, {"error": error})
    assert second is kind
    assert (first.version, third.ciphertext) == ("3", b"vault:v3:AAAA")


@pytest.mark.parametrize("item", [None, "text", {"error": ""}, {"ciphertext": "vault:v1:?"}])
def test_batch_with_an_item_that_is_none_of_vaults_is_unreadable(open_driver, item):
    """All of it: what else is in it is not trusted."""
    with pytest.raises(VaultFailure) as caught:
        wrapped_many(open_driver, 200, item)
    assert (caught.value.kind, caught.value.code) == (ErrorKind.UNAVAILABLE, "unreadable")


@pytest.mark.parametrize(
    ("address", "options", "settings"),
    [
        ("https://vault.internal:8200", {}, []),
        ("https://127.0.0.1:8200", {}, []),
        (
            "http://127.0.0.1:8200",
            {},
            ["address is http://127.0.0.1:8200, on this machine and without TLS"],
        ),
        (
            "http://vault.internal:8200",
            {"allow_plain_http": True},
            ["address is http://vault.internal:8200, on another machine and without TLS"],
        ),
        (
            "https://vault.internal:8200",
            {"auth": {"method": "token", "token": "root"}},
            ["the token is that of a development server"],
        ),
    ],
    ids=["TLS", "TLS on this machine", "agent or development server", "plain http elsewhere", "token root"],
)
def test_what_is_not_for_production_is_told_in_words(open_driver, address, options, settings):
    """A proxy or an agent on this machine is sound too: who runs one allows it."""
    auth = {"method": "token", "token": TOKEN}
    server = types.SimpleNamespace(address=address, ca_file="")
    driver = open_driver(server, "app", **{"auth": auth, **options})
    assert list(driver.development_settings()) == settings


def folder(parent, name):
    made = parent / name
    made.mkdir()
    return made
