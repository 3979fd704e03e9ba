"""Group 5: the class of an error says why the service refused."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import pytest

from kmsbridge.driver import Capability, KeyState, WrappedKey
from kmsbridge.errors import (
    ConfigError,
    KmsAccessDenied,
    KmsError,
    KmsKeyDisabled,
    KmsKeyNotFound,
    KmsUnauthenticated,
)
from kmsbridge.keys import ManagedKey
from kmsbridge_testing.contract.base import Cases, Keys, bound, needs, refused
from kmsbridge_testing.harness import Harness

Call = Callable[[ManagedKey, WrappedKey], Any]


def rewrapped(key: ManagedKey, wrapped: WrappedKey, pairs: Mapping[str, str] | None = None) -> WrappedKey:
    """Rewrap by the service if it can, and otherwise by an unwrap and a wrap, as the library does."""
    if key.rewraps_from(key.key_id):
        return key.rewrap(wrapped, bound(pairs))
    return key.wrap(key.unwrap(wrapped, bound(pairs)), bound(pairs))


CALLS: dict[str, Call] = {
    "wrap": lambda key, _: key.wrap(bytes(32), bound()),
    "unwrap": lambda key, wrapped: key.unwrap(wrapped, bound()),
    "describe": lambda key, _: key.describe(),
    "rewrap": rewrapped,
}
USES: Final = ("wrap", "unwrap", "rewrap")
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
every_use = pytest.mark.parametrize("call", [CALLS[name] for name in USES], ids=USES)


def needs_no_service(key: ManagedKey, call: Call) -> bool:
    """Return whether the public key is enough for the call, so that it succeeds without the service."""
    return call is CALLS["wrap"] and Capability.LOCAL_WRAP in key.capabilities


class RefusalCases(Cases):
    """Cases for states of keys, rights of callers, and expired credentials."""

    @pytest.fixture
    def wrapped(self, key: ManagedKey, plaintext: bytes) -> WrappedKey:
        """A wrapped key, made before anything is refused."""
        return key.wrap(plaintext, bound())

    @needs("disable")
    @every_use
    def test_disabled_key_is_told(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, call: Call
    ) -> None:
        """`KmsKeyDisabled`, with the key and the operation, after one attempt."""
        harness.disable("first")
        _told(key, wrapped, call, KmsKeyDisabled)

    @needs("disable")
    def test_key_that_was_used_is_disabled_all_the_same(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, plaintext: bytes
    ) -> None:
        """A driver does not remember what it unwrapped: a disabled key unwraps nothing."""
        assert key.unwrap(wrapped, bound()) == plaintext
        harness.disable("first")
        _told(key, wrapped, CALLS["unwrap"], KmsKeyDisabled)

    @needs("disable", "calls")
    @every_use
    def test_refused_call_is_made_once(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, call: Call
    ) -> None:
        """Neither the driver nor its client repeats a refused call."""
        harness.disable("first")
        before = harness.calls("first")
        _told(key, wrapped, call, KmsKeyDisabled)
        assert harness.calls("first") - before == (0 if needs_no_service(key, call) else 1)

    @needs("disable")
    def test_description_follows_the_state(self, harness: Harness, key: ManagedKey) -> None:
        """A driver does not remember a description: each shows the present state."""
        known = key.describe().state is not KeyState.UNKNOWN
        harness.disable("first")
        assert key.describe().state is KeyState.DISABLED
        harness.enable("first")
        assert key.describe().state is (KeyState.ENABLED if known else KeyState.UNKNOWN)

    @needs("disable")
    def test_disabled_key_is_described(self, harness: Harness, key: ManagedKey) -> None:
        """A disabled key can be described, and its state is DISABLED."""
        harness.disable("first")
        assert key.describe().state is KeyState.DISABLED

    @needs("disable")
    def test_enabled_again_it_works(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, plaintext: bytes
    ) -> None:
        """The same driver works again after the key is enabled."""
        harness.disable("first")
        refused(lambda: key.unwrap(wrapped, bound()), KmsKeyDisabled)
        harness.enable("first")
        assert key.unwrap(wrapped, bound()) == plaintext
        assert key.describe().state in (KeyState.ENABLED, KeyState.UNKNOWN)

    @needs("disable")
    def test_other_key_stays_enabled(self, harness: Harness, keys: Keys, plaintext: bytes) -> None:
        """Disabling one key does not affect another."""
        second = keys.open("second")
        harness.disable("first")
        assert second.unwrap(second.wrap(plaintext, bound()), bound()) == plaintext

    @needs("schedule_deletion")
    @every_use
    def test_pending_deletion_is_told(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, call: Call
    ) -> None:
        """`KmsKeyDisabled`, because the key can still be restored."""
        harness.schedule_deletion("first")
        _told(key, wrapped, call, KmsKeyDisabled)

    @needs("schedule_deletion")
    def test_pending_deletion_is_described(self, harness: Harness, key: ManagedKey) -> None:
        """A key that waits for its deletion can be described, and its state says so."""
        harness.schedule_deletion("first")
        assert key.describe().state is KeyState.PENDING_DELETION

    @needs("delete")
    @every_call
    def test_deleted_key_is_told(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, call: Call
    ) -> None:
        """`KmsKeyNotFound`."""
        harness.delete("first")
        _told(key, wrapped, call, KmsKeyNotFound)

    @needs("named")
    @every_call
    def test_unknown_key_is_told(self, harness: Harness, keys: Keys, wrapped: WrappedKey, call: Call) -> None:
        """`KmsKeyNotFound`, or a `ConfigError` from `open`; and the call does not create the key."""
        address = harness.named(f"no-such-key-{secrets.token_hex(4)}")
        for _ in range(2):
            try:
                key = keys.at(address)
            except ConfigError:
                continue
            if not needs_no_service(key, call):
                refused(partial(call, key, wrapped), KmsKeyNotFound, ConfigError)

    @needs("roles")
    def test_encrypt_only_caller_wraps_and_cannot_unwrap(
        self, keys: Keys, key: ManagedKey, plaintext: bytes
    ) -> None:
        """An encrypt-only caller cannot unwrap what it wrapped; another caller can."""
        encrypting = keys.open(role="encrypt-only")
        wrapped = encrypting.wrap(plaintext, bound())
        assert key.unwrap(wrapped, bound()) == plaintext
        _told(encrypting, wrapped, CALLS["unwrap"], KmsAccessDenied)

    @needs("roles")
    def test_decrypt_only_caller_unwraps_and_cannot_wrap(
        self, keys: Keys, key: ManagedKey, plaintext: bytes
    ) -> None:
        """A decrypt-only caller unwraps, and cannot wrap."""
        decrypting = keys.open(role="decrypt-only")
        assert decrypting.key_id == key.key_id
        wrapped = key.wrap(plaintext, bound())
        assert decrypting.unwrap(wrapped, bound()) == plaintext
        _told(decrypting, wrapped, CALLS["wrap"], KmsAccessDenied)

    @needs("roles")
    @pytest.mark.parametrize("role", ["encrypt-only", "decrypt-only"])
    def test_half_a_right_does_not_rewrap(self, keys: Keys, wrapped: WrappedKey, role: Any) -> None:
        """A rewrap needs the rights both to wrap and to unwrap."""
        key = keys.open(role=role)
        if key.rewraps_from(key.key_id) or role == "encrypt-only":
            _told(key, wrapped, CALLS["rewrap"], KmsAccessDenied)

    @needs("roles")
    @pytest.mark.parametrize(
        ("role", "may"),
        [("encrypt-only", (True, False)), ("decrypt-only", (False, True))],
        ids=["encrypt-only", "decrypt-only"],
    )
    def test_description_is_true_of_the_caller(self, keys: Keys, role: Any, may: tuple[bool, bool]) -> None:
        """`may_wrap` and `may_unwrap` are right or None; `describe` itself may be denied."""
        key = keys.open(role=role)
        try:
            description = key.describe()
        except KmsAccessDenied:
            return
        assert description.may_wrap in (may[0] or needs_no_service(key, CALLS["wrap"]), None)
        assert description.may_unwrap in (may[1], None)

    def test_description_denies_no_right_that_the_caller_has(self, key: ManagedKey) -> None:
        """For a caller that may do everything, neither `may_wrap` nor `may_unwrap` is False."""
        description = key.describe()
        assert description.may_wrap is not False
        assert description.may_unwrap is not False

    @needs("expire_credentials")
    @every_call
    def test_expired_credentials_are_told(
        self, harness: Harness, key: ManagedKey, wrapped: WrappedKey, call: Call
    ) -> None:
        """`KmsUnauthenticated`, also from a driver that was already open."""
        harness.expire_credentials()
        _told(key, wrapped, call, KmsUnauthenticated)


def _told(key: ManagedKey, wrapped: WrappedKey, call: Call, kind: type[KmsError]) -> None:
    """Check that the call is refused with an error of `kind`, complete in all its fields, after one attempt.

    A call that needs no service must succeed.
    """
    if needs_no_service(key, call):
        assert call(key, wrapped)
        return
    error = refused(lambda: call(key, wrapped), kind)
    assert isinstance(error, KmsError)
    assert error.key_id == key.key_id
    assert error.operation in CALLS
    assert error.attempts == 1, "a permanent error was retried"
    assert error.remedy
