"""Every field that Cloud KMS checks is checked, and what was damaged on the way is tried again."""

import pytest
from google.api_core.exceptions import InvalidArgument

from kmsbridge.driver import DriverError, ErrorKind, WrappedKey
from kmsbridge.errors import KmsUnavailable
from kmsbridge.keys import ManagedKey
from kmsbridge.testing import CallLog

TO_WRAP = [
    "ciphertext",
    "ciphertext_crc32c",
    "name",
    "verified_plaintext_crc32c",
    "verified_additional_authenticated_data_crc32c",
]
TO_UNWRAP = ["plaintext", "plaintext_crc32c"]
TO_UNWRAP_ASYMMETRIC = [*TO_UNWRAP, "verified_ciphertext_crc32c"]
TO_FETCH = ["pem", "pem_crc32c", "name"]
RSA = {"algorithm": "RSA-OAEP-SHA-256", "version": "1"}


def refused(call):
    with pytest.raises(DriverError) as caught:
        call()
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert caught.value.code.startswith("CORRUPTED_")
    assert caught.value.remedy


@pytest.mark.parametrize("field", TO_WRAP)
def test_damaged_answer_to_a_wrap_is_noticed(emulator, opened, key, context, field):
    """Whichever field it is."""
    driver = opened(key)
    emulator.corrupt(field, key)
    refused(lambda: driver.wrap(b"payload", context, timeout=10))


@pytest.mark.parametrize("field", TO_UNWRAP)
def test_damaged_answer_to_an_unwrap_is_noticed(emulator, opened, key, context, field):
    """No changed plaintext is returned."""
    driver = opened(key)
    wrapped = driver.wrap(b"payload", context, timeout=10)
    emulator.corrupt(field, key)
    refused(lambda: driver.unwrap(wrapped, context, timeout=10))


@pytest.mark.parametrize("field", TO_UNWRAP_ASYMMETRIC)
def test_damaged_answer_to_an_asymmetric_unwrap_is_noticed(emulator, opened, decrypting, context, field):
    """As for symmetric keys, and the ciphertext's checksum is confirmed."""
    driver = opened(decrypting, **RSA)
    wrapped = driver.wrap(b"payload", context, timeout=10)
    emulator.corrupt(field, decrypting)
    refused(lambda: driver.unwrap(wrapped, context, timeout=10))


@pytest.mark.parametrize("field", TO_FETCH)
def test_damaged_public_key_is_noticed(emulator, opened, decrypting, context, field):
    """Before anything is wrapped with it; the next answer is taken."""
    driver = opened(decrypting, **RSA)
    emulator.corrupt(field, decrypting, times=1)
    refused(lambda: driver.wrap(b"payload", context, timeout=10))
    wrapped = driver.wrap(b"payload", context, timeout=10)
    assert driver.unwrap(wrapped, context, timeout=10) == b"payload"


def test_damage_that_passes_is_overcome(emulator, opened, key, context):
    """The library tries again."""
    log = CallLog()
    behind = ManagedKey("app", lambda: opened(key), observer=log, sleep=lambda _: None)
    emulator.corrupt("ciphertext", key, method="Encrypt", times=1)
    wrapped = behind.wrap(b"payload", context)
    assert log.last.attempts == 2
    emulator.corrupt("plaintext", key, method="Decrypt", times=2)
    assert behind.unwrap(wrapped, context) == b"payload"
    assert log.last.attempts == 3


def test_damage_that_stays_is_told(emulator, opened, key, context):
    """`KmsUnavailable` with the field."""
    behind = ManagedKey("app", lambda: opened(key), sleep=lambda _: None)
    emulator.corrupt("ciphertext", key)
    with pytest.raises(KmsUnavailable) as caught:
        behind.wrap(b"payload", context)
    assert caught.value.provider_code == "CORRUPTED_CIPHERTEXT"


@pytest.mark.parametrize("field", ["ciphertext", "additional_authenticated_data"])
def test_damage_on_the_way_to_the_service_is_no_forgery(opened, key, context, monkeypatch, field):
    """What Cloud KMS finds damaged is not taken for a changed message, but tried again."""
    driver = opened(key)
    wrapped = driver.wrap(b"payload", context, timeout=10)
    call = driver._key._call

    def damaging(method, request, timeout):
        return call(method, {**request, f"{field}_crc32c": 1}, timeout)

    monkeypatch.setattr(driver._key, "_call", damaging)
    with pytest.raises(InvalidArgument) as caught:
        driver.unwrap(wrapped, context, timeout=10)
    assert driver.classify(caught.value, "unwrap") is ErrorKind.UNAVAILABLE


def test_every_checksum_is_sent(opened, key, decrypting, context, monkeypatch):
    """Of plaintext, ciphertext and context."""
    sent = []
    for name, options in ((key, {}), (decrypting, RSA)):
        driver = opened(name, **options)
        call = driver._key._call

        def noting(method, request, timeout, call=call):
            sent.append((method, set(request)))
            return call(method, request, timeout)

        monkeypatch.setattr(driver._key, "_call", noting)
        wrapped = driver.wrap(b"payload", context, timeout=10)
        assert isinstance(wrapped, WrappedKey)
        driver.unwrap(wrapped, context, timeout=10)
    aad = {"additional_authenticated_data", "additional_authenticated_data_crc32c"}
    assert sent == [
        ("encrypt", {"name", "plaintext", "plaintext_crc32c", *aad}),
        ("decrypt", {"name", "ciphertext", "ciphertext_crc32c", *aad}),
        ("get_public_key", {"name"}),
        ("asymmetric_decrypt", {"name", "ciphertext", "ciphertext_crc32c"}),
    ]
