"""For pytest: `pytest_plugins = ["kmsbridge_gcp_emulator.fixture"]` gives the fixture `gcp_kms_emulator`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kmsbridge_gcp_emulator import Emulator


@pytest.fixture(scope="session")
def gcp_kms_emulator_process() -> Iterator[Emulator]:
    """The emulator of the whole run."""
    with Emulator.start() as emulator:
        yield emulator


@pytest.fixture
def gcp_kms_emulator(gcp_kms_emulator_process: Emulator) -> Iterator[Emulator]:
    """A running emulator. Its keys last for the whole run, its faults end with the test."""
    yield gcp_kms_emulator_process
    gcp_kms_emulator_process.heal()
