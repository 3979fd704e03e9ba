"""As whom Cloud KMS is called: each kind of credentials, over TLS, against token services on this machine."""

import base64
import contextlib
import datetime
import json
import socket
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from kmsbridge_testing.faults.certificates import LoopbackCertificates

from kmsbridge.driver import ErrorKind
from kmsbridge.errors import ConfigError, KmsTimeout, KmsUnauthenticated, KmsUnavailable
from kmsbridge.keys import ManagedKey
from kmsbridge.policy import CallPolicy
from kmsbridge.testing import FaultProxy
from tests.backends.gcp import open_one

ONCE = CallPolicy(attempt_timeout=5, deadline=5, max_attempts=1)


class TokenService:
    """Answers every POST with a token for `principal`, or with `status`; keeps what was asked."""

    def __init__(self):
        self.principal, self.status, self.asked = "", 200, []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                service.asked.append((self.path, body, self.headers.get("Authorization", "")))
                expire = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
                answer = {
                    "access_token": service.principal,
                    "expires_in": 3600,
                    "accessToken": service.principal,
                    "expireTime": expire.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "error": "invalid_grant" if service.status != 200 else "",
                }
                data = json.dumps(answer).encode()
                self.send_response(service.status)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = True

            def log_message(self, *_args):
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def tokens(monkeypatch):
    """In the place of Google's token service."""
    with contextlib.closing(TokenService()) as service:
        monkeypatch.setattr("google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", service.url)
        yield service


@pytest.fixture
def principal(emulator, ring, key):
    """Who may wrap and unwrap, and is told apart from everybody else."""
    name = f"app-{ring[-8:]}@test.iam.gserviceaccount.com"
    emulator.grant(name, "roles/cloudkms.cryptoKeyEncrypterDecrypter", key)
    return name


@pytest.fixture
def tls(emulator, tmp_path):
    """Options for an endpoint with TLS of its own CA, in front of the emulator."""
    files = LoopbackCertificates.make(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.server_file)
    server.set_alpn_protocols(["h2"])
    host, _, port = emulator.endpoint.rpartition(":")
    with FaultProxy(host, int(port), tls=server) as proxy:
        yield {"endpoint": f"localhost:{proxy.address[1]}", "ca_file": files.ca_file}


@pytest.fixture
def app(key, tls):
    """Opens the key over TLS, as an application has it."""
    with contextlib.ExitStack() as end:

        def open_key(policy=ONCE, **options):
            app = ManagedKey("app", lambda: open_one(f"gcp-kms://{key}", {**tls, **options}), policy)
            end.callback(app.close)
            return app

        yield open_key


@pytest.fixture
def service_account(tmp_path, principal):
    """The file of a service account's key."""
    private_key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "service-account.json"
    account = {
        "type": "service_account",
        "project_id": "test",
        "private_key_id": "1",
        "private_key": private_key.decode(),
        "client_email": principal,
        "token_uri": "http://127.0.0.1:1/never-asked",
    }
    path.write_text(json.dumps(account))
    return path


@pytest.fixture
def user(tmp_path):
    """The file that gcloud auth application-default login writes."""
    path = tmp_path / "user.json"
    content = {"type": "authorized_user", "client_id": "id", "client_secret": "canary-secret"}
    path.write_text(json.dumps({**content, "refresh_token": "canary-refresh", "quota_project_id": "billing"}))
    return path


def works(app, context):
    return app.unwrap(app.wrap(b"payload", context), context) == b"payload"


def callers(emulator, key):
    return {each["principal"] for each in emulator.log(key)}


def test_service_account_file_signs_its_own_tokens(app, emulator, key, context, service_account, principal):
    """No token service is asked."""
    assert works(app(credentials_file=str(service_account)), context)
    assert callers(emulator, key) == {principal}


def test_application_default_credentials_are_found(
    app, emulator, key, context, service_account, principal, monkeypatch
):
    """By GOOGLE_APPLICATION_CREDENTIALS, when nothing is configured."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account))
    assert works(app(), context)
    assert callers(emulator, key) == {principal}


def test_token_is_fetched_once_for_many_calls(
    app, emulator, key, context, user, tokens, principal, monkeypatch
):
    """By 16 threads that all need it; a driver opened later fetches its own."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(user))
    tokens.principal = principal
    shared = app()
    together = threading.Barrier(16)

    def work():
        together.wait(30)
        assert works(shared, context)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens.asked) == 1
    assert emulator.requests(key, method="Encrypt") == 16
    assert callers(emulator, key) == {principal}


