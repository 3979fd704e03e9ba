"""Which key and which version of it a message is of: facts of the server, never what a label says."""

import os
import types

import pytest
from kmsbridge_testing.contract.base import bound
from kmsbridge_vault.failures import VaultFailure

from kmsbridge import ConfigError, Encryptor, EnvelopeCipher, NoMatchingKey, config, inspect
from kmsbridge import message as wire
from kmsbridge.context import EncryptionContext
from kmsbridge.doctor import count_messages
from kmsbridge.message import parse_header
from kmsbridge.testing import CallLog
from tests.support import with_recipients
from tests.vault.stub import Stub

CONTEXT = {"tenant": "acme"}
UUID = "03ae5fd8-18b5-d584-97f1-86f1ec908547"
TEXTS = [b"1", b"2", b"3"]


@pytest.fixture
def root(vault):
    """The options of a caller that may do everything."""
    return {"address": vault.address, "auth": {"method": "token", "token": vault.token, "renew": False}}


def relabelled(message, **changed):
    """The message with the labels of its only recipient changed."""
    (recipient,) = wire.parse(message).recipients
    return with_recipients(message, recipient._replace(**changed))


# --- the version ----------------------------------------------------------------------------------


def test_relabelled_message_still_needs_a_rewrap(vault, root):
    """Else it would be called current until the old version is closed, and lost then."""
    name = vault.key()
    with EnvelopeCipher.from_uri(f"vault-transit://transit/{name}", **root) as cipher:
        old = cipher.encrypt(b"x", context=CONTEXT)
    vault.ask("POST", f"transit/keys/{name}/rotate")
    with EnvelopeCipher.from_uri(f"vault-transit://transit/{name}", **root) as cipher:
        forged = relabelled(old, key_version="2")
        assert cipher.needs_rewrap(forged)
        moved = cipher.rewrap(forged, context=CONTEXT)
        vault.ask("POST", f"transit/keys/{name}/config", {"min_decryption_version": 2})
        assert inspect(moved).recipients[0].key_version == "2"
        assert not cipher.needs_rewrap(moved)
        assert cipher.decrypt(moved, context=CONTEXT) == b"x"


@pytest.mark.parametrize("label", ["", "7", "no version"])
def test_wrong_label_is_put_right_by_a_rewrap(vault, root, label):
    """The message still opens: a label decides nothing."""
    with EnvelopeCipher.from_uri(f"vault-transit://transit/{vault.key()}", **root) as cipher:
        forged = relabelled(cipher.encrypt(b"x", context=CONTEXT), key_version=label)
        assert cipher.needs_rewrap(forged)
        assert cipher.decrypt(forged, context=CONTEXT) == b"x"
        moved = cipher.rewrap(forged, context=CONTEXT)
        assert not cipher.needs_rewrap(moved)


def test_observers_are_told_the_version_of_the_wrapped_bytes(vault, root, open_key, works):
    """An audit trail that names the label would let whoever writes the storage write in it."""
    log = CallLog()
    key = open_key(vault, vault.key(), observer=log, auth=root["auth"])
    assert works(key)
    assert key.unwrap(key.wrap(b"x", bound())._replace(version="7"), bound()) == b"x"
    assert log.finished[-1][1].key_version == "1"


# --- the key's id ---------------------------------------------------------------------------------


def key_of(name, server, mount="transit", **options):
    """A key's table of the configuration."""
    auth = {"method": "token", "token": server.token, "renew": False}
    table = {"uri": f"vault-transit://{mount}/{name}", "address": server.address, "auth": auth, **options}
    return table | ({"ca_file": server.ca_file} if server.ca_file else {})


def opened(keys, encrypt_to, decrypt_with):
    """A cipher of these keys."""
    profile = {"encrypt_to": encrypt_to, "decrypt_with": decrypt_with}
    return EnvelopeCipher.from_mapping({"keys": keys, "profiles": {"test": profile}})


@pytest.fixture
def clusters(vault, production):
    """Two clusters with the same mount and key, as tables of the configuration."""
    return {"old": key_of("app", vault), "new": key_of("app", production)}


