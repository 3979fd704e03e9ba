"""`python -m localstack`, which is `make backends`: for trying things out, and for what keeps the servers of a test run."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from tests.providers.processes import processes_of
from tests.support import PATIENCE

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "examples" / "protect.py"
LAST_LINE = "# the servers run until Ctrl-C\n"
SLOW_START = 150
"""Seconds for all servers on a machine that is busy with the other tests."""


@pytest.fixture
def start(tmp_path):
    """Starts it, as a terminal does; what is left of it is ended after the test."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "localstack", *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for number in processes_of(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    for process in started:
        process.wait(PATIENCE)
        process.stdout.close()


def wait_for(process, condition):
    """Until the condition holds, which takes this process to go on."""
    until = time.monotonic() + SLOW_START
    while not condition():
        assert process.poll() is None, "it ended"
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(SLOW_START + 120)
def test_what_it_prints_is_a_configuration_that_works_until_ctrl_c(start, tmp_path):
    """The example program runs with each profile of it; then every server ends, and their folders are removed."""
    process = start()
    lines = []
    for line in process.stdout:
        if line == LAST_LINE:
            break
        lines.append(line)
    else:
        pytest.fail("it ended")
    path = tmp_path / "kmsbridge.toml"
    path.write_text("".join(lines))
    profiles = tomllib.loads(path.read_text())["profiles"]
    assert list(profiles) == ["aws", "gcp", "vault"]
    for name in profiles:
        done = subprocess.run(
            [sys.executable, PROGRAM],
            env={**os.environ, "KMSBRIDGE_CONFIG": str(path), "KMSBRIDGE_PROFILE": name},
            input="+1 555 0100",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("kmsb1_")
    assert len(processes_of(tmp_path)) == 1 + len(profiles)
    assert list(tmp_path.glob("kmsbridge-backends-*"))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(PATIENCE) == 0
    assert processes_of(tmp_path) == []
    assert not list(tmp_path.glob("kmsbridge-backends-*"))


def test_ctrl_c_while_it_starts_ends_what_was_started(start, tmp_path):
    """At once, and it is no failure."""
    process = start()
    wait_for(process, lambda: list(tmp_path.glob("kmsbridge-backends-*/vault/*")))
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(PATIENCE) == 0
    assert processes_of(tmp_path) == []
    assert not list(tmp_path.glob("kmsbridge-backends-*"))


@pytest.mark.parametrize("name", ["gcp", "vault"])
@pytest.mark.parametrize("ending", ["gone", "asked"])
def test_a_kept_server_ends_with_the_run_that_wants_it(start, tmp_path, name, ending):
    """When the process is gone for which it is kept, however that ended; or when it is asked to."""
    with subprocess.Popen(["sleep", "600"]) as watched:
        try:
            keeper = start("keep", name, tmp_path, watched.pid)
            wait_for(keeper, (tmp_path / "facts.json").exists)
            assert json.loads((tmp_path / "facts.json").read_text())
            assert len(processes_of(tmp_path)) == 2
            if ending == "asked":
                keeper.terminate()
                assert keeper.wait(PATIENCE) == 0
        finally:
            watched.kill()
    assert keeper.wait(PATIENCE) == 0
    assert processes_of(tmp_path) == []
