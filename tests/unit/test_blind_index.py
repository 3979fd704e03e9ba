"""A blind index: equal values have equal ones, by the same key, label, tenant and normalizer, and no others have."""

import contextlib
import copy
import hashlib
import hmac
import pickle
import sqlite3
import threading
from dataclasses import replace

import pytest

from kmsbridge import (
    AuthenticationError,
    ConfigError,
    Decryptor,
    EnvelopeCipher,
    KmsError,
    RoleError,
    SecretValue,
)
from kmsbridge.blindindex import (
    BlindIndex,
    Change,
    Normalizer,
    Row,
    backfill,
    e164,
    index_keys,
    new_index_key,
)
from kmsbridge.blindindex.keys import AAD
from kmsbridge.message import armor
from tests.support import finish, fork, on_threads

OLD, NEW = SecretValue(bytes(range(32))), SecretValue(bytes(range(32, 64)))


def phones(keys=(OLD,), **options):
    return BlindIndex("users.phone", keys=keys, **options)


def test_it_is_the_hash_that_the_reference_defines():
    """Computed here by hand."""
    bound = b"kmsbridge/v1/index\0" + b"\0\x0busers.phone" + b"\0\x04acme" + b"\0\x06digits" + b"15550100"
    whole = hmac.new(bytes(range(32)), bound, hashlib.sha256).digest()
    assert phones(normalize="digits").of("1 (555) 0100", tenant="acme") == whole[:16]


def test_everything_that_it_is_bound_to_makes_a_difference():
    value = "+1 555 0100"
    found = {
        phones().of(value, tenant="acme"),
        phones().of(value, tenant="other"),
        phones().of(value, tenant=""),
        phones().of("+1 555 0101", tenant="acme"),
        phones(keys=[NEW]).of(value, tenant="acme"),
        phones(normalize="casefold").of(value, tenant="acme"),
        BlindIndex("users.fax", keys=[OLD]).of(value, tenant="acme"),
        BlindIndex("users.phon", keys=[OLD]).of(value, tenant="eacme"),
    }
    assert len(found) == 8


@pytest.mark.parametrize("bits", (4, 7, 8, 12, 20, 24, 127, 128))
def test_fewer_bits_are_the_leftmost_of_more(bits):
    """What is left of the last byte is zero."""
    whole = int.from_bytes(phones().of("x", tenant=""), "big")
    index = phones(bits=bits)
    short = index.of("x", tenant="")
    assert len(short) == index.size == -(-bits // 8)
    assert int.from_bytes(short, "big") == whole >> (128 - bits) << (8 * index.size - bits)


def test_fewer_bits_mean_false_positives_and_no_unique_column():
    index = phones(bits=8)
    assert len({index.of(str(n), tenant="") for n in range(2000)}) == 256
    assert not index.supports_unique
    assert not phones(bits=127).supports_unique
    assert phones().supports_unique


def test_null_stays_null_and_is_not_searched_for():
    assert phones().of(None, tenant="acme") is None
    with pytest.raises(TypeError, match="not NoneType"):
        phones().queries(None, tenant="acme")


def test_the_first_key_is_stored_and_a_query_has_each():
    index = phones([NEW, OLD])
    old, new = phones([OLD]).of("x", tenant=""), phones([NEW]).of("x", tenant="")
    assert index.of("x", tenant="") == new
    assert index.queries("x", tenant="") == [new, old]


@pytest.fixture
def database():
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        yield database


def test_a_column_with_both_generations_is_searched_while_it_is_backfilled(cipher, database):
    """As a job would: nothing is missing at any time, and a second run has nothing to do."""
    before, during = phones([OLD]), phones([NEW, OLD])
    database.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, phone BLOB, phone_index BLOB)")
    values = [f"+1 555 {n:04}" if n % 100 else None for n in range(1200)]
    contexts = [{"tenant": "acme" if n % 2 else "other"} for n in range(1200)]
    aads = [("users.phone", n) for n in range(1200)]
    messages = cipher.encrypt_many(
        [value and value.encode() for value in values], contexts=contexts, aads=aads
    )
    database.executemany(
        "INSERT INTO users VALUES (?, ?, ?)",
        [
            (n, messages[n], before.of(values[n], tenant=contexts[n]["tenant"]) if n % 3 else None)
            for n in range(1200)
        ],
    )

    def rows():
        for n, message, index in database.execute("SELECT * FROM users").fetchall():
            yield Row(n, message, index, contexts[n]["tenant"], contexts[n], aads[n])

    def found(n):
        marks = during.queries(values[n], tenant=contexts[n]["tenant"])
        sql = "SELECT id FROM users WHERE phone_index IN (?, ?)"
        return [row_id for (row_id,) in database.execute(sql, marks)]

    assert found(7) == [7]
    assert found(9) == []  # not computed yet
    for done, change in enumerate(backfill(during, cipher, rows())):
        database.execute("UPDATE users SET phone_index = ? WHERE id = ?", (change.index, change.key))
        if done % 400 == 0:
            assert found(7) == [7]
    assert done + 1 == sum(value is not None for value in values)
    assert found(9) == [9]
    assert list(backfill(phones([NEW]), cipher, rows())) == []