def test_token_is_renewed_when_it_ends(app, context, user, tokens, principal, monkeypatch):
    """And used meanwhile when there is time left."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(user))
    tokens.principal = principal
    shared = app()
    assert works(shared, context)
    credentials = shared.driver._connection._caller._credentials
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    credentials.expiry = now - datetime.timedelta(seconds=1)
    assert works(shared, context)
    assert len(tokens.asked) == 2
    tokens.status = 500
    credentials.expiry = now + datetime.timedelta(seconds=60)
    assert works(shared, context)


@pytest.mark.parametrize(
    ("status", "error"), [(400, KmsUnauthenticated), (401, KmsUnauthenticated), (503, KmsUnavailable)]
)
def test_token_service_that_refuses_is_asked_once(app, context, user, tokens, monkeypatch, status, error):
    """Once an attempt; a refusal is not an outage. Nothing secret is told."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(user))
    tokens.status = status
    with pytest.raises(error) as caught:
        app().wrap(b"payload", context)
    assert len(tokens.asked) == 1
    assert caught.value.provider_code == "RefreshError"
    assert "canary" not in str(caught.value) + repr(caught.value.__cause__)


def test_token_service_that_hangs_costs_the_timeout(app, context, user, monkeypatch):
    """`KmsTimeout`, and not the two minutes of the client library."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/token"
        monkeypatch.setattr("google.oauth2.credentials._GOOGLE_OAUTH2_TOKEN_ENDPOINT", url)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(user))
        impatient = CallPolicy(attempt_timeout=0.3, deadline=0.6, max_attempts=2)
        waiting = app(impatient)
        with pytest.raises(KmsTimeout):
            waiting.wrap(b"payload", context)
    # Its thread ends with the connection.
    with contextlib.suppress(Exception):
        waiting.driver._connection._caller._refresh.wait(30)


def test_impersonation_asks_for_the_other_accounts_token(
    app, emulator, key, context, service_account, principal, tokens, monkeypatch
):
    """With the source's own; Cloud KMS sees the other account alone."""
    other = f"other-{principal}"
    emulator.grant(other, "roles/cloudkms.cryptoKeyEncrypterDecrypter", key)
    tokens.principal = other
    monkeypatch.setattr("google.auth.iam._IAM_ENDPOINT", tokens.url + "/{}:generateAccessToken")
    assert works(app(credentials_file=str(service_account), impersonate_service_account=other), context)
    ((path, body, authorization),) = tokens.asked
    assert path == f"/token/{other}:generateAccessToken"
    assert json.loads(body)["scope"] == ["https://www.googleapis.com/auth/cloudkms"]
    claims = base64.urlsafe_b64decode(authorization.split(".")[1] + "==")
    assert json.loads(claims)["iss"] == principal
    assert callers(emulator, key) == {other}


def test_impersonation_that_is_denied_is_told(app, context, service_account, tokens, monkeypatch):
    """Without the role of a token creator."""
    tokens.status = 403
    monkeypatch.setattr("google.auth.iam._IAM_ENDPOINT", tokens.url + "/{}:generateAccessToken")
    options = {"credentials_file": str(service_account), "impersonate_service_account": "other@p.example"}
    with pytest.raises(KmsUnauthenticated):
        app(**options).wrap(b"payload", context)


def test_access_token_is_sent_as_it_is(app, emulator, key, context, principal):
    """Over TLS."""
    assert works(app(access_token=principal), context)
    assert callers(emulator, key) == {principal}


def test_anonymous_caller_sends_nothing(app, emulator, key, context):
    """Whom the emulator takes for its owner."""
    assert works(app(anonymous=True), context)
    assert callers(emulator, key) == {"owner"}


