"""Keys that the driver must not take, keys that both sides understand, and policies that hold."""

import base64
import hashlib
import json
import secrets
import subprocess

import pytest
from kmsbridge_testing.contract.base import bound
from kmsbridge_vault import VaultTransitDriver

from kmsbridge import Decryptor, EnvelopeCipher
from kmsbridge.cipher.base import from_profile
from kmsbridge.config import KeyConfig, Profile
from kmsbridge.driver import Capability, ErrorKind, KeyState, KeyURI, Options, WrappedKey
from kmsbridge.errors import (
    AuthenticationError,
    ConfigError,
    KmsAccessDenied,
    KmsInvalidRequest,
    KmsKeyDisabled,
    KmsKeyNotFound,
    LimitExceeded,
)
from kmsbridge.policy import DataKeyPolicy
from kmsbridge.testing import counted
from localstack.openbao import program

DERIVED = {"derived": True}
aead_and_derived = pytest.mark.parametrize("kind", [{}, DERIVED], ids=["AEAD", "derived"])


@pytest.fixture
def root(vault):
    """The options of a caller that may do everything, also what it should not."""
    return {"auth": {"method": "token", "token": vault.token}}


# --- keys that are not taken ----------------------------------------------------------------------


@aead_and_derived
def test_missing_key_is_never_made(vault, root, open_key, kind):
    """Not even by a token that may create keys, and to which Vault would make one."""
    name = f"no-such-{secrets.token_hex(6)}"
    key = open_key(vault, name, **root, **kind)
    for _ in range(2):
        with pytest.raises(KmsKeyNotFound):
            key.wrap(bytes(32), bound())
    assert vault.ask("GET", f"transit/keys/{name}", check=False).status_code == 404


@aead_and_derived
def test_key_deleted_meanwhile_is_not_made_anew(vault, root, open_key, works, kind):
    """The driver had used it a moment ago."""
    name = vault.key(**kind)
    key = open_key(vault, name, **root, **kind)
    assert works(key)
    vault.ask("POST", f"transit/keys/{name}/config", {"deletion_allowed": True})
    vault.ask("DELETE", f"transit/keys/{name}")
    with pytest.raises(KmsKeyNotFound):
        key.wrap(bytes(32), bound())
    assert vault.ask("GET", f"transit/keys/{name}", check=False).status_code == 404


def test_missing_mount_is_told(vault, root, open_key):
    """With the remedy that names the mount."""
    with pytest.raises(KmsKeyNotFound) as caught:
        open_key(vault, "app", mount="no-such-mount", **root).wrap(bytes(32), bound())
    assert "mount" in caught.value.remedy


@pytest.mark.parametrize("kind", ["rsa-2048", "ed25519", "ecdsa-p256"])
@pytest.mark.parametrize("derived", [False, True], ids=["as AEAD", "as derived"])
def test_key_of_another_type_is_refused(vault, root, open_key, kind, derived):
    """Signing keys, and RSA keys, which bind no context: whatever is asked of them."""
    key = open_key(vault, vault.key(type=kind), derived=derived, **root)
    wrapped = WrappedKey(key.key_id, "1", b"vault:v1:" + base64.b64encode(bytes(60)))
    for call in (lambda: key.wrap(bytes(32), bound()), lambda: key.unwrap(wrapped, bound()), key.describe):
        with pytest.raises(KmsInvalidRequest) as caught:
            call()
        assert "AEAD" in caught.value.remedy


def test_key_that_is_not_derived_is_refused_where_derivation_is_asked(vault, root, open_key):
    """Vault would ignore the context without a word, so neither wrap nor unwrap nor rewrap reaches it."""
    name = vault.key()
    key = open_key(vault, name, derived=True, **root)
    ciphertext = encrypted(vault, name, plaintext=base64.b64encode(bytes(32)).decode())
    wrapped = WrappedKey(key.key_id, "1", ciphertext.encode())
    calls = (
        lambda: key.wrap(bytes(32), bound()),
        lambda: key.unwrap(wrapped, bound()),
        lambda: key.unwrap_many([(wrapped, bound())]),
        lambda: key.rewrap(wrapped, bound()),
    )
    for call in calls:
        with pytest.raises(KmsInvalidRequest) as caught:
            call()
        assert "derived" in caught.value.remedy


