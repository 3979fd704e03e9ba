"""What `kmsbridge.doctor` finds: permissions are measured by using them, and nothing waits for long."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest
from kmsbridge_testing.contract.interruption import interrupted
from kmsbridge_testing.fakes.http_fake import FakeHttpDriver

from kmsbridge import Encryptor, config
from kmsbridge import message as wire
from kmsbridge.doctor import check_keys
from kmsbridge.driver import Capability, ErrorKind, KeyDescription, KeyState, WrappedKey
from kmsbridge.errors import AuditError, UnsupportedMessage
from kmsbridge.message import parse_header
from kmsbridge.testing.fakes.fake import FakeDriver, UnboundFakeDriver
from kmsbridge.testing.fakes.service import ALLOWED
from tests.support import LIBRARY, Outcome, install

ROLES = ("encrypt-only", "decrypt-only", "both")
FITS = {"encrypt-only": "encrypt-only", "decrypt-only": "decrypt-only", "both": "full"}


@pytest.fixture
def profile(tmp_path, service):
    """A profile with fake keys: a table each, in both lists or in those that `lists` names."""

    def load(*, lists=("encrypt_to", "decrypt_with"), more="", **keys):
        lines = []
        for name, options in keys.items():
            given = {"uri": "fake:app", **options}
            lines += [f"[keys.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in given.items())]
        names = json.dumps(list(keys))
        lines += ["[profiles.p]", *(f"{each} = {names}" for each in lists), more]
        path = tmp_path / "kmsbridge.toml"
        path.write_text("\n".join(lines))
        return config.load(path)

    return load


@pytest.fixture
def events(caplog):
    """The audit events so far."""
    caplog.set_level("INFO", "kmsbridge.audit")
    return lambda: [record.kmsbridge for record in caplog.records if hasattr(record, "kmsbridge")]


def header_for(uri="fake:app", context=None, **options):
    with Encryptor.from_uri(uri, **options) as encryptor:
        return parse_header(encryptor.encrypt(b"payload", context=context))


def only(report):
    (key,) = report.keys
    return key


@pytest.mark.parametrize("scheme", ("fake", "fake-unbound"))
@pytest.mark.parametrize("expect", FITS.values())
@pytest.mark.parametrize("role", ROLES)
def test_a_host_is_what_is_expected_or_has_a_problem(profile, scheme, role, expect):
    """Both more and less than expected is a problem, whether or not the service binds contexts."""
    report = check_keys(profile(k={"uri": f"{scheme}:app", "role": role}), expect=expect)
    assert report.ok is (FITS[role] == expect)
    assert report.expect == expect


@pytest.mark.parametrize("role", ROLES)
def test_permissions_are_measured(profile, role):
    """With a probe where the host may wrap, else with a wrapped key that is not authentic, which proves less."""
    key = only(check_keys(profile(k={"role": role})))
    may = {"encrypt-only": (True, False, False), "decrypt-only": (False, True, False), "both": (True,) * 3}
    assert (key.wrap.may, key.unwrap.may, key.rewrap.may) == may[role]
    assert key.unwrap.measured == ("forged" if role == "decrypt-only" else "probe")
    assert key.unwrap.proven is (role != "decrypt-only")
    assert (key.reachable, key.state, key.version, key.rotation) == (True, "enabled", "1", "by hand")
    for trial in (key.describe, key.wrap, key.unwrap, key.rewrap):
        assert trial.milliseconds >= 0
        assert trial.request_id.startswith("fake-")


@pytest.mark.parametrize(
    ("lists", "role", "ok"),
    [
        (("encrypt_to",), "encrypt-only", True),
        (("encrypt_to",), "decrypt-only", False),
        (("encrypt_to",), "both", True),
        (("decrypt_with",), "decrypt-only", True),
        (("decrypt_with",), "encrypt-only", False),
        (("encrypt_to", "decrypt_with"), "both", True),
        (("encrypt_to", "decrypt_with"), "encrypt-only", False),
    ],
)
def test_without_an_expectation_the_profiles_lists_are_the_measure(profile, lists, role, ok):
    """What they need must work; that the host can do more is no problem."""
    report = check_keys(profile(lists=lists, k={"role": role}))
    assert report.ok is ok
    assert (only(report).encrypt_to, only(report).decrypt_with) == (
        "encrypt_to" in lists,
        "decrypt_with" in lists,
    )


def test_a_message_proves_what_no_probe_can(profile):
    """A host that may not wrap unwraps the message's recipient."""
    header = header_for(context={"tenant": "acme"})
    key = only(check_keys(profile(k={"role": "decrypt-only"}), header=header, context={"tenant": "acme"}))
    assert (key.unwrap.may, key.unwrap.proven, key.unwrap.measured) == (True, True, "message")


