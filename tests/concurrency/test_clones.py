"""Processes that were copied with their memory and their process id draw nothing that another drew."""

import subprocess
import sys
from pathlib import Path

import pytest

from kmsbridge.drivers.local.keyfile import KeyFile
from tests.concurrency import clones
from tests.support import PATIENCE


@pytest.mark.parametrize(("way", "copies"), (("fork", 2), ("clone", 3)))
def test_copies_of_a_process_share_no_data_key_salt_nonce_or_wrapping(tmp_path, way, copies):
    """10,000 messages and 500 streams in each; with hooks that tell the library of a fork, and without."""
    KeyFile.create(tmp_path / "keys.json", "app")
    folder = tmp_path / "drawn"
    folder.mkdir()
    command = [sys.executable, clones.__file__, tmp_path / "keys.json", folder, way]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, timeout=4 * PATIENCE, check=False
    )
    if done.returncode == clones.REFUSED:
        pytest.skip("this machine lets no process make a namespace of process ids")
    assert done.returncode == 0, done.stderr.decode()
    drawn = [path.read_text().split() for path in folder.iterdir()]
    assert len(drawn) == copies
    assert min(map(len, drawn)) >= 2 * clones.MESSAGES + clones.MESSAGES // clones.STREAM
    everything = [each for one in drawn for each in one]
    assert len(everything) - len(set(everything)) == 0, "what one drew, another drew as well"