def test_derived_key_is_refused_where_none_is_asked(vault, root, open_key):
    """With the option that is missing."""
    with pytest.raises(KmsInvalidRequest) as caught:
        open_key(vault, vault.key(**DERIVED), **root).wrap(bytes(32), bound())
    assert "derived = true" in caught.value.remedy


def test_convergent_key_is_refused(vault, root, open_key):
    """It would show which data keys are equal."""
    key = open_key(vault, vault.key(**DERIVED, convergent_encryption=True), **DERIVED, **root)
    with pytest.raises(KmsInvalidRequest) as caught:
        key.wrap(bytes(32), bound())
    assert "convergent" in caught.value.remedy


def test_derived_key_that_may_not_be_read_is_not_used(vault, open_key):
    """Nobody could tell that it is derived: access is denied, with the permission that is missing."""
    name = vault.key(**DERIVED)
    policy = vault.policy(f'path "transit/encrypt/{name}" {{ capabilities = ["update"] }}')
    key = open_key(vault, name, auth={"method": "token", "token": vault.new_token(policy)}, **DERIVED)
    with pytest.raises(KmsAccessDenied) as caught:
        key.wrap(bytes(32), bound())
    assert f"transit/keys/{name}" in caught.value.remedy


def test_aead_key_needs_no_read(vault, open_key):
    """Its wraps are refused by the server itself where they would bind nothing."""
    name = vault.key()
    policy = vault.policy(f'path "transit/encrypt/{name}" {{ capabilities = ["update"] }}')
    key = open_key(vault, name, auth={"method": "token", "token": vault.new_token(policy)})
    assert key.wrap(bytes(32), bound()).version == "1"


@pytest.mark.parametrize("type_", ["aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"])
@aead_and_derived
def test_every_aead_type_takes_the_largest_payload(vault, root, open_driver, type_, kind):
    """12,000 bytes, whose ciphertext fits into a message under any version."""
    driver = open_driver(vault, vault.key(type=type_, **kind), **root, **kind)
    largest = secrets.token_bytes(driver.max_plaintext)
    wrapped = driver.wrap(largest, bound(), timeout=10)
    assert len(wrapped.ciphertext) + len("000000000") <= 16384
    assert driver.unwrap(wrapped, bound(), timeout=10) == largest


@pytest.mark.parametrize(
    "uri",
    [
        "vault-transit://transit",
        "vault-transit://transit/",
        "vault-transit:///app",
        "vault-transit:///transit/app",
        "vault-transit://transit/a/b",
        "vault-transit://transit/..",
        "vault-transit://../app",
        "vault-transit://transit/app?version=1",
        "vault-transit://transit/app#1",
        "vault-transit://transit/.app",
        "vault-transit://transit/app.",
        f"vault-transit://transit/{'a' * 1000}",
    ],
)
def test_uri_that_is_none_is_refused_when_opened(vault, uri):
    """`ConfigError`, with the form that it should have."""
    with pytest.raises(ConfigError) as caught:
        opened(vault, uri)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "options",
    [
        {"address": "vault.internal:8200"},
        {"address": "ftp://vault.internal"},
        {"address": "https://user:password@vault.internal"},
        {"address": "https://vault.internal?a=b"},
        {"address": "https://vault.internal:port"},
        {"address": "http://vault.internal:8200"},
        {"address": None},
        {"namespace": "../team"},
        {"namespace": "/team"},
        {"mount_prefix": "a/../b"},
        {"ca_file": "no-such-file.pem"},
        {"client_cert": "no-such-file.pem"},
    ],
    ids=str,
)
def test_options_that_are_wrong_are_refused_when_opened(vault, options):
    """`ConfigError`, which quotes no value."""
    with pytest.raises(ConfigError) as caught:
        opened(vault, "vault-transit://transit/app", **options)
    assert caught.value.remedy
    assert "password" not in str(caught.value)


def test_plain_http_elsewhere_takes_a_word(vault):
    """Where something else encrypts the way."""
    opened(vault, "vault-transit://t/app", address="http://vault.internal", allow_plain_http=True).close()


def test_mount_of_several_segments_is_reached(vault, root, open_key, works):
    """Through the option `mount_prefix`; the key's id has the whole path."""
    prefix = f"team-{secrets.token_hex(4)}"
    vault.ask("POST", f"sys/mounts/{prefix}/transit", {"type": "transit"})
    key = open_key(vault, vault.key(mount=f"{prefix}/transit"), mount_prefix=prefix, **root)
    assert works(key)
    assert f"::{prefix}/transit/" in key.key_id
    vault.ask("DELETE", f"sys/mounts/{prefix}/transit")


