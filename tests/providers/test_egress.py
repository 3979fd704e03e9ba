"""A proxy beside an application adds the key of an API: the files of the guide, with a real nginx, under users of their own."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from kmsbridge.testing import LoopbackCertificates
from tests.docs.test_code_blocks import blocks
from tests.secrets import searching
from tests.support import PATIENCE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "keep-api-keys-out-of-the-application.md"
REQUIRED = "nginx" in os.environ.get("KMSBRIDGE_TEST_REQUIRED", "").split()
"""True if a run without nginx, or by another user than root, is to fail instead of leaving this out."""
HOST = "api.payments.example"
KEYS = ("sk_live_first-4711-canary", "sk_live_second-0815-canary")
PROXY_USER, APPLICATION_USER = 64101, 64102

# Has no way to the key but through the socket. Imports all that it needs while it is still root.
APPLICATION = """
import http.client, json, os, socket, sys, time
import encodings.idna
os.setgroups([]), os.setgid(int(sys.argv[1])), os.setuid(int(sys.argv[1]))
def ask(path):
    connection = http.client.HTTPConnection("egress", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(sys.argv[2])
    connection.request("GET", path, headers={"Authorization": "Bearer mine", "Host": "evil.example"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()
held = []
for line in sys.stdin:
    path, started, tries = line.strip(), time.monotonic(), 0
    while True:
        try:
            held.append(ask(path))
            break
        except (ConnectionError, FileNotFoundError, http.client.RemoteDisconnected):
            tries += 1
            if tries > 400:
                raise
            time.sleep(0.01)
    print(json.dumps([*held[-1], tries, time.monotonic() - started]), flush=True)
"""


def nginx():
    """The path of nginx; without it, or without users to choose from, the tests are left out."""
    path = shutil.which("nginx", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    missing = "root, who can start processes of other users" if os.geteuid() else ""
    if path is None:
        missing = "nginx: apt-get install --no-install-recommends nginx"
    if missing:
        (pytest.fail if REQUIRED else pytest.skip)(f"needs {missing}")
    return path


class Upstream(http.server.ThreadingHTTPServer):
    """The API, over TLS with the context `tls`."""

    daemon_threads = True

    def get_request(self):
        connection, address = self.socket.accept()
        return self.tls.wrap_socket(connection, server_side=True), address


class Answer(http.server.BaseHTTPRequestHandler):
    """Remembers what came in, and repeats none of it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append((self.path, self.headers["Host"], self.headers["Authorization"]))
        if self.path.endswith("/slow"):
            self.server.answers_slow.wait(PATIENCE)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """The API, with a certificate of one of two CAs that the proxy trusts."""
    certificates, elsewhere = (
        LoopbackCertificates.make(tmp_path_factory.mktemp("tls"), host=host)
        for host in (HOST, "evil.example")
    )
    server = Upstream(("127.0.0.1", 0), Answer)
    server.seen, server.tls, server.elsewhere = [], certificates.server_context(), elsewhere
    server.answers_slow = threading.Event()
    server.trusted = (certificates.ca_file, elsewhere.ca_file)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Egress:
    """The proxy of the guide in a folder of its own, and the application beside it."""

    def __init__(self, folder, program, upstream):
        self.folder = folder
        self.etc, self.run, self.admin = (self.folder / name for name in ("etc", "run", "admin"))
        self.etc.mkdir()
        self.admin.mkdir(mode=0o700)
        self.run.mkdir(mode=0o750)
        os.chown(self.run, PROXY_USER, APPLICATION_USER)
        shutil.copy(program, self.folder / "nginx")
        self.processes = []
        self.kmsbridge("init", "--quiet")
        self.write_files(upstream)
        for path in self.admin.glob("*.*"):
            os.chown(shutil.copy(path, self.etc), PROXY_USER, PROXY_USER)

    def write_files(self, upstream):
        """Write the files of the guide, with other paths and another address and CA of the API."""
        (self.etc / "ca.pem").write_bytes(b"".join(Path(each).read_bytes() for each in upstream.trusted))
        for block in blocks(PAGE.read_text()):
            text = block.code.replace("/run/egress", str(self.run)).replace("/etc/egress", str(self.etc))
            text = text.replace("exec nginx", f"exec {self.folder / 'nginx'}")
            text = text.replace("/etc/ssl/certs/ca-certificates.crt", str(self.etc / "ca.pem"))
            address = f"upstream {HOST} {{ server 127.0.0.1:{upstream.server_address[1]}; }}"
            if name := block.said("file:"):
                (self.etc / name).write_text(text.replace("http {\n", f"http {{\n    {address}\n", 1))
        (self.etc / "start").chmod(0o755)

    def kmsbridge(self, *command, text=""):
        """Run a command as an administrator, and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "kmsbridge", *command],
            cwd=self.admin,
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def set_key(self, key):
        armored = self.kmsbridge("encrypt", "--armor", "--context", "service=egress", text=key)
        new = self.etc / "new.env"
        new.write_text(f"PAYMENTS_KEY={armored}\n")
        new.rename(self.etc / "third-party.env")
        self.key = key

    def start(self):
        """As the unit of the guide says, under the proxy's user.

        The interpreter may stand in a folder that only root may enter; with one capability this user may too,
        and nginx has none.
        """
        ids = ["--reuid", str(PROXY_USER), "--regid", str(PROXY_USER), "--clear-groups"]
        enter = [*ids, "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]
        drop = ["setpriv", "--ambient-caps=-all", "--inh-caps=-all"]
        (command,) = (
            line.removeprefix("ExecStart=/opt/kmsbridge/bin/kmsbridge ")
            for line in (self.etc / "egress.service").read_text().replace("\\\n", "").splitlines()
            if line.startswith("ExecStart=")
        )
        options, start = command.split(" -- ")
        self.errors = (self.folder / "errors").open("wb")
        self.proxy = subprocess.Popen(
            ["setpriv", *enter, sys.executable, "-m", "kmsbridge", *options.split(), "--", *drop, start],
            cwd=self.etc,
            stdin=subprocess.DEVNULL,
            stdout=self.errors,
            stderr=self.errors,
        )
        self.processes.append(self.proxy)
        self.application = subprocess.Popen(
            [sys.executable, "-c", APPLICATION, str(APPLICATION_USER), str(self.run / "socket")],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(self.application)
        self.until((self.run / "socket").exists)

    def until(self, happened):
        deadline = time.monotonic() + PATIENCE
        while not (result := happened()):
            assert time.monotonic() < deadline, self.said()
            assert self.proxy.poll() is None, self.said()
            time.sleep(0.01)
        return result

    def said(self):
        return (self.folder / "errors").read_text()

    def send(self, path):
        self.application.stdin.write(f"{path}\n")
        self.application.stdin.flush()

    def answer(self):
        """(status, body, how often it was tried again, seconds) of the application's request."""
        return json.loads(self.application.stdout.readline())

    def ask(self, path):
        self.send(path)
        return self.answer()

    def workers(self):
        """The process ids of nginx."""
        found = []
        for path in Path("/proc").glob("[0-9]*/exe"):
            with contextlib.suppress(OSError):
                if path.readlink() == self.folder / "nginx":
                    found.append(int(path.parent.name))
        return sorted(found)

    def close(self):
        if hasattr(self, "proxy"):
            self.proxy.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.proxy.wait(PATIENCE)
            self.errors.close()
            self.application.stdin.close()
            self.application.stdout.close()
        for process in self.processes:
            process.kill()
            process.wait()
        for pid in self.workers():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def running(upstream):
    """Started once: no test ends it."""
    program = nginx()
    with tempfile.TemporaryDirectory(prefix="kmsbridge-egress-") as folder:
        Path(folder).chmod(0o755)
        egress = Egress(Path(folder), program, upstream)
        try:
            egress.set_key(KEYS[0])
            egress.start()
            yield egress
        finally:
            egress.close()


@pytest.fixture
def egress(running, upstream):
    """With an answer to the first request, and nothing remembered of it."""
    assert running.ask("/payments/v1/first")[:2] == [200, "ok"]
    upstream.seen.clear()
    return running


def holds(data, key):
    """Return whether the key is in these bytes, in any of its forms or as UTF-16."""
    forms = searching.spellings(key.encode()).values()
    return any(form in data for form in (*forms, key.encode("utf-16-le")))


def memory(pid):
    """Return all that is mapped into a process and can be read, as root reads it."""
    return b"".join(data for _, data in searching.memory_of(pid, "r"))


def given_to(pid):
    """The environment and arguments of a process."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("environ", "cmdline"))


def test_the_api_gets_the_key_and_the_application_has_it_nowhere(egress, upstream):
    """Root finds it in nginx, and not in the application, in any file, environment or list of processes."""
    key = egress.key
    assert egress.ask("/payments/v1/charges?page=2")[:2] == [200, "ok"]
    assert upstream.seen == [("/v1/charges?page=2", HOST, f"Bearer {key}")]
    application, proxies = egress.application.pid, egress.workers()
    assert len(proxies) == 2
    owners = {pid: os.stat(f"/proc/{pid}").st_uid for pid in (application, *proxies)}
    assert owners == {application: APPLICATION_USER, **dict.fromkeys(proxies, PROXY_USER)}
    assert all(holds(memory(pid), key) for pid in proxies), "the search finds nothing where the key is"
    assert holds(Path(f"/proc/{proxies[0]}/fd/3").read_bytes(), key), "what the page says of descriptor 3"
    assert not holds(memory(application), key)
    assert not holds(memory(egress.proxy.pid), key)
    assert not any(holds(given_to(pid), key) for pid in (application, egress.proxy.pid, *proxies))
    assert not holds(b"\0".join(p.read_bytes() for p in egress.folder.rglob("*") if p.is_file()), key)
    assert not list(Path("/dev/shm").glob("egress.*"))


def test_the_application_cannot_look_into_the_proxy(egress):
    """Nor can any other user but root."""
    look = "import os, sys; os.setuid(int(sys.argv[1])); open(sys.argv[2], 'rb').read(1)"
    proxy = f"/proc/{egress.workers()[0]}"
    for what in ("mem", "environ", "fd/3"):
        command = [sys.executable, "-c", look, str(APPLICATION_USER), f"{proxy}/{what}"]
        assert "PermissionError" in subprocess.run(command, capture_output=True, text=True).stderr, what


@pytest.mark.parametrize("form", ("raw", "hex", "base64", "base64 shifted"))
def test_the_search_finds_each_form(form):
    """In the memory of a process that holds the key in that form only."""
    raw = KEYS[0].encode()
    shown = {
        "raw": raw,
        "hex": raw.hex().encode(),
        "base64": base64.b64encode(raw),
        "base64 shifted": base64.b64encode(b"Bearer:" + raw),
    }[form]
    code = "import sys; held = sys.stdin.buffer.readline(); print(flush=True); sys.stdin.buffer.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdin.write(shown + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        assert holds(memory(process.pid), KEYS[0])
        assert not holds(memory(process.pid), KEYS[1])


def test_only_the_listed_host_and_paths_are_reached(egress, upstream):
    """However a request writes where it wants to go."""
    refused = (
        *("/", "/v1/charges", "/payments/v2/charges", "/payments/v1x", "/PAYMENTS/v1/charges"),
        *("/payments/v1/../v2/keys", "/payments/v1/%2e%2e/v2/keys", "/payments/v1/..%2fv2/keys"),
        *("http://evil.example/", "http://evil.example/payments/v2/charges", f"https://{HOST}/v1/charges"),
    )
    assert {path: egress.ask(path)[0] for path in refused} == dict.fromkeys(refused, 403)
    assert upstream.seen == []
    assert egress.ask("http://evil.example/payments/v1/charges")[0] == 200
    assert egress.ask("/payments/v2/..%2fv1/x%20y")[0] == 200
    assert upstream.seen == [(path, HOST, f"Bearer {egress.key}") for path in ("/v1/charges", "/v1/x%20y")]


def test_a_server_with_another_certificate_gets_no_request(egress, upstream, tmp_path):
    """For the API's own name, but from a CA that is not trusted; or from one that is, for another name."""
    right = upstream.tls
    try:
        for certificates in (LoopbackCertificates.make(tmp_path, host=HOST), upstream.elsewhere):
            upstream.tls = certificates.server_context()
            assert egress.ask("/payments/v1/charges")[0] == 502
    finally:
        upstream.tls = right
    assert upstream.seen == []
    assert "certificate verify error" in egress.said()
    assert f'certificate does not match "{HOST}"' in egress.said()
    assert "canary" not in egress.said()


def test_a_key_is_changed_while_the_application_runs(egress, upstream):
    """The request that is under way is completed, the next ones wait a moment, none fails."""
    old, old_key = egress.workers(), egress.key
    egress.send("/payments/v1/slow")
    egress.until(lambda: upstream.seen)
    egress.set_key(new_key := next(key for key in KEYS if key != old_key))
    egress.proxy.send_signal(signal.SIGHUP)
    egress.until(lambda: any(b"shutting down" in given_to(pid) for pid in egress.workers()))
    upstream.answers_slow.set()
    assert egress.answer()[:3] == [200, "ok", 0]
    longest = 0.0
    while upstream.seen[-1][2] != f"Bearer {new_key}":
        status, _, _, seconds = egress.ask("/payments/v1/charges")
        assert (status, egress.proxy.poll()) == (200, None), egress.said()
        longest = max(longest, seconds)
    print(f"the longest request took {longest:.3f} s")
    assert egress.application.poll() is None
    assert {key for _, _, key in upstream.seen} <= {f"Bearer {old_key}", f"Bearer {new_key}"}
    assert not set(old) & set(egress.workers())
    assert "values have changed" in egress.said()
    assert holds(memory(egress.workers()[0]), new_key)
    assert not holds(memory(egress.application.pid), new_key)


def test_a_key_that_cannot_be_decrypted_leaves_the_old_one_in_use(egress, upstream):
    """The same nginx goes on, and the reason is told."""
    old, file = egress.workers(), egress.etc / "third-party.env"
    good = file.read_text()
    file.write_text("PAYMENTS_KEY=kmsb1_canary\n")
    egress.proxy.send_signal(signal.SIGHUP)
    egress.until(lambda: "not reloaded: third-party.env: line 1: the variable PAYMENTS_KEY" in egress.said())
    file.write_text(good)
    assert egress.ask("/payments/v1/charges")[0] == 200
    assert (egress.workers(), upstream.seen[-1][2]) == (old, f"Bearer {egress.key}")
    assert "canary" not in egress.said()


@pytest.mark.parametrize("key", ("", 'canary"; } env X;', "canary\nx", "canary\\", "canary$host"))
def test_what_would_be_syntax_in_the_configuration_is_refused(egress, key):
    """Before nginx is started; nothing of it is shown."""
    command, variables = [egress.etc / "start"], {"PATH": os.environ["PATH"], "PAYMENTS_KEY": key}
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert "PAYMENTS_KEY is empty, or has a character" in done.stderr
    assert "canary" not in done.stderr
