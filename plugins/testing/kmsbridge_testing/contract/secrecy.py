"""Group 8: secrets do not appear in errors, logs, reprs or pickles."""

from __future__ import annotations

import base64
import logging
import pickle
import secrets
import traceback
from collections.abc import Callable, Sequence

import pytest

from kmsbridge.cipher import EnvelopeCipher
from kmsbridge.cipher.base import from_profile
from kmsbridge.driver import Capability, DriverError
from kmsbridge.errors import KmsBridgeError
from kmsbridge.keys import ManagedKey
from kmsbridge.policy import CallPolicy
from kmsbridge_testing.contract import base
from kmsbridge_testing.contract.base import Cases, Keys, bound, needs
from kmsbridge_testing.contract.network import ENDLESS, SLOW, every_fault
from kmsbridge_testing.contract.refusals import rewrapped
from kmsbridge_testing.harness import Fault, Harness

CONTEXT = {"tenant": "acme"}
ONCE = CallPolicy(max_attempts=1)
IMPATIENT = CallPolicy(attempt_timeout=0.2, deadline=0.2, max_attempts=1)


class Canaries:
    """Secret values to search for: a recognisable payload, and the secrets among the harness's options."""

    def __init__(self, others: Sequence[bytes], caplog: pytest.LogCaptureFixture) -> None:
        self.payload = b"canary-" + secrets.token_hex(12).encode()
        self._all = [self.payload, *others]
        self._caplog = caplog

    def not_shown(self, shown: str | bytes) -> None:
        """Fail if a secret is in `shown` or was logged, in plain, hex or base64. The failure does not show it."""
        data = shown if isinstance(shown, bytes) else shown.encode("utf-8", "surrogateescape")
        data += repr([(record.getMessage(), vars(record)) for record in self._caplog.records]).encode()
        found = [n for n, canary in enumerate(self._all) if any(form in data for form in _forms(canary))]
        del shown, data
        assert not found, f"canary {found} of the payload (0) and the harness's secrets is shown"

    def not_shown_by_failure(self, call: Callable[[], object]) -> None:
        """Fail if `call` succeeds, or if its error or a frame of its traceback shows a secret."""
        error = _error_of(call)
        assert error is not None, "the call succeeded"
        # The first two frames are `_error_of` and `call` itself, which contain the canaries legitimately.
        trace = error.__traceback__
        for _ in range(2):
            trace = trace.tb_next if trace else None
        report = traceback.TracebackException(type(error), error, trace, capture_locals=True)
        self.not_shown("".join(report.format()) + repr(error) + str(error) + repr(vars(error)))
        self.not_shown(pickle.dumps(error))

    def __repr__(self) -> str:
        return "Canaries(...)"