# --- versions and states --------------------------------------------------------------------------


def test_version_below_the_least_is_disabled(vault, root, open_key):
    """`min_decryption_version` is a switch that can be turned back, so it is told as one."""
    name = vault.key()
    key = open_key(vault, name, **root)
    old = key.wrap(bytes(32), bound())
    key.rotate()
    vault.ask("POST", f"transit/keys/{name}/config", {"min_decryption_version": 2})
    with pytest.raises(KmsKeyDisabled) as caught:
        key.unwrap(old, bound())
    assert caught.value.provider_code == "version-too-old"
    assert "min_decryption_version" in caught.value.remedy
    assert "before 2" in key.describe().rotation


def test_rotation_is_told_in_words(vault, root, open_key):
    """By hand, or how often the server does it."""
    by_hand, by_itself = vault.key(), vault.key(auto_rotate_period="720h")
    assert open_key(vault, by_hand, **root).describe().rotation == "by hand"
    assert open_key(vault, by_itself, **root).describe().rotation == "every 30 days"


def test_soft_deleted_key_is_disabled_or_waits(vault, root, open_key):
    """Where it may be deleted for good, it is described as waiting for that."""
    name = vault.key()
    key = open_key(vault, name, **root)
    vault.ask("DELETE", f"transit/keys/{name}/soft-delete")
    assert key.describe().state is KeyState.DISABLED
    vault.ask("POST", f"transit/keys/{name}/soft-delete-restore")
    vault.ask("POST", f"transit/keys/{name}/config", {"deletion_allowed": True})
    vault.ask("DELETE", f"transit/keys/{name}/soft-delete")
    assert key.describe().state is KeyState.PENDING_DELETION


def test_same_bytes_written_otherwise_are_refused(vault, root, open_key):
    """Vault's own decoder overlooks the spare bits of base64, line ends and zeros before the version."""
    key = open_key(vault, vault.key(), **root)
    wrapped = key.wrap(b"x", bound())
    text = wrapped.ciphertext.decode()
    last = text.rstrip("=")[-1]
    signs = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    spare = text.replace(f"{last}=", f"{signs[signs.index(last) + 1]}=")
    others = (spare, text + "\n", text.replace("v1", "v01"), text.replace("v1", "v0"), text.rstrip("="))
    for other in others:
        assert other != text
        with pytest.raises(AuthenticationError):
            key.unwrap(wrapped._replace(ciphertext=other.encode()), bound())


# --- policies -------------------------------------------------------------------------------------

ALLOWED = {
    "encryptor": {"wrap", "describe"},
    "decryptor": {"unwrap"},
    "rewrapper": {"wrap", "unwrap", "describe"},
    "admin": {"describe", "rotate"},
}
ALLOWED_DERIVED = {
    "encryptor": {"wrap", "describe"},
    "decryptor": {"unwrap", "describe"},
    "rewrapper": {"rewrap", "describe"},
    "admin": {"describe", "rotate"},
}


@pytest.mark.parametrize("role", ALLOWED)
@aead_and_derived
def test_policy_allows_what_the_role_needs_and_nothing_else(vault, root, open_key, policies, kind, role):
    """Applied to the server: each operation works or is denied, as the role says."""
    name = vault.key(**kind)
    wrapped = open_key(vault, name, **root, **kind).wrap(bytes(32), bound())
    token = vault.new_token(*policies(vault, name, role, **kind))
    key = open_key(vault, name, auth={"method": "token", "token": token}, **kind)
    calls = {
        "wrap": lambda: key.wrap(bytes(32), bound()),
        "unwrap": lambda: key.unwrap(wrapped, bound()),
        "describe": key.describe,
        "rotate": key.rotate,
    }
    if kind:
        calls["rewrap"] = lambda: key.rewrap(wrapped, bound())
    assert {name for name, call in calls.items() if allowed(call)} == (ALLOWED_DERIVED if kind else ALLOWED)[
        role
    ]


def test_admin_may_make_the_key(vault, policies):
    """The policy for whoever looks after a key is enough to begin with."""
    name = f"new-{secrets.token_hex(6)}"
    token = vault.new_token(*policies(vault, name, "admin"))
    vault.ask("POST", f"transit/keys/{name}", {"type": "aes256-gcm96"}, token=token)
    vault.ask("POST", f"transit/keys/{name}/config", {"min_decryption_version": 1}, token=token)
    assert not vault.ask("DELETE", f"transit/keys/{name}", token=token, check=False).ok


