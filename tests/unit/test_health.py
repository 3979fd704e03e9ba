"""`check`: how the keys and caches of a cipher do, without a call or by trying them."""

import asyncio
import json
import threading
import time

import pytest

from kmsbridge import (
    CacheHealth,
    ClosedError,
    Decryptor,
    Encryptor,
    EnvelopeCipher,
    Health,
    KeyHealth,
    KmsError,
    aio,
)
from kmsbridge.audit import verify
from kmsbridge.driver import ErrorKind, KeyState
from kmsbridge.errors import AuditError, ConfigError
from kmsbridge.keys.breaker import LEAST
from tests.support import Clock, finish, fork, on_threads

QUICK = {"calls": {"max_attempts": 1}}


def calls(service):
    return sum(sum(key.calls.values()) for key in (service.app, service.other))


def only(health):
    (key,) = health.keys
    return key


def make_outage(service, cipher, key="app"):
    """Call until the breaker is open; the service answers again afterwards."""
    broken = getattr(service, key)
    broken.fail("wrap", ErrorKind.UNAVAILABLE)
    for n in range(LEAST):
        with pytest.raises(KmsError):
            cipher.encrypt(b"x", context={"n": str(n)})
    broken.heal()


def test_without_a_probe_it_makes_no_call(service, cipher):
    """Nor before anything was done: then nothing is known to be wrong."""
    health = cipher.check()
    assert health == Health(
        ok=True,
        profile="default",
        keys=(
            KeyHealth(
                name="uri",
                key_id="",
                encrypt_to=True,
                decrypt_with=True,
                ok=True,
                breaker="closed",
                failing_for=0.0,
                throttled=False,
            ),
        ),
        encryption_cache=CacheHealth(data_keys=0, max_entries=1000, oldest=0.0),
        decryption_cache=CacheHealth(data_keys=0, max_entries=1000, oldest=0.0),
    )
    assert calls(service) == 0


def test_it_says_what_the_caches_hold(service, monkeypatch):
    """How many data keys for each, and the age of the oldest."""
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_entries": 7}) as cipher:
        clock = Clock()
        for keys in (cipher._encryption.data_keys, cipher._decryption.data_keys):
            monkeypatch.setattr(keys.cache, "_clock", clock)
        first = cipher.encrypt(b"x", context={"n": "1"})
        clock.now += 60
        cipher.decrypt(first, context={"n": "1"})
        cipher.encrypt(b"x", context={"n": "2"})
        clock.now += 5
        health = cipher.check()
        assert health.encryption_cache == CacheHealth(2, 7, 65.0)
        assert health.decryption_cache == CacheHealth(1, 7, 5.0)
        assert only(health).key_id == "fake:app"
        assert health.ok


def test_each_class_says_what_it_has(service):
    """An encryptor has no cache for decrypting, and looks at no key of `decrypt_with`."""
    with EnvelopeCipher.from_uri("fake:app", decrypt_uris=["fake:other"]) as cipher:
        assert [key.encrypt_to for key in cipher.check().keys] == [True, False]
        half = cipher.encryptor.check()
        assert half.decryption_cache is None
        assert [(key.encrypt_to, key.decrypt_with) for key in half.keys] == [(True, False)]
        other = cipher.decryptor.check()
        assert other.encryption_cache is None
        assert [(key.encrypt_to, key.decrypt_with) for key in other.keys] == [(False, True)] * 2
    for cls, cache in ((Encryptor, "decryption_cache"), (Decryptor, "encryption_cache")):
        with cls.from_uri("fake:app") as part:
            assert getattr(part.check(), cache) is None


def test_a_service_that_fails_too_often_is_not_ok(service):
    """Until the next call would find out whether it is back: else nobody would ever find out."""
    with EnvelopeCipher.from_uri("fake:app", **QUICK) as cipher:
        service.app.fail("wrap", ErrorKind.UNAVAILABLE, times=1)
        with pytest.raises(KmsError):
            cipher.encrypt(b"x")
        once = only(cipher.check())
        assert (once.ok, once.breaker) == (True, "closed")
        assert once.failing_for >= 0
        make_outage(service, cipher)
        before = calls(service)
        health = cipher.check()
        assert not health.ok
        assert (only(health).breaker, only(health).ok) == ("open", False)
        assert only(health).failing_for > 0
        assert "failed too often" in only(health).problem
        breaker = cipher._session.encrypt_to[0].health.breaker
        clock = Clock()
        clock.now = time.monotonic() + 10
        breaker._clock = clock
        assert (only(cipher.check()).breaker, cipher.check().ok) == ("half-open", True)
        assert calls(service) == before
        cipher.encrypt(b"x")
        assert only(cipher.check()).breaker == "closed"
        assert only(cipher.check()).failing_for == 0