def test_a_direct_message_proves_it_too(profile):
    """With its aad, which the key service binds."""
    with Encryptor.from_uri("fake:app", direct=True) as encryptor:
        header = parse_header(encryptor.encrypt(b"payload", aad=b"row"))
    key = only(check_keys(profile(k={"role": "decrypt-only"}), header=header, aad=b"row"))
    assert (key.unwrap.proven, key.unwrap.measured) == (True, "message")


def test_a_message_of_another_context_proves_nothing(profile):
    """The service let this host ask, and the remedy names the context."""
    header = header_for(context={"tenant": "acme"})
    key = only(check_keys(profile(k={"role": "decrypt-only"}), header=header))
    assert (key.unwrap.may, key.unwrap.proven, key.unwrap.measured) == (True, False, "message")
    assert "context" in key.unwrap.remedy


def test_a_message_for_another_key_is_not_used(profile):
    """It is as if there were none."""
    key = only(check_keys(profile(k={"role": "decrypt-only"}), header=header_for("fake:other")))
    assert (key.unwrap.may, key.unwrap.proven, key.unwrap.measured) == (True, False, "forged")


def test_a_message_does_not_hide_a_denial(profile):
    """An encrypt-only host is refused whatever it is given."""
    report = check_keys(profile(k={"role": "encrypt-only"}), header=header_for(), expect="encrypt-only")
    assert report.ok
    assert only(report).unwrap.may is False


@pytest.mark.parametrize("role", ("decrypt-only", "both"))
@pytest.mark.parametrize(
    "made_in, marked",
    (({"environment": "prod"}, True), ({}, False), ({"environment": "staging"}, None)),
)
def test_a_message_shows_whether_it_was_made_in_the_environment(profile, role, made_in, marked):
    """So that what is left to be rewrapped can be counted."""
    settings = 'environment = "prod"\naccept_unmarked_until = 9999-12-31'
    report = check_keys(profile(more=settings, k={"role": role}), header=header_for(**made_in))
    assert only(report).message_marked is marked


def test_without_an_environment_nothing_is_said_of_one(profile):
    assert only(check_keys(profile(k={}), header=header_for())).message_marked is None


def test_a_message_without_recipients_is_refused(profile):
    """There is nothing in it to unwrap."""
    header = wire.Header(wire.Kind.STORED, 40, (), bytes(32))
    with pytest.raises(UnsupportedMessage):
        check_keys(profile(k={}), header=header)


@pytest.mark.parametrize(
    "state", (KeyState.DISABLED, KeyState.PENDING_DELETION), ids=lambda state: state.value
)
@pytest.mark.parametrize("role", ROLES)
def test_a_key_that_cannot_be_used_is_a_problem(profile, service, role, state):
    """Its state is told, and the remedy with it."""
    service.app.state = state
    lists = {"encrypt-only": ("encrypt_to",), "decrypt-only": ("decrypt_with",)}
    report = check_keys(profile(lists=lists.get(role, ("encrypt_to", "decrypt_with")), k={"role": role}))
    assert not report.ok
    assert only(report).state == state.value
    assert "enable it" in only(report).problems[0]