def test_description_tells_what_the_caller_may(vault, root, open_key, policies):
    """From the server's own word on the token's rights."""
    name = vault.key()
    token = vault.new_token(*policies(vault, name, "encryptor"))
    description = open_key(vault, name, auth={"method": "token", "token": token}).describe()
    assert (description.may_wrap, description.may_unwrap) == (True, False)
    everything = open_key(vault, name, **root).describe()
    assert (everything.may_wrap, everything.may_unwrap) == (True, True)


# --- stock peers ----------------------------------------------------------------------------------


@aead_and_derived
def test_stock_command_opens_what_the_driver_wraps(vault, root, open_key, kind):
    """`bao write MOUNT/decrypt/KEY` with what the guide says; in another context it refuses."""
    name, payload = vault.key(**kind), secrets.token_bytes(32)
    wrapped = open_key(vault, name, **root, **kind).wrap(payload, bound())
    fields = [f"ciphertext={wrapped.ciphertext.decode()}"]
    answer = bao(vault, f"transit/decrypt/{name}", *fields, bound_field(kind, bound()))
    assert base64.b64decode(answer["plaintext"]) == payload
    with pytest.raises(subprocess.CalledProcessError):
        bao(vault, f"transit/decrypt/{name}", *fields, bound_field(kind, bound({"tenant": "other"})))


@aead_and_derived
def test_driver_opens_what_the_stock_command_wraps(vault, root, open_key, kind):
    """The other way round, in its context alone."""
    name, payload = vault.key(**kind), secrets.token_bytes(32)
    plaintext = f"plaintext={base64.b64encode(payload).decode()}"
    answer = bao(vault, f"transit/encrypt/{name}", plaintext, bound_field(kind, bound()))
    key = open_key(vault, name, **root, **kind)
    wrapped = WrappedKey(key.key_id, "1", answer["ciphertext"].encode())
    assert key.unwrap(wrapped, bound()) == payload
    with pytest.raises(AuthenticationError):
        key.unwrap(wrapped, bound({"tenant": "other"}))


# --- batches --------------------------------------------------------------------------------------


def test_many_messages_of_200_data_keys_are_one_request(vault, root):
    """Also to the server itself: one decrypt in its audit file."""
    name = vault.key()
    config = KeyConfig(
        "app",
        KeyURI.parse(f"vault-transit://transit/{name}"),
        Options({"address": vault.address, **root}, name="keys.app"),
    )
    policy = DataKeyPolicy(max_messages=50)
    with from_profile(EnvelopeCipher, Profile("many", (config,), (config,), data_keys=policy)) as cipher:
        sent = [str(number).encode() for number in range(10_000)]
        messages = cipher.encrypt_many(sent, context={"tenant": "acme"})
    since = vault.audit_file.stat().st_size
    with (
        counted(VaultTransitDriver) as calls,
        from_profile(Decryptor, Profile("many", (), (config,))) as decryptor,
    ):
        assert decryptor.decrypt_many(messages, context={"tenant": "acme"}) == sent
    paths = [each["path"] for each in vault.audited(since)]
    assert paths.count(f"transit/decrypt/{name}") == 1
    assert calls["unwrap_many"] == 1


@pytest.mark.parametrize("sound", [0, 1, 3])
@aead_and_derived
def test_batch_of_bad_items_loses_no_good_one(vault, root, open_driver, kind, sound):
    """Each bad item has its own kind, also where all are bad, which the server answers with status 400."""
    driver = open_driver(vault, vault.key(**kind), **root, **kind)
    good = driver.wrap(b"good", bound(), timeout=10)
    other = driver.wrap(b"good", bound({"another": "context"}), timeout=10)
    junk = WrappedKey(good.key_id, "1", b"no ciphertext at all")
    newer = WrappedKey(good.key_id, "1", good.ciphertext.replace(b"vault:v1:", b"vault:v9:"))
    items = [(each, bound()) for each in (junk, *[good] * sound, other, newer)]
    results = driver.unwrap_many(items, timeout=10)
    assert results == [
        ErrorKind.NOT_AUTHENTIC,
        *[b"good"] * sound,
        ErrorKind.NOT_AUTHENTIC,
        ErrorKind.NOT_AUTHENTIC,
    ]


