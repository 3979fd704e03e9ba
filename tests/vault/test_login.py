"""Every way to log in, against the real server; what a dead token is told from, and how it is replaced."""

import base64
import gc
import json
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kmsbridge_testing.contract.base import bound
from kmsbridge_vault import VaultTransitDriver

from kmsbridge.driver import KeyURI, Options
from kmsbridge.errors import ConfigError, KmsAccessDenied, KmsUnauthenticated
from kmsbridge.testing import LoopbackCertificates

BOTH = ("encryptor", "decryptor")


@pytest.fixture
def name(vault):
    """A key."""
    return vault.key()


@pytest.fixture
def role(vault, name, policies):
    """The policies of a host that wraps and unwraps."""
    return policies(vault, name, *BOTH)


@pytest.fixture
def mounted(vault):
    """Enables a method of auth at a mount of its own, which it gives."""
    mounts = []

    def mounted(method, server=vault):
        mount = f"{method}-{secrets.token_hex(4)}"
        server.ask("POST", f"sys/auth/{mount}", {"type": method})
        mounts.append((server, mount))
        return mount

    yield mounted
    for server, mount in mounts:
        server.ask("DELETE", f"sys/auth/{mount}")


@pytest.fixture
def approle(vault, role, mounted):
    """Makes a role, and gives what its host needs."""

    def approle(**settings):
        mount = mounted("approle")
        vault.ask("POST", f"auth/{mount}/role/app", {"token_policies": role, "token_ttl": "1h", **settings})
        role_id = vault.ask("GET", f"auth/{mount}/role/app/role-id")["data"]["role_id"]
        secret_id = vault.ask("POST", f"auth/{mount}/role/app/secret-id")["data"]["secret_id"]
        return {"method": "approle", "mount": mount, "role_id": role_id, "secret_id": secret_id}

    return approle


def logins(vault, since, mount):
    return sum(each["path"].startswith(f"auth/{mount}/login") for each in vault.audited(since))


def test_token_logs_in(vault, name, role, open_key, works):
    """A token from the configuration."""
    assert works(open_key(vault, name, auth={"method": "token", "token": vault.new_token(*role)}))


@pytest.mark.parametrize("prefix", ["VAULT", "BAO"])
def test_standard_variables_stand_in_for_options(vault, name, role, open_driver, works, monkeypatch, prefix):
    """Address and token may come from the variables that the provider's own command reads."""
    monkeypatch.setenv(f"{prefix}_ADDR", vault.address)
    monkeypatch.setenv(f"{prefix}_TOKEN", vault.new_token(*role))
    driver = open_driver(vault, name, address=None)
    assert driver.unwrap(driver.wrap(b"x", bound(), timeout=10), bound(), timeout=10) == b"x"


def test_token_file_is_read_again_when_its_token_is_refused(vault, name, role, open_key, works, write):
    """An agent replaces the token; a file with a dead one is `KmsUnauthenticated`."""
    first = vault.new_token(*role)
    write("token", first + "\n")
    key = open_key(vault, name, auth={"method": "token_file", "file": "token"})
    assert works(key)
    vault.ask("POST", "auth/token/revoke", {"token": first})
    with pytest.raises(KmsUnauthenticated):
        works(key)
    write("token", vault.new_token(*role))
    assert works(key)


def test_approle_logs_in(vault, name, approle, open_key, works):
    """Role id and secret id."""
    assert works(open_key(vault, name, auth=approle()))


def test_userpass_logs_in(vault, name, role, mounted, open_key, works):
    """User name and password."""
    mount = mounted("userpass")
    users = f"auth/{mount}/users"
    vault.ask("POST", f"{users}/web", {"password": "canary", "token_policies": role})
    auth = {"method": "userpass", "mount": mount, "username": "web", "password": "canary"}
    assert works(open_key(vault, name, auth=auth))
    with pytest.raises(KmsUnauthenticated) as caught:
        works(open_key(vault, name, auth={**auth, "password": "another"}))
    assert caught.value.provider_code == "login-refused"


