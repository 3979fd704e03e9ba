"""A stock client and this driver open each other's wrapped keys, given only what the documents say."""

import os
import struct

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from kmsbridge import EnvelopeCipher
from kmsbridge.driver import WrappedKey
from kmsbridge.message import parse_header

PAIRS = {"tenant": "acme", "größe": "très grande"}


def canonical(pairs):
    """The canonical form of a context, written anew from docs/reference/format.md."""
    encoded = sorted((key.encode(), value.encode()) for key, value in pairs.items())
    parts = [struct.pack(">H", len(encoded))]
    for key, value in encoded:
        parts += [struct.pack(">H", len(key)), key, struct.pack(">H", len(value)), value]
    return b"".join(parts)


@pytest.fixture
def cipher(emulator, key):
    """An application's."""
    with EnvelopeCipher.from_uri(f"gcp-kms://{key}", endpoint=emulator.endpoint, insecure=True) as cipher:
        yield cipher


def test_stock_client_unwraps_the_data_key_of_a_message(client, cipher, key):
    """The wrapped key is the ciphertext as Cloud KMS gave it; the context with the reserved pair is its AAD."""
    (recipient,) = parse_header(cipher.encrypt(b"payload", context=PAIRS)).recipients
    assert recipient.key_id == f"gcp-kms:{key}"
    opened = client.decrypt(
        request={
            "name": recipient.key_id.removeprefix("gcp-kms:"),
            "ciphertext": recipient.wrapped,
            "additional_authenticated_data": canonical({**PAIRS, "kmsbridge": "dek"}),
        }
    )
    assert len(opened.plaintext) == 32
    assert opened.used_primary


def test_driver_unwraps_what_a_stock_client_wrapped(client, opened, key, context):
    """The other way round."""
    data_key = os.urandom(32)
    sealed = client.encrypt(
        request={
            "name": key,
            "plaintext": data_key,
            "additional_authenticated_data": canonical({"tenant": "acme", "kmsbridge": "dek"}),
        }
    )
    driver = opened(key)
    wrapped = WrappedKey(driver.resolve(timeout=10), sealed.name.rpartition("/")[2], sealed.ciphertext)
    assert driver.unwrap(wrapped, context, timeout=10) == data_key


def test_stock_client_and_driver_agree_on_rsa(client, opened, decrypting, context):
    """RSA-OAEP with SHA-256 throughout and no label, by the version that the wrapped key names."""
    driver = opened(decrypting, algorithm="RSA-OAEP-SHA-256", version="1")
    wrapped = driver.wrap(b"payload", context, timeout=10)
    version = f"{driver.resolve(timeout=10).removeprefix('gcp-kms:')}/cryptoKeyVersions/{wrapped.version}"
    assert client.asymmetric_decrypt(name=version, ciphertext=wrapped.ciphertext).plaintext == b"payload"
    public_key = serialization.load_pem_public_key(client.get_public_key(name=version).pem.encode())
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    theirs = WrappedKey(driver.resolve(timeout=10), "1", public_key.encrypt(b"payload", oaep))
    assert driver.unwrap(theirs, context, timeout=10) == b"payload"
