"""Drivers that rewrap wrongly, or promise in settings what they do not keep."""

from __future__ import annotations

from typing import Self

from kmsbridge.driver import (
    Capability,
    EncryptionContext,
    KeyDescription,
    KeyURI,
    Options,
    PolicyRole,
    WrappedKey,
)
from kmsbridge.testing.fakes.fake import FakeDriver
from kmsbridge.testing.fakes.service import Caller
from tests.mutants.drivers.base import caught_by


class _RemembersContexts(FakeDriver):
    def __init__(self, name: str, caller: Caller) -> None:
        super().__init__(name, caller)
        self._contexts: dict[bytes, EncryptionContext] = {}

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        wrapped = super().wrap(plaintext, context, timeout=timeout)
        self._contexts[wrapped.ciphertext] = context
        return wrapped


@caught_by("test_rewrap_in_wrong_context_is_refused[last value changed]")
class RewrapsInAnyContext(_RemembersContexts):
    """Does not ask for the context that was wrapped in: it knows it."""

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        known = self._contexts.get(wrapped.ciphertext, context)
        return super().rewrap(wrapped, known, timeout=timeout)


@caught_by("test_rewrap_by_the_service_carries_the_new_version")
class RewrapsToTheOldVersion(FakeDriver):
    """Reports the version that it rewraps from."""

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        return super().rewrap(wrapped, context, timeout=timeout)._replace(version=wrapped.version)


@caught_by("test_rewrapped_key_opens")
class ReturnsWhatItShouldRewrap(FakeDriver):
    """Does nothing, which opens well."""

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        return wrapped._replace(key_id=self.key_id)


@caught_by("test_key_rewraps_from_another_where_it_says_so")
class RewrapsWithTheSource(FakeDriver):
    """Says that it takes its neighbours', wraps them anew by their own key, and calls it its own."""

    def rewraps_from(self, key_id: str) -> bool:
        return key_id.startswith("fake:")

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        source = FakeDriver(wrapped.key_id.partition(":")[2], self._caller)
        return source.rewrap(wrapped, context, timeout=timeout)._replace(key_id=self.key_id)


@caught_by("test_no_key_rewraps_from_a_stranger[another scheme]")
class RewrapsFromEverybody(FakeDriver):
    """Says yes to every id."""

    def rewraps_from(self, key_id: str) -> bool:
        return True


@caught_by("test_half_a_right_does_not_rewrap[decrypt-only]")
class RewrapsByTheBackDoor(FakeDriver):
    """Rewraps with the rights of another caller."""

    def rewrap(self, wrapped: WrappedKey, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        mighty = FakeDriver(self.name, self._caller._replace(role="both"))
        return mighty.rewrap(wrapped, context, timeout=timeout)


@caught_by("test_unknown_parameter_is_refused")
class OverlooksParameters(FakeDriver):
    """Takes whatever stands in the query."""

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        return super().open(uri._replace(query={}), options)


@caught_by("test_declarations_of_an_object_stay")
class LearnsWhatItCan(FakeDriver):
    """Finds out with its first description that it does not rotate."""

    def describe(self, *, timeout: float) -> KeyDescription:
        self.capabilities = self.capabilities - {Capability.ROTATE}
        return super().describe(timeout=timeout)


@caught_by("test_policy_shows_no_secret[decryptor]")
class PrintsItsToken(FakeDriver):
    """Names the caller in a policy by the credential."""

    def policy(self, role: PolicyRole) -> str:
        return f"{super().policy(role)}to {self._caller.credential.reveal_text()}\n"


@caught_by("test_policies_of_the_roles_differ")
class AllowsEverything(FakeDriver):
    """Prints one policy for all."""

    def policy(self, role: PolicyRole) -> str:
        return f"allow * on {self.name}\n"
