"""What can be imported from `kmsbridge` besides the ciphers."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import kmsbridge
from kmsbridge import errors

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_the_version_is_that_of_the_package():
    assert kmsbridge.__version__ == PROJECT["version"]


@pytest.mark.parametrize("name", kmsbridge.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(kmsbridge, name) is not None


def test_the_command_runs_as_a_module():
    """Where its script is not on the path."""
    done = subprocess.run(
        [sys.executable, "-m", "kmsbridge", "--version"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0
    assert kmsbridge.__version__ in done.stdout


def test_three_errors_and_no_others_are_retryable():
    """Those of a service that was not available or too busy."""
    kinds = [
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.KmsBridgeError)
    ]
    retryable = {cls.__name__ for cls in kinds if cls("x").retryable}
    assert retryable == {"KmsUnavailable", "KmsThrottled", "KmsTimeout"}
