"""Under moto, a mock of AWS, the driver stays in the mock: nothing leaves this machine."""

import contextlib
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

# The example is that of the README, with another key. Every address that is connected to or looked up is printed.
PROGRAM = """
import contextlib, sys

reached = set()

def watch(event, arguments):
    if event == "socket.connect":
        reached.add(str(arguments[1][0] if isinstance(arguments[1], tuple) else "a local socket"))
    elif event == "socket.getaddrinfo":
        reached.add(str(arguments[0]))

sys.addaudithook(watch)

import boto3
from kmsbridge import EnvelopeCipher

mocked = contextlib.nullcontext
if sys.argv[1] == "in process":
    from moto import mock_aws as mocked

with mocked():
    kms = boto3.client("kms", "eu-west-1")
    made = kms.create_key()["KeyMetadata"]
    kms.create_alias(AliasName="alias/payments", TargetKeyId=made["KeyId"])

    with EnvelopeCipher.from_uri("aws-kms://alias/payments?region=eu-west-1") as cipher:
        message = cipher.encrypt(b"+1 555 0100", context={"tenant": "acme"}, aad=b"users/42/phone")
        phone = cipher.decrypt(message, context={"tenant": "acme"}, aad=b"users/42/phone")
    assert phone == b"+1 555 0100"

    arn = made["Arn"]
    with EnvelopeCipher.from_uri(f"aws-kms://{arn}") as cipher:
        assert cipher.decrypt(cipher.rewrap(message, context={"tenant": "acme"}), context={"tenant": "acme"},
                              aad=b"users/42/phone") == b"+1 555 0100"
print(sorted(reached))
"""


def run(where, **environment):
    """The addresses that the program reached."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "http"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, where],
        env={**kept, "AWS_EC2_METADATA_DISABLED": "true", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_mock_in_process_is_not_left():
    """No connection is made at all: a real request would have a plaintext data key in its body."""
    assert run("in process") == "[]"


@pytest.fixture
def server():
    """moto's server, on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(address, process)
        yield address
    finally:
        process.kill()
        process.wait()


def _wait(address, process):
    for _ in range(600):
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
            break
    pytest.fail("moto's server did not start")


def test_server_is_reached_and_nothing_else(server):
    """Its answers lack the algorithm, which the driver does without."""
    environment = {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
    assert run("server", **environment) == "['127.0.0.1']"
