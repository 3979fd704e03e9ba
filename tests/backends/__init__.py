"""The real servers of a run: each is started when a test first asks for it, once for all workers."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from localstack.servers import FACTS, FAILURE, MODULES

ROOT = Path(__file__).parents[2]
PATIENCE = 180
"""Seconds for a server to start on a machine that is busy with the other tests."""

# Servers that run already, and need not be started: the fact that each variable gives.
GIVEN = {
    "aws": {"endpoint": "KMSBRIDGE_TEST_AWS_ENDPOINT"},
    "gcp": {"endpoint": "KMSBRIDGE_TEST_GCP_ENDPOINT"},
    # Its requests are counted in its audit file.
    "vault": {
        "address": "KMSBRIDGE_TEST_VAULT_ADDR",
        "token": "KMSBRIDGE_TEST_VAULT_TOKEN",
        "audit_file": "KMSBRIDGE_TEST_VAULT_AUDIT_FILE",
    },
}
_FOLDER = "KMSBRIDGE_TEST_SERVERS"

_given: dict[str, dict[str, str]] = {}
_left_out: set[str] = set()
_folder = Path()
_owner = 0
_keepers: list[subprocess.Popen] = []


def facts(name):
    """What a client of this server must know. A server that does not start fails the test that wants it."""
    if name.partition("-")[0] in _left_out:
        pytest.skip(f"left out by --without-backend {name.partition('-')[0]}")
    if name in _given:
        return _given[name]
    folder = _folder / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / FACTS).exists():
            _start(name, folder)
    return json.loads((folder / FACTS).read_text())


def configure(config):
    """Called once in every process of a run, before the environment is cleaned for the tests."""
    global _folder, _owner
    _left_out.update(config.getoption("--without-backend"))
    for name, variables in GIVEN.items():
        missing = [variable for variable in variables.values() if variable not in os.environ]
        if 0 < len(missing) < len(variables):
            raise pytest.UsageError(f"for a running {name} server also set {' and '.join(missing)}")
        if not missing:
            _given[name] = {fact: os.environ[variable] for fact, variable in variables.items()}
    if hasattr(config, "workerinput"):
        _folder, _owner = Path(os.environ[_FOLDER]), os.getppid()
    else:
        _folder, _owner = Path(tempfile.mkdtemp(prefix="kmsbridge-servers-")), os.getpid()
        os.environ[_FOLDER] = str(_folder)


def unconfigure(config):
    """End what was started, by process id, when the whole run ends."""
    if hasattr(config, "workerinput"):
        for keeper in _keepers:
            keeper.returncode = 0  # it lives on for the others: no reason to warn that it still runs
        return
    if not _folder.name:
        return
    processes = [int(each.read_text()) for each in _folder.glob("*/pid")]
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while any(map(_is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    shutil.rmtree(_folder, ignore_errors=True)


def summary():
    """What was left out by name, for the end of the run."""
    return f"backends left out by name: {', '.join(sorted(_left_out))}" if _left_out else ""


def _start(name, folder):
    if (folder / FAILURE).exists():
        pytest.fail(f"the {name} server did not start: {(folder / FAILURE).read_text()}")
    with (folder / "log").open("wb") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "localstack", "keep", name, str(folder), str(_owner)],
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _keepers.append(keeper)
    (folder / "pid").write_text(str(keeper.pid))
    deadline = time.monotonic() + PATIENCE
    while not (folder / FACTS).exists():
        if keeper.poll() is not None or time.monotonic() > deadline:
            if not (folder / FAILURE).exists():
                (folder / FAILURE).write_text("it did not become ready")
            pytest.fail(f"{(folder / FAILURE).read_text()}\n{(folder / 'log').read_text()[-4000:]}")
        time.sleep(0.05)


def _is_alive(process):
    for keeper in _keepers:
        if keeper.pid == process:
            return keeper.poll() is None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


__all__ = ["GIVEN", "MODULES", "configure", "facts", "summary", "unconfigure"]
