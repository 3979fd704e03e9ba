"""More than one key: a message opens while one of them can open it."""

import threading
import time

import pytest

from kmsbridge import (
    AuthenticationError,
    Encryptor,
    EnvelopeCipher,
    KmsAccessDenied,
    KmsUnavailable,
    NoMatchingKey,
    inspect,
)
from kmsbridge.driver import ErrorKind
from tests.support import PATIENCE


@pytest.fixture
def open_profile(tmp_path, service):
    """Opens a profile over the keys app and other."""

    def open_profile(kind, encrypt_to, decrypt_with):
        path = tmp_path / "kmsbridge.toml"
        path.write_text(
            '[keys.app]\nuri = "fake:app"\n[keys.other]\nuri = "fake:other"\n'
            f"[profiles.p]\nencrypt_to = {encrypt_to}\ndecrypt_with = {decrypt_with}\ncalls = {{ max_attempts = 1 }}\n"
        )
        return kind.from_config(path)

    return open_profile


@pytest.fixture
def both(open_profile):
    with open_profile(EnvelopeCipher, ["app", "other"], ["app", "other"]) as cipher:
        yield cipher


def test_a_message_for_two_keys_opens_with_either(service, both, open_profile, encrypt):
    """One service down: the other is asked."""
    message = encrypt(both, b"x")
    assert [each.key_id for each in inspect(message).recipients] == ["fake:app", "fake:other"]
    for down in (service.app, service.other):
        down.fail("unwrap", ErrorKind.UNAVAILABLE)
        with open_profile(EnvelopeCipher, ["app"], ["app", "other"]) as reader:
            assert reader.decrypt(message) == b"x"
        down.heal()


@pytest.mark.parametrize("kind", ErrorKind, ids=lambda kind: kind.name)
def test_no_failure_of_the_first_key_keeps_the_second_from_being_tried(service, both, kind, encrypt):
    """Whatever class it is of."""
    message = encrypt(both, b"x")
    service.app.fail("unwrap", kind)
    assert both.decrypt(message) == b"x"


def test_a_key_that_cannot_tell_its_id_does_not_keep_others_from_opening(monkeypatch, service, both, encrypt):
    """An alias that must be resolved at a service that is down."""
    message = encrypt(both, b"x")
    app = both._session.keys["app"]
    app._identity.key_id = ""
    monkeypatch.setattr(type(app.driver), "resolve", _unreachable)
    both._session.keys["other"]._identity.key_id = "fake:other"
    assert both.decrypt(message) == b"x"
    assert both.decrypt_many([message]) == [b"x"]


def test_a_key_that_may_not_tell_its_id_is_in_the_audit_trail(monkeypatch, service, both, caplog, encrypt):
    """Though another key helps."""
    message = encrypt(both, b"x")
    both._session.keys["app"]._identity.key_id = ""
    monkeypatch.setattr(type(both._session.keys["app"].driver), "resolve", _unreachable)
    both._session.keys["other"]._identity.key_id = "fake:other"
    caplog.set_level("INFO", "kmsbridge.audit")
    assert both.decrypt(message) == b"x"
    events = [(record.kmsbridge["operation"], record.kmsbridge["outcome"]) for record in caplog.records]
    assert events == [("resolve", "KmsUnavailable"), ("unwrap", "ok")]


def _unreachable(driver, *, timeout):
    from kmsbridge.testing.fakes.service import FakeError

    raise FakeError(ErrorKind.UNAVAILABLE)


def test_where_no_key_could_tell_its_id_the_failure_is_told(monkeypatch, service, both, encrypt):
    """`KmsUnavailable`, not `NoMatchingKey`: it may match."""
    message = encrypt(both, b"x")
    for key in both._session.keys.values():
        key._identity.key_id = ""
    monkeypatch.setattr(type(both._session.keys["app"].driver), "resolve", _unreachable)
    with pytest.raises(KmsUnavailable):
        both.decrypt(message)


def test_where_all_fail_the_services_failure_comes_first_and_the_others_are_noted(service, both, encrypt):
    """One that is down is more likely the cause than a message that is not authentic."""
    message = encrypt(both, b"x")
    service.app.fail("unwrap", ErrorKind.NOT_AUTHENTIC)
    service.other.fail("unwrap", ErrorKind.ACCESS_DENIED)
    with pytest.raises(KmsAccessDenied) as caught:
        both.decrypt(message)
    assert any("authenticated" in note for note in caught.value.__notes__)


def test_a_wrap_that_cannot_reach_every_key_fails(service, both):
    """No message with fewer recipients than configured."""
    service.other.fail("wrap", ErrorKind.UNAVAILABLE)
    with pytest.raises(KmsUnavailable):
        both.encrypt(b"x")


def test_decrypt_with_is_tried_in_its_order(service, both, open_profile, encrypt):
    """Not in the message's."""
    message = encrypt(both, b"x")
    with open_profile(EnvelopeCipher, ["app"], ["other", "app"]) as reader:
        reader.decrypt(message)
    assert service.other.calls["unwrap"] == 1
    assert service.app.calls["unwrap"] == 0


def test_a_key_that_is_not_in_decrypt_with_is_never_contacted(service, both, open_profile, encrypt):
    """A message cannot make this host connect anywhere; the error names both sides."""
    with Encryptor.from_uri("fake:other") as writer:
        message = encrypt(writer, b"x")
    service.other.calls.clear()
    reader = open_profile(EnvelopeCipher, ["app", "other"], ["app"])
    with reader, pytest.raises(NoMatchingKey, match="'fake:other'.*'fake:app'") as caught:
        reader.decrypt(message)
    assert "decrypt_with" in caught.value.remedy
    assert not service.other.calls
    assert not service.app.calls