def test_batch_of_junk_is_not_sent(vault, root, open_driver):
    """There is nothing to ask the server."""
    driver = open_driver(vault, vault.key(), **root)
    junk = WrappedKey(driver.resolve(timeout=10), "1", b"junk")
    assert driver.unwrap_many([(junk, bound())] * 3, timeout=10) == [ErrorKind.NOT_AUTHENTIC] * 3
    assert driver.unwrap_many([], timeout=10) == []


def test_derived_key_is_rewrapped_by_the_server(vault, root, open_key):
    """An AEAD key is not: Vault takes no associated data there."""
    derived = open_key(vault, vault.key(**DERIVED), **DERIVED, **root)
    wrapped = derived.wrap(b"x", bound())
    derived.rotate()
    again = derived.rewrap(wrapped, bound())
    assert again.version == "2"
    assert derived.unwrap(again, bound()) == b"x"
    assert Capability.SERVER_REWRAP not in open_key(vault, vault.key(), **root).capabilities


def test_larger_payload_is_refused_by_the_driver_itself(vault, root, open_key):
    """Before it is sent."""
    key = open_key(vault, vault.key(), **root)
    with pytest.raises(LimitExceeded):
        key.wrap(bytes(key.max_plaintext + 1), bound())


def opened(vault, uri, **options):
    """A driver of the URI, with a token that is none."""
    auth = {"method": "token", "token": "none"}
    given = {"address": vault.address, "auth": auth, **options}
    return VaultTransitDriver.open(KeyURI.parse(uri), Options(given, name="keys.app"))


def allowed(call):
    try:
        call()
    except KmsAccessDenied:
        return False
    return True


def encrypted(vault, name, **body):
    return vault.ask("POST", f"transit/encrypt/{name}", body)["data"]["ciphertext"]


def bound_field(kind, context):
    """What binds the context, from the guide: made here without the driver."""
    canonical = context.canonical()
    if kind:
        return f"context={base64.b64encode(hashlib.sha256(canonical).digest()).decode()}"
    return f"associated_data={base64.b64encode(canonical).decode()}"


def bao(vault, path, *fields):
    """What the stock command answers."""
    done = subprocess.run(
        [program(), "write", "-format=json", path, *fields],
        env={"BAO_ADDR": vault.address, "BAO_TOKEN": vault.token, "HOME": "/nonexistent"},
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)["data"]


# --- wrapping many --------------------------------------------------------------------------------


@aead_and_derived
def test_batch_is_wrapped_by_one_request(vault, root, open_key, kind):
    """In order, each bound to its own context, under the latest version."""
    name = vault.key(**kind)
    key = open_key(vault, name, **root, **kind)
    vault.ask("POST", f"transit/keys/{name}/rotate")
    items = [(str(n).encode(), bound({"n": str(n)})) for n in range(200)]
    assert key.describe().version == "2"
    since = vault.audit_file.stat().st_size
    wrapped = key.wrap_many(items)
    assert [each["path"] for each in vault.audited(since)] == [f"transit/encrypt/{name}"]
    assert {each.version for each in wrapped} == {"2"}
    opened = key.unwrap_many([(each, context) for each, (_, context) in zip(wrapped, items, strict=True)])
    assert opened == [plaintext for plaintext, _ in items]
    with pytest.raises(AuthenticationError):
        key.unwrap(wrapped[0], items[1][1])


@aead_and_derived
def test_batch_does_not_make_a_key(vault, root, open_key, kind):
    """As a single wrap does not."""
    key = open_key(vault, "no-such-key", **root, **kind)
    with pytest.raises(KmsKeyNotFound):
        key.wrap_many([(b"x", bound())] * 2)
    with pytest.raises(KmsKeyNotFound):
        key.describe()


# --- forgeries ------------------------------------------------------------------------------------


def test_forgery_is_of_a_version_that_still_decrypts(vault, root, open_key):
    """Else an old version's refusal would be taken for the key's state."""
    name = vault.key()
    key = open_key(vault, name, **root)
    vault.ask("POST", f"transit/keys/{name}/rotate")
    vault.ask("POST", f"transit/keys/{name}/config", {"min_decryption_version": 2})
    (forgery,) = key.driver.forgeries()
    assert forgery.version == "1"
    key.describe()
    (forgery,) = key.driver.forgeries()
    assert (forgery.version, forgery.ciphertext[:9]) == ("2", b"vault:v2:")
    with pytest.raises(AuthenticationError):
        key.unwrap(forgery, bound())
