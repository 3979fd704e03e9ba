"""Group 8: what must not be shown is in nothing that is shown."""

from __future__ import annotations

import base64
import contextlib
import logging
import pickle
import secrets
import traceback
from collections.abc import Callable, Iterator

import pytest

from kmsbridge.calls import Key
from kmsbridge.cipher import EnvelopeCipher
from kmsbridge.errors import KmsBridgeError
from kmsbridge.policy import CallPolicy
from kmsbridge.testing.contract import base
from kmsbridge.testing.contract.base import Cases, Keys, bound, needs
from kmsbridge.testing.contract.network import SLOW
from kmsbridge.testing.harness import Fault, Harness

CONTEXT = {"tenant": "acme"}
ONCE = CallPolicy(max_attempts=1)
IMPATIENT = CallPolicy(attempt_timeout=0.2, deadline=0.2, max_attempts=1)


class SecrecyCases(Cases):
    """Canaries as payload and credentials, and every place that an error or a log could show them in."""

    @pytest.fixture
    def canaries(self, harness: Harness) -> list[bytes]:
        """The payload first, then what is secret among the options."""
        return [b"canary-" + secrets.token_hex(12).encode(), *harness.secrets]

    @pytest.fixture(autouse=True)
    def _logs_are_silent(
        self, caplog: pytest.LogCaptureFixture, canaries: list[bytes]
    ) -> Iterator[None]:
        """Whatever a case does: nothing secret in a log record at any level."""
        caplog.set_level(logging.DEBUG)
        yield
        records = [(record.getMessage(), vars(record)) for record in caplog.get_records("call")]
        show_nothing(f"{caplog.text} {records!r}", canaries)

    def test_success_is_silent(self, keys: Keys, canaries: list[bytes]) -> None:
        """Working calls log nothing secret."""
        cipher = keys.cipher(direct=True)
        message = cipher.encrypt(canaries[0], context=CONTEXT)
        assert cipher.decrypt(message, context=CONTEXT) == canaries[0]

    def test_repr_shows_no_secret(self, keys: Keys, canaries: list[bytes]) -> None:
        """Of a driver, a key and a wrapped key, before and after use and close."""
        driver, key = keys.driver(), keys.open()
        shown = [repr(driver), str(driver), repr(key)]
        wrapped = driver.wrap(canaries[0], bound(), timeout=base.TIMEOUT)
        driver.unwrap(wrapped, bound(), timeout=base.TIMEOUT)
        key.unwrap(key.wrap(canaries[0], bound()), bound())
        shown += [repr(driver), str(driver), f"{driver}", repr(key), repr(wrapped), repr(key.describe())]
        driver.close()
        show_nothing(" ".join([*shown, repr(driver)]), canaries)

    def test_pickle_shows_no_secret(self, keys: Keys, canaries: list[bytes]) -> None:
        """A driver cannot be pickled, or without its secrets."""
        driver = keys.driver()
        driver.wrap(canaries[0], bound(), timeout=base.TIMEOUT)
        with contextlib.suppress(Exception):
            show_nothing(pickle.dumps(driver), canaries)

    @pytest.mark.parametrize("changed", [False, True], ids=["wrong context", "changed message"])
    def test_unauthentic_message_is_refused_discreetly(
        self, keys: Keys, canaries: list[bytes], changed: bool
    ) -> None:
        """The error tells nothing of what is in the message."""
        cipher = keys.cipher(direct=True)
        message = cipher.encrypt(canaries[0], context=CONTEXT)
        message = message[:-1] + bytes([message[-1] ^ changed])
        context = CONTEXT if changed else {"tenant": "other"}
        _fails_discreetly(lambda: cipher.decrypt(message, context=context), canaries)

    def test_too_large_payload_is_refused_discreetly(self, keys: Keys, canaries: list[bytes]) -> None:
        """The error tells the length alone."""
        cipher, key = keys.cipher(direct=True), keys.open()
        payload = canaries[0] * (key.max_plaintext // len(canaries[0]) + 1)
        _fails_discreetly(lambda: cipher.encrypt(payload, context=CONTEXT), canaries)

    @needs("disable")
    def test_disabled_key_is_told_discreetly(
        self, harness: Harness, keys: Keys, canaries: list[bytes]
    ) -> None:
        """Both ways."""
        cipher = keys.cipher(direct=True)
        message = cipher.encrypt(canaries[0], context=CONTEXT)
        harness.disable("first")
        _both_fail_discreetly(cipher, message, canaries)

    @needs("roles")
    def test_denied_caller_is_told_discreetly(
        self, harness: Harness, keys: Keys, canaries: list[bytes]
    ) -> None:
        """Each of the two where it may not."""
        message = keys.cipher(direct=True).encrypt(canaries[0], context=CONTEXT)
        encrypt_only = base.profile_of([harness.address("first", "encrypt-only")], direct=True)
        decrypt_only = base.profile_of([harness.address("first", "decrypt-only")], direct=True)
        with EnvelopeCipher(encrypt_only) as cipher:
            _fails_discreetly(lambda: cipher.decrypt(message, context=CONTEXT), canaries)
        with EnvelopeCipher(decrypt_only) as cipher:
            _fails_discreetly(lambda: cipher.encrypt(canaries[0], context=CONTEXT), canaries)

    @needs("expire_credentials")
    def test_expired_credentials_are_told_discreetly(
        self, harness: Harness, keys: Keys, canaries: list[bytes]
    ) -> None:
        """The credential itself is not told."""
        cipher = keys.cipher(direct=True)
        message = cipher.encrypt(canaries[0], context=CONTEXT)
        harness.expire_credentials()
        _both_fail_discreetly(cipher, message, canaries)

    @needs("break_network")
    @pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.value)
    def test_network_fault_is_told_discreetly(
        self, harness: Harness, keys: Keys, canaries: list[bytes], fault: Fault
    ) -> None:
        """What was sent and what was half received stays out of the error."""
        cipher = keys.cipher(direct=True, calls=IMPATIENT if fault in SLOW else ONCE)
        message = keys.cipher(direct=True).encrypt(canaries[0], context=CONTEXT)
        harness.break_network(fault)
        _both_fail_discreetly(cipher, message, canaries)

    def test_driver_exceptions_details_are_discreet(self, key: Key, canaries: list[bytes]) -> None:
        """Code, request id and remedy that a driver gives for its own exceptions quote no payload."""
        wrapped = key.wrap(canaries[0], bound(CONTEXT))
        driver = key.driver
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the driver's own
            driver.unwrap(base.cut(wrapped), bound(CONTEXT), timeout=base.TIMEOUT)
        show_nothing(repr(driver.error_details(caught.value)), canaries)


