"""A key is one key, whichever of its names the URI has."""

import contextlib
import itertools
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kmsbridge import Encryptor, EnvelopeCipher, inspect
from kmsbridge.driver import EncryptionContext
from kmsbridge.observer import Observer
from tests.backends.aws import REGION, plain_client

ACCESS = {"access_key_id": "test", "secret_access_key": "test"}
BOUND = EncryptionContext.of({"tenant": "acme"}).with_reserved(kmsbridge="dek")
ELSEWHERE = "us-east-1"


@pytest.fixture
def kms(end):
    return end.enter_context(contextlib.closing(plain_client()))


@pytest.fixture
def names(kms):
    """A key, by each of its names."""
    metadata = kms.create_key()["KeyMetadata"]
    alias = f"alias/team/{secrets.token_hex(6)}"
    kms.create_alias(AliasName=alias, TargetKeyId=metadata["KeyId"])
    account = metadata["Arn"].rpartition(":")[0]
    return {
        "id": metadata["KeyId"],
        "alias": alias,
        "ARN": metadata["Arn"],
        "alias ARN": f"{account}:{alias}",
    }


@pytest.fixture
def multi_region(kms):
    """The ARNs of a primary key and of its replica."""
    primary = kms.create_key(MultiRegion=True)["KeyMetadata"]["Arn"]
    replica = kms.replicate_key(KeyId=primary, ReplicaRegion=ELSEWHERE)["ReplicaKeyMetadata"]["Arn"]
    return primary, replica


def uri_of(name, endpoint, region=REGION):
    return f"aws-kms://{name}?endpoint_url={endpoint}" + (
        "" if name.startswith("arn:") else f"&region={region}"
    )


def test_every_name_leads_to_one_key_id(driver_of, endpoint, names):
    """`aws-kms:` and the ARN: a message written under one name opens under another."""
    drivers = [driver_of(uri_of(name, endpoint), **ACCESS) for name in names.values()]
    assert {driver.resolve(timeout=10) for driver in drivers} == {f"aws-kms:{names['ARN']}"}
    wrapped = [driver.wrap(bytes(32), BOUND, timeout=10) for driver in drivers]
    for driver in drivers:
        assert {driver.unwrap(each, BOUND, timeout=10) for each in wrapped} == {bytes(32)}


@pytest.mark.parametrize(("name", "calls"), [("id", 1), ("alias", 1), ("alias ARN", 1), ("ARN", 0)])
def test_name_is_resolved_once(driver_of, front, names, name, calls):
    """By one DescribeKey; a key's ARN needs none."""
    front.allow("test")
    driver = driver_of(uri_of(names[name], "http://{}:{}".format(*front.address)), **ACCESS)
    for _ in range(3):
        assert driver.resolve(timeout=10) == f"aws-kms:{names['ARN']}"
        driver.wrap(bytes(32), BOUND, timeout=10)
    asked = {action: count for (action, _), count in front.counts.items()}
    assert asked == {"Encrypt": 3, **({"DescribeKey": calls} if calls else {})}


@pytest.mark.parametrize("name", ["id", "alias", "alias ARN"])
def test_encrypting_host_asks_for_no_arn(front, names, name):
    """The answer of Encrypt names the key, also in the audit trail; a host that may not DescribeKey encrypts."""
    front.allow("AKIAENCRYPTOR", ("Encrypt",))
    told = []

    class Told(Observer):
        def call_finished(self, call, result):
            told.append((call.operation, result.key_id))

    uri = uri_of(names[name], "http://{}:{}".format(*front.address))
    keys = {"aws": {"uri": uri, **ACCESS, "access_key_id": "AKIAENCRYPTOR"}}
    settings = {"keys": keys, "profiles": {"web": {"encrypt_to": ["aws"], "data_keys": {"max_messages": 1}}}}
    with Encryptor.from_mapping(settings, observers=[Told()]) as cipher:
        messages = [cipher.encrypt(b"payload") for _ in range(3)]
    assert {inspect(message).recipients[0].key_id for message in messages} == {f"aws-kms:{names['ARN']}"}
    assert front.counts == {("Encrypt", names[name]): 1, ("Encrypt", names["ARN"]): 2}
    assert told == [("wrap", f"aws-kms:{names['ARN']}")] * 3


def test_first_encryptions_at_once_keep_to_one_key(front, kms, names):
    """Of an alias that is moved between them, which another key's answer is not taken for."""
    front.allow("test")
    other = kms.create_key()["KeyMetadata"]["KeyId"]
    answer, numbers = front.answer, itertools.count()
    second_came, moved = threading.Event(), threading.Event()

    def answer_in_turn(body, headers):
        number = next(numbers)
        if number == 1:
            second_came.set()
            moved.wait(10)
        told = answer(body, headers)
        if number == 0:
            second_came.wait(10)
            kms.update_alias(AliasName=names["alias"], TargetKeyId=other)
            moved.set()
        return told

    front.answer = answer_in_turn
    uri = uri_of(names["alias"], "http://{}:{}".format(*front.address))
    with EnvelopeCipher.from_uri(uri, **ACCESS) as cipher, ThreadPoolExecutor(2) as threads:
        messages = list(threads.map(lambda n: cipher.encrypt(b"p", context={"n": str(n)}), range(2)))
    assert len({inspect(message).recipients[0].key_id for message in messages}) == 1


def test_alias_that_is_moved_is_followed_by_a_new_driver_alone(driver_of, endpoint, kms, names):
    """An open driver's key does not change under it."""
    driver = driver_of(uri_of(names["alias"], endpoint), **ACCESS)
    before = driver.resolve(timeout=10)
    kms.update_alias(AliasName=names["alias"], TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    assert driver.resolve(timeout=10) == driver.describe(timeout=10).key_id == before
    assert driver_of(uri_of(names["alias"], endpoint), **ACCESS).resolve(timeout=10) != before


def test_replica_opens_what_the_primary_wrapped(endpoint, multi_region):
    """In its own region, under one key id, so that a message names both."""
    primary, replica = (uri_of(arn, endpoint) for arn in multi_region)
    with (
        EnvelopeCipher.from_uri(primary, **ACCESS) as here,
        EnvelopeCipher.from_uri(replica, **ACCESS) as there,
    ):
        message = here.encrypt(b"payload", context={"tenant": "acme"})
        assert there.decrypt(message, context={"tenant": "acme"}) == b"payload"
        assert not there.needs_rewrap(message)
        assert here.decrypt(there.encrypt(b"back")) == b"back"


def test_multi_region_key_id_has_no_region(driver_of, endpoint, multi_region):
    """Whether the URI has the id with a region, or an ARN."""
    arn = multi_region[0]
    names = [(arn, REGION), (multi_region[1], ELSEWHERE)]
    names += [(arn.rpartition("/")[2], region) for region in (REGION, ELSEWHERE)]
    ids = {driver_of(uri_of(name, endpoint, region), **ACCESS).resolve(timeout=10) for name, region in names}
    assert ids == {f"aws-kms:{arn.replace(REGION, '*')}"}


def test_each_region_is_asked_for_its_own_key(driver_of, endpoint, kms, multi_region):
    """The replica goes on while the primary is disabled."""
    primary, replica = (driver_of(uri_of(arn, endpoint), **ACCESS) for arn in multi_region)
    wrapped = primary.wrap(bytes(32), BOUND, timeout=10)
    kms.disable_key(KeyId=multi_region[0])
    assert replica.unwrap(wrapped, BOUND, timeout=10) == bytes(32)
    assert primary.describe(timeout=10).state.name == "DISABLED"
