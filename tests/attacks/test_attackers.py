"""Each of an attacker's tools finds what there is to find, so that a score of nothing says something."""

import base64
import os
import secrets
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from examples.roles import customers
from examples.roles.attacker import inside, library, memory, openbao, search, storage
from examples.roles.attacker.opener import Opener
from examples.roles.customers import places, plaintext
from kmsbridge import Encryptor, EnvelopeCipher, KmsBridgeError
from kmsbridge.context import EncryptionContext
from kmsbridge.driver import WrappedKey
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.message import parse_header
from tests.backends.vault import Vault

PLACES = places([1, 2])
KEY = bytes.fromhex("8f0c53d16ab2e7943d58fe01772ac6b99b4de0150386f1ca6d2e97b4480a7c5d")


@pytest.fixture
def uri(tmp_path):
    tmp_path.chmod(0o700)
    KeyFile.create(tmp_path / "keys.json", "app").close()
    return f"local:{tmp_path}/keys.json#app"


@pytest.fixture
def messages(uri):
    """A message for each place, encrypted as the web server does."""
    with Encryptor.from_uri(uri) as encryptor:
        return {
            place: encryptor.encrypt(plaintext(place), context=place.context, aad=place.aad)
            for place in PLACES
        }


def data_keys(uri, messages):
    """The data key of each message."""
    with EnvelopeCipher.from_uri(uri) as cipher:
        driver = cipher._session.decrypt_with[0].driver
        for place, message in messages.items():
            (recipient,) = parse_header(message).recipients
            context = EncryptionContext.of(place.context).with_reserved(kmsbridge="dek")
            wrapped = WrappedKey(recipient.key_id, recipient.key_version, recipient.wrapped)
            yield place, message, driver.unwrap(wrapped, context, timeout=5)


def xaes_key(data_key, place):
    """The first half of HKDF-Expand, as the format has it."""
    canonical = EncryptionContext.of(place.context).canonical()
    info = b"kmsbridge/v1/compact\0" + len(canonical).to_bytes(4) + canonical
    return HKDFExpand(SHA512(), 64, info).derive(data_key)[:32]


def aes_key(key, prefix):
    """The AES key of C2SP's XAES-256-GCM: CMAC of two blocks that hold a counter and the prefix."""
    halves = []
    for number in (1, 2):
        mac = CMAC(algorithms.AES256(key))
        mac.update(bytes((0, number, ord("X"), 0)) + prefix)
        halves.append(mac.finalize())
    return b"".join(halves)


@pytest.mark.parametrize(
    "form",
    (
        pytest.param(lambda key: key, id="raw"),
        pytest.param(lambda key: key.hex().encode(), id="hex"),
        pytest.param(lambda key: b"f" + key.hex().upper().encode(), id="upper hex, after another digit"),
        pytest.param(base64.b64encode, id="base64"),
        pytest.param(lambda key: base64.urlsafe_b64encode(key).rstrip(b"="), id="base64 for URLs"),
        pytest.param(lambda key: base64.b64encode(b"1" + key), id="base64, a byte later"),
        pytest.param(lambda key: base64.b64encode(b"12" + key), id="base64, two bytes later"),
        pytest.param(lambda key: b"x-" + base64.urlsafe_b64encode(key), id="base64 behind a prefix"),
        pytest.param(lambda key: base64.b64encode(key + os.urandom(32)), id="base64 of a key and a hash"),
    ),
)
@pytest.mark.parametrize("find", (search.candidates, search.candidates_in_memory))
@pytest.mark.parametrize("start", (64, search.PAGE - search.WORD))
def test_a_key_is_found_in_every_form_and_place(form, find, start):
    data = b"\0" * start + form(KEY) + b"\0" * 64
    assert KEY in set(find(data))


def test_of_random_keys_nearly_all_are_taken_for_keys():
    keys = [os.urandom(32) for _ in range(2000)]
    missed = [
        key for key in keys if key not in set(search.candidates_in_memory(b"\0" * 32 + key + b"\0" * 32))
    ]
    assert len(missed) <= 20