def test_certificate_logs_in(production, open_key, policies, mounted, works, tmp_path):
    """A client certificate, on a connection whose server has a CA of its own."""
    name, mount = production.key(), mounted("cert", production)
    client = LoopbackCertificates.make(tmp_path)
    settings = {
        "certificate": (tmp_path / "ca.pem").read_text(),
        "token_policies": policies(production, name, *BOTH),
    }
    production.ask("POST", f"auth/{mount}/certs/web", settings)
    auth = {"method": "cert", "mount": mount, "role": "web"}
    assert works(open_key(production, name, client_cert=client.server_file, auth=auth))


def test_kubernetes_logs_in(vault, name, role, mounted, open_key, works, write, tmp_path):
    """The service account's token, which the server has the cluster review; it is read at each login."""
    claims = {"kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "web", "uid": "1"}}}
    head, body = (
        base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode()
        for each in ({"alg": "RS256"}, {"iss": "cluster", "sub": "system:serviceaccount:shop:web", **claims})
    )
    write("jwt", f"{head}.{body}.c2ln")
    with Cluster() as cluster:
        mount = mounted("kubernetes")
        LoopbackCertificates.make(tmp_path)
        settings = {"kubernetes_host": cluster.address, "disable_local_ca_jwt": True}
        settings["kubernetes_ca_cert"] = (tmp_path / "ca.pem").read_text()
        vault.ask("POST", f"auth/{mount}/config", {**settings, "token_reviewer_jwt": "reviewer"})
        bound_to = {"bound_service_account_names": "web", "bound_service_account_namespaces": "shop"}
        vault.ask("POST", f"auth/{mount}/role/web", {**bound_to, "token_policies": role})
        auth = {"method": "kubernetes", "mount": mount, "role": "web", "jwt_file": "jwt"}
        assert works(open_key(vault, name, auth=auth))
        cluster.knows = False
        with pytest.raises(KmsUnauthenticated):
            works(open_key(vault, name, auth=auth))


def test_login_is_refused_as_unauthenticated(vault, name, approle, open_key, works):
    """A wrong secret id says which method refused, and not the secret id."""
    with pytest.raises(KmsUnauthenticated) as caught:
        works(open_key(vault, name, auth={**approle(), "secret_id": "canary"}))
    assert "secret id" in caught.value.remedy
    assert "canary" not in str(caught.value)


# --- tokens that end ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["revoked", "used up", "expired"])
def test_dead_token_is_replaced_by_a_login(vault, name, approle, open_key, works, how):
    """The call that finds it dead logs in and is made once more: no error."""
    settings = {"used up": {"token_num_uses": 3}, "expired": {"token_ttl": "1s", "token_max_ttl": "1s"}}
    auth = approle(**settings.get(how, {}))
    key = open_key(vault, name, auth=auth)
    assert works(key)
    since = vault.audit_file.stat().st_size
    if how == "revoked":
        vault.ask("POST", "auth/token/revoke", {"token": token_of(key)})
    elif how == "expired":
        wait_until_dead(vault, token_of(key))
    for _ in range(3):
        assert works(key)
    assert logins(vault, since, auth["mount"]) >= 1


@pytest.mark.parametrize("how", ["revoked", "used up", "expired"])
def test_dead_token_that_was_given_is_unauthenticated(vault, name, role, open_key, works, how):
    """There is no other: the error says so, and not that access was denied."""
    settings = {"used up": {"num_uses": 2}, "expired": {"ttl": "1s"}}
    token = vault.new_token(*role, **settings.get(how, {}))
    if how == "revoked":
        vault.ask("POST", "auth/token/revoke", {"token": token})
    elif how == "expired":
        wait_until_dead(vault, token)
    key = open_key(vault, name, auth={"method": "token", "token": token, "renew": False})
    if how == "used up":
        assert works(key)
    with pytest.raises(KmsUnauthenticated):
        works(key)


@pytest.mark.parametrize("default_policy", [True, False], ids=["default policy", "no default policy"])
def test_denied_token_is_not_taken_for_a_dead_one(vault, name, policies, open_key, default_policy):
    """`KmsAccessDenied`, also where the token may not look at itself."""
    token = vault.new_token(*policies(vault, name, "encryptor"), no_default_policy=not default_policy)
    key = open_key(vault, name, auth={"method": "token", "token": token})
    wrapped = key.wrap(b"x", bound())
    with pytest.raises(KmsAccessDenied):
        key.unwrap(wrapped, bound())


def test_denied_caller_does_not_log_in_again(vault, name, policies, approle, open_key):
    """A denial is no reason for a login, however often it comes."""
    auth = approle(token_policies=policies(vault, name, "encryptor"))
    key = open_key(vault, name, auth=auth)
    wrapped = key.wrap(b"x", bound())
    since = vault.audit_file.stat().st_size
    for _ in range(5):
        with pytest.raises(KmsAccessDenied):
            key.unwrap(wrapped, bound())
    assert logins(vault, since, auth["mount"]) == 0


@pytest.mark.parametrize("when", ["at first use", "after a revocation"])
def test_many_threads_log_in_once(vault, name, approle, open_key, works, when):
    """32 threads without a token wait for one login."""
    auth = approle()
    key = open_key(vault, name, auth=auth)
    if when == "after a revocation":
        assert works(key)
        vault.ask("POST", "auth/token/revoke", {"token": token_of(key)})
    since, together = vault.audit_file.stat().st_size, threading.Barrier(32)

    def work(_):
        together.wait(30)
        return works(key)

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(work, range(32)))
    assert logins(vault, since, auth["mount"]) == 1