def test_a_message_wrapped_with_another_context_is_not_authentic_with_any_key(both, encrypt):
    """Two refusals are still one class and one wording."""
    message = encrypt(both, b"x", context={"a": "b"})
    with pytest.raises(AuthenticationError):
        both.decrypt(message, context={"a": "c"})


# --- a key that does not answer -------------------------------------------------------------------


@pytest.fixture
def patient(tmp_path, service):
    """Decrypts with app, then with other; three attempts, as by default."""
    path = tmp_path / "kmsbridge.toml"
    path.write_text(
        '[keys.app]\nuri = "fake:app"\n[keys.other]\nuri = "fake:other"\n'
        '[profiles.p]\nencrypt_to = ["app", "other"]\ndecrypt_with = ["app", "other"]\n'
        "data_keys = { max_messages = 1 }\n"
    )
    with EnvelopeCipher.from_config(path) as cipher:
        yield cipher


def recording(threads, call):
    """`call`, which notes the thread it was made on."""

    def recorded(*arguments, **options):
        threads.append(threading.current_thread().name)
        return call(*arguments, **options)

    return recorded


@pytest.mark.parametrize("kind", [ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT], ids=lambda kind: kind.name)
def test_an_unreachable_key_costs_one_attempt_and_then_nothing(service, patient, kind, encrypt):
    """Many readers later it has been asked once."""
    message = encrypt(patient, b"x")
    service.app.fail("unwrap", kind)
    for _ in range(100):
        assert patient.decrypt(message) == b"x"
    assert service.app.calls["unwrap"] == 1
    assert service.other.calls["unwrap"] == 100


def test_a_key_that_throttles_costs_few_calls_and_no_wait(service, patient, encrypt):
    """It is asked now and then, once by a reader, and the next key serves meanwhile."""
    message = encrypt(patient, b"x")
    service.app.fail("unwrap", ErrorKind.THROTTLED)
    began = time.monotonic()
    for _ in range(100):
        assert patient.decrypt(message) == b"x"
    assert 0 < service.app.calls["unwrap"] < 50
    assert service.other.calls["unwrap"] == 100
    assert time.monotonic() - began < PATIENCE


def test_a_key_that_answers_again_is_found_without_a_reader_waiting(monkeypatch, service, patient, encrypt):
    """By a probe on another thread, when its time has come; then it is the first again."""
    message = encrypt(patient, b"x")
    service.app.fail("unwrap", ErrorKind.UNAVAILABLE)
    assert patient.decrypt(message) == b"x"
    service.app.heal()
    app = patient._session.keys["app"]
    assert app.unhealthy
    threads = []
    for key in patient._session.keys.values():
        monkeypatch.setattr(key, "unwrap", recording(threads, key.unwrap))
    monkeypatch.setattr(app._calls.health.breaker, "_next_probe", 0.0)
    assert patient.decrypt(message) == b"x"
    for thread in threading.enumerate():
        if thread.name == "kmsbridge-probe":
            thread.join(30)
    assert not app.unhealthy
    assert sorted(threads) == sorted([threading.current_thread().name, "kmsbridge-probe"])
    asked = service.other.calls["unwrap"]
    assert patient.decrypt(message) == b"x"
    assert service.other.calls["unwrap"] == asked


def test_an_open_breaker_does_not_keep_the_probe_from_the_service(service, patient, encrypt):
    """What was found failing by many readers is found well again, too."""
    message = encrypt(patient, b"x")
    service.app.fail("unwrap", ErrorKind.UNAVAILABLE)
    app = patient._session.keys["app"]
    for _ in range(40):
        app._calls.health.breaker.failed()
    assert not app._calls.health.breaker.allows()
    service.app.heal()
    app._calls.health.breaker._next_probe = 0.0
    assert patient.decrypt(message) == b"x"
    for thread in threading.enumerate():
        if thread.name == "kmsbridge-probe":
            thread.join(30)
    assert not app.unhealthy


def test_a_denial_is_told_though_another_key_helps(service, patient, caplog, encrypt):
    """In the audit trail; and it does not make the key one that is passed over."""
    message = encrypt(patient, b"x")
    service.app.fail("unwrap", ErrorKind.ACCESS_DENIED)
    caplog.set_level("INFO", "kmsbridge.audit")
    assert [patient.decrypt(message), patient.decrypt(message)] == [b"x", b"x"]
    outcomes = [
        record.kmsbridge["outcome"] for record in caplog.records if record.kmsbridge["operation"] == "unwrap"
    ]
    assert outcomes == ["KmsAccessDenied", "ok"] * 2


def test_a_denial_is_raised_before_an_outage(service, patient, encrypt):
    """It will not pass by itself."""
    message = encrypt(patient, b"x")
    service.app.fail("unwrap", ErrorKind.UNAVAILABLE)
    service.other.fail("unwrap", ErrorKind.ACCESS_DENIED)
    with pytest.raises(KmsAccessDenied) as caught:
        patient.decrypt(message)
    assert any("fake:app" in note for note in caught.value.__notes__)


def test_several_keys_wrap_at_the_same_time(service, patient):
    """The slowest counts and not the sum."""
    together = threading.Barrier(2)
    service.before = lambda operation: together.wait(30) if operation == "wrap" else None
    assert patient.decrypt(patient.encrypt(b"x")) == b"x"


def test_the_last_key_gets_every_attempt(service, patient, encrypt):
    """There is no other to turn to."""
    message = encrypt(patient, b"x")
    service.app.fail("unwrap", ErrorKind.UNAVAILABLE)
    service.other.fail("unwrap", ErrorKind.UNAVAILABLE, times=2)
    assert patient.decrypt(message) == b"x"
    assert (service.app.calls["unwrap"], service.other.calls["unwrap"]) == (1, 3)