def test_quota_project_is_named(opened, key, context, user, tokens, principal, monkeypatch):
    """The configured one, or that of the credentials."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(user))
    tokens.principal = principal
    for options, project in (({}, "billing"), ({"quota_project": "other"}, "other")):
        driver = open_one(f"gcp-kms://{key}", {"endpoint": "localhost:1", **options})
        from kmsbridge_gcp.credentials import Caller

        assert ("x-goog-user-project", project) in Caller(driver._access).metadata(10)


@pytest.mark.parametrize(
    "content", [None, "", "{}", '{"type": "authorized_user"}'], ids=["missing", "empty", "no key", "user's"]
)
def test_credentials_file_that_is_none_is_refused(app, context, tmp_path, content):
    """`ConfigError` with its path, at first use."""
    path = tmp_path / "credentials.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=str(path)):
        app(credentials_file=str(path)).wrap(b"payload", context)


NO_CREDENTIALS = """
import sys
from kmsbridge import EnvelopeCipher
from kmsbridge.errors import KmsError
with EnvelopeCipher.from_uri(sys.argv[1]) as cipher:
    try:
        cipher.encrypt(b"x")
    except KmsError as error:
        print(type(error).__name__, error)
"""

IMPATIENT = """
import sys
import google.auth, grpc  # what importing takes is not what is tried
from kmsbridge.keys import ManagedKey
from kmsbridge.driver import EncryptionContext, KeyURI, Options
from kmsbridge.errors import KmsError
from kmsbridge.policy import CallPolicy
from kmsbridge_gcp import GcpKmsDriver
uri = KeyURI.parse(sys.argv[1])
policy = CallPolicy(attempt_timeout=0.5, deadline=0.5, max_attempts=1)
key = ManagedKey("app", lambda: GcpKmsDriver.open(uri, Options({})), policy)
try:
    key.wrap(b"x", EncryptionContext.of({}))
except KmsError as error:
    print(type(error).__name__, error.attempts)
"""


def test_host_without_credentials_is_told_so(tmp_path, key):
    """`KmsUnauthenticated` with the ways to give some, once the metadata server has been looked for."""
    environment = {
        "HOME": str(tmp_path),
        "PATH": "",
        "GCE_METADATA_IP": "127.0.0.1:1",
        "NO_GCE_CHECK": "true",
    }
    command = [sys.executable, "-c", NO_CREDENTIALS, f"gcp-kms://{key}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("KmsUnauthenticated"), done.stderr
    assert "gcloud auth application-default login" in done.stdout


def test_metadata_server_that_hangs_costs_the_timeout(tmp_path, key):
    """Not the time that the client library would wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        environment = {
            "HOME": str(tmp_path),
            "PATH": "",
            "GCE_METADATA_IP": address,
            "GCE_METADATA_HOST": address,
        }
        done = subprocess.run(
            [sys.executable, "-c", IMPATIENT, f"gcp-kms://{key}"],
            env=environment,
            capture_output=True,
            text=True,
        )
    assert done.stdout.split() == ["KmsTimeout", "1"], done.stderr


def test_endpoint_with_another_ca_is_unavailable(app, context, tmp_path):
    """Nothing is sent to it, least of all a token."""
    (tmp_path / "other").mkdir()
    other = LoopbackCertificates.make(tmp_path / "other")
    with pytest.raises(KmsUnavailable):
        app(ca_file=other.ca_file, access_token="canary").wrap(b"payload", context)


@pytest.mark.parametrize(
    ("name", "arguments", "kind"),
    [
        ("DefaultCredentialsError", {}, ErrorKind.UNAUTHENTICATED),
        ("RefreshError", {}, ErrorKind.UNAUTHENTICATED),
        ("RefreshError", {"retryable": True}, ErrorKind.UNAVAILABLE),
        ("TransportError", {}, ErrorKind.UNAVAILABLE),
        ("MalformedError", {}, ErrorKind.UNAUTHENTICATED),
        ("ReauthFailError", {}, ErrorKind.UNAUTHENTICATED),
    ],
)
def test_errors_of_google_auth_are_told_apart(opened, key, name, arguments, kind):
    """What waiting may heal, and what it does not."""
    import google.auth.exceptions

    error = getattr(google.auth.exceptions, name)("canary", **arguments)
    driver = opened(key)
    assert driver.classify(error, "wrap") is kind
    details = driver.error_details(error)
    assert details.remedy
    assert "canary" not in repr(details)
