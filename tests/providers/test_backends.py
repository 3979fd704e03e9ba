"""What a test run does about its servers: pytest runs that ask for one, in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.providers.processes import processes_of
from tests.support import PATIENCE

ROOT = Path(__file__).parents[2]

ASKING = """
import json
from pathlib import Path
from tests.backends import facts

def test_one():
    Path(__file__).with_name("one.json").write_text(json.dumps(facts({name!r})))

def test_two():
    Path(__file__).with_name("two.json").write_text(json.dumps(facts({name!r})))
"""


class Run:
    """A folder with two tests that want a server, and a run of them with the settings of this project."""

    def __init__(self, folder):
        self.folder, self._servers = folder, folder / "tmp"
        self._servers.mkdir()

    def ask(self, name, *args, **env):
        (self.folder / "test_asking.py").write_text(ASKING.format(name=name))
        command = [
            "-m",
            "pytest",
            "-p",
            "tests.conftest",
            "-p",
            "no:cacheprovider",
            "-c",
            ROOT / "pyproject.toml",
        ]
        return subprocess.run(
            [sys.executable, *map(str, command), *args, str(self.folder / "test_asking.py")],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(self._servers), **env},
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
        )

    def told(self, name):
        return json.loads((self.folder / f"{name}.json").read_text())

    def left(self):
        """What is left of its servers' folders."""
        return list(self._servers.glob("kmsbridge-servers-*"))


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path)


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_a_server_is_started_once_for_all_and_ended(run, workers):
    """Its process is gone when the run is over, and so is its folder."""
    done = run.ask("vault", *workers)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
    assert run.told("one") == run.told("two")
    assert run.left() == []
    assert processes_of(run.folder) == []


def test_a_server_that_cannot_start_fails_every_test_that_wants_it(run):
    """With the reason; none is skipped."""
    done = run.ask("vault", BAO_LOG_LEVEL="no such level")
    assert done.returncode == 1
    assert "2 failed" in done.stdout
    assert "skipped" not in done.stdout
    assert done.stdout.count("bao did not start") >= 2
    assert run.left() == []


def test_a_server_is_left_out_by_name_alone(run):
    """The tests are skipped for that reason, and the summary says so."""
    done = run.ask("vault-production", "--without-backend", "vault", BAO_LOG_LEVEL="no such level")
    assert done.returncode == 0
    assert "2 skipped" in done.stdout
    assert "left out by --without-backend vault" in done.stdout
    assert "backends left out by name: vault" in done.stdout


def test_leaving_out_one_leaves_out_no_other(run):
    """By its own name."""
    done = run.ask("gcp", "--without-backend", "vault", "--without-backend", "aws")
    assert done.returncode == 0
    assert "2 passed" in done.stdout
    assert "backends left out by name: aws, vault" in done.stdout


def test_no_other_name_can_be_left_out(run):
    """Nor the local one, which needs no server."""
    done = run.ask("vault", "--without-backend", "local")
    assert done.returncode != 0
    assert "invalid choice" in done.stderr


ADDRESS = {"KMSBRIDGE_TEST_VAULT_ADDR": "http://127.0.0.1:1"}
REST = {"KMSBRIDGE_TEST_VAULT_TOKEN": "given", "KMSBRIDGE_TEST_VAULT_AUDIT_FILE": "audit.log"}


def test_a_server_that_runs_already_is_used(run):
    """None is started then."""
    done = run.ask("vault", **ADDRESS, **REST)
    assert done.returncode == 0, done.stdout
    assert run.told("one") == {"address": "http://127.0.0.1:1", "token": "given", "audit_file": "audit.log"}


def test_half_of_what_is_needed_is_not_ignored(run):
    """Else a server would be started where one was meant to be used."""
    done = run.ask("vault", **ADDRESS)
    assert done.returncode != 0
    assert all(name in done.stderr for name in REST)