class SecrecyCases(Cases):
    """Cases that search errors, logs, reprs and pickles for canaries."""

    @pytest.fixture
    def canaries(self, harness: Harness, caplog: pytest.LogCaptureFixture) -> Canaries:
        """New canaries, with every logger at level DEBUG."""
        caplog.set_level(logging.DEBUG)
        return Canaries(harness.secrets, caplog)

    def test_success_is_silent(self, keys: Keys, canaries: Canaries) -> None:
        """Working calls log nothing secret."""
        cipher = keys.cipher(direct=True)
        message = cipher.encrypt(canaries.payload, context=CONTEXT)
        assert cipher.decrypt(message, context=CONTEXT) == canaries.payload
        canaries.not_shown("")

    def test_repr_shows_no_secret(self, keys: Keys, canaries: Canaries) -> None:
        """The reprs of a driver, a key and a wrapped key show no secret, before and after use and `close`."""
        driver, key = keys.driver(), keys.open()
        shown = [repr(driver), str(driver), repr(key)]
        wrapped = driver.wrap(canaries.payload, bound(), timeout=base.TIMEOUT)
        driver.unwrap(wrapped, bound(), timeout=base.TIMEOUT)
        key.unwrap(key.wrap(canaries.payload, bound()), bound())
        shown += [repr(driver), str(driver), f"{driver}", repr(key), repr(wrapped), repr(key.describe())]
        driver.close()
        canaries.not_shown(" ".join([*shown, repr(driver)]))

    def test_pickle_shows_no_secret(self, keys: Keys, canaries: Canaries) -> None:
        """A driver cannot be pickled, or its pickle contains no secret."""
        driver = keys.driver()
        driver.wrap(canaries.payload, bound(), timeout=base.TIMEOUT)
        try:
            pickled = pickle.dumps(driver)
        except Exception:  # noqa: BLE001 - however it refuses
            return
        canaries.not_shown(pickled)

    @pytest.mark.parametrize("changed", [False, True], ids=["wrong context", "changed message"])
    def test_unauthentic_message_is_refused_discreetly(
        self, keys: Keys, canaries: Canaries, changed: bool
    ) -> None:
        """The error shows nothing of the payload."""
        cipher = keys.cipher(direct=True)
        message = cipher.encrypt(canaries.payload, context=CONTEXT)
        message = message[:-1] + bytes([message[-1] ^ changed])
        context = CONTEXT if changed else {"tenant": "other"}
        canaries.not_shown_by_failure(lambda: cipher.decrypt(message, context=context))

    def test_too_large_payload_is_refused_discreetly(self, keys: Keys, canaries: Canaries) -> None:
        """The error shows the payload's length only."""
        cipher, key = keys.cipher(direct=True), keys.open()
        payload = canaries.payload * (key.max_plaintext // len(canaries.payload) + 1)
        canaries.not_shown_by_failure(lambda: cipher.encrypt(payload, context=CONTEXT))

    @needs("disable")
    def test_disabled_key_is_told_discreetly(self, harness: Harness, keys: Keys, canaries: Canaries) -> None:
        """The errors of a disabled key show no secret."""
        calls = _calls(keys, canaries)
        harness.disable("first")
        for call in calls:
            canaries.not_shown_by_failure(call)

    @needs("roles")
    def test_denied_caller_is_told_discreetly(
        self, harness: Harness, keys: Keys, canaries: Canaries, capabilities: frozenset[Capability]
    ) -> None:
        """The errors of callers without the needed right show no secret."""
        message = keys.cipher(direct=True).encrypt(canaries.payload, context=CONTEXT)
        encrypt_only = base.profile_of([harness.address("first", "encrypt-only")], direct=True)
        decrypt_only = base.profile_of([harness.address("first", "decrypt-only")], direct=True)
        with from_profile(EnvelopeCipher, encrypt_only) as cipher:
            canaries.not_shown_by_failure(lambda: cipher.decrypt(message, context=CONTEXT))
        if Capability.LOCAL_WRAP not in capabilities:
            with from_profile(EnvelopeCipher, decrypt_only) as cipher:
                canaries.not_shown_by_failure(lambda: cipher.encrypt(canaries.payload, context=CONTEXT))

    @needs("expire_credentials")
    def test_expired_credentials_are_told_discreetly(
        self, harness: Harness, keys: Keys, canaries: Canaries
    ) -> None:
        """The error does not show the expired credential."""
        calls = _calls(keys, canaries)
        harness.expire_credentials()
        for call in calls:
            canaries.not_shown_by_failure(call)

    @needs("break_network")
    @every_fault
    def test_network_fault_is_told_discreetly(
        self, harness: Harness, keys: Keys, canaries: Canaries, fault: Fault
    ) -> None:
        """The error shows neither the request nor a partly received answer."""
        calls = _calls(keys, canaries, IMPATIENT if fault in (*SLOW, *ENDLESS) else ONCE)
        harness.break_network(fault)
        for call in calls:
            canaries.not_shown_by_failure(call)

    def test_driver_exceptions_details_are_discreet(self, key: ManagedKey, canaries: Canaries) -> None:
        """Code, request id and remedy that a driver gives for its own exceptions quote no payload."""
        wrapped = key.wrap(canaries.payload, bound(CONTEXT))
        driver = key.driver
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's own
            driver.unwrap(base.cut(wrapped), bound(CONTEXT), timeout=base.TIMEOUT)
        error = caught.value
        canaries.not_shown(repr(driver.error_details(error)))
        if isinstance(error, DriverError):
            canaries.not_shown(f"{error} {error!r} {error.code} {error.remedy} {error.request_id}")


def _forms(canary: bytes) -> list[bytes]:
    forms = [canary, canary.hex().encode()]
    for shift in range(3):
        # The base64 of its middle at each alignment; the encoding of its ends depends on the neighbouring bytes.
        whole = canary[shift : shift + (len(canary) - shift) // 3 * 3]
        forms += [base64.b64encode(whole), base64.urlsafe_b64encode(whole)]
    return forms


def _calls(keys: Keys, canaries: Canaries, policy: CallPolicy = ONCE) -> list[Callable[[], object]]:
    """Return calls of each kind that needs the service, prepared so that they can be made after it fails."""
    cipher, key = keys.cipher(direct=True, calls=policy), keys.open(policy=policy)
    message = keys.cipher(direct=True).encrypt(canaries.payload, context=CONTEXT)
    wrapped = keys.open().wrap(canaries.payload, bound())
    calls: list[Callable[[], object]] = [
        lambda: cipher.decrypt(message, context=CONTEXT),
        lambda: rewrapped(key, wrapped),
    ]
    if Capability.LOCAL_WRAP not in key.capabilities:
        calls.append(lambda: cipher.encrypt(canaries.payload, context=CONTEXT))
    return calls


def _error_of(call: Callable[[], object]) -> KmsBridgeError | None:
    try:
        call()
    except KmsBridgeError as error:
        return error
    return None