def test_key_id_names_the_cluster(vault, root, open_key):
    """Which the server tells without a token, also to a host that may only encrypt."""
    (cluster_id,) = {vault.ask("GET", "sys/health")["cluster_id"]}
    name = vault.key()
    assert open_key(vault, name, **root).key_id == f"vault-transit:{cluster_id}::transit/{name}"


def test_instance_replaces_the_cluster_id_and_costs_no_call(open_driver, root):
    """For a server that is not there."""
    driver = open_driver(
        types.SimpleNamespace(address="http://127.0.0.1:1", ca_file=""),
        "app",
        instance="vault-eu",
        namespace="team",
        auth=root["auth"],
    )
    assert driver.resolve(timeout=1) == "vault-transit:vault-eu:team:transit/app"


@pytest.mark.parametrize("instance", ["a:b", "a/b", ".", "a" * 65, "a\n", "é"])
def test_instance_that_is_no_name_is_refused(open_driver, vault, root, instance):
    """Messages contain it, between other parts of the id."""
    with pytest.raises(ConfigError, match="instance"):
        open_driver(vault, "app", instance=instance, auth=root["auth"])


def test_two_clusters_with_the_same_key_work_in_one_profile(clusters):
    """One after the other, and both as recipients of one message."""
    with opened(clusters, ["old"], ["old"]) as cipher:
        message = cipher.encrypt(b"x", context=CONTEXT)
    with opened(clusters, ["new", "old"], ["new", "old"]) as both:
        assert both.decrypt(message, context=CONTEXT) == b"x"
        assert both.needs_rewrap(message)
        two = both.rewrap(message, context=CONTEXT)
        assert len({each.key_id for each in inspect(two).recipients}) == 2
        assert not both.needs_rewrap(two)
    for name in clusters:
        with opened(clusters, [name], [name]) as one:
            assert one.decrypt(two, context=CONTEXT) == b"x"


def test_moving_between_clusters_moves_every_message(clusters):
    """None is called current while it is for the old one, which is switched off afterwards."""
    with opened(clusters, ["old"], ["old"]) as cipher:
        messages = cipher.encrypt_many([b"1", b"2", b"3"], context=CONTEXT)
    with opened(clusters, ["new"], ["new", "old"]) as moving:
        assert all(map(moving.needs_rewrap, messages))
        moved = moving.rewrap_many(messages, context=CONTEXT)
        assert not any(map(moving.needs_rewrap, moved))
    with opened(clusters, ["new"], ["new"]) as cipher:
        assert cipher.decrypt_many(moved, context=CONTEXT) == [b"1", b"2", b"3"]


def test_namespace_and_mount_are_told_apart(vault, clusters):
    """Namespace `a` with mount `b/c`, and namespace `a/b` with mount `c`, are two keys."""
    outer, inner = (f"ns-{os.urandom(4).hex()}" for _ in range(2))
    vault.ask("POST", f"sys/namespaces/{outer}", {})
    vault.ask("POST", "sys/mounts/deep/transit", {"type": "transit"}, X_Vault_Namespace=outer)
    vault.ask("POST", f"sys/namespaces/{inner}", {}, X_Vault_Namespace=outer)
    vault.ask("POST", "sys/mounts/transit", {"type": "transit"}, X_Vault_Namespace=f"{outer}/{inner}")
    keys = {
        "long-mount": key_of("app", vault, namespace=outer, mount_prefix=inner),
        "long-namespace": key_of("app", vault, namespace=f"{outer}/{inner}"),
    }
    vault.ask("POST", "transit/keys/app", {}, X_Vault_Namespace=f"{outer}/{inner}")
    with opened(keys, list(keys), list(keys)) as cipher:
        message = cipher.encrypt(b"x", context=CONTEXT)
        ids = [each.key_id.partition(":")[2].partition(":")[2] for each in inspect(message).recipients]
        assert ids == [f"{outer}:{inner}/transit/app", f"{outer}/{inner}:transit/app"]
        assert cipher.decrypt(message, context=CONTEXT) == b"x"


def former(message, key_id):
    """The message as an earlier version wrote it."""
    return relabelled(message, key_id=key_id)


