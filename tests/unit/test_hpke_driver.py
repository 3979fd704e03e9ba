"""The `hpke` driver: what it wraps opens under the same pair and context; what it refuses; what it leaves on disk."""

import base64
import contextlib
import copy
import os
import pickle
import socket
import struct
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from kmsbridge import Decryptor, Encryptor, EnvelopeCipher
from kmsbridge.context import EncryptionContext
from kmsbridge.driver import Capability, DriverError, ErrorKind, KeyURI, Options, Secret
from kmsbridge.drivers.hpke import HpkeDriver, privatefile
from kmsbridge.drivers.hpke.document import Document, parse
from kmsbridge.drivers.hpke.publickey import PublicKey
from kmsbridge.drivers.hpke.suites import HYBRID, SUITES, X25519
from kmsbridge.drivers.local import LocalDriver
from kmsbridge.errors import AuthenticationError, ConfigError, KmsAccessDenied, KmsKeyNotFound
from kmsbridge.message import parse as parse_message
from kmsbridge.policy import DataKeyPolicy
from kmsbridge.registry import driver_class
from tests.backends.hpke import HpkeHarness

CONTEXT = EncryptionContext.of({"tenant": "acme"}).with_reserved(kmsbridge="dek")
DATA_KEY = bytes(range(32))
NAME = "customer@0123456789abcdef"
PRIME = 2**255 - 19
LOW_ORDER = (
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    PRIME - 1,
)

both_suites = pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)


@pytest.fixture(params=SUITES.values(), ids=SUITES)
def harness(request):
    """Two keys of each suite."""
    harness = HpkeHarness(request.param)
    yield harness
    harness.close()


def open_driver(address):
    return HpkeDriver.open(KeyURI.parse(address.uri), Options(dict(address.options)))


def some_key(suite, name=NAME):
    _, data = suite.load_private(Secret(bytes(range(32))))
    return PublicKey.of(name, suite, data)


def private_path(harness):
    return Path(harness.address("first").options["private_file"])


# --- the format, which never changes --------------------------------------------------------------------


@pytest.mark.parametrize("suite, enc", ((X25519, 32), (HYBRID, 1120)), ids=SUITES)
def test_a_wrapped_key_is_hpkes_enc_and_ciphertext_and_nothing_else(suite, enc):
    """Opened here with the library alone: the seed, the info and the lengths are those of the format."""
    seed = bytes(range(32))
    public_key = some_key(suite)
    ciphertext = public_key.wrap(DATA_KEY, CONTEXT)
    assert len(ciphertext) == enc + 32 + 16
    if suite is X25519:
        kem, private = hpke.KEM.X25519, X25519PrivateKey.from_private_bytes(seed)
        public = private.public_key().public_bytes_raw()
    else:
        import hashlib

        expanded = hashlib.shake_256(seed).digest(96)
        lattice = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        curve = X25519PrivateKey.from_private_bytes(expanded[64:])
        kem, private = hpke.KEM.MLKEM768_X25519, hpke.MLKEM768X25519PrivateKey(lattice, curve)
        public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
    ids = struct.pack(">HHH", suite.kem, 1, 2)
    key_id = b"hpke:" + NAME.encode()
    info = b"kmsbridge-hpke/v1\0\0\x06" + ids + struct.pack(">H", len(key_id)) + key_id + CONTEXT.canonical()
    bare = hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    assert bare.decrypt(ciphertext, private, info) == DATA_KEY
    with pytest.raises(InvalidTag):
        bare.decrypt(ciphertext, private, info + b"\0")
    assert public_key.data == public


def test_the_public_key_line_and_the_version_are_fixed():
    """Frozen: both are in messages and in configurations."""
    key = some_key(X25519)
    name = NAME.encode()
    content = bytes([len(name)]) + name + bytes.fromhex("002000010002") + key.data
    assert key.line() == "kmsbpk1_" + base64.urlsafe_b64encode(content).rstrip(b"=").decode()
    assert key.line() == (
        "kmsbpk1_GWN1c3RvbWVyQDAxMjM0NTY3ODlhYmNkZWYAIAABAAKPQMWtto8lYkrlshTqdnpuyU2CnT17XhrRum8-ITgoXw"
    )
    assert key.version == "48438d6766ae16e26ef61b6f58b3efd8"
    assert key.key_id == "hpke:customer@0123456789abcdef"