def test_little_else_is_taken_for_a_key():
    """Text, pointers, numbers."""
    text = b"It was the best of times, it was the worst of times, it was the age of wisdom. " * 100
    pointers = b"".join((0x7F0000000000 + 64 * number).to_bytes(8, "little") for number in range(4000))
    assert list(search.candidates_in_memory(text + pointers + bytes(4096))) == []


def test_a_data_key_and_what_is_derived_from_it_open_their_message(uri, messages):
    for place, message, data_key in data_keys(uri, messages):
        derived, start = xaes_key(data_key, place), parse_header(message).length
        for key in (data_key, derived, aes_key(derived, message[start : start + 12])):
            # A data key is shared by the messages of a context.
            assert f"{place.id}/{place.column}" in Opener(messages).open([os.urandom(32), key])
    assert Opener(messages).open([os.urandom(32) for _ in range(100)]) == set()


def test_a_stolen_configuration_is_used(messages, uri, tmp_path):
    folder = tmp_path / "stolen"
    folder.mkdir()
    files = {"kmsbridge.toml": f'[keys.a]\nuri = "{uri}"\n[profiles.web]\nencrypt_to = ["a"]\n'.encode()}
    assert library.open_with(folder, files, messages) == {f"{place.id}/{place.column}" for place in PLACES}


def test_code_inside_a_decrypting_process_opens_all(uri, messages):
    with EnvelopeCipher.from_uri(uri) as cipher:
        found = inside.attack(messages)
        assert cipher is not None
    assert set(found["opened"]) == {f"{place.id}/{place.column}" for place in PLACES}


@pytest.mark.parametrize("role, opens", (("decryptor", True), ("encryptor", False)))
def test_a_token_is_used_without_the_library(role, opens):
    server = Vault()
    key = server.key()
    driver_uri = f"vault-transit://transit/{key}"
    auth = {"method": "token", "token": server.token}
    with Encryptor.from_uri(driver_uri, address=server.address, auth=auth) as encryptor:
        values = {
            place: encryptor.encrypt(plaintext(place), context=place.context, aad=place.aad)
            for place in PLACES
        }
        text = encryptor._session.encrypt_to[0].driver.policy(role)
    token = server.new_token(server.policy(text), ttl="1h")
    found = Opener(values).open(openbao.secrets(server.address, token, {}, values))
    assert found == ({f"{place.id}/{place.column}" for place in PLACES} if opens else set())


def careless(uri, path, **bound):
    """A reader of the database that leaves out the context or the aad."""
    cipher = EnvelopeCipher.from_uri(uri)

    def encrypted(place):
        return cipher.encrypt(plaintext(place), **{name: use(place) for name, use in bound.items()})

    def read(ids):
        found = {}
        for place, message in customers.load(path).items():
            if place.id in ids:
                try:
                    value = cipher.decrypt(
                        message, **{name: use(place) for name, use in bound.items()}
                    ).decode()
                except KmsBridgeError as error:
                    value = type(error).__name__
                found[f"{place.id}/{place.column}"] = value
        return found

    return cipher, encrypted, read


CONTEXT = {"context": lambda place: place.context}
AAD = {"aad": lambda place: place.aad}


@pytest.mark.parametrize(
    "bound, is_fooled",
    (
        pytest.param(CONTEXT | AAD, False, id="careful"),
        pytest.param(CONTEXT, True, id="no aad"),
        pytest.param(AAD, True, id="no context"),
        pytest.param({}, True, id="neither"),
    ),
)
def test_who_rewrites_the_storage_fools_a_careless_reader(uri, tmp_path, bound, is_fooled):
    path = tmp_path / "customers.db"
    cipher, encrypted, read = careless(uri, path, **bound)
    customers.create(path)
    customers.store(path, {place: encrypted(place) for place in places([1, 2, 3])})
    with cipher:
        assert bool(storage.attack(path, read)) is is_fooled


def test_the_memory_of_another_process_is_read():
    canary = secrets.token_bytes(32)
    code = f"key = bytes.fromhex('{canary.hex()}'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        try:
            assert canary in memory.dump(process.pid)
        except PermissionError:
            pytest.skip("this kernel lets no process read another's memory (kernel.yama.ptrace_scope)")
        finally:
            process.communicate(b"\n")
