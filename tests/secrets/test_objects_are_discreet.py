"""No object of the library shows a secret in its repr, nor lets one into a pickle or a copy."""

import asyncio
import copy
import gc
import io
import json
import pickle

import pytest

from kmsbridge import EnvelopeCipher, SecretValue, aio
from kmsbridge.cipher.files import read_start
from kmsbridge.driver import Options
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.message import chunked, cobblestone
from kmsbridge.secret import Secret
from tests.secrets.canaries import DATA_KEY, PASSPHRASE, PLAINTEXT, assert_clean
from tests.support import encrypt_chunked


@pytest.fixture(autouse=True)
def data_keys_are_canaries(monkeypatch):
    monkeypatch.setattr(cobblestone, "new_key", DATA_KEY.reveal)


@pytest.fixture
def objects(service, tmp_path):
    """Everything of the library that lives while ciphers are in use."""
    path = tmp_path / "keys.json"
    KeyFile.create(path, "app")
    options = {"audit": {"file": str(tmp_path / "audit.jsonl")}}
    fake = EnvelopeCipher.from_uri("fake:app", token=PASSPHRASE.text(), **options)
    local = EnvelopeCipher.from_uri(f"local:{path}", decrypt_uris=["fake:app"])
    direct = EnvelopeCipher.from_uri("fake:app", direct=True)
    asynchronous = aio.EnvelopeCipher.from_uri("fake:app", token=PASSPHRASE.text())
    message = fake.encrypt(PLAINTEXT.reveal())
    chunks = encrypt_chunked(fake, PLAINTEXT.reveal())
    files = [io.BytesIO(each) for each in (message, chunks, direct.encrypt(PLAINTEXT.reveal()))]
    readers = [fake.open(file) for file in files]
    for reader in readers:
        reader.read(1)
    writer, pulled = fake.create(io.BytesIO()), fake.encrypting(io.BytesIO(PLAINTEXT.reveal()))
    writer.write(PLAINTEXT.reveal())
    pulled.read(1)
    fake.rewrap(message)
    secret = fake.decrypt_secret(message)
    local.encrypt(PLAINTEXT.reveal())
    decryptor, sealer, opener = (
        fake._decryption.body_decryptor(*read_start(io.BytesIO(message)), None, b""),
        chunked.BodyEncryptor(DATA_KEY.reveal(), b""),
        chunked.BodyDecryptor(DATA_KEY.reveal(), b""),
    )
    yield [*ours(), secret, decryptor, sealer, opener, asynchronous]
    writer.abandon()
    asyncio.run(asynchronous.close())
    for cipher in (fake, local, direct):
        cipher.close()


def ours():
    """Every object of a class of the library's that the collector knows."""
    gc.collect()
    # Of some classes written in C the module is no text.
    return [each for each in gc.get_objects() if str(type(each).__module__).partition(".")[0] == "kmsbridge"]


def test_no_repr_shows_a_secret(objects):
    """Public and internal objects, in use."""
    kinds = {type(each).__name__ for each in objects}
    assert {
        "EnvelopeCipher",
        "ManagedKey",
        "DataKey",
        "EncryptionKeys",
        "MessageReader",
        "MessageWriter",
        "EncryptingReader",
        "PayloadReader",
        "BodyDecryptor",
        "Options",
        "KeyFile",
    } <= kinds
    for each in objects:
        for text in (repr(each), str(each), f"{each}"):
            assert_clean(text, f"the repr of {type(each).__name__}")


def test_no_pickle_or_copy_holds_a_secret(objects):
    """It is refused, or holds none."""
    for each in objects:
        for dump in (pickle.dumps, copy.deepcopy):
            try:
                made = dump(each)
            except Exception as refusal:  # noqa: BLE001 - whatever refuses
                assert_clean(str(refusal), f"the refusal to pickle {type(each).__name__}")
            else:
                assert_clean(
                    made if isinstance(made, bytes) else repr(made), f"a pickle of {type(each).__name__}"
                )


@pytest.mark.parametrize(
    "make",
    (
        lambda: Secret(DATA_KEY.reveal()),
        lambda: SecretValue(PLAINTEXT.reveal()),
        lambda: Options({"passphrase": PASSPHRASE.text()}),
    ),
    ids=("a secret", "a secret value", "options"),
)
@pytest.mark.parametrize(
    "leave", (pickle.dumps, copy.copy, copy.deepcopy, json.dumps), ids=lambda each: each.__name__
)
def test_what_holds_secrets_does_not_leave(make, leave):
    """No pickle, no copy, no JSON."""
    with pytest.raises(TypeError):
        leave(make())


@pytest.mark.parametrize("kind", ("cipher", "async cipher", "reader"))
def test_ciphers_and_readers_cannot_be_pickled(cipher, kind):
    """A process gets its own from the configuration."""
    thing = {
        "cipher": cipher,
        "async cipher": aio.EnvelopeCipher.from_uri("fake:app"),
        "reader": cipher.open(io.BytesIO(cipher.encrypt(b"x"))),
    }[kind]
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(thing)


def test_audit_lines_hold_names_and_numbers_only(cipher, service, tmp_path):
    """Of payloads and keys there is nothing in the file."""
    path = tmp_path / "audit.jsonl"
    with EnvelopeCipher.from_uri("fake:app", audit={"file": str(path)}) as audited:
        message = audited.encrypt(PLAINTEXT.reveal(), context={"tenant": "acme"}, aad=PASSPHRASE.reveal())
        audited.decrypt(message, context={"tenant": "acme"}, aad=PASSPHRASE.reveal())
        audited.rewrap(message, context={"tenant": "acme"})
    assert_clean(path.read_bytes(), "the audit file")
    assert b"acme" in path.read_bytes()
