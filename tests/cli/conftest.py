"""A folder with a configuration and a key, and two ways to run the command there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from kmsbridge.cli.app import app
from kmsbridge.drivers.local.document import Cost

COMMAND = str(Path(sys.executable).with_name("kmsbridge"))


@dataclass(frozen=True)
class Done:
    """The result of a command. `err` is all that was on stderr, `out` the bytes on stdout."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


@dataclass(frozen=True)
class Home:
    """The current folder, empty at first; `run` is in this process, `real` the installed command."""

    path: Path
    command: str = COMMAND

    def run(self, *args: str, stdin: bytes = b"", env: dict[str, str | None] | None = None) -> Done:
        result = CliRunner().invoke(app, [str(each) for each in args], input=stdin, env=env)
        return Done(result.exit_code, result.stdout_bytes, result.stderr)

    def ok(self, *args: str, stdin: bytes = b"", env: dict[str, str | None] | None = None) -> bytes:
        done = self.run(*args, stdin=stdin, env=env)
        assert done.code == 0, done.err
        return done.out

    def start(self, *args: str, **options) -> subprocess.Popen[bytes]:
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **options,
        }
        return subprocess.Popen([COMMAND, *map(str, args)], cwd=self.path, **options)

    def real(self, *args: str, stdin: bytes = b"", env: dict[str, str] | None = None, **options) -> Done:
        done = subprocess.run(
            [COMMAND, *map(str, args)],
            cwd=self.path,
            env={**os.environ, **(env or {})},
            check=False,
            **{"input": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        return Done(done.returncode, done.stdout or b"", (done.stderr or b"").decode())

    def shell(self, script: str) -> Done:
        """A bash script in which `kmsbridge` is the installed command."""
        path = f"{Path(COMMAND).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.path,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def files(self) -> dict[str, bytes]:
        """Every file below, by its name, with what it holds."""
        return {
            str(path.relative_to(self.path)): path.read_bytes()
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and ".git/" not in f"{path.relative_to(self.path)}/"
        }

    def write(self, name: str, data: bytes | str = b"") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty folder of this user's alone."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    monkeypatch.chdir(path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return Home(path)


@pytest.fixture
def home(empty: Home) -> Home:
    """A folder in which `kmsbridge init` was run."""
    empty.ok("init", "--quiet")
    return empty


@pytest.fixture
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key files that init protects in this process cost little to open: what Argon2id costs is no matter here."""
    monkeypatch.setattr(
        "kmsbridge.drivers.local.keyfile.Cost", lambda: Cost(iterations=1, memory_kib=8, lanes=1)
    )


@pytest.fixture
def one_line() -> Callable[[str], str]:
    """Checks that an error has the form that all have, and gives its text."""

    def check(err: str) -> str:
        assert err.endswith("\n")
        line = err.removesuffix("\n")
        assert "\n" not in line
        assert "Traceback" not in line
        assert line.startswith("kmsbridge: ")
        text = line.removeprefix("kmsbridge: ")
        assert not text.endswith(".")
        assert not text[0].isupper()
        return text

    return check


@pytest.fixture(autouse=True)
def _signals_as_they_were():
    """The command restores what it changes; a test that runs it in this process must not notice."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before