def test_an_index_beside_no_value_is_removed(cipher):
    (change,) = backfill(phones(), cipher, [Row("a", None, b"x" * 16, "acme")])
    assert change == Change("a", None)


@pytest.mark.parametrize("payload", (b"\xff", b"letters"))
def test_backfill_says_which_row_has_no_such_value(cipher, payload):
    """And shows nothing of it."""
    good = Row(1, cipher.encrypt_text("123"), None, "")
    rows = [good] * 700 + [replace(good, message=cipher.encrypt(payload))]
    with pytest.raises(ValueError, match="row 700: the value") as caught:
        list(backfill(phones(normalize="digits"), cipher, rows))
    assert "letters" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    (
        {"label": ""},
        {"label": "x" * 65536},
        {"bits": 3},
        {"bits": 129},
        {"normalize": "exakt"},
        {"keys": []},
        {"keys": [SecretValue(bytes(31))]},
        {"normalize": Normalizer("x" * 65536, str)},
    ),
    ids=range(8),
)
def test_what_cannot_be_an_index_is_refused_when_it_is_made(wrong):
    with pytest.raises(ConfigError) as caught:
        BlindIndex(**{"label": "users.phone", "keys": [OLD], **wrong})
    assert caught.value.remedy


@pytest.mark.parametrize("keys", ([bytes(32)], ["kmsb1_x"]))
def test_keys_that_would_show_are_refused(keys):
    with pytest.raises(TypeError, match="SecretValue"):
        phones(keys)


@pytest.mark.parametrize(
    ("value", "tenant"), ((b"x", ""), (1, ""), ("x", None), ("x", 1), ("\ud800", ""), ("x", "\ud800"))
)
def test_only_text_is_hashed(value, tenant):
    """A number as tenant would be found under no text."""
    with pytest.raises((TypeError, ValueError)) as caught:
        phones().of(value, tenant=tenant)
    assert type(caught.value) in (TypeError, ValueError)


def test_a_normalizer_of_ones_own():
    iban = Normalizer("acme.iban", lambda value: "".join(value.split()).upper())
    index = phones(normalize=iban)
    assert index.of("gb33 bukb", tenant="") == index.of("GB33BUKB", tenant="")
    assert index.normalize("gb33 bukb") == "GB33BUKB"


# Keys in the configuration.


@pytest.fixture
def configured(service, tmp_path, monkeypatch):
    """A configuration whose indexes are opened by a key of their own; returns how to write it."""
    monkeypatch.chdir(tmp_path)
    admin = {"encrypt_to": ["search"], "decrypt_with": ["search"]}
    settings = {
        "default_profile": "values",
        "keys": {"values": {"uri": "fake:app"}, "search": {"uri": "fake:other"}},
        "profiles": {
            "values": {"encrypt_to": ["values"]},
            "admin": admin,
            "search": {"decrypt_with": ["search"]},
        },
    }
    with EnvelopeCipher.from_mapping(settings, profile="admin") as cipher:
        settings["indexes"] = {
            "phone": {"profile": "search", "keys": [new_index_key(cipher, "phone") for _ in range(2)]},
            "other": {"profile": "values", "keys": [new_index_key(cipher, "other")]},
            "short": {
                "profile": "search",
                "keys": [armor(cipher.encrypt(bytes(16), context={"index": "short"}, aad=AAD))],
            },
        }
        settings["indexes"]["swapped"] = settings["indexes"]["phone"]
    return settings


def from_settings(settings, name="phone"):
    return BlindIndex("users.phone", keys=lambda: index_keys(name, settings))