@pytest.mark.parametrize("derived", [False, True], ids=["AEAD", "derived"])
@pytest.mark.parametrize("former_id", ["vault-transit:transit/{}", f"vault-transit:{UUID}::transit/{{}}"])
def test_message_with_a_former_id_opens_and_is_rewrapped_to_the_new_one(vault, former_id, derived):
    """Of an earlier version, or of a cluster that this one is a replica of."""
    name = vault.key(derived=derived)
    keys = {"app": key_of(name, vault, **({"derived": True} if derived else {}))}
    with opened(keys, ["app"], ["app"]) as cipher:
        new = cipher.encrypt(b"x", context=CONTEXT)
        old = former(new, former_id.format(name))
    with opened(keys, ["app"], ["app"]) as cipher:
        assert cipher.needs_rewrap(old)
        moved = cipher.rewrap(old, context=CONTEXT)
        assert inspect(moved).recipients[0].key_id == inspect(new).recipients[0].key_id
        assert not cipher.needs_rewrap(moved)
        assert cipher.decrypt_many([old, moved], context=CONTEXT) == [b"x", b"x"]
    with opened(keys, ["app"], ["app"]) as cipher:
        assert cipher.decrypt(old, context=CONTEXT) == b"x"


@pytest.mark.parametrize("order", [["old", "new"], ["new", "old"]])
def test_message_with_a_former_id_opens_with_either_of_two_clusters(clusters, order):
    """Nothing tells which of them wrote it, so both are asked, one message or many."""
    with opened(clusters, ["new"], ["new"]) as cipher:
        messages = [
            former(cipher.encrypt(each, context=CONTEXT), "vault-transit:transit/app") for each in TEXTS
        ]
    with opened(clusters, order, order) as cipher:
        assert cipher.decrypt(messages[0], context=CONTEXT) == TEXTS[0]
    with opened(clusters, order, order) as cipher:
        assert cipher.decrypt_many(messages, context=CONTEXT) == TEXTS
    with opened(clusters, order, order) as cipher:
        assert cipher.decrypt(cipher.rewrap(messages[0], context=CONTEXT), context=CONTEXT) == TEXTS[0]


@pytest.mark.parametrize(
    "key_id",
    [
        "vault-transit:other::transit/app",
        "vault-transit:transit/other",
        "vault-transit:team/transit/app",
        "vault-transit:a:b:c:transit/app",
        "aws-kms:transit/app",
    ],
)
def test_id_of_another_key_is_none_of_ours(clusters, key_id):
    """Also that of another instance, which has a name."""
    with opened(clusters, ["old"], ["old"]) as cipher:
        message = former(cipher.encrypt(b"x", context=CONTEXT), key_id)
        with pytest.raises(NoMatchingKey):
            cipher.decrypt(message, context=CONTEXT)


@pytest.mark.parametrize(("status", "body"), [(404, {}), (403, {"errors": ["no"]}), (200, {"sealed": False})])
def test_server_that_does_not_tell_its_cluster_says_which_option_helps(open_driver, root, status, body):
    """A proxy that lets only the paths of keys through, for example."""
    with Stub(status, body) as stub, pytest.raises(VaultFailure) as caught:
        open_driver(stub, "app", auth=root["auth"]).resolve(timeout=5)
    assert "instance" in caught.value.remedy


def test_a_message_with_a_former_id_is_counted_by_its_environment(vault):
    """By the same rules as it is decrypted: `doctor --count` must not say that nothing is known of it."""
    name = vault.key()
    document = {
        "keys": {"app": key_of(name, vault)},
        "profiles": {
            "prod": {"encrypt_to": ["app"], "decrypt_with": ["app"], "environment": "prod"},
            "before": {"encrypt_to": ["app"]},
        },
    }
    with (
        Encryptor.from_mapping(document, profile="prod") as prod,
        Encryptor.from_mapping(document, profile="before") as before,
    ):
        messages = [cipher.encrypt(b"x", context=CONTEXT) for cipher in (prod, before, before)]
    pairs = EncryptionContext.of(CONTEXT)
    headers = [(parse_header(former(each, f"vault-transit:transit/{name}")), pairs) for each in messages]
    assert count_messages(config.from_mapping(document, profile="prod"), headers) == (1, 2, 0)