def test_failed_login_is_shared_as_well(vault, name, approle, open_key, works):
    """32 threads with a wrong secret id do not ask 32 times in a row: those that wait share the refusal."""
    auth = {**approle(), "secret_id": "wrong"}
    key, together = open_key(vault, name, auth=auth), threading.Barrier(32)
    since = vault.audit_file.stat().st_size

    def work(_):
        together.wait(30)
        with pytest.raises(KmsUnauthenticated):
            works(key)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(work, range(32)))
    assert logins(vault, since, auth["mount"]) < 32


def test_refused_login_is_not_repeated_at_once(vault, name, approle, open_key, works):
    """A server that counts refusals is asked once, and again some seconds later."""
    auth = {**approle(), "secret_id": "wrong"}
    key = open_key(vault, name, auth=auth)
    since = vault.audit_file.stat().st_size

    def refused():
        with pytest.raises(KmsUnauthenticated) as caught:
            works(key)
        return caught.value.provider_code

    assert {refused() for _ in range(5)} == {"login-refused"}
    assert logins(vault, since, auth["mount"]) == 1
    key.driver._tokens._refused_until = 0.0
    refused()
    assert logins(vault, since, auth["mount"]) == 2


# --- renewal --------------------------------------------------------------------------------------


def test_token_is_renewed_ahead_of_its_end(vault, name, role, open_key, works):
    """A periodic token of three seconds lives on while nobody calls, and its thread ends with the driver."""
    token = vault.new_token(*role, period="3s")
    key = open_key(vault, name, auth={"method": "token", "token": token})
    assert works(key)
    wait_for(lambda: renewals(vault, token) >= 2)
    assert works(key)
    key.close()
    assert not [each for each in threading.enumerate() if each.name == "kmsbridge-vault"]


def test_login_comes_ahead_of_the_greatest_age(vault, name, approle, open_key, works):
    """A token that cannot be renewed for long is replaced by a login in the background."""
    auth = approle(token_ttl="2s", token_max_ttl="3s")
    key = open_key(vault, name, auth=auth)
    since = vault.audit_file.stat().st_size
    assert works(key)
    wait_for(lambda: logins(vault, since, auth["mount"]) >= 2)
    assert works(key)