def show_nothing(shown: str | bytes, canaries: list[bytes]) -> None:
    """Fail, without showing it again, where a canary is in `shown`, plain, in hex or in base64."""
    data = shown if isinstance(shown, bytes) else shown.encode("utf-8", "surrogateescape")
    found = [n for n, canary in enumerate(canaries) if any(form in data for form in _forms(canary))]
    del shown, data
    assert not found, f"canary {found} of the payload (0) and the harness's secrets is shown"


def _forms(canary: bytes) -> list[bytes]:
    forms = [canary, canary.hex().encode()]
    for shift in range(3):
        # What base64 makes of the middle, wherever it stands; its ends depend on the neighbours.
        whole = canary[shift : shift + (len(canary) - shift) // 3 * 3]
        forms += [base64.b64encode(whole), base64.urlsafe_b64encode(whole)]
    return forms


def _both_fail_discreetly(cipher: EnvelopeCipher, message: bytes, canaries: list[bytes]) -> None:
    _fails_discreetly(lambda: cipher.encrypt(canaries[0], context=CONTEXT), canaries)
    _fails_discreetly(lambda: cipher.decrypt(message, context=CONTEXT), canaries)


def _fails_discreetly(call: Callable[[], object], canaries: list[bytes]) -> None:
    error = _error_of(call)
    assert error is not None, "the call succeeded"
    # The first two frames are this module's and hold the canaries by right.
    trace = error.__traceback__
    for _ in range(2):
        trace = trace.tb_next if trace else None
    report = traceback.TracebackException(type(error), error, trace, capture_locals=True)
    shown = "".join(report.format()) + repr(error) + str(error) + repr(vars(error))
    show_nothing(shown, canaries)
    show_nothing(pickle.dumps(error), canaries)


def _error_of(call: Callable[[], object]) -> KmsBridgeError | None:
    try:
        call()
    except KmsBridgeError as error:
        return error
    return None