def test_a_disabled_key_that_lets_ask_is_a_problem_too(profile, service):
    """A service that looks at the ciphertext before the key's state does not hide the state."""
    service.app.state = KeyState.DISABLED
    service.app.fail("unwrap", ErrorKind.NOT_AUTHENTIC)
    report = check_keys(profile(lists=("decrypt_with",), k={"role": "decrypt-only"}))
    assert only(report).unwrap.may is True
    assert "the key is disabled" in only(report).problems[0]


def test_a_deleted_key_is_a_problem(profile, service):
    """That unwrapping says 'not found' is not taken for a permission to ask."""
    service.delete("app")
    key = only(check_keys(profile(k={"role": "decrypt-only"})))
    assert key.reachable is True
    assert key.state == "unknown"
    assert key.unwrap.may is None
    assert {each.partition(":")[0] for each in key.problems} == {"wrap", "unwrap"}


@pytest.mark.parametrize("kind", (ErrorKind.UNAVAILABLE, ErrorKind.TIMEOUT), ids=lambda kind: kind.name)
def test_a_silent_service_is_waited_for_once(profile, service, kind):
    """Nothing else is tried, and it is one problem."""
    service.app.fail("describe", kind)
    report = check_keys(profile(more="calls = { max_attempts = 1 }", k={}), expect="full")
    key = only(report)
    assert key.reachable is False
    assert len(key.problems) == 1
    assert [service.app.calls[each] for each in ("wrap", "unwrap", "rewrap")] == [0, 0, 0]
    assert key.wrap.measured == ""
    assert key.wrap.milliseconds is None


def test_a_service_that_falls_silent_is_not_asked_again(profile, service):
    """What was found out before stays."""
    service.app.fail("wrap", ErrorKind.TIMEOUT)
    key = only(check_keys(profile(more="calls = { max_attempts = 1 }", k={})))
    assert (key.reachable, key.state) == (True, "enabled")
    assert service.app.calls["unwrap"] == 0
    assert len(key.problems) == 1


def test_a_throttled_permission_is_unknown(profile, service):
    """Neither allowed nor refused: no expectation is met by it."""
    service.app.fail("unwrap", ErrorKind.THROTTLED)
    for expect in FITS.values():
        report = check_keys(profile(more="calls = { max_attempts = 1 }", k={}), expect=expect)
        assert only(report).unwrap.may is None
        assert not report.ok


def test_who_may_not_describe_may_still_do_the_rest(profile, service):
    """The state is unknown then, and that is no problem."""
    service.app.fail("describe", ErrorKind.ACCESS_DENIED)
    report = check_keys(profile(k={}), expect="full")
    assert report.ok
    assert only(report).state == "unknown"
    assert only(report).describe.may is False


def test_expired_credentials_are_a_refusal(profile, service):
    """The host may do nothing, and the remedy is about credentials."""
    service.expire("t")
    key = only(check_keys(profile(k={"token": "t"})))
    assert (key.wrap.may, key.unwrap.may, key.wrap.error) == (False, False, "KmsUnauthenticated")
    assert any("credentials" in each for each in key.problems)


def test_one_key_down_leaves_the_others(profile, service):
    """Each key has its own report, in the profile's order."""
    service.app.fail("describe", ErrorKind.UNAVAILABLE)
    report = check_keys(
        profile(more="calls = { max_attempts = 1 }", b={}, a={"uri": "fake:other"}), expect="full"
    )
    assert [(key.name, bool(key.problems)) for key in report.keys] == [("b", True), ("a", False)]


def test_a_key_that_cannot_be_opened_leaves_the_others(profile):
    """Its error is its problem, once."""
    report = check_keys(profile(b={"uri": "fake:app", "rol": "both"}, a={"uri": "fake:other"}))
    bad, good = report.keys
    assert (bad.reachable, bad.describe.error) == (None, "ConfigError")
    assert len(bad.problems) == 1
    assert "role" in bad.problems[0]
    assert not good.problems


def test_keys_are_examined_at_the_same_time(profile, service):
    """Three keys that wait for each other come to an end."""
    service.create("third")
    meeting = threading.Barrier(3)
    service.before = lambda operation: meeting.wait(20) if operation == "wrap" else None
    found = Outcome(
        lambda: check_keys(profile(a={}, b={"uri": "fake:other"}, c={"uri": "fake:third"}), expect="full")
    ).join()
    assert found.error is None
    assert found.value.ok


