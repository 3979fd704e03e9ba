"""One request for each call, whatever happened before; ids of requests; clients of the program's own; forks."""

import logging
import multiprocessing
import subprocess
import sys
import warnings

import pytest
from google.api_core import exceptions
from kmsbridge_gcp import GcpKmsDriver

from kmsbridge import EnvelopeCipher
from kmsbridge.errors import ClosedError, KmsError, KmsThrottled
from kmsbridge.keys import ManagedKey
from kmsbridge.testing import CallLog, FaultProxy
from tests.backends.gcp import stock_client


@pytest.fixture
def proxied(emulator, opened):
    """A proxy in front of the emulator, and what opens a driver behind it."""
    host, _, port = emulator.endpoint.rpartition(":")
    with FaultProxy(host, int(port)) as proxy:
        endpoint = "{}:{}".format(*proxy.address)
        yield proxy, lambda name: opened(name, endpoint=endpoint)


@pytest.mark.parametrize(
    "code",
    ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL", "DEADLINE_EXCEEDED", "ABORTED", "UNAUTHENTICATED"],
)
@pytest.mark.parametrize("operation", ["wrap", "unwrap"])
def test_call_that_fails_is_one_request(emulator, opened, key, context, code, operation):
    """Neither gRPC nor the client library tries again."""
    driver = opened(key)
    wrapped = driver.wrap(b"payload", context, timeout=10)
    emulator.fail(code, key)
    before = emulator.requests(key)
    with pytest.raises(exceptions.GoogleAPICallError):
        if operation == "wrap":
            driver.wrap(b"payload", context, timeout=10)
        else:
            driver.unwrap(wrapped, context, timeout=10)
    assert emulator.requests(key) - before == 1


def test_many_calls_share_one_connection(proxied, key, context):
    """Made when it is first needed."""
    proxy, opened = proxied
    driver = opened(key)
    assert proxy.connections == 0
    for _ in range(10):
        driver.unwrap(driver.wrap(b"payload", context, timeout=10), context, timeout=10)
    driver.describe(timeout=10)
    assert proxy.connections == 1


def test_refusal_by_the_service_keeps_the_connection(emulator, proxied, key, context):
    """It was reached, after all."""
    proxy, opened = proxied
    driver = opened(key)
    emulator.fail("RESOURCE_EXHAUSTED", key, times=3)
    for _ in range(3):
        with pytest.raises(exceptions.ResourceExhausted):
            driver.wrap(b"payload", context, timeout=10)
    driver.wrap(b"payload", context, timeout=10)
    assert proxy.connections == 1


def test_failed_connection_is_made_anew_at_the_next_call(proxied, key, context):
    """At once, and not when gRPC would try again."""
    proxy, opened = proxied
    driver = opened(key)
    driver.wrap(b"payload", context, timeout=10)
    proxy.refuse()
    for _ in range(3):
        with pytest.raises(exceptions.ServiceUnavailable):
            driver.wrap(b"payload", context, timeout=10)
    proxy.heal()
    driver.wrap(b"payload", context, timeout=10)
    assert proxy.connections == 1


def test_request_id_is_the_reason_that_the_service_logs(emulator, opened, key, context):
    """Of a call that succeeds and of one that fails; each has its own."""
    log = CallLog()
    ManagedKey("app", lambda: opened(key), observer=log).wrap(b"payload", context)
    succeeded = log.last.request_id
    emulator.fail("RESOURCE_EXHAUSTED", key, times=5)
    with pytest.raises(KmsThrottled) as caught:
        ManagedKey("app", lambda: opened(key), sleep=lambda _: None).wrap(b"payload", context)
    failed = caught.value.request_id
    reasons = [(each["reason"], each["code"]) for each in emulator.log(key)]
    assert reasons[0] == (succeeded, "OK")
    assert reasons[-1] == (failed, "RESOURCE_EXHAUSTED")
    assert len({reason for reason, _ in reasons}) == 6


def test_debug_log_of_the_client_library_shows_nothing(opened, key, context, caplog, monkeypatch):
    """Even where a program has it print everything that is sent."""
    for name in ("google", "google.cloud.kms_v1", "google.auth", "grpc"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "propagate", True)
        caplog.set_level(logging.DEBUG, name)
    driver = opened(key, access_token="canary-token")
    with pytest.raises(exceptions.PermissionDenied):
        driver.wrap(b"canary-payload", context, timeout=10)
    with pytest.raises(exceptions.PermissionDenied):
        driver.describe(timeout=10)
    shown = repr([vars(each) for each in caplog.records])
    assert "canary" not in shown
    assert "Y2FuYXJ5" not in shown


