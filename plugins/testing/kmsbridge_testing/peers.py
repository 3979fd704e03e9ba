"""The backends that the suite rewraps messages to and from."""

from __future__ import annotations

from collections.abc import Callable

from kmsbridge_testing.fakes.harnesses import FakeHarness, UnboundFakeHarness
from kmsbridge_testing.harness import Harness

PEERS: dict[str, Callable[[], Harness]] = {
    "fake": FakeHarness,
    "fake that binds no context": UnboundFakeHarness,
}
"""The harnesses of these backends, by the name in a case's id."""


def register_peer(name: str, make: Callable[[], Harness]) -> None:
    """Add a backend: the suite rewraps each driver's messages to and from keys of the harness that `make()` returns.

    Call it in a conftest.py, before the cases are collected. `name` appears in the ids of the cases.
    """
    PEERS[name] = make
