"""The emulator as a command, from Python, and as a pytest fixture; and its faults on demand."""

import os
import select
import signal
import subprocess
import sys
import threading

import pytest
from google.api_core import exceptions
from kmsbridge_gcp_emulator import Emulator
from kmsbridge_gcp_emulator.process import EmulatorError

from tests.backends.gcp import stock_client

KEY = "projects/demo/locations/global/keyRings/demo/cryptoKeys/app"
COMMAND = [sys.executable, "-m", "kmsbridge_gcp_emulator"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_command_prints_its_endpoint_and_runs_until_a_signal(number):
    """And ends with 0."""
    command = [*COMMAND, "--key", KEY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        endpoint = process.stdout.readline().strip()
        with stock_client(endpoint) as client:
            assert client.get_crypto_key(name=KEY).name == KEY
        process.send_signal(number)
        assert process.communicate(timeout=30)[0] == ""
        assert process.returncode == 0


def test_command_refuses_a_bad_key_name():
    """With a line that says why."""
    done = subprocess.run([*COMMAND, "--key", "app"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("kmsbridge-gcp-emulator: Resource name [app]")


def test_command_tells_of_a_taken_port():
    """With a line that says which."""
    with Emulator.start() as running:
        port = running.endpoint.rpartition(":")[2]
        done = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def test_started_emulator_ends_with_the_process_that_started_it():
    """Nobody is left behind, even by a process that is killed."""
    program = (
        "import os, sys\nfrom kmsbridge_gcp_emulator import Emulator\n"
        "emulator = Emulator.start()\nprint(emulator._process.pid, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    process = int(done.stdout)
    try:
        watched = os.pidfd_open(process)
    except ProcessLookupError:
        return
    with os.fdopen(watched):
        assert select.select([watched], [], [], 30)[0], "it runs on"


def test_emulator_starts_empty_and_closes_twice():
    """Two share nothing."""
    with Emulator.start(KEY) as one, Emulator.start() as other:
        with stock_client(one.endpoint) as client:
            client.get_crypto_key(name=KEY)
        with stock_client(other.endpoint) as client, pytest.raises(exceptions.NotFound):
            client.get_crypto_key(name=KEY)
        other.close()


def test_fault_is_a_code_for_as_many_calls_as_told(client, emulator, ring, key):
    """Of one method and one key, the others go on."""
    other = emulator.create_key(f"{ring}/cryptoKeys/other")
    emulator.fail("RESOURCE_EXHAUSTED", key, method="Encrypt", times=2)
    for _ in range(2):
        with pytest.raises(exceptions.ResourceExhausted):
            client.encrypt(name=key, plaintext=b"x", retry=None)
        client.encrypt(name=other, plaintext=b"x")
        client.get_crypto_key(name=key)
    client.encrypt(name=key, plaintext=b"x")


def test_fault_lasts_until_healed(client, emulator, ring, key):
    """Of a key ring, below it."""
    emulator.fail("UNAVAILABLE", ring)
    for _ in range(3):
        with pytest.raises(exceptions.ServiceUnavailable):
            client.get_crypto_key(name=key, retry=None)
    emulator.heal(ring)
    client.get_crypto_key(name=key, retry=None)


def test_delay_is_longer_than_an_impatient_client(client, emulator, key):
    """DEADLINE_EXCEEDED, by the client itself."""
    emulator.delay(30, key, method="Encrypt")
    with pytest.raises(exceptions.DeadlineExceeded):
        client.encrypt(name=key, plaintext=b"x", timeout=0.2, retry=None)


@pytest.mark.parametrize(
    "field",
    ["name", "ciphertext", "ciphertext_crc32c", "verified_plaintext_crc32c", "protection_level"],
)
def test_corrupted_field_differs(client, emulator, key, field):
    """One field of the answer, and no other."""
    whole = client.encrypt(request={"name": key, "plaintext": b"x"})
    emulator.corrupt(field, key, times=1)
    changed = client.encrypt(request={"name": key, "plaintext": b"x"})
    if field == "name":
        assert changed.name != whole.name
    elif field == "verified_plaintext_crc32c":
        assert changed.verified_plaintext_crc32c is not whole.verified_plaintext_crc32c
    elif field == "protection_level":
        assert changed.protection_level != whole.protection_level
    else:
        from kmsbridge_gcp.crc32c import crc32c

        assert changed.ciphertext_crc32c != crc32c(changed.ciphertext)


def test_requests_are_counted_and_logged(client, emulator, key):
    """Refused ones too, with who asked and the reason that was sent."""
    before = emulator.requests(key)
    metadata = [("authorization", "Bearer alice"), ("x-goog-request-reason", "because")]
    with pytest.raises(exceptions.PermissionDenied):
        client.encrypt(name=key, plaintext=b"x", metadata=metadata)
    client.get_crypto_key(name=key)
    assert emulator.requests(key) - before == 2
    assert emulator.requests(key, method="Encrypt") == 1
    assert emulator.log(key)[-2] == {
        "method": "Encrypt",
        "resource": key,
        "principal": "alice",
        "reason": "because",
        "code": "PERMISSION_DENIED",
    }


def test_many_threads_are_served(client, key):
    """32 at once, each with its own answer."""
    failures = []

    def work(number):
        plaintext = str(number).encode()
        sealed = client.encrypt(name=key, plaintext=plaintext, timeout=30)
        if client.decrypt(name=key, ciphertext=sealed.ciphertext, timeout=30).plaintext != plaintext:
            failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_what_it_cannot_do_is_told(emulator, key):
    """`EmulatorError` with the reason."""
    for call in (
        lambda: emulator.create_key(key),
        lambda: emulator.create_key("app"),
        lambda: emulator.create_key(algorithm="ROT13"),
        lambda: emulator.set_state(key, "TIRED"),
        lambda: emulator.fail("TIRED", key),
        lambda: emulator.delete_key(f"{key}-none"),
    ):
        with pytest.raises(EmulatorError):
            call()


def test_fixture_gives_an_emulator_and_ends_its_faults(tmp_path):
    """What a user's own test suite does with it."""
    (tmp_path / "test_app.py").write_text(
        'import pytest\npytest_plugins = ["kmsbridge_gcp_emulator.fixture"]\n'
        "from kmsbridge import EnvelopeCipher\n"
        "@pytest.mark.parametrize('n', range(2))\n"
        "def test_app(gcp_kms_emulator, n):\n"
        "    key = gcp_kms_emulator.create_key()\n"
        "    options = {'endpoint': gcp_kms_emulator.endpoint, 'insecure': True}\n"
        "    with EnvelopeCipher.from_uri(f'gcp-kms://{key}', **options) as cipher:\n"
        "        assert cipher.decrypt(cipher.encrypt(b'x')) == b'x'\n"
        "    gcp_kms_emulator.fail('UNAVAILABLE')\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "test_app.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