def test_many_keys_take_few_threads(profile, service):
    """However many keys a profile has."""
    busy, most, meeting = 0, 0, threading.Barrier(16)

    def before(operation):
        nonlocal busy, most
        if operation == "describe":
            busy += 1
            most = max(most, busy)
            meeting.wait(20)  # so that sixteen are busy while the others come
            busy -= 1

    service.before = before
    keys = {f"k{n}": {"uri": f"fake:{service.create(f'k{n}').name}"} for n in range(32)}
    assert check_keys(profile(lists=("decrypt_with",), **keys)).ok
    assert most == 16


def test_an_interruption_does_not_wait_for_calls_that_hang(profile, service):
    """Ctrl-C, or a signal handler's exception, leaves at once though no service answers."""
    service.app.delay("describe", 60)
    began = time.monotonic()
    with interrupted(KeyboardInterrupt(), after=0.3), pytest.raises(KeyboardInterrupt):
        check_keys(
            profile(
                **{f"k{n}": {} for n in range(4)},
                more='calls = { attempt_timeout = "60s", deadline = "60s" }',
            )
        )
    assert time.monotonic() - began < 20


def test_a_probe_is_no_data_key(profile, service, events):
    """It is bound to a reserved pair of its own, and to the context that was asked for; the trail tells all calls."""
    check_keys(profile(k={}), context={"tenant": "acme"})
    told = events()
    assert [event["operation"] for event in told] == ["wrap", "unwrap", "rewrap", "unwrap"]
    for event in told:
        assert event["context"] == {"tenant": "acme", "kmsbridge": "probe"}
        assert (event["profile"], event["key_id"], event["key_version"]) == ("p", "fake:app", "1")
        assert event["request_id"]


def test_refused_trials_are_in_the_audit_trail(profile, events):
    """As every refusal of a key service."""
    check_keys(profile(k={"role": "decrypt-only"}))
    assert [(event["operation"], event["outcome"]) for event in events()] == [
        ("wrap", "KmsAccessDenied"),
        ("unwrap", "AuthenticationError"),
        ("rewrap", "KmsAccessDenied"),
    ]


def test_an_audit_trail_that_is_required_and_fails_ends_it(profile, tmp_path):
    """No key is used unrecorded."""
    more = f"audit = {{ file = '{tmp_path}/none/audit.jsonl', required = true }}"
    with pytest.raises(AuditError):
        check_keys(profile(more=more, k={}))


def test_an_audit_trail_that_fails_on_the_way_ends_it_and_keeps_no_data_key(profile, monkeypatch, tmp_path):
    """The error that comes out has no local variables with it, where the data key of a message would be."""
    header = header_for()
    current = profile(
        more=f"audit = {{ file = '{tmp_path}/audit.jsonl', required = true }}", k={"role": "decrypt-only"}
    )

    def full(self, record):
        if record["operation"] == "unwrap":
            raise OSError(28, "full")

    monkeypatch.setattr("kmsbridge.audit.file.AuditFile.append", full)
    with pytest.raises(AuditError) as caught:
        check_keys(current, header=header)
    frames, error = [], caught.value
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            frames.append(trace.tb_frame)
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    ours = [frame for frame in frames if frame.f_code.co_filename.startswith(f"{LIBRARY}/doctor/")]
    assert ours
    assert not [frame for frame in ours if "payload" in frame.f_locals or "result" in frame.f_locals]


class Liar(FakeDriver):
    """Says that it may do all, and unwraps to something else."""

    scheme = "liar"

    def describe(self, *, timeout):
        return KeyDescription(self.key_id, KeyState.ENABLED, "7", may_wrap=True, may_unwrap=True)

    def unwrap(self, wrapped, context, *, timeout):
        return bytes(len(super().unwrap(wrapped, context, timeout=timeout)))


class Credulous(FakeDriver):
    """Unwraps whatever it is given."""

    scheme = "credulous"

    def unwrap(self, wrapped, context, *, timeout):
        return bytes(32)