@both_suites
def test_a_public_key_line_is_read_again(suite):
    key = some_key(suite)
    again = PublicKey.parse(f"\n {key.line()}\r\n")
    assert (again.name, again.suite, again.data, again.hash) == (key.name, key.suite, key.data, key.hash)


@both_suites
def test_every_changed_line_is_refused_or_is_another_key(suite):
    """Cut anywhere, spelled otherwise, or with another sign in it."""
    line = some_key(suite).line()
    for length in range(0, len(line), 1 + len(line) // 200):
        with pytest.raises(ConfigError):
            PublicKey.parse(line[:length])
    for changed in (
        line + "A",
        line + "=",
        line + "==",
        line.replace("_", "-", 1),
        line[:20] + " " + line[20:],
    ):
        with pytest.raises(ConfigError):
            PublicKey.parse(changed)
    with pytest.raises(ConfigError):
        PublicKey.parse(line.replace("kmsbpk1_", "kmsbpk1_ä"))
    last = line[-1]
    for sign in "ABCDEFGH-_":
        if sign != last:
            with contextlib.suppress(ConfigError):
                assert PublicKey.parse(line[:-1] + sign).data != some_key(suite).data


@both_suites
@pytest.mark.parametrize("number", (*LOW_ORDER, PRIME, PRIME + 1, PRIME + 9, 2**255, 2**255 + 9, 2**256 - 1))
def test_a_public_key_that_is_not_canonical_or_of_low_order_is_refused(suite, number):
    data = some_key(suite).data[:-32] + number.to_bytes(32, "little")
    with pytest.raises(ConfigError, match="public key"):
        PublicKey.of(NAME, suite, data)


def test_a_lattice_public_key_that_is_not_canonical_is_refused():
    """A number of 12 bits that is 3329 or more, at the start, in the middle or at the end."""
    good = some_key(HYBRID).data
    for place in (0, 600, 1149):
        with pytest.raises(ConfigError, match="public key"):
            PublicKey.of(NAME, HYBRID, good[:place] + b"\xff\xff\xff" + good[place + 3 :])


@both_suites
@pytest.mark.parametrize("change", (lambda data: data[:-1], lambda data: data + b"\0", lambda _: b""))
def test_a_public_key_of_another_length_is_refused(suite, change):
    with pytest.raises(ConfigError, match="public key"):
        PublicKey.of(NAME, suite, change(some_key(suite).data))


def test_the_id_of_the_key_and_the_context_are_bound():
    """The same pair under another name opens nothing."""
    one, other = some_key(X25519), some_key(X25519, "customer@0123456789abcdee")
    private, _ = X25519.load_private(Secret(bytes(range(32))))
    wrapped = one.wrap(DATA_KEY, CONTEXT)
    assert X25519.decrypt(wrapped, private, one.info(CONTEXT)) == DATA_KEY
    for info in (other.info(CONTEXT), one.info(EncryptionContext.of({"tenant": "acme"}))):
        with pytest.raises(AuthenticationError):
            X25519.decrypt(wrapped, private, info)


def test_an_encapsulated_key_of_low_order_is_refused_like_any_other():
    private, _ = X25519.load_private(Secret(bytes(range(32))))
    for number in (*LOW_ORDER, PRIME, 2**256 - 1):
        with pytest.raises(AuthenticationError):
            X25519.decrypt(number.to_bytes(32, "little") + bytes(48), private, b"")


# --- hosts ----------------------------------------------------------------------------------------------


def test_the_driver_is_found():
    assert driver_class("hpke") is HpkeDriver


def test_a_host_with_the_public_key_alone_encrypts_and_opens_no_socket(harness):
    """Not one socket is made: neither by opening, encrypting, nor closing."""
    made = []
    watching = True

    def watch(event, arguments):
        if watching and event.startswith("socket."):
            made.append(event)

    sys.addaudithook(watch)
    address = harness.address("first", "encrypt-only")
    with Encryptor.from_uri(address.uri, **address.options) as encryptor:
        message = encryptor.encrypt(b"+1 555 0100", context={"tenant": "acme"})
        text = encryptor.encrypt_text("text")
    seen = list(made)
    socket.socket().close()
    watching = False
    assert seen == []
    assert made  # the watch does see sockets
    full = harness.address("first")
    with Decryptor.from_uri(full.uri, **full.options) as decryptor:
        assert decryptor.decrypt(message, context={"tenant": "acme"}) == b"+1 555 0100"
        assert decryptor.decrypt_text(text) == "text"


ENCRYPTING = """
import os, sys
events, files = [], []
sys.addaudithook(lambda event, arguments: events.append(event) if event.startswith("socket.") else None)
sys.addaudithook(lambda event, arguments: files.append(str(arguments[0])) if event == "open" else None)
import io
from kmsbridge import Encryptor
with Encryptor.from_config(sys.argv[1]) as encryptor:
    encryptor.encrypt(b"x")
    encryptor.encrypt_many([b"x", "y"], context={"tenant": "acme"})
    encryptor.encrypt_stream(io.BytesIO(bytes(100_000)), io.BytesIO())
    encryptor.encrypt_file(sys.argv[1], sys.argv[1] + ".kmsb")
    encryptor.check()
links = [os.readlink(f"/proc/self/fd/{each}") for each in os.listdir("/proc/self/fd") if each.isdigit()
         and os.path.exists(f"/proc/self/fd/{each}")]
assert events == [], events
assert not [link for link in links if link.startswith("socket:")], links
assert not [name for name in files if name.endswith(("resolv.conf", "nsswitch.conf", "first.toml"))], files
"""


def test_a_process_that_only_encrypts_opens_no_socket_from_start_to_end(harness, tmp_path):
    """Imports, configuration, every way to encrypt and `check` included; nor the private file."""
    address, path = harness.address("first", "encrypt-only"), tmp_path / "kmsbridge.toml"
    path.write_text(
        f'[keys.web]\nuri = "{address.uri}"\npublic_key = "{address.options["public_key"]}"\n'
        '[profiles.web]\nencrypt_to = ["web"]\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", ENCRYPTING, path],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_host_with_the_public_key_alone_decrypts_nothing(harness):
    address = harness.address("first", "encrypt-only")
    with EnvelopeCipher.from_uri(address.uri, **address.options) as cipher:
        message = cipher.encrypt(b"x")
    with (
        Decryptor.from_uri(address.uri, **address.options) as decryptor,
        pytest.raises(KmsAccessDenied) as caught,
    ):
        decryptor.decrypt(message)
    assert "private_file" in caught.value.remedy


def test_the_seed_is_unwrapped_once_and_only_when_it_is_needed(harness, monkeypatch):
    """Not at open, not to wrap, and not again for the next message."""
    driver = open_driver(harness.address("first"))
    inner, calls = driver._protection.driver, []
    unwrap = inner.unwrap

    def counted(*arguments, **more):
        calls.append(arguments)
        return unwrap(*arguments, **more)

    monkeypatch.setattr(inner, "unwrap", counted)
    wrapped = driver.wrap(DATA_KEY, CONTEXT, timeout=5)
    assert not calls
    for _ in range(3):
        assert driver.unwrap(wrapped, CONTEXT, timeout=5) == DATA_KEY
    assert len(calls) == 1
    assert dict(calls[0][1]) == {
        "kmsbridge": "hpke-private",
        "kmsbridge-public-key": harness.public_key("first").hash,
    }
    driver.close()


def test_the_private_file_names_no_seed_and_is_for_this_user_alone(harness):
    """Raw, hex, base64: nothing of any seed is in any file of the folder."""
    harness.rotate("first")
    folder = private_path(harness).parent
    assert len(harness.secrets) == 3
    for path in folder.iterdir():
        data = path.read_bytes()
        for seed in harness.secrets:
            for form in (seed, seed.hex().encode(), *(base64.b64encode(seed[n : n + 27]) for n in range(3))):
                assert form not in data
                assert form.translate(bytes.maketrans(b"+/", b"-_")) not in data
    assert private_path(harness).stat().st_mode & 0o777 == 0o600


def test_a_driver_and_its_parts_show_and_give_away_no_seed(harness):
    """In no repr, and no pickle or copy of a driver that has opened it."""
    driver = open_driver(harness.address("first"))
    assert driver.unwrap(driver.wrap(DATA_KEY, CONTEXT, timeout=5), CONTEXT, timeout=5) == DATA_KEY
    shown = (
        f"{driver!r} {driver._protection!r} {driver._file.document()!r} {vars(driver._protection)!r}".encode()
    )
    for seed in harness.secrets:
        assert seed not in shown
        assert seed.hex().encode() not in shown
        assert repr(seed)[2:-1].encode() not in shown
    for leak in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            leak(driver)
    driver.close()
    assert not driver._protection._opened


# --- private files --------------------------------------------------------------------------------------


def test_a_seed_of_another_pair_is_refused(harness):
    """The two seeds of a file exchanged; and that of another key in this one's place."""
    harness.rotate("first")
    path = private_path(harness)
    document = parse(path.read_bytes(), "")
    one, other = document.pairs.values()
    versions = list(document.pairs)
    exchanged = [one._replace(seed=other.seed), other._replace(seed=one.seed)]
    privatefile._write(
        str(path), document._replace(pairs=dict(zip(versions, exchanged, strict=True))), exclusive=False
    )
    driver = open_driver(harness.address("first"))
    wrapped = driver.wrap(DATA_KEY, CONTEXT, timeout=5)
    with pytest.raises(ConfigError, match="seed of version"):
        driver.unwrap(wrapped, CONTEXT, timeout=5)
    driver.close()


def test_a_file_protected_by_another_key_says_which(harness):
    from kmsbridge.drivers.local.keyfile import KeyFile

    address = harness.address("first")
    driver = open_driver(address)
    wrapped = driver.wrap(DATA_KEY, CONTEXT, timeout=5)
    driver.close()
    keys = private_path(harness).parent / "others.json"
    KeyFile.create(keys, "others").close()
    address.options["protect_with"] = {"uri": f"local:{keys}"}
    driver = open_driver(address)
    with pytest.raises(
        ConfigError, match=r"is protected by local:seeds@\w+, and protect_with is local:others@"
    ):
        driver.unwrap(wrapped, CONTEXT, timeout=5)
    driver.close()


def test_changed_private_files_are_refused(harness):
    """Another member, one too few, another type, another format: each says what, and quotes nothing."""
    path = private_path(harness)
    good = path.read_text()
    seed = next(line for line in good.splitlines() if line.startswith("seed"))
    for old, new, problem in (
        ("format = 1", "format = 2", "has the format 2"),
        ("format = 1", "", "has not exactly"),
        ("format = 1", "format = true", "has not exactly"),
        ("format = 1", "format = 1\nother = 1", "has not exactly"),
        ("[[pairs]]", "[pairs]", "has no pairs"),
        ("[[pairs]]", "pairs = []\n[[others]]", "has not exactly"),
        ("created", "creatd", "has a pair without created"),
        ("created", "more = 1\ncreated", "a member that it cannot have"),
        ("created = ", "created = 1 # ", "has a created of the wrong type"),
        ("Z\nencrypt", "\nencrypt", "without an offset"),
        (
            "encrypt_from",
            "decrypt_until = 2001-01-01T00:00:00Z\nencrypt_from",
            "is not after its encrypt_from",
        ),
        (seed, 'seed = "kmsb1_AAAA"', "has a seed that is not an armored direct message"),
        (seed[-12:], f'{"A" * 11}"', None),
        ("kmsbpk1_", "kmsbpk1_A", "a public key"),
        ("format = 1", "format = ", "is not valid TOML"),
        ("format = 1", "format = 1\n\udc80", "is not valid TOML"),
    ):
        assert old in good
        path.write_bytes(good.replace(old, new, 1).encode("utf-8", "surrogateescape"))
        path.chmod(0o600)
        if problem is None:  # the file is well formed: what the key service refuses is told when it is asked
            continue
        with pytest.raises(ConfigError, match=problem) as caught:
            open_driver(harness.address("first"))
        assert caught.value.remedy
        assert "kmsbpk1_A" not in str(caught.value).replace("begins with kmsbpk1_", "")


def test_a_changed_seed_is_told_as_the_files_fault_and_not_the_messages(harness):
    """It is not the `AuthenticationError` of a changed message."""
    path = private_path(harness)
    document = parse(path.read_bytes(), "")
    ((version, pair),) = document.pairs.items()
    seed = pair.seed._replace(wrapped=pair.seed.wrapped[:-1] + bytes([pair.seed.wrapped[-1] ^ 1]))
    privatefile._write(
        str(path), document._replace(pairs={version: pair._replace(seed=seed)}), exclusive=False
    )
    driver = open_driver(harness.address("first"))
    wrapped = driver.wrap(DATA_KEY, CONTEXT, timeout=5)
    with pytest.raises(ConfigError, match="seed of version"):
        driver.unwrap(wrapped, CONTEXT, timeout=5)
    driver.close()


def test_a_private_file_is_never_overwritten(harness):
    path = private_path(harness)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="never overwritten"):
        privatefile.create(str(path), next(iter(parse(before, "").pairs.values())))
    assert path.read_bytes() == before


def test_a_private_file_that_others_may_read_is_refused(harness):
    private_path(harness).chmod(0o640)
    with pytest.raises(ConfigError, match="open to other users"):
        open_driver(harness.address("first"))


def test_a_missing_private_file_is_told(harness):
    address = harness.address("first")
    driver = open_driver(address)
    wrapped = driver.wrap(DATA_KEY, CONTEXT, timeout=5)
    os.unlink(private_path(harness))
    with pytest.raises(DriverError) as caught:
        driver.unwrap(wrapped, CONTEXT, timeout=5)
    assert caught.value.kind is ErrorKind.KEY_NOT_FOUND
    assert driver.wrap(DATA_KEY, CONTEXT, timeout=5).version == wrapped.version
    with pytest.raises(ConfigError, match="cannot be read"):
        open_driver(address)
    driver.close()


# --- options --------------------------------------------------------------------------------------------


def test_options_that_do_not_belong_together_are_refused(harness):
    """And each error says what to set."""
    full, web = harness.address("first"), harness.address("first", "encrypt-only")
    other = harness.address("second", "encrypt-only")
    private, protecting = full.options["private_file"], full.options["protect_with"]
    for options, problem in (
        ({}, "neither public_key nor private_file"),
        ({"private_file": private}, "only one of private_file and protect_with"),
        ({**web.options, "protect_with": protecting}, "only one of private_file and protect_with"),
        ({**full.options, **other.options}, "its key is hpke:second@"),
        ({**full.options, "protect_with": {"uri": web.uri, **web.options}}, "a public-key recipient itself"),
        ({**full.options, "protect_with": {"uri": "nonsense"}}, "does not begin with a scheme"),
        ({**full.options, "protect_with": "kms"}, "wrong type"),
        ({"public_key": "kmsbpk1_"}, "cut short"),
    ):
        with pytest.raises(ConfigError, match=problem) as caught:
            HpkeDriver.open(KeyURI.parse(full.uri), Options(options))
        assert caught.value.remedy


def test_a_seed_is_not_protected_by_a_key_that_binds_no_context(harness):
    """What it wrapped for another purpose could be put in the seed's place."""
    from kmsbridge.testing import UnboundFakeHarness
    from kmsbridge.testing.install import installed

    unbound = UnboundFakeHarness()
    address, full = unbound.address("first"), harness.address("first")
    options = {**full.options, "protect_with": {"uri": address.uri, **address.options}}
    with installed(unbound.driver), pytest.raises(ConfigError, match="does not bind"):
        HpkeDriver.open(KeyURI.parse(full.uri), Options(options))
    unbound.close()


@pytest.mark.parametrize("path", ("{name}", "first"))
def test_a_uri_names_the_key_with_or_without_its_id(harness, path):
    address = harness.address("first")
    uri = f"hpke:{path.format(name=harness.public_key('first').name)}"
    driver = HpkeDriver.open(KeyURI.parse(uri), Options(dict(address.options)))
    assert driver.resolve(timeout=5) == f"hpke:{harness.public_key('first').name}"
    driver.close()


@pytest.mark.parametrize(
    "uri", ("hpke:second", "hpke:first@0000000000000000", "hpke:first?a=b", "hpke:first#x", "hpke:")
)
def test_a_uri_of_another_key_is_refused(harness, uri):
    with pytest.raises(ConfigError):
        HpkeDriver.open(KeyURI.parse(uri), Options(dict(harness.address("first").options)))


def test_the_capabilities_are_those_of_a_public_key(harness):
    driver = open_driver(harness.address("first", "encrypt-only"))
    assert driver.capabilities == {
        Capability.BINDS_CONTEXT,
        Capability.LOCAL_WRAP,
        Capability.REPORTS_VERSION,
    }
    assert driver.may_wait is False
    assert driver.describe(timeout=5).may_unwrap is False


# --- configurations -------------------------------------------------------------------------------------

CONFIGURATION = """
[keys.kms]
uri = "local:{keys}#seeds"
{kms}
[keys.web]
uri = "hpke:first"
public_key = "file:{folder}/first.pub"

[keys.worker]
uri = "hpke:first"
private_file = "first.toml"
protect_with = "{protect_with}"
{worker}
[profiles.web]
encrypt_to = ["web"]

[profiles.worker]
decrypt_with = ["worker"]
production = {production}
"""


@pytest.fixture
def write(harness):
    """Writes a configuration of both hosts beside the private file."""
    folder = private_path(harness).parent
    (folder / "first.pub").write_text(harness.public_key("first").line() + "\n")

    def write(protect_with="kms", kms="", worker="", production="false"):
        path = folder / "kmsbridge.toml"
        path.write_text(
            CONFIGURATION.format(
                keys="keys.json",
                folder=folder,
                kms=kms,
                worker=worker,
                protect_with=protect_with,
                production=production,
            )
        )
        return path

    return write


def test_protect_with_names_another_key_of_the_configuration(write):
    path = write()
    with Encryptor.from_config(path, profile="web") as encryptor:
        message = encryptor.encrypt(b"x")
    with Decryptor.from_config(path, profile="worker") as decryptor:
        assert decryptor.decrypt(message) == b"x"


@pytest.mark.parametrize(
    "settings, problem",
    (
        ({"protect_with": "kmz"}, "keys.worker.protect_with names a key that does not exist"),
        ({"protect_with": "worker"}, "has a protect_with itself"),
        ({"kms": "pasphrase = 'x'"}, r"keys.worker.protect_with.pasphrase is not an option"),
        ({"worker": "more = 1"}, "keys.worker.more is not an option"),
        ({"production": "true"}, "the seed's key: the key is in a file"),
    ),
)
def test_a_configuration_that_cannot_be_is_refused(write, settings, problem):
    with pytest.raises(ConfigError, match=problem):
        Decryptor.from_config(write(**settings), profile="worker")


def test_the_protecting_key_decides_for_production(write):
    path = write(kms="allow_in_production = true", production="true")
    Decryptor.from_config(path, profile="worker").close()


def test_a_message_of_an_unknown_version_names_the_remedy(harness, write):
    path = write()
    private = private_path(harness)
    before = private.read_bytes()
    harness.rotate("first")
    (private.parent / "first.pub").write_text(harness.public_key("first").line())
    with Encryptor.from_config(path, profile="web") as encryptor:
        message = encryptor.encrypt(b"x")
    with Decryptor.from_config(path, profile="worker") as decryptor:
        assert decryptor.decrypt(message) == b"x"
    private.write_bytes(before)
    with Decryptor.from_config(path, profile="worker") as decryptor, pytest.raises(KmsKeyNotFound) as caught:
        decryptor.decrypt(message)
    assert "private file" in caught.value.remedy


# --- profiles -------------------------------------------------------------------------------------------


@pytest.fixture
def two_suites():
    """A harness of each suite."""
    with contextlib.ExitStack() as end:
        yield [end.enter_context(contextlib.closing(HpkeHarness(suite))) for suite in (HYBRID, X25519)]


def test_recipients_of_one_message_are_not_mixed_unless_told_to(two_suites):
    """Else it would be only as strong as the weaker one, unseen."""
    drivers = [open_driver(harness.address("first", "encrypt-only")) for harness in two_suites]
    with pytest.raises(ConfigError, match="others that do not: 'driver object 2'") as caught:
        Encryptor(encrypt_to=drivers)
    assert "mixed_recipients" in caught.value.remedy
    for both in ([0, 0], [1, 1]):
        same = [
            open_driver(two_suites[n].address(which, "encrypt-only"))
            for n, which in zip(both, ("first", "second"), strict=True)
        ]
        with Encryptor(encrypt_to=same) as encryptor:
            encryptor.encrypt(b"x")
    drivers = [open_driver(harness.address("first", "encrypt-only")) for harness in two_suites]
    with Encryptor(encrypt_to=drivers, mixed_recipients=True) as encryptor:
        message = encryptor.encrypt(b"x")
    for harness in two_suites:
        with Decryptor(decrypt_with=[open_driver(harness.address("first"))]) as decryptor:
            assert decryptor.decrypt(message) == b"x"


def test_each_message_has_a_data_key_of_its_own_with_public_keys_only(harness):
    """Unless the profile says how many share one, or another key service is among the recipients."""
    address = harness.address("first", "encrypt-only")

    def shares(encryptor):
        with encryptor:
            return len({parse_message(encryptor.encrypt(b"x")).recipients for _ in range(3)}) == 1

    assert not shares(Encryptor.from_uri(address.uri, **address.options))
    assert shares(Encryptor.from_uri(address.uri, **address.options, data_keys={"max_messages": 10}))
    assert not shares(Encryptor.from_uri(address.uri, **address.options, data_keys={"max_age": 10}))
    assert not shares(Encryptor(encrypt_to=[open_driver(address)]))
    assert shares(Encryptor(encrypt_to=[open_driver(address)], data_keys=DataKeyPolicy()))
    local = LocalDriver.open(KeyURI.parse(harness.protecting["uri"]), Options({}))
    assert shares(Encryptor(encrypt_to=[local, open_driver(address)]))


def test_dates_say_which_pair_encrypts_and_which_decrypt(harness):
    path = private_path(harness)
    harness.rotate("first")
    old, new = parse(path.read_bytes(), "").pairs.values()
    now = privatefile.now()

    def write(*pairs):
        document = Document({pair.public_key.version: pair for pair in pairs})
        privatefile._write(str(path), document, exclusive=False)

    def wrapped_by(driver):
        return driver.wrap(DATA_KEY, CONTEXT, timeout=5)

    driver = open_driver(harness.address("first"))
    by_old, by_new = ([], [])
    write(old, new._replace(encrypt_from=now + timedelta(hours=1)))
    by_old.append(wrapped_by(driver))
    write(old, new._replace(encrypt_from=now))
    by_new.append(wrapped_by(driver))
    write(new._replace(encrypt_from=now - timedelta(hours=1)), old)
    by_old.append(wrapped_by(driver))
    assert {each.version for each in by_old} == {old.public_key.version}
    assert {each.version for each in by_new} == {new.public_key.version}
    for each in by_old + by_new:
        assert driver.unwrap(each, CONTEXT, timeout=5) == DATA_KEY
    past = old._replace(encrypt_from=now - timedelta(hours=2), decrypt_until=now - timedelta(hours=1))
    write(past, new)
    with pytest.raises(DriverError) as caught:
        driver.unwrap(by_old[0], CONTEXT, timeout=5)
    assert caught.value.kind is ErrorKind.KEY_DISABLED
    assert driver.unwrap(by_new[0], CONTEXT, timeout=5) == DATA_KEY
    write(past)
    with pytest.raises(DriverError) as caught:
        wrapped_by(driver)
    assert caught.value.kind is ErrorKind.KEY_DISABLED
    driver.close()


def test_a_policy_is_that_of_the_key_that_protects_the_seed(harness, monkeypatch):
    """A decryptor unwraps the seed; an admin, who runs keygen, wraps and unwraps it."""
    driver = open_driver(harness.address("first"))
    monkeypatch.setattr(driver._protection.driver, "policy", lambda role: f"{role} of the other\n")
    assert driver.policy("decryptor") == "decryptor of the other\n"
    assert driver.policy("admin") == "rewrapper of the other\n"
    web = open_driver(harness.address("first", "encrypt-only"))
    for opened, role in (
        (driver, "encryptor"),
        (driver, "rewrapper"),
        (web, "encryptor"),
        (web, "decryptor"),
    ):
        with pytest.raises(ConfigError, match="no policy"):
            opened.policy(role)
