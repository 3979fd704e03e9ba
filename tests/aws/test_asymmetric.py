"""RSA keys: wrapped with the public key here, unwrapped by AWS KMS."""

import contextlib

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from kmsbridge_testing.contract.watch import network_events_of

from kmsbridge import EnvelopeCipher
from kmsbridge.cipher.base import from_profile
from kmsbridge.driver import Capability, EncryptionContext, WrappedKey
from kmsbridge.errors import LimitExceeded
from kmsbridge.keys import ManagedKey
from tests.backends.aws import REGION, AsymmetricAwsHarness, pem, plain_client

ACCESS = {"access_key_id": "test", "secret_access_key": "test"}
BOUND = EncryptionContext.of({}).with_reserved(kmsbridge="dek")
OAEP = {"algorithm": "RSA-OAEP-SHA-256"}
ARN = f"arn:aws:kms:{REGION}:000000000000:key/12345678-1234-1234-1234-123456789012"


@pytest.fixture
def kms(end):
    return end.enter_context(contextlib.closing(plain_client()))


@pytest.fixture
def key(kms):
    """The ARN of a key of 3072 bits."""
    return kms.create_key(KeySpec="RSA_3072", KeyUsage="ENCRYPT_DECRYPT")["KeyMetadata"]["Arn"]


def local_pem(bits=2048):
    """A public key that no service has."""
    public = rsa.generate_private_key(65537, bits).public_key()
    return public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def test_pinned_public_key_needs_no_network_and_no_credentials(monkeypatch):
    """A host without either encrypts: there is nothing to ask and nobody to be."""
    uri = f"aws-kms://{ARN}?endpoint_url=https://no-such-host.invalid"

    def encrypt():
        with EnvelopeCipher.from_uri(uri, **OAEP, public_key=local_pem()) as cipher:
            cipher.encrypt(b"payload", context={"tenant": "acme"})

    assert network_events_of(encrypt) == []


def test_pinned_public_key_imports_no_sdk():
    """The cold start of a host that only encrypts."""
    import json
    import subprocess
    import sys

    program = """
import json, sys
from kmsbridge import EnvelopeCipher
asked = json.load(sys.stdin)
with EnvelopeCipher.from_uri(asked["uri"], **asked["options"]) as cipher:
    cipher.encrypt(b"payload")
print([name for name in ("boto3", "botocore", "urllib3") if name in sys.modules])
"""
    asked = json.dumps({"uri": f"aws-kms://{ARN}", "options": {**OAEP, "public_key": local_pem()}})
    done = subprocess.run(
        [sys.executable, "-c", program], input=asked, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_what_a_pinned_host_wraps_opens_where_the_key_is(driver_of, endpoint, kms, key):
    """Through the library, by a host that may decrypt; the context is bound by the library."""
    public = pem(kms.get_public_key(KeyId=key)["PublicKey"])
    with EnvelopeCipher.from_uri(f"aws-kms://{key}", **OAEP, public_key=public) as writer:
        message = writer.encrypt(b"payload", context={"tenant": "acme"})
    with EnvelopeCipher.from_uri(f"aws-kms://{key}?endpoint_url={endpoint}", **OAEP, **ACCESS) as reader:
        assert reader.decrypt(message, context={"tenant": "acme"}) == b"payload"


def test_public_key_is_fetched_once(driver_of, front, key):
    """Where it is not pinned; then wraps are local."""
    front.allow("test")
    driver = driver_of(
        f"aws-kms://{key}?endpoint_url=http://{front.address[0]}:{front.address[1]}", **OAEP, **ACCESS
    )
    for _ in range(3):
        driver.wrap(bytes(32), BOUND, timeout=10)
    assert {action: count for (action, _), count in front.counts.items()} == {"GetPublicKey": 1}


@pytest.mark.parametrize(("bits", "most"), [(2048, 190), (3072, 318), (4096, 446)])
def test_pinned_public_key_tells_the_limit(driver_of, bits, most):
    """What RSA-OAEP leaves room for; without a pinned key the smallest."""
    driver = driver_of(f"aws-kms://{ARN}", **OAEP, public_key=local_pem(bits))
    assert driver.max_plaintext == most
    assert len(driver.wrap(bytes(most), BOUND, timeout=1).ciphertext) == bits // 8
    with pytest.raises(LimitExceeded):
        ManagedKey("app", lambda: driver).wrap(
            bytes(most - 32 + 1), BOUND
        )  # it binds the context with 32 bytes
    assert driver_of(f"aws-kms://{ARN}", **OAEP).max_plaintext == 190


def test_capabilities_are_the_keys_own(driver_of):
    """An asymmetric key binds no context, and is neither rewrapped nor rotated by the service."""
    symmetric, fetched, pinned = (
        driver_of(f"aws-kms://{ARN}"),
        driver_of(f"aws-kms://{ARN}", **OAEP),
        driver_of(f"aws-kms://{ARN}", **OAEP, public_key=local_pem()),
    )
    assert symmetric.capabilities == {
        Capability.BINDS_CONTEXT,
        Capability.SERVER_REWRAP,
        Capability.ROTATE,
        Capability.CHECKS_VERSION,
    }
    assert fetched.capabilities == frozenset()
    assert pinned.capabilities == {Capability.LOCAL_WRAP}
    for driver in (fetched, pinned):
        for refuse in (
            driver.rotate,
            lambda timeout, driver=driver: driver.rewrap(None, BOUND, timeout=timeout),
            lambda timeout, driver=driver: driver.is_current(None, BOUND, timeout=timeout),
        ):
            with pytest.raises(NotImplementedError):
                refuse(timeout=1)


def test_stock_tools_agree(driver_of, endpoint, kms, key):
    """RSAES-OAEP with SHA-256 twice and no label: `cryptography` wraps for us, the SDK unwraps from us."""
    driver = driver_of(f"aws-kms://{key}?endpoint_url={endpoint}", **OAEP, **ACCESS)
    ours = driver.wrap(b"x" * 32, BOUND, timeout=10)
    opened = kms.decrypt(KeyId=key, CiphertextBlob=ours.ciphertext, EncryptionAlgorithm="RSAES_OAEP_SHA_256")
    assert opened["Plaintext"] == b"x" * 32
    public = serialization.load_der_public_key(kms.get_public_key(KeyId=key)["PublicKey"])
    sha256 = hashes.SHA256()
    theirs = public.encrypt(b"y" * 32, padding.OAEP(padding.MGF1(sha256), sha256, None))
    assert driver.unwrap(WrappedKey(driver.resolve(timeout=10), "", theirs), BOUND, timeout=10) == b"y" * 32


def test_message_moves_from_an_asymmetric_key_to_a_symmetric_one(end):
    """By unwrapping and wrapping: ReEncrypt would not know what the library bound."""
    from kmsbridge_testing.contract.base import profile_of

    from tests.backends.aws import AwsHarness

    source, target = (
        end.enter_context(contextlib.closing(kind())) for kind in (AsymmetricAwsHarness, AwsHarness)
    )
    here, there = source.address("first"), target.address("first")
    with from_profile(EnvelopeCipher, profile_of([here])) as cipher:
        message = cipher.encrypt(b"payload", context={"tenant": "acme"})
    with from_profile(EnvelopeCipher, profile_of([there], [here])) as moving:
        moved = moving.rewrap(message, context={"tenant": "acme"})
    with from_profile(EnvelopeCipher, profile_of([there])) as cipher:
        assert cipher.decrypt(moved, context={"tenant": "acme"}) == b"payload"