def test_a_host_that_may_not_decrypt_values_searches(configured, service):
    """And makes no call for it but by the index's own key, once for all values and threads."""
    calls = []
    service.before = calls.append
    index = from_settings(configured)
    outcomes = on_threads(8, lambda: index.queries("x", tenant=""))
    assert [outcome.error for outcome in outcomes] == [None] * 8
    assert len({tuple(outcome.value) for outcome in outcomes}) == 1
    assert len(outcomes[0].value) == 2
    index.of("y", tenant="")
    assert calls == ["unwrap"]


def test_keys_are_those_of_the_configuration(configured, tmp_path):
    """By name, from the file that is found, as `from_mapping` has them."""
    lines = []
    for kind in ("keys", "profiles", "indexes"):
        for name, table in configured[kind].items():
            lines.append(f"[{kind}.{name}]")
            lines += [f"{key} = {value!r}" for key, value in table.items()]
    (tmp_path / "kmsbridge.toml").write_text("\n".join(lines))
    named = BlindIndex("users.phone", keys="phone")
    named.load_keys()
    assert named.of("x", tenant="") == from_settings(configured).of("x", tenant="")
    first, second = index_keys("phone", tmp_path / "kmsbridge.toml")
    assert first != second


@pytest.mark.parametrize(
    ("name", "error"),
    (("none", ConfigError), ("other", RoleError), ("short", ConfigError), ("swapped", AuthenticationError)),
)
def test_a_host_that_may_not_search_cannot(configured, name, error):
    """The index is not in its configuration, its profile does not decrypt, or the message is none of this index."""
    index = from_settings(configured, name)
    for _ in range(2):
        with pytest.raises(error):
            index.of("x", tenant="")


def test_a_key_service_that_fails_is_asked_again_with_the_next_value(configured, monkeypatch, service):
    def fail(operation):
        raise ConnectionError

    index = from_settings(configured)
    with monkeypatch.context() as patch:
        patch.setattr(service, "before", fail)
        with pytest.raises(KmsError):
            index.of("x", tenant="")
    assert index.of("x", tenant="")


@pytest.mark.parametrize(
    ("table", "says"),
    (
        ({"profile": "search"}, "has no keys"),
        ({"keys": ["x"]}, "has no profile"),
        ({"profile": "serch", "keys": ["x"]}, "did you mean 'search'"),
        ({"profile": "search", "keys": []}, "0 messages"),
        ({"profile": "search", "keys": ["x"] * 9}, "9 messages"),
        ({"profile": "search", "keys": "kmsb1_x"}, "wrong type"),
        ({"profile": "search", "keys": [1]}, "wrong type"),
        ({"profile": "search", "keys": ["x"], "bits": 8}, "bits"),
        ("phone", "wrong type"),
    ),
)
def test_a_table_that_is_wrong_is_refused_by_whoever_reads_it(configured, table, says):
    """Also by a host that uses the file for something else."""
    configured["indexes"] = {"phone": table}
    for use in (lambda: index_keys("phone", configured), lambda: Decryptor.from_mapping(configured)):
        with pytest.raises(ConfigError, match=says):
            use()


def test_a_key_may_stand_in_the_environment(configured):
    message = configured["indexes"]["phone"]["keys"][0]
    configured["indexes"] = {"phone": {"profile": "search", "keys": ["env:INDEX"]}}
    (key,) = index_keys("phone", configured, env={"INDEX": message})
    assert key.use(len) == 32
    with pytest.raises(ConfigError, match="INDEX"):
        index_keys("phone", configured, env={})


def test_the_key_uri_alone_has_no_index(service, monkeypatch):
    monkeypatch.setenv("KMSBRIDGE_KEY", "fake:app")
    with pytest.raises(ConfigError, match="KMSBRIDGE_KEY"):
        index_keys("phone")


def test_a_forked_child_goes_on(configured):
    """Also one that is forked while another thread loads the keys."""
    index = from_settings(configured)
    locked, forked = threading.Event(), threading.Event()

    def hold():
        with index._keys._lock:
            locked.set()
            forked.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait()
    child = fork(lambda: index.of("x", tenant=""))
    finish([child])
    forked.set()
    holder.join()


def test_an_index_shows_and_gives_away_no_key():
    index = phones([SecretValue(b"canary canary canary canary 1234")])
    assert repr(index) == "BlindIndex('users.phone', normalize='exact', bits=128)"
    assert "canary" not in repr(vars(index)) + repr(vars(index._keys))
    for leave in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError):
            leave(index)


def test_a_region_is_no_part_of_the_index():
    british, any_region = phones(normalize=e164("GB")), phones(normalize="e164")
    assert british.of("020 7946 0018", tenant="") == any_region.of("+44 20 7946 0018", tenant="")