def test_encrypting_takes_every_key_and_decrypting_one(service):
    """As the operations do."""
    with EnvelopeCipher.from_uri("fake:app", decrypt_uris=["fake:other"], **QUICK) as cipher:
        make_outage(service, cipher)
        assert not cipher.check().ok
        assert not cipher.encryptor.check().ok
        assert cipher.decryptor.check().ok
        assert [key.ok for key in cipher.decryptor.check().keys] == [False, True]


def test_a_service_that_throttles_is_told(service):
    """It does its work, more slowly, so it is ok."""
    with Encryptor.from_uri("fake:app") as encryptor:
        assert not only(encryptor.check()).throttled
        encryptor._session.encrypt_to[0]._calls._sleep = lambda seconds: None
        service.app.fail("wrap", ErrorKind.THROTTLED)
        with pytest.raises(KmsError):
            encryptor.encrypt(b"x")
        key = only(encryptor.check())
        assert (key.throttled, key.ok) == (True, True)
        limiter = encryptor._session.encrypt_to[0].health.limiter
        clock = Clock()
        clock.now = time.monotonic() + 60
        limiter._clock = clock
        assert not only(encryptor.check()).throttled


def test_a_probe_tries_what_each_key_is_for(service):
    """And nothing else: what an encryptor may not do is not tried, so no refusal is in the service's log."""
    with EnvelopeCipher.from_uri("fake:app", decrypt_uris=["fake:other"]) as cipher:
        health = cipher.check(probe=True)
        assert health.ok
        app, other = health.keys
        assert (app.key_id, app.reachable, app.state, app.version) == ("fake:app", True, "enabled", "1")
        assert (app.wrap.may, app.wrap.measured, app.unwrap.may, app.unwrap.proven) == (
            True,
            "probe",
            True,
            True,
        )
        assert app.describe.may
        assert other.wrap is None
        assert (other.unwrap.may, other.unwrap.measured, other.unwrap.proven) == (True, "forged", False)
        assert dict(service.app.calls) == {"describe": 1, "wrap": 1, "unwrap": 1}
        assert dict(service.other.calls) == {"describe": 1, "unwrap": 1}
    with Encryptor.from_uri("fake:app", role="encrypt-only") as encryptor:
        assert encryptor.check(probe=True).ok
        assert only(encryptor.check(probe=True)).unwrap is None
    with Decryptor.from_uri("fake:app", role="decrypt-only") as decryptor:
        assert decryptor.check(probe=True).ok


@pytest.mark.parametrize(
    ("kind", "error", "reachable"),
    (
        (ErrorKind.ACCESS_DENIED, "KmsAccessDenied", True),
        (ErrorKind.KEY_DISABLED, "KmsKeyDisabled", True),
        (ErrorKind.UNAVAILABLE, "KmsUnavailable", True),
    ),
    ids=lambda each: getattr(each, "name", None),
)
def test_what_does_not_work_is_in_the_result(service, kind, error, reachable):
    """With the error's class, its text and what to do; nothing is raised."""
    service.app.fail("wrap", kind)
    with Encryptor.from_uri("fake:app", **QUICK) as encryptor:
        health = encryptor.check(probe=True)
        key = only(health)
        assert (health.ok, key.ok, key.reachable) == (False, False, reachable)
        assert (key.wrap.may, key.wrap.error) == (False if "Denied" in error else None, error)
        assert key.problem.startswith("wrap: ")
        assert encryptor.check().ok


def test_a_key_in_a_state_in_which_it_cannot_unwrap_is_not_ok(service):
    """Also where only a forged wrapped key could be tried."""
    with Decryptor.from_uri("fake:app") as decryptor:
        service.app.state = KeyState.DISABLED
        health = decryptor.check(probe=True)
        assert not health.ok
        assert only(health).state == "disabled"
        assert "disabled" in only(health).problem


