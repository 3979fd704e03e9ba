"""One program, four key services: only the configuration differs."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kmsbridge import Decryptor, inspect, message
from tests.backends.every import HARNESSES, configuration, harness

PROGRAM = Path(__file__).parents[2] / "examples" / "protect.py"
PHONE = "+1 555 0100"


@pytest.mark.parametrize("backend", HARNESSES)
def test_the_program_runs_on_this_provider(backend, tmp_path):
    """Unchanged; another process with the same configuration opens what it printed."""
    service = harness(backend)
    try:
        path = tmp_path / "kmsbridge.toml"
        path.write_text(
            configuration(
                {"app": service.address("first")},
                {"default": {"encrypt_to": ["app"], "decrypt_with": ["app"]}},
            )
        )
        done = subprocess.run(
            [sys.executable, PROGRAM],
            env={**os.environ, "KMSBRIDGE_CONFIG": str(path), "KMSBRIDGE_PROFILE": "default"},
            input=PHONE,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (done.returncode, done.stderr) == (0, "")
        with Decryptor.from_config(path, profile="default") as decryptor:
            text = decryptor.decrypt_text(done.stdout, context={"tenant": "acme"}, aad=b"users/42/phone")
        assert text == PHONE
        (recipient,) = inspect(message.dearmor(done.stdout)).recipients
        assert recipient.key_id.partition(":")[0] == service.address("first").uri.partition(":")[0]
    finally:
        service.close()


def test_the_program_has_ten_lines():
    """Not counting blank ones and what describes it."""
    source = PROGRAM.read_text()
    first, *_ = ast.parse(source).body
    code = source.splitlines()[first.end_lineno :]
    assert len([line for line in code if line.strip()]) <= 10