class Loser(FakeDriver):
    """Loses what it rewraps."""

    scheme = "loser"

    def rewrap(self, wrapped, context, *, timeout):
        return self.wrap(bytes(32), context, timeout=timeout)


class Stranger(FakeDriver):
    """Wraps for another context than it unwraps for, as with the public key of another key."""

    scheme = "stranger"

    def wrap(self, plaintext, context, *, timeout):
        return super().wrap(plaintext, context.with_reserved(kmsbridge="else"), timeout=timeout)


class LocalWrap(FakeDriver):
    """Wraps without asking anybody."""

    scheme = "local-wrap"
    capabilities = FakeDriver.capabilities | {Capability.LOCAL_WRAP}

    def wrap(self, plaintext, context, *, timeout):
        key = self.service.app
        return WrappedKey(self.key_id, key.version, key.seal(plaintext, context.canonical()))


@pytest.fixture
def others(monkeypatch, service):
    """The drivers above, over the same service."""
    drivers = (FakeDriver, UnboundFakeDriver, Liar, Credulous, Loser, Stranger, LocalWrap)
    install(monkeypatch, *(type(cls.__name__, (cls,), {"service": service}) for cls in drivers))


@pytest.mark.parametrize("scheme", ("liar", "stranger"))
def test_what_does_not_come_back_is_a_problem(profile, others, scheme):
    """Whatever the driver says of itself; and it counts for no expectation, as nothing is known then."""
    for expect in FITS.values():
        report = check_keys(profile(k={"uri": f"{scheme}:app"}), expect=expect)
        assert not report.ok
        assert only(report).unwrap.may is None
        assert "another value than was wrapped" in only(report).unwrap.problem


def test_a_driver_that_unwraps_anything_is_a_problem(profile, others):
    """What is not authentic must not be unwrapped, and is no proof of a permission."""
    report = check_keys(profile(k={"uri": "credulous:app", "role": "decrypt-only"}), expect="decrypt-only")
    assert not report.ok
    assert only(report).unwrap.may is None


def test_what_a_driver_says_it_may_is_not_believed(profile, others):
    """Only doing counts."""
    key = only(check_keys(profile(k={"uri": "liar:app", "role": "decrypt-only"})))
    assert key.wrap.may is False


def test_a_rewrap_that_loses_the_data_key_is_seen(profile, others):
    """What the service rewrapped is unwrapped to see."""
    key = only(check_keys(profile(k={"uri": "loser:app"})))
    assert key.unwrap.may is True
    assert key.rewrap.may is None
    assert "another value than was wrapped" in key.rewrap.problem


def test_wrapping_locally_needs_no_service(profile, others, service):
    """With the service down the probe is wrapped nevertheless, and that is all that an encrypting host needs."""
    service.app.fail("describe", ErrorKind.UNAVAILABLE)
    current = profile(lists=("encrypt_to",), more="calls = { max_attempts = 1 }", k={"uri": "local-wrap:app"})
    key = only(check_keys(current))
    assert (key.reachable, key.wrap.may, key.wrap.measured) == (False, True, "local")
    assert not key.problems
    assert not check_keys(current, expect="encrypt-only").ok  # that it may not unwrap cannot be told


def test_wrapping_locally_cannot_be_forbidden(profile, others):
    """A decrypting host can wrap too, and the problem says why."""
    report = check_keys(profile(k={"uri": "local-wrap:app", "role": "decrypt-only"}), expect="decrypt-only")
    assert only(report).unwrap.measured == "probe"
    assert "public key" in only(report).problems[0]


def test_who_may_rewrap_is_not_encrypt_only(profile, service, monkeypatch):
    """A service that rewraps for another key hands that key's owner the data key."""
    monkeypatch.setitem(ALLOWED, "encrypt-only", frozenset({"wrap", "describe", "rewrap"}))
    report = check_keys(profile(k={"role": "encrypt-only"}), expect="encrypt-only")
    assert "may rewrap" in only(report).problems[0]


