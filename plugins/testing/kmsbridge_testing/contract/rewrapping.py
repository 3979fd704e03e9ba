"""Group 11: rewrapping by the service, without the payload leaving it."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import pytest

from kmsbridge.driver import Capability, ErrorKind, WrappedKey
from kmsbridge.errors import AuthenticationError, KmsKeyDisabled
from kmsbridge.keys import ManagedKey
from kmsbridge_testing.contract.base import TIMEOUT, Cases, Keys, bound, kind_of, needs, refused
from kmsbridge_testing.contract.binding import WRONG, Pairs
from kmsbridge_testing.contract.refusals import rewrapped
from kmsbridge_testing.contract.tampering import REFUSALS
from kmsbridge_testing.contract.watch import network_events_of
from kmsbridge_testing.harness import Harness

THREADS: Final = 64
STEP: Final = 7
"""One of so many bytes of a wrapped key is changed; `TamperingCases` changes every byte."""
CONTEXTS: Final = ("no context", "last value changed", "first name changed", "case of a value")
STRANGERS: Final = {
    "nothing": "",
    "no scheme": "{name}",
    "no name": "{scheme}:",
    "another scheme": "elsewhere:{name}",
    "longer scheme": "{scheme}x:{name}",
    "scheme in capitals": "{SCHEME}:{name}",
    "line end": "{scheme}:{name}\n",
}

wrong = pytest.mark.parametrize(("closed", "opened"), [WRONG[name] for name in CONTEXTS], ids=CONTEXTS)
stranger = pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)


class RewrapCases(Cases):
    """Cases for rewrapping: by the service with `SERVER_REWRAP`, and otherwise by an unwrap and a wrap."""

    @pytest.fixture
    def wrapped(self, key: ManagedKey, plaintext: bytes) -> WrappedKey:
        """The wrapped key to rewrap."""
        return key.wrap(plaintext, bound())

    def test_rewrap_is_there_where_declared(self, keys: Keys, key: ManagedKey, wrapped: WrappedKey) -> None:
        """With SERVER_REWRAP a key rewraps its own; without it, `rewrap` raises `NotImplementedError`."""
        declared = Capability.SERVER_REWRAP in key.capabilities
        assert key.rewraps_from(key.key_id) is (declared and key.binds_context)
        if not declared:
            with pytest.raises(NotImplementedError):
                keys.driver().rewrap(wrapped, bound(), timeout=TIMEOUT)

    def test_rewrapped_key_opens(
        self, keys: Keys, key: ManagedKey, wrapped: WrappedKey, plaintext: bytes
    ) -> None:
        """A rewrapped key unwraps to the same payload; its ciphertext is new, and the old one still unwraps."""
        again = rewrapped(key, wrapped)
        assert again.key_id == key.key_id
        assert again.ciphertext != wrapped.ciphertext
        assert again.version == key.describe().version
        assert [keys.open().unwrap(copy, bound()) for copy in (again, wrapped)] == [plaintext] * 2

    def test_rewrap_by_the_service_keeps_the_binding(
        self, keys: Keys, key: ManagedKey, wrapped: WrappedKey, plaintext: bytes
    ) -> None:
        """A key that the service rewrapped unwraps in its own context only, and is not rewrapped in another."""
        if Capability.SERVER_REWRAP not in key.capabilities:
            return
        driver = keys.driver()
        again = driver.rewrap(wrapped, bound(), timeout=TIMEOUT)
        assert key.unwrap(again, bound()) == plaintext
        refused(lambda: key.unwrap(again, bound({"a": "b"})), AuthenticationError)
        if key.binds_context:
            with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's own
                driver.rewrap(wrapped, bound({"a": "b"}), timeout=TIMEOUT)
            assert kind_of(driver, caught.value, "rewrap") is ErrorKind.NOT_AUTHENTIC

    @needs("rotate")
    def test_rewrap_by_the_service_carries_the_new_version(
        self, harness: Harness, keys: Keys, key: ManagedKey, wrapped: WrappedKey, plaintext: bytes
    ) -> None:
        """After a rotation a rewrap uses the new version, by an open driver and by a new one."""
        harness.rotate("first")
        for opened in (key, keys.open()):
            again = rewrapped(opened, wrapped)
            assert again.version == key.describe().version
            assert (again.version != wrapped.version) is (Capability.REPORTS_VERSION in key.capabilities)
            assert key.unwrap(again, bound()) == plaintext

    @wrong
    def test_rewrap_in_wrong_context_is_refused(
        self, key: ManagedKey, plaintext: bytes, closed: Pairs, opened: Pairs
    ) -> None:
        """`AuthenticationError`, as for an unwrap; and a rewrap does not change the context."""
        wrapped = key.wrap(plaintext, bound(closed))
        refused(lambda: rewrapped(key, wrapped, opened), AuthenticationError)
        again = rewrapped(key, wrapped, closed)
        refused(lambda: key.unwrap(again, bound(opened)), AuthenticationError)
        assert key.unwrap(again, bound(closed)) == plaintext

    def test_changed_wrapped_key_is_not_rewrapped(self, key: ManagedKey, wrapped: WrappedKey) -> None:
        """Changed, cut, longer, random and empty wrapped keys are refused, as for an unwrap."""
        ciphertext = wrapped.ciphertext
        changed = [ciphertext[:-1], ciphertext[1:], ciphertext + b"\0", secrets.token_bytes(100), b""]
        for place in range(0, len(ciphertext), STEP):
            flipped = bytearray(ciphertext)
            flipped[place] ^= 0x20
            changed.append(bytes(flipped))
        for invalid in changed:
            refused(partial(rewrapped, key, wrapped._replace(ciphertext=invalid)), *REFUSALS)

    # --- from one key to another ------------------------------------------------------------------

    def test_key_rewraps_from_another_where_it_says_so(
        self, keys: Keys, key: ManagedKey, wrapped: WrappedKey, plaintext: bytes
    ) -> None:
        """A wrapped key moved to the second key unwraps with that key only, in its own context only."""
        second = keys.open("second")
        if not second.rewraps_from(key.key_id):
            return
        moved = second.rewrap(wrapped, bound())
        assert (moved.key_id, moved.version) == (second.key_id, second.describe().version)
        assert second.unwrap(moved, bound()) == plaintext
        refused(lambda: second.unwrap(moved, bound({"a": "b"})), AuthenticationError)
        refused(lambda: second.rewrap(wrapped, bound({"a": "b"})), AuthenticationError)
        # With the second key's id: whoever can write messages can change the id.
        refused(lambda: second.rewrap(wrapped._replace(key_id=second.key_id), bound()), *REFUSALS)

    @needs("disable")
    def test_disabled_source_is_told(
        self, harness: Harness, keys: Keys, key: ManagedKey, wrapped: WrappedKey
    ) -> None:
        """Another key does not rewrap from a disabled one."""
        second = keys.open("second")
        if second.rewraps_from(key.key_id):
            harness.disable("first")
            refused(lambda: second.rewrap(wrapped, bound()), KmsKeyDisabled)

    @stranger
    def test_no_key_rewraps_from_a_stranger(self, keys: Keys, key: ManagedKey, stranger: str) -> None:
        """`rewraps_from` is False for an id that is not certainly one of the service's keys."""
        scheme, _, name = key.key_id.partition(":")
        foreign = stranger.format(scheme=scheme, SCHEME=scheme.upper(), name=name)
        assert key.rewraps_from(foreign) is False
        if Capability.SERVER_REWRAP in key.capabilities:
            assert keys.driver().rewraps_from(foreign) is False

    def test_whence_it_rewraps_costs_no_call(self, keys: Keys, key: ManagedKey) -> None:
        """`rewraps_from` makes no call once the ids are known, because it is called for every recipient."""
        second = keys.open("second")
        known = second.key_id, key.key_id
        assert not network_events_of(lambda: [second.rewraps_from(key_id) for key_id in known])

    def test_many_threads_rewrap(self, key: ManagedKey) -> None:
        """64 threads at once: each has its own payload rewrapped, in its own context."""

        def work(number: int) -> bool:
            pairs, plaintext = {"thread": str(number)}, secrets.token_bytes(32)
            again = rewrapped(key, key.wrap(plaintext, bound(pairs)), pairs)
            return key.unwrap(again, bound(pairs)) == plaintext

        with ThreadPoolExecutor(THREADS) as pool:
            assert all(pool.map(work, range(THREADS)))
