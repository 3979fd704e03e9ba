"""The memory driver keeps the contract."""

import pytest

from kmsbridge.testing import DriverContract
from tests.backends.memory import MemoryHarness


class TestMemory(DriverContract):
    @pytest.fixture
    def harness(self):
        return MemoryHarness()
