"""Which key material wrapped a data key is what AWS says, not what a message says."""

import asyncio
import contextlib

import pytest
from kmsbridge_testing.contract.base import profile_of

from kmsbridge import AuthenticationError, EnvelopeCipher, KmsAccessDenied, inspect
from kmsbridge.aio import EnvelopeCipher as AsyncCipher
from kmsbridge.cipher.base import from_profile
from kmsbridge.message import inline, parse_header
from kmsbridge.observer import Observer

CONTEXT = {"tenant": "acme"}


@pytest.fixture
def cipher(harness, end):
    return end.enter_context(from_profile(EnvelopeCipher, profile_of([harness.address("first")])))


def relabelled(message, version):
    """The message with another version beside its wrapped key."""
    header = parse_header(message)
    recipients = tuple(each._replace(key_version=version) for each in header.recipients)
    new = inline(recipients, kind=header.kind, commitment=header.commitment)
    return new.encode() + message[header.length :]


def current(harness):
    return harness.kms.describe_key(KeyId=harness.arn("first"))["KeyMetadata"]["CurrentKeyMaterialId"]


def test_message_of_an_old_material_is_found(harness, cipher):
    """By `verify` alone, until it is rewrapped; whatever the message calls its version."""
    old = cipher.encrypt(b"payload", context=CONTEXT)
    assert not cipher.needs_rewrap(old, verify=True, context=CONTEXT)
    harness.rotate("first")
    for message in (old, relabelled(old, current(harness))):
        assert not cipher.needs_rewrap(message)
        assert cipher.needs_rewrap(message, verify=True, context=CONTEXT)
        again = cipher.rewrap(message, context=CONTEXT)
        assert not cipher.needs_rewrap(again, verify=True, context=CONTEXT)
        assert inspect(again).recipients[0].key_version == ""
        assert cipher.decrypt(again, context=CONTEXT) == b"payload"


async def _async(address, message, **how):
    async with from_profile(AsyncCipher, profile_of([address])) as cipher:
        return await cipher.needs_rewrap(message, **how)


def test_asyncio_asks_too(harness, cipher):
    """By the same method."""
    message = cipher.encrypt(b"payload", context=CONTEXT)
    harness.rotate("first")
    address = harness.address("first")
    assert asyncio.run(_async(address, message, verify=True, context=CONTEXT))
    assert not asyncio.run(_async(address, message))


def test_direct_message_is_verified_with_its_aad(harness, end):
    """Which AWS authenticates with the context."""
    profile = profile_of([harness.address("first")])._replace(direct=True)
    cipher = end.enter_context(from_profile(EnvelopeCipher, profile))
    message = cipher.encrypt(b"payload", context=CONTEXT, aad=b"row")
    harness.rotate("first")
    assert cipher.needs_rewrap(message, verify=True, context=CONTEXT, aad=b"row")
    with pytest.raises(AuthenticationError):
        cipher.needs_rewrap(message, verify=True, context=CONTEXT)


def test_wrong_context_is_refused(cipher):
    """AWS checks it, as for a rewrap."""
    message = cipher.encrypt(b"payload", context=CONTEXT)
    with pytest.raises(AuthenticationError):
        cipher.needs_rewrap(message, verify=True)


def test_key_without_materials_is_not_outdated(harness, cipher):
    """As in a custom key store, of which AWS names none."""
    message = cipher.encrypt(b"payload", context=CONTEXT)
    harness.front.hide_materials()
    assert not cipher.needs_rewrap(message, verify=True, context=CONTEXT)


def test_verification_needs_the_right_to_rewrap_alone(harness, cipher, end):
    """It is one ReEncrypt, and observers are told what it is for."""
    message = cipher.encrypt(b"payload", context=CONTEXT)
    harness.front.allow("AKIAREWRAPPER", ("ReEncrypt",))
    harness.front.allow("AKIAENCRYPTOR", ("Encrypt", "DescribeKey"))
    told = []

    class Told(Observer):
        def call_finished(self, call, result):
            told.append((call.operation, call.purpose, result.outcome))

    def opened(access_key_id):
        address = harness.at(harness.arn("first"), access_key_id=access_key_id)
        return contextlib.closing(from_profile(EnvelopeCipher, profile_of([address]), [Told()]))

    harness.front.counts.clear()
    with opened("AKIAREWRAPPER") as rewrapper:
        assert not rewrapper.needs_rewrap(message, verify=True, context=CONTEXT)
    assert harness.front.counts == {("ReEncrypt", harness.arn("first")): 1}
    assert ("rewrap", "verify", "ok") in told
    with opened("AKIAENCRYPTOR") as encryptor, pytest.raises(KmsAccessDenied):
        encryptor.needs_rewrap(message, verify=True, context=CONTEXT)
