"""The pytest fixture `gcp_kms_emulator`; enable it by `pytest_plugins = ["kmsbridge_gcp_emulator.fixture"]`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kmsbridge_gcp_emulator import Emulator


@pytest.fixture(scope="session")
def gcp_kms_emulator_process() -> Iterator[Emulator]:
    """The emulator's process, one for the whole run."""
    with Emulator.start() as emulator:
        yield emulator


@pytest.fixture
def gcp_kms_emulator(gcp_kms_emulator_process: Emulator) -> Iterator[Emulator]:
    """A running `Emulator`. Its keys exist for the whole run; its faults end with the test."""
    yield gcp_kms_emulator_process
    gcp_kms_emulator_process.heal()