def test_client_of_the_program_is_used(emulator, key, monkeypatch):
    """And left open, for it is the program's."""
    asked = []
    with stock_client(emulator.endpoint) as client:

        def make_client(name):
            asked.append(name)
            return client

        monkeypatch.setattr(GcpKmsDriver, "make_client", make_client)
        with EnvelopeCipher.from_uri(f"gcp-kms://{key}") as cipher:
            assert cipher.decrypt(cipher.encrypt(b"payload")) == b"payload"
        assert asked == [key]
        client.get_crypto_key(name=key)


def test_client_of_the_program_tries_once_too(emulator, opened, key, context, monkeypatch):
    """Its own retries are off for these calls."""
    with stock_client(emulator.endpoint) as client:
        monkeypatch.setattr(GcpKmsDriver, "make_client", lambda _name: client)
        driver = opened(key)
        emulator.fail("UNAVAILABLE", key)
        with pytest.raises(exceptions.ServiceUnavailable):
            driver.wrap(b"payload", context, timeout=10)
        assert emulator.requests(key) == 1


def test_closed_key_makes_no_call(emulator, opened, key, context):
    """Not one that would be refused, either."""
    app = ManagedKey("app", lambda: opened(key))
    wrapped = app.wrap(b"payload", context)
    app.close()
    before = emulator.requests(key)
    for call in (
        lambda: app.wrap(b"x", context),
        lambda: app.unwrap(wrapped, context),
        app.rotate,
    ):
        with pytest.raises(ClosedError):
            call()
    assert emulator.requests(key) == before


def test_endpoint_that_is_no_cloud_kms_is_told(emulator, opened, key, context):
    """UNIMPLEMENTED is a matter of the configuration."""
    app = ManagedKey("app", lambda: opened(key))
    emulator.fail("UNIMPLEMENTED", key)
    with pytest.raises(KmsError, match="check the endpoint") as caught:
        app.wrap(b"payload", context)
    assert caught.value.attempts == 1


FORKS = """
import os, sys, threading, warnings
from kmsbridge import EnvelopeCipher
warnings.simplefilter("ignore")
cipher = EnvelopeCipher.from_uri(sys.argv[1], endpoint=sys.argv[2], insecure=True)
options = {"context": {"n": "0"}}
message = cipher.encrypt(b"payload", **options)
over = threading.Event()

def toil():
    n = 0
    while not over.is_set():
        n += 1
        cipher.encrypt(b"payload", context={"n": str(n)})

threads = [threading.Thread(target=toil, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
for n in range(10):
    child = os.fork()
    if not child:
        assert cipher.decrypt(message, **options) == b"payload"
        cipher.encrypt(b"payload", context={"child": str(n)})
        cipher.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
over.set()
for thread in threads:
    thread.join()
child = os.fork()
if not child:
    cipher.encrypt(b"payload", context={"child": "that ends as a program does"})
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
cipher.encrypt(b"payload", context={"parent": "after all"})
cipher.close()
print("done")
"""


@pytest.mark.parametrize(
    "environment", [{}, {"GRPC_ENABLE_FORK_SUPPORT": "1"}], ids=["by default", "with gRPC's Python hooks"]
)
def test_forks_amid_calls_hang_nobody(emulator, key, environment):
    """A fork waits until the calls that are under way have ended, and the child connects anew."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS, f"gcp-kms://{key}", emulator.endpoint],
        env={**environment, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def _encrypt(cipher):
    return cipher.encrypt(b"payload", context={"made": "in a child"})


def test_processes_of_multiprocessing_share_a_cipher(emulator, key):
    """As a web server that forks its workers after it has opened one."""
    with EnvelopeCipher.from_uri(f"gcp-kms://{key}", endpoint=emulator.endpoint, insecure=True) as cipher:
        _encrypt(cipher)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            processes = [
                multiprocessing.get_context("fork").Process(target=_encrypt, args=(cipher,)) for _ in range(3)
            ]
            for process in processes:
                process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
            process.close()
        _encrypt(cipher)
