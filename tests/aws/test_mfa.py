"""The code of an MFA device is asked for by the command line, in the foreground; the library never asks."""

import os
import pty
import subprocess
import sys
import termios
import time

import pytest
from kmsbridge_aws import mfa
from kmsbridge_testing.contract.base import Keys

from kmsbridge.driver import EncryptionContext
from kmsbridge.errors import KmsUnauthenticated
from tests.backends.aws import REGION

BOUND = EncryptionContext.of({}).with_reserved(kmsbridge="dek")
SERIAL = "arn:aws:iam::111122223333:mfa/ada"
PROFILE = f"""\
[profile admin]
role_arn = arn:aws:iam::000000000000:role/kms-admin
source_profile = ada
mfa_serial = {SERIAL}
region = {REGION}
[profile ada]
aws_access_key_id = AKIASOURCE
aws_secret_access_key = s
"""


@pytest.fixture
def codes(harness, monkeypatch, tmp_path):
    """The codes that STS was sent, of which it takes 123456 alone; the role's credentials may do everything."""
    (tmp_path / "config").write_text(PROFILE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://{}:{}".format(*harness.front.address))
    monkeypatch.setattr(mfa, "_assumed", {})
    seen, answer = [], harness.front.answer
    harness.front.allow("AKIAASSUMED")

    def sts(body, headers):
        if "x-amz-target" in headers:
            return answer(body, headers)
        seen.append(body.partition(b"TokenCode=")[2][:6].decode())
        if seen[-1] != "123456":
            return 403, b"<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>", "r-1"
        return 200, ASSUMED, "r-1"

    harness.front.answer = sts
    return seen


ASSUMED = b"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<Credentials><AccessKeyId>AKIAASSUMED</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


def uri_of(harness):
    address = "http://{}:{}".format(*harness.front.address)
    return f"aws-kms://{harness.arn('first')}?profile=admin&endpoint_url={address}"


def test_library_says_that_it_cannot_ask(harness, end, codes, monkeypatch):
    """At once, with what to do instead, and without touching a terminal."""
    monkeypatch.setattr("getpass.getpass", lambda *_: pytest.fail("the library asked"))
    address = harness.address("first")
    key = Keys(harness, end).at(type(address)(uri_of(harness), {}))
    with pytest.raises(KmsUnauthenticated, match="asks for the code on a terminal") as caught:
        key.wrap(bytes(32), BOUND)
    assert caught.value.provider_code == "MFACodeNeeded"
    assert codes == []


def test_code_is_asked_once_for_all_keys_of_the_process(harness, driver_of, codes):
    """And no driver asks that is opened later."""
    asked = []

    def ask(prompt):
        asked.append(prompt)
        return "123456"

    for _ in range(2):
        driver_of(uri_of(harness)).sign_in(ask)
    driver_of(uri_of(harness)).wrap(bytes(32), BOUND, timeout=10)
    assert codes == ["123456"]
    assert len(asked) == 1
    assert SERIAL in asked[0]


def test_profile_without_a_device_asks_nothing(harness, driver_of, codes):
    """Nor does a key with an access key of its own."""
    without = uri_of(harness).replace("profile=admin&", "")
    for driver in (
        driver_of(uri_of(harness).replace("profile=admin", "profile=ada")),
        driver_of(without, access_key_id="a", secret_access_key="s"),
        driver_of(without),
    ):
        driver.sign_in(lambda _: pytest.fail("it asked"))


def wait_until_echo_is_off(terminal):
    """As it is a moment before or after the prompt; what is typed sooner would be shown."""
    deadline = time.monotonic() + 10
    while termios.tcgetattr(terminal)[3] & termios.ECHO:
        assert time.monotonic() < deadline, "the code would be shown"
        time.sleep(0.01)


def on_a_terminal(command, folder, typed):
    """Run a command with a terminal of its own, type a line when it asks for a code; its exit code and output."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(folder)
        os.execv(command[0], command)
    shown = b""
    try:
        while True:
            try:
                block = os.read(terminal, 4096)
            except OSError:
                break
            if not block:
                break
            shown += block
            if b"MFA code" in shown and typed:
                wait_until_echo_is_off(terminal)
                os.write(terminal, typed + b"\n")
                typed = b""
    finally:
        os.close(terminal)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), shown.decode()


@pytest.mark.parametrize(("typed", "code"), [(b"123456", 0), (b"654321", 8)], ids=["right", "wrong"])
def test_command_asks_on_its_terminal(harness, codes, tmp_path, typed, code):
    """Before it opens a key, without showing what is typed."""
    (tmp_path / "kmsbridge.toml").write_text(
        f'[keys.aws]\nuri = "{uri_of(harness)}"\n[profiles.p]\nencrypt_to = ["aws"]\ndecrypt_with = ["aws"]\n'
    )
    (tmp_path / "plain").write_text("x")
    command = [sys.executable, "-m", "kmsbridge", "encrypt", "plain", "-o", "message"]
    ended, shown = on_a_terminal(command, tmp_path, typed)
    assert ended == code, shown
    assert typed.decode() not in shown
    assert codes == [typed.decode()]
    assert ("signing in for the key 'aws' failed (AccessDenied)" in shown) is bool(code)


def test_command_without_a_terminal_does_not_ask(harness, codes, tmp_path):
    """As in a timer's job: it says what to do, and waits for nobody."""
    command = [sys.executable, "-m", "kmsbridge", "encrypt"]
    done = subprocess.run(
        command,
        input="x",
        env={**os.environ, "KMSBRIDGE_KEY": uri_of(harness)},
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )
    assert (done.returncode, codes) == (8, [])
    assert "MFACodeNeeded" in done.stderr