def test_all_keys_are_tried_within_one_deadline(service):
    """However many calls each takes, and at the same time."""
    for operation in ("describe", "wrap", "unwrap"):
        service.app.delay(operation, 0.4)
        service.other.delay(operation, 0.4)
    options = {"calls": {"deadline": 0.5, "attempt_timeout": 0.5, "max_attempts": 1}}
    with EnvelopeCipher.from_uri("fake:app", decrypt_uris=["fake:other"], **options) as cipher:
        started = time.monotonic()
        health = cipher.check(probe=True)
        took = time.monotonic() - started
    assert not health.ok
    assert [key.reachable for key in health.keys] == [True, True]
    assert took < 5


def test_a_probe_is_bound_to_the_context_that_is_given(service, caplog):
    """For keys whose policies require a pair; and to one that no data key has."""
    caplog.set_level("INFO", "kmsbridge.audit")
    with Encryptor.from_uri("fake:app") as encryptor:
        encryptor.check(probe=True, context={"tenant": "acme"})
        with pytest.raises(ConfigError):
            encryptor.check(probe=True, context={"kmsbridge": "x"})
    events = [record.kmsbridge for record in caplog.records if record.kmsbridge["operation"] == "wrap"]
    assert [event["context"] for event in events] == [{"tenant": "acme", "kmsbridge": "probe"}]


def test_a_probe_finds_out_that_a_service_is_back(service):
    """Where its time has come, the breaker lets it through as any call."""
    with EnvelopeCipher.from_uri("fake:app", **QUICK) as cipher:
        make_outage(service, cipher)
        assert only(cipher.check(probe=True)).describe.error == "KmsUnavailable"
        clock = Clock()
        clock.now = time.monotonic() + 10
        cipher._session.encrypt_to[0].health.breaker._clock = clock
        health = cipher.check(probe=True)
        assert health.ok
        assert only(health).breaker == "closed"


def test_it_is_json(service):
    """All of it, with and without a probe."""
    with EnvelopeCipher.from_uri("fake:app") as cipher:
        for probe in (False, True):
            shown = json.loads(json.dumps(cipher.check(probe=probe).as_dict()))
            assert shown["ok"] is True
            assert shown["keys"][0]["breaker"] == "closed"
            assert shown["encryption_cache"] == {"data_keys": 0, "max_entries": 1000, "oldest": 0.0}
            assert (shown["keys"][0]["wrap"] or {}).get("may") is (True if probe else None)


def test_after_close_it_raises(service):
    """Also where only that half was closed."""
    cipher = EnvelopeCipher.from_uri("fake:app")
    cipher.encryptor.close()
    with pytest.raises(ClosedError):
        cipher.encryptor.check()
    assert cipher.decryptor.check().ok
    cipher.close()
    for probe in (False, True):
        with pytest.raises(ClosedError):
            cipher.check(probe=probe)


def test_asyncio_s_say_the_same(service):
    """Without a probe on the event loop, with one on a thread."""
    threads = set()
    service.before = lambda operation: threads.add(threading.current_thread())

    async def main():
        async with aio.EnvelopeCipher.from_uri("fake:app") as cipher:
            assert (await cipher.check()).ok
            assert not threads
            health = await cipher.check(probe=True)
            assert only(health).wrap.may
            assert (await cipher.encryptor.check()).decryption_cache is None
            assert (await cipher.decryptor.check()).encryption_cache is None
        with pytest.raises(ClosedError):
            await cipher.check()

    asyncio.run(main())
    assert threads
    assert threading.main_thread() not in threads


def test_threads_and_children_may_ask(service, cipher):
    """A child begins with nothing in its caches."""
    cipher.encrypt(b"x")
    outcomes = on_threads(8, lambda: cipher.check(probe=True).ok)
    assert [outcome.value for outcome in outcomes] == [True] * 8

    def in_child():
        health = cipher.check()
        assert health.ok
        assert health.encryption_cache.data_keys == 0

    finish([fork(in_child)])


def test_calls_are_in_the_audit_trail(service, tmp_path):
    """One that is required and cannot be written fails the check, as any operation."""
    path = tmp_path / "audit.jsonl"
    with Encryptor.from_uri("fake:app", audit={"file": str(path), "required": True}) as encryptor:
        encryptor.check(probe=True)
        assert verify(path).lines == 1
        path.unlink()
        path.mkdir()
        with pytest.raises(AuditError):
            encryptor.check(probe=True)
        assert encryptor.check().ok