@pytest.fixture
def rewrapper(monkeypatch):
    """The options of a caller who may only have the service rewrap."""
    monkeypatch.setitem(ALLOWED, "rewrap-only", frozenset({"rewrap", "describe"}))
    return {"role": "rewrap-only"}


@pytest.mark.parametrize("expect", (*FITS.values(), "rewrap-only", None), ids=str)
def test_who_may_only_have_the_service_rewrap_is_rewrap_only(profile, rewrapper, expect):
    """And nothing else; without an expectation the profile's lists need more of him."""
    report = check_keys(profile(k=rewrapper), expect=expect)
    assert report.ok is (expect == "rewrap-only")
    key = only(report)
    assert (key.wrap.may, key.unwrap.may) == (False, False)
    assert (key.rewrap.may, key.rewrap.proven, key.rewrap.measured) == (True, False, "forged")


def test_a_message_proves_that_the_service_rewraps(profile, rewrapper):
    """It is rewrapped, and not unwrapped."""
    header = header_for(context={"tenant": "acme"})
    report = check_keys(profile(k=rewrapper), expect="rewrap-only", header=header, context={"tenant": "acme"})
    assert report.ok
    assert (only(report).rewrap.proven, only(report).rewrap.measured) == (True, "message")


@pytest.mark.parametrize(
    ("role", "told"),
    [
        ("encrypt-only", ["may wrap; ", "rewrap: "]),
        ("decrypt-only", ["may unwrap; ", "rewrap: "]),
        ("both", ["may wrap; ", "may unwrap; "]),
    ],
)
def test_more_or_less_than_rewrap_only_is_a_problem(profile, role, told):
    """Each with the policy that leaves what is right."""
    problems = only(check_keys(profile(k={"role": role}), expect="rewrap-only")).problems
    assert len(problems) == len(told)
    for problem, text in zip(problems, told, strict=True):
        assert text in problem
        assert "as printed by 'kmsbridge policy k --role rewrapper'" in problem


@pytest.mark.parametrize("role", ROLES)
def test_no_host_is_rewrap_only_where_the_service_does_not_rewrap(profile, role):
    """Nobody can rewrap with such a key and not unwrap: the one problem says what to expect instead."""
    report = check_keys(profile(k={"uri": "fake-unbound:app", "role": role}), expect="rewrap-only")
    (problem,) = only(report).problems
    assert problem.endswith("expect full")


def test_a_rewrapper_of_a_disabled_key_has_a_problem(profile, service, rewrapper):
    """The permission is there, and of no use."""
    service.app.state = KeyState.DISABLED
    service.app.fail("rewrap", ErrorKind.NOT_AUTHENTIC)
    (problem,) = only(check_keys(profile(k=rewrapper), expect="rewrap-only")).problems
    assert problem.startswith("rewrap: the key is disabled")


def test_a_closed_port_is_told_in_time(profile, monkeypatch, unused_port):
    """The deadline holds for the whole key, not for each call."""
    install(monkeypatch, FakeHttpDriver)
    options = {"uri": "fake-http:app", "address": f"http://127.0.0.1:{unused_port}"}
    started = time.monotonic()
    key = only(check_keys(profile(more="calls = { deadline = '2s' }", k=options)))
    assert time.monotonic() - started < 10
    assert (key.reachable, key.describe.error) == (False, "KmsUnavailable")


@pytest.fixture
def unused_port():
    """Bound and not listening, so that nobody else takes it and every connection is refused."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def test_no_secret_is_in_a_report(profile, service):
    """Not the token, not a probe, not the data key of the message."""
    seen = []
    real = service.app.open

    def seeing(*args):
        seen.append(real(*args))
        return seen[-1]

    header = header_for()
    service.app.open = seeing
    for role in ROLES:
        report = check_keys(profile(k={"role": role, "token": "canary-token"}), header=header)
        shown = repr(report).encode()
        assert b"canary-token" not in shown
        assert not [
            each for each in seen if repr(each)[2:-1].encode() in shown or each.hex().encode() in shown
        ]
    assert seen