def test_dropped_driver_leaves_no_thread(vault, name, approle):
    """A driver that nobody closed is not kept alive by its renewal."""
    options = Options({"address": vault.address, "auth": approle()})
    driver = VaultTransitDriver.open(KeyURI.parse(f"vault-transit://transit/{name}"), options)
    assert works_bare(driver)
    thread = driver._tokens._renewal.thread
    assert thread.is_alive()
    driver._client.close()
    del driver, options
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_token_serves_where_no_thread_can_be_started(vault, name, approle, open_driver, monkeypatch):
    """A limit of processes does not stop the call; the next one that finds room has the token renewed."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    driver = open_driver(vault, name, auth=approle())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert works_bare(driver)
        assert driver._tokens._renewal.thread is None
        driver._tokens.close()
        driver._tokens._closed = driver._tokens._renewal._closed = False
    assert works_bare(driver)
    assert driver._tokens._renewal.thread.is_alive()


def test_token_without_end_has_no_thread(vault, name, role, mounted, open_driver):
    """Only what ends is renewed."""
    driver = open_driver(vault, name, auth={"method": "token", "token": vault.token})
    assert works_bare(driver)
    wait_for(lambda: driver._tokens._renewal.thread is None)


# --- what is refused when a key is opened ---------------------------------------------------------


@pytest.mark.parametrize(
    "auth",
    [
        {},
        {"method": "ldap"},
        {"method": "token"},
        {"method": "token", "token": ""},
        {"method": "token", "token": "two\nlines"},
        {"method": "token_file"},
        {"method": "approle"},
        {"method": "approle", "role_id": "a", "secret_id": "b", "wrapped_secret_id": "c"},
        {"method": "approle", "role_id": "a", "wrapped_secret_id": "b", "wrapped_secret_id_file": "c"},
        {"method": "approle", "role_id": "a", "secret_id": "b", "mount": "../sys"},
        {"method": "approle", "role_id": "a", "secret_id": "b", "namespace": "a//b"},
        {"method": "approle", "role_id": "a", "wrapped_secret_id_env": "KMSBRIDGE_NO_SUCH_VARIABLE"},
        {"method": "kubernetes"},
        {"method": "userpass", "username": "../../sys", "password": "a"},
        {"method": "userpass", "username": "web"},
        {"method": "cert"},
    ],
    ids=str,
)
def test_incomplete_auth_is_refused_when_opened(vault, open_driver, auth):
    """Before anything is sent, with a remedy and without a value."""
    with pytest.raises(ConfigError) as caught:
        open_driver(vault, "app", auth=auth)
    assert caught.value.remedy


class Cluster:
    """What of Kubernetes the server asks: whether it knows a token."""

    def __init__(self):
        cluster = self
        self.knows = True

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                user = {"username": "system:serviceaccount:shop:web", "uid": "1", "groups": []}
                status = {"authenticated": True, "user": user} if cluster.knows else {"authenticated": False}
                answer = json.dumps({"kind": "TokenReview", "status": status}).encode()
                self.send_response(201)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def token_of(key):
    return key.driver._tokens._grant.token.reveal_text()


def works_bare(driver):
    return driver.unwrap(driver.wrap(b"x", bound(), timeout=10), bound(), timeout=10) == b"x"


def wait_until_dead(vault, token):
    wait_for(lambda: not vault.ask("GET", "auth/token/lookup-self", token=token, check=False).ok)


def renewals(vault, token):
    asked = [each for each in vault.audited() if each["path"] == "auth/token/renew-self"]
    return sum(each.get("client_token") == vault.audited_as(token) for each in asked)


def wait_for(done):
    """At most half a minute, for what a server does by its own clock."""
    event = threading.Event()
    for _ in range(300):
        if done():
            return
        event.wait(0.1)
    pytest.fail("it did not happen")
