"""The backends that messages are moved between."""

import pytest

from kmsbridge.testing import FakeHttpHarness, register_peer
from tests.backends.local import LocalHarness


@pytest.fixture(scope="session")
def make_local_harness():
    """The class, which a test module cannot import from here."""
    return LocalHarness


register_peer("local", LocalHarness)
register_peer("fake over HTTP", FakeHttpHarness)
