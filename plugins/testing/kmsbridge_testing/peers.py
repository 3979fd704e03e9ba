"""The backends that a run moves messages between."""

from __future__ import annotations

from collections.abc import Callable

from kmsbridge_testing.fakes.harnesses import FakeHarness, UnboundFakeHarness
from kmsbridge_testing.harness import Harness

PEERS: dict[str, Callable[[], Harness]] = {
    "fake": FakeHarness,
    "fake that binds no context": UnboundFakeHarness,
}
"""By a name for the case. A run with several backends adds the others, in a conftest.py, with `register_peer`."""


def register_peer(name: str, make: Callable[[], Harness]) -> None:
    """Have every driver's messages rewrapped to and from the backend whose harness `make()` returns."""
    PEERS[name] = make
