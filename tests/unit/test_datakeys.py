"""The life of data keys: caches, flights and what the audit trail is told of them."""

import itertools
import logging

import pytest

from kmsbridge import AuditError, AuthenticationError, ClosedError, EnvelopeCipher, LimitExceeded
from kmsbridge.clock import Deadline
from kmsbridge.context import EMPTY, EncryptionContext
from kmsbridge.datakeys import KeyCache, SingleFlight, context_key, data_key_context
from kmsbridge.message import Header, Kind, Recipient
from kmsbridge.policy import DataKeyPolicy
from kmsbridge.secret import Secret
from tests.support import Clock

RECIPIENT = Recipient("fake:app", "1", b"wrapped")
HEADER = Header(Kind.INLINE, 30, (RECIPIENT,))


@pytest.fixture
def clock():
    return Clock()


def put(cache, name):
    return cache.put(name, cache.new(Secret(bytes(32)), RECIPIENT, EMPTY, HEADER))


def test_one_context_has_one_name_however_it_is_given():
    """Order and type of the mapping make no difference; another value does."""
    pairs = {"a": "1", "b": "2"}
    assert context_key(pairs) == context_key({"b": "2", "a": "1"}) == context_key(EncryptionContext.of(pairs))
    assert context_key(None) == context_key({}) == context_key(EMPTY)
    assert context_key(pairs) != context_key({"a": "2", "b": "1"})


def test_a_wrapped_data_key_is_bound_to_being_one():
    """The reserved pair."""
    assert dict(data_key_context(EncryptionContext.of({"a": "b"}))) == {"a": "b", "kmsbridge": "dek"}


def test_what_is_looked_at_is_not_counted(clock):
    """`peek` leaves the allowance alone, and gives nothing that is used up."""
    cache = KeyCache(DataKeyPolicy(max_messages=1), clock=clock)
    entry = put(cache, "a")
    assert cache.peek("a") is cache.peek("a") is cache.use("a", 1) is entry
    assert cache.peek("a") is cache.use("a", 1) is None


def test_a_data_key_that_is_too_old_is_not_used_though_it_was_not_swept_yet(clock):
    """By its name, by its alias, or by whoever holds it."""
    cache = KeyCache(DataKeyPolicy(max_age=10.0), clock=clock)
    entry = put(cache, "a")
    cache.give_alias(entry, "alias", 5, Kind.INLINE)
    clock.now += 9.9
    assert cache.peek("a") is cache.use("a", 1) is cache.use_alias("alias", 1) is entry
    assert cache.use_entry(entry, 1) is entry
    clock.now += 0.1
    assert len(cache) == 1
    assert cache.peek("a") is cache.use("a", 1) is cache.use_alias("alias", 1) is None
    assert cache.use_entry(entry, 1) is None


def test_the_bytes_that_a_data_key_serves_are_bounded(clock):
    """The message that crosses the line is still served, and what a stream counts at its end counts as well."""
    cache = KeyCache(DataKeyPolicy(max_bytes=100), clock=clock)
    entry = put(cache, "a")
    assert cache.use("a", 60) is cache.use("a", 60) is entry
    assert cache.use("a", 1) is cache.peek("a") is None
    streamed = put(cache, "b")
    assert cache.use("b", 0) is streamed
    streamed.spend(100)
    assert cache.use("b", 0) is None


def test_a_dropped_entry_is_told_of_once(clock):
    """Replaced, evicted or closed."""
    told = []
    cache = KeyCache(DataKeyPolicy(max_entries=2), clock=clock, dropped=told.append)
    first, second = put(cache, "a"), put(cache, "a")
    assert told == [first]
    put(cache, "b")
    put(cache, "c")
    assert told == [first, second]
    cache.close()
    cache.close()
    assert len(told) == len({id(each) for each in told}) == 4


def test_a_closed_cache_keeps_nothing(clock):
    """Also what comes in from a call that was under way."""
    cache = KeyCache(DataKeyPolicy(), clock=clock)
    cache.close()
    put(cache, "late")
    assert len(cache) == 0
    with pytest.raises(ClosedError):
        cache.check_open()


def test_closing_tells_of_every_entry_though_one_cannot_be_told(clock):
    """The error comes out when all are done."""
    told = []

    def fails_once(entry):
        told.append(entry)
        if len(told) == 1:
            raise AuditError("disk full")

    cache = KeyCache(DataKeyPolicy(), clock=clock, dropped=fails_once)
    for name in "abc":
        put(cache, name)
    with pytest.raises(AuditError):
        cache.close()
    assert len(told) == 3


def test_nothing_is_remembered_of_a_flight_that_ended():
    """The next one loads again."""
    flights, loads = SingleFlight(), itertools.count(1)
    assert [flights.run("name", lambda: next(loads), Deadline(1)) for _ in range(3)] == [1, 2, 3]
    assert not flights._flights


def test_the_messages_of_a_data_key_are_told_when_it_goes(caplog, service):
    """One event with their number for each direction, none for each message."""
    caplog.set_level(logging.INFO, logger="kmsbridge.audit")
    with EnvelopeCipher.from_uri("fake:app") as cipher:
        for message in cipher.encrypt_many([b"x"] * 50):
            cipher.decrypt(message)
    events = [record.kmsbridge for record in caplog.records]
    told = [(each["operation"], each["source"], each["messages"]) for each in events]
    assert sorted(told) == [
        ("decrypt", "cache", 50),
        ("encrypt", "cache", 50),
        ("unwrap", "call", 0),
        ("wrap", "call", 0),
    ]


def test_the_first_calls_event_has_its_own_request_id(caplog, service):
    """Not that of the call that found out the key's id."""
    caplog.set_level(logging.INFO, logger="kmsbridge.audit")
    with EnvelopeCipher.from_uri("fake:app") as cipher:
        cipher.encrypt(b"x")
    [wrap] = [record.kmsbridge for record in caplog.records if record.kmsbridge["operation"] == "wrap"]
    assert wrap["request_id"].startswith("fake-")
    assert wrap["key_id"] == "fake:app"
    assert wrap["attempts"] == 1


def test_a_call_that_found_nothing_authentic_has_its_request_id(caplog, service):
    """In its event, though not in the error, which is the same for all causes; and none that is another call's."""
    caplog.set_level("INFO", "kmsbridge.audit")
    with EnvelopeCipher.from_uri("fake:app") as cipher:
        message = cipher.encrypt(b"x", context={"tenant": "acme"})
        with pytest.raises(AuthenticationError) as caught:
            cipher.decrypt(message, context={"tenant": "another"})
    assert not hasattr(caught.value, "request_id")
    events = [record.kmsbridge for record in caplog.records if hasattr(record, "kmsbridge")]
    wrap, unwrap = (event for event in events if event["source"] == "call")
    assert unwrap["outcome"] == "AuthenticationError"
    assert unwrap["request_id"].startswith("fake-")
    assert unwrap["request_id"] != wrap["request_id"]
    assert unwrap["attempts"] == 1


def test_what_was_refused_before_a_call_is_no_use_of_the_key(caplog, service):
    """It has no event: the key service was never asked."""
    caplog.set_level("INFO", "kmsbridge.audit")
    with EnvelopeCipher.from_uri("fake:app", direct=True) as cipher:
        cipher.encrypt(b"x")
        told = len(caplog.records)
        with pytest.raises(LimitExceeded):
            cipher.encrypt(bytes(2**16))
    assert len(caplog.records) == told
