"""Sets the application up: keys and permissions in OpenBao, a configuration for each host, tables, and the web server."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, Self

from sqlalchemy import create_engine

from examples.web.models import Base

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 60.0
"""Seconds for the web server to start on a busy machine."""

MAY: Final[Mapping[str, Mapping[str, str]]] = {
    "web": {"phones": "encryptor", "parts": "rewrapper", "search": "decryptor"},
    "worker": {"phones": "rewrapper"},
    "operator": {"phones": "admin", "search": "encryptor"},
}
"""The role of each host for each key. A rewrapper wraps and unwraps."""

PROFILES: Final = {
    "web": """\
[profiles.phones]
encrypt_to = ["phones"]

[profiles.parts]
encrypt_to   = ["parts"]
decrypt_with = ["parts"]

[profiles.search]
decrypt_with = ["search"]
""",
    "worker": """\
[profiles.phones]
encrypt_to   = ["phones"]
decrypt_with = ["phones"]
""",
    "operator": """\
[profiles.phones]
encrypt_to = ["phones"]

[profiles.search]
encrypt_to = ["search"]
""",
}


class Server(Protocol):
    """A server of OpenBao, as its administrator has it."""

    address: str
    token: str

    def ask(self, method: Any, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the answer's JSON."""


class Deployment:
    """The application in `folder`, with keys in `server` and rows in an empty database of PostgreSQL."""

    def __init__(self, folder: Path, server: Server, database_url: str) -> None:
        self.folder, self.server, self.database_url = folder, server, database_url
        self.mount = f"web-{secrets.token_hex(4)}"
        self.url = ""
        self._web: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._make_keys()
            for host in MAY:
                self._make_host(host)
            self._make_index()
            engine = create_engine(self.database_url)
            Base.metadata.create_all(engine)
            engine.dispose()
            self._start_web()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the web server, and remove from OpenBao what was made there."""
        if self._web is not None:
            self._web.terminate()
            self._web.wait(30)
        for host in MAY:
            self.server.ask("DELETE", f"sys/policies/acl/{self.mount}-{host}")
        self.server.ask("DELETE", f"sys/mounts/{self.mount}")

    def kmsbridge(self, host: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command with a host's configuration, and return what it printed and its exit code."""
        return self.run(host, [sys.executable, "-m", "kmsbridge", *arguments])

    def worker(self, task: str) -> str:
        """Have the worker do a task, and return what it printed. Raises `RuntimeError` where it failed."""
        return self.must(self.run("worker", [sys.executable, "-m", "examples.web.worker", task]))

    @staticmethod
    def must(done: subprocess.CompletedProcess[str]) -> str:
        """Return what a command printed. Raises `RuntimeError` with its errors where it failed."""
        if done.returncode:
            raise RuntimeError(f"{done.args}: {done.stderr}")
        return done.stdout

    def run(self, host: str, command: Iterable[str]) -> subprocess.CompletedProcess[str]:
        """Run a command in the place of a host."""
        return subprocess.run(
            [*command],
            cwd=ROOT,
            env=self.environment(host),
            capture_output=True,
            text=True,
            check=False,
        )

    def environment(self, host: str) -> dict[str, str]:
        """Return the environment of a host's processes."""
        own = {"KMSBRIDGE_CONFIG": str(self.path(host)), "DATABASE_URL": self.database_url}
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
        return kept | own | {"PYTHONUNBUFFERED": "1"}

    def path(self, host: str) -> Path:
        """Return the path of a host's configuration."""
        return self.folder / host / "kmsbridge.toml"

    def _make_keys(self) -> None:
        self.server.ask("POST", f"sys/mounts/{self.mount}", {"type": "transit"})
        for key in ("phones", "parts", "search"):
            self.server.ask("POST", f"{self.mount}/keys/{key}", {"type": "aes256-gcm96"})

    def _make_host(self, host: str) -> None:
        """Give a host the permissions of its roles, a token with them, and its configuration."""
        self.path(host).parent.mkdir(mode=0o700)
        tables = [
            f'[keys.{key}]\nuri = "vault-transit://{self.mount}/{key}"\naddress = "{self.server.address}"\n'
            'auth = { method = "token", token = "file:token" }\n'
            for key in MAY[host]
        ]
        token = self.path(host).with_name("token")
        token.touch(mode=0o600)
        token.write_text("none")
        self.path(host).write_text("\n".join([*tables, PROFILES[host]]))
        policies = [
            self.must(self.kmsbridge(host, "policy", key, "--role", role, "--profile", key))
            for key, role in MAY[host].items()
        ]
        name = f"{self.mount}-{host}"
        self.server.ask("POST", f"sys/policies/acl/{name}", {"policy": "\n".join(policies)})
        made = self.server.ask("POST", "auth/token/create", {"policies": [name]})
        token.write_text(made["auth"]["client_token"])

    def _make_index(self) -> None:
        """Make the key of the blind index, which the web server alone gets."""
        table = self.must(
            self.kmsbridge("operator", "index", "new", "phone", "--profile", "search", "--quiet")
        )
        with self.path("web").open("a") as file:
            file.write(f"\n{table}")

    def _start_web(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        with (self.folder / "web.log").open("wb") as log:
            self._web = subprocess.Popen(
                [
                    *(sys.executable, "-m", "uvicorn", "examples.web.app:app"),
                    *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
                ],
                cwd=ROOT,
                env=self.environment("web"),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/openapi.json", timeout=5).close()
            except OSError:
                if self._web.poll() is not None or time.monotonic() > deadline:
                    log_text = (self.folder / "web.log").read_text()[-2000:]
                    raise RuntimeError(f"the web server did not start: {log_text}") from None
                time.sleep(0.1)
            else:
                return
