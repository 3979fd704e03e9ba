"""Drivers that remember what they should ask for."""

from __future__ import annotations

from kmsbridge.driver import EncryptionContext, KeyDescription, KeyState, WrappedKey
from kmsbridge.testing.fakes.fake import FakeDriver
from kmsbridge.testing.fakes.service import Caller
from tests.mutants.drivers.base import caught_by


@caught_by("test_key_that_was_used_is_disabled_all_the_same")
class CachesPlaintexts(FakeDriver):
    """Does not ask again for what it has unwrapped."""

    def __init__(self, name: str, caller: Caller) -> None:
        super().__init__(name, caller)
        self._opened: dict[tuple[WrappedKey, bytes], bytes] = {}

    def unwrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> bytes:
        asked = wrapped, context.canonical()
        if asked not in self._opened:
            self._opened[asked] = super().unwrap(wrapped, context, timeout=timeout)
        return self._opened[asked]


@caught_by("test_description_follows_the_state")
class CachesTheState(FakeDriver):
    """Describes the key as it was when it was first described."""

    state: KeyState | None = None

    def describe(self, *, timeout: float) -> KeyDescription:
        description = super().describe(timeout=timeout)
        self.state = self.state or description.state
        return description._replace(state=self.state)
