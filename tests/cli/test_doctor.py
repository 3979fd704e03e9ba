"""`doctor`: what it prints, and the exit codes that a deployment can be stopped with."""

from __future__ import annotations

import json
import typing

import pytest

from kmsbridge import EnvelopeCipher
from kmsbridge.cli.doctor import EXPECTATIONS
from kmsbridge.doctor import Expectation
from kmsbridge.driver import ErrorKind, KeyState
from kmsbridge.testing.fakes.fake import FakeDriver
from kmsbridge.testing.fakes.service import ALLOWED
from tests.support import Service, install

TOKEN = "canary-token-51ce"
FITS = {"encrypt-only": "encrypt-only", "decrypt-only": "decrypt-only", "both": "full"}
TRIAL = {"may", "proven", "measured", "milliseconds", "request_id", "error", "problem", "remedy"}


@pytest.fixture
def keys(monkeypatch):
    """The fake key service behind `fake:app` and `fake:other`."""
    service = Service()
    install(monkeypatch, type("Fake", (FakeDriver,), {"service": service}))
    return service


@pytest.fixture
def host(empty, keys):
    """A host of each role: profiles with its name, and one with two keys."""
    roles = {"both": "both", "encrypt-only": "encrypt-only", "decrypt-only": "decrypt-only", "second": "both"}
    lists = {"encrypt-only": ("encrypt_to",), "decrypt-only": ("decrypt_with",)}
    lines = []
    for name, role in roles.items():
        uri = "fake:other" if name == "second" else "fake:app"
        lines += [f'[keys.{name}]\nuri = "{uri}"\nrole = "{role}"\ntoken = "env:TOKEN"']
        lines += [
            f"[profiles.{name}]",
            *(f'{each} = ["{name}"]' for each in lists.get(name, ("encrypt_to",))),
        ]
    lines += ['[profiles.two]\nencrypt_to = ["second", "both"]\ndecrypt_with = ["both"]']
    lines += ["calls = { max_attempts = 1 }"]
    empty.write("kmsbridge.toml", "\n".join(lines))
    return empty


@pytest.fixture
def run(host):
    """Run doctor with a profile."""
    return lambda profile, *args: host.run("doctor", "--profile", profile, *args, env={"TOKEN": TOKEN})


@pytest.mark.parametrize("expect", FITS.values())
@pytest.mark.parametrize("role", FITS)
def test_an_expectation_is_met_or_the_exit_code_is_12(run, one_line, role, expect):
    """Where the host can do more, and where it can do less."""
    done = run(role, "--expect", expect)
    if FITS[role] == expect:
        assert (done.code, done.err) == (0, "")
        assert "problem" not in done.text
    else:
        assert done.code == 12
        assert expect in one_line(done.err)
        assert "  problem" in done.text


@pytest.mark.parametrize("expect", EXPECTATIONS)
def test_a_host_that_only_has_the_service_rewrap(host, run, one_line, monkeypatch, expect):
    """Is as expected with `rewrap-only` alone."""
    monkeypatch.setitem(ALLOWED, "rewrap-only", frozenset({"rewrap", "describe"}))
    text = (host.path / "kmsbridge.toml").read_text()
    host.write("kmsbridge.toml", text.replace('role = "both"', 'role = "rewrap-only"'))
    done = run("both", "--expect", expect)
    if expect == "rewrap-only":
        assert (done.code, done.err) == (0, "")
    else:
        assert done.code == 12
        assert expect in one_line(done.err)


def test_the_expectations_are_the_librarys(empty):
    """The list on the command line is spelt out, so that help needs no import."""
    assert typing.get_args(Expectation) == EXPECTATIONS
    assert empty.run("doctor", "--expect", "both").code == 2


@pytest.mark.parametrize("role", FITS)
def test_without_an_expectation_the_profiles_role_must_work(run, role):
    """Each host is fit for its own profile."""
    done = run(role)
    assert done.code == 0, done.text


def test_text_tells_what_was_measured(run, keys):
    """One block a key: state, permissions with milliseconds and request ids."""
    keys.app.rotate()
    lines = run("both").text.splitlines()
    assert lines[0] == "both  fake:app  encrypt_to"
    words = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[1:]}
    assert list(words) == ["reachable", "state", "rotation", "wrap", "unwrap", "rewrap"]
    assert words["state"] == "enabled, version 2"
    for word in ("reachable", "wrap", "unwrap", "rewrap"):
        said, took, request = words[word].split(", ")
        assert said == "yes"
        assert float(took.removesuffix(" ms")) >= 0
        assert request.startswith("request fake-")


def test_text_tells_how_unwrapping_was_measured(host, run):
    """Without a message it is not proven; with one it is."""
    unproven = (
        "  unwrap     permitted, not proven: tried with a wrapped key that is not authentic; give --message, "
    )
    assert unproven in run("decrypt-only").text
    message = host.ok(
        "encrypt", "--profile", "encrypt-only", "-c", "a=b", stdin=b"payload", env={"TOKEN": TOKEN}
    )
    for form, armor in (("message", False), ("armored", True)):
        env = {"TOKEN": TOKEN}
        if armor:
            message = host.ok(
                *("encrypt", "--armor", "--profile", "encrypt-only", "-c", "a=b"), stdin=b"x", env=env
            )
        host.write(form, message)
        done = run("decrypt-only", "--expect", "decrypt-only", "--message", form, "-c", "a=b")
        assert done.code == 0
        assert "measured with the message" in done.text
    assert "give the message's context" in run("decrypt-only", "--message", "message", "--json").text


def test_only_the_header_of_a_message_is_needed(host, run):
    """Its body may be cut off."""
    env = {"TOKEN": TOKEN}
    message = host.ok("encrypt", "--profile", "encrypt-only", stdin=b"payload", env=env)
    host.write("header", message[: int.from_bytes(message[6:8], "big")])
    assert "measured with the message" in run("decrypt-only", "--message", "header").text


@pytest.mark.parametrize(
    ("content", "code"), ((None, 1), (b"no message", 4), (b"", 4)), ids=("missing", "none", "empty")
)
def test_a_message_that_is_none_is_an_error(host, run, keys, one_line, content, code):
    """Told before any key is tried."""
    if content is not None:
        host.write("file", content)
    done = run("both", "--message", "file")
    assert (done.code, done.out) == (code, b"")
    assert one_line(done.err).startswith("file: ")
    assert not keys.app.calls


def test_json_has_one_shape(run):
    """Whatever was found: the same names at every key, JSON's own types."""
    for profile in (*FITS, "two"):
        told = json.loads(run(profile, "--json", "--expect", "encrypt-only").out)
        assert list(told) == ["ok", "profile", "expect", "keys"]
        assert told["ok"] is (profile == "encrypt-only")
        assert (told["profile"], told["expect"]) == (profile, "encrypt-only")
        for key in told["keys"]:
            assert set(key) == {
                *("name", "uri", "encrypt_to", "decrypt_with", "key_id", "reachable", "state", "version"),
                *("rotation", "describe", "wrap", "unwrap", "rewrap", "message_marked", "problems"),
            }
            for operation in ("describe", "wrap", "unwrap", "rewrap"):
                assert set(key[operation]) == TRIAL
    assert json.loads(run("both", "--json").out)["expect"] is None


def test_one_of_two_keys_down(run, keys, one_line):
    """The other is examined, both are shown in the profile's order, and the summary names the one."""
    keys.app.fail("describe", ErrorKind.UNAVAILABLE)
    done = run("two")
    assert done.code == 12
    assert [line.split()[0] for line in done.text.splitlines() if not line.startswith(" ")] == [
        "second",
        "both",
    ]
    assert done.text.count("problem") == 1
    assert "(1 of 2): both" in one_line(done.err)


@pytest.mark.parametrize("state", ("disabled", "pending deletion"))
def test_a_key_that_is_out_of_use(run, keys, state):
    """Its state and the remedy are shown."""
    keys.app.state = KeyState(state)
    done = run("decrypt-only")
    assert done.code == 12
    assert f"  state      {state}, version 1" in done.text
    assert "enable it" in done.text


def test_a_deleted_key(run, keys):
    """It does not exist, says the block."""
    keys.delete("app")
    done = run("both")
    assert done.code == 12
    assert "does not exist" in done.text


def test_a_misused_credential_has_its_own_exit_code(run, keys, one_line):
    """A security event is told from a missing permission."""
    keys.app.fail("wrap", ErrorKind.CREDENTIAL_MISUSED)
    done = run("two")
    assert done.code == 11
    assert "someone else used" in done.text
    one_line(done.err)


def test_a_configuration_that_cannot_be_used(host, one_line):
    """As with any other command; a key's own option is a problem of that key."""
    assert host.run("doctor", "--profile", "none").code == 3
    text = (host.path / "kmsbridge.toml").read_text()
    host.write("kmsbridge.toml", text.replace('role = "both"', 'rolle = "both"'))
    done = host.run("doctor", "--profile", "both", env={"TOKEN": TOKEN})
    assert done.code == 12
    assert "did you mean 'role'" in done.text
    assert "reachable  unknown" in done.text


@pytest.mark.parametrize("args", ((), ("--json",), ("--debug",), ("--expect", "decrypt-only")), ids=str)
def test_no_secret_is_shown(run, keys, args):
    """Neither where it works nor where it is refused."""
    for profile in FITS:
        done = run(profile, *args)
        assert TOKEN not in done.text + done.err
    keys.expire(TOKEN)
    done = run("both", *args)
    assert done.code == 12
    assert TOKEN not in done.text + done.err


def test_probes_are_in_the_audit_file(host, run):
    """With the profile, the provider's request ids, and the reserved pair of a probe."""
    text = (host.path / "kmsbridge.toml").read_text()
    host.write("kmsbridge.toml", text + '\naudit = { file = "audit.jsonl", required = true }\n')
    told = json.loads(run("two", "--json").out)
    host.ok("audit", "verify", "audit.jsonl")
    events = [json.loads(line) for line in (host.path / "audit.jsonl").read_text().splitlines()]
    assert {event["profile"] for event in events} == {"two"}
    assert {event["context"]["kmsbridge"] for event in events} == {"probe"}
    shown = {key[each]["request_id"] for key in told["keys"] for each in ("wrap", "unwrap", "rewrap")}
    assert shown <= {event["request_id"] for event in events}


def test_a_local_key_can_do_both(home):
    """The driver that everybody has; there is no permission to take away."""
    assert home.run("doctor", "--expect", "full").code == 0
    assert home.run("doctor", "--expect", "encrypt-only").code == 12


# --- counting messages ----------------------------------------------------------------------------------


@pytest.fixture
def environments(empty, keys):
    """Profiles of the same key: one without an environment, and one of each of two."""
    empty.write(
        "kmsbridge.toml",
        '[keys.app]\nuri = "fake:app"\n'
        + "".join(
            f'[profiles.{name}]\nencrypt_to = ["app"]\ndecrypt_with = ["app"]\n{more}'
            for name, more in {
                "before": "",
                "prod": 'environment = "prod"\n',
                "staging": 'environment = "staging"\n',
                "moving": 'environment = "prod"\naccept_unmarked_until = 9999-12-31\n',
            }.items()
        ),
    )
    return empty


def armored(profile, tenant="acme", count=1):
    """Messages of one data key, as text."""
    pairs = {"tenant": tenant}
    with EnvelopeCipher.from_config(profile=profile) as cipher:
        return [cipher.encrypt_text("x", context=pairs) for _ in range(count)]


def lines(home, *messages):
    home.write("lines", "\n".join(messages) + "\n\n")
    return "lines"


@pytest.mark.parametrize("profile", ("prod", "moving"))
def test_messages_are_counted_by_environment(environments, keys, profile):
    """Before, during and after the move; each data key is asked for once, or twice."""
    file = lines(
        environments,
        *armored("prod", count=3),
        *armored("before", count=2),
        *armored("staging"),
        *armored("prod", "umbrella"),
    )
    before = keys.app.calls["unwrap"]
    done = environments.run("doctor", "--profile", profile, "--count", file, "-c", "tenant=acme")
    assert done.code == 10
    assert done.text.endswith("messages  3 made in this environment, 2 without one, 2 unknown\n")
    assert keys.app.calls["unwrap"] - before == 2 + 1 + 3 * 2  # two probes; one of prod; the others twice


def test_each_line_may_have_its_own_context(environments):
    """As JSON, which replaces that of the command."""
    file = lines(
        environments,
        *(
            json.dumps({"message": armored(profile, tenant)[0], "context": {"tenant": tenant}})
            for profile, tenant in (("prod", "acme"), ("before", "umbrella"), ("prod", "initech"))
        ),
        json.dumps({"id": 7, "message": armored("prod", "given")[0]}),
    )
    done = environments.run("doctor", "--profile", "prod", "--count", file, "-c", "tenant=given", "--json")
    assert done.code == 10
    assert json.loads(done.text)["messages"] == {"marked": 3, "unmarked": 1, "unknown": 0}


def test_nothing_left_is_success(environments):
    """From standard input, and of no message at all."""
    (message,) = armored("prod")
    for given, marked in ((message.encode(), 1), (b"", 0)):
        done = environments.run(
            "doctor", "--profile", "moving", "--count", "-", "-c", "tenant=acme", stdin=given
        )
        assert done.code == 0
        assert f"messages  {marked} made in this environment, 0 without one, 0 unknown" in done.text


def test_a_message_that_the_service_denies_is_unknown(environments, keys):
    """It is not taken for one without an environment."""
    file = lines(environments, *armored("before"))
    keys.app.fail("unwrap", ErrorKind.ACCESS_DENIED)
    done = environments.run("doctor", "--profile", "prod", "--count", file, "-c", "tenant=acme", "--json")
    assert json.loads(done.text)["messages"] == {"marked": 0, "unmarked": 0, "unknown": 1}


@pytest.mark.parametrize(
    "line",
    (
        *("none", '{"message": 1}', '{"message"', "{}", "\udcff", '{"message": "kmsb1_"}'),
        pytest.param('{"message": ' + "[" * 100_000, id="nested deeply"),
    ),
)
def test_a_line_that_is_no_message_is_named_and_not_quoted(environments, line, one_line):
    environments.write("lines", b"\n" + line.encode("utf-8", "surrogateescape") + b"\n")
    done = environments.run("doctor", "--profile", "prod", "--count", "lines")
    assert (done.code, done.out) == (4, b"")
    assert one_line(done.err).startswith("lines, line 2: not an armored message, nor a JSON object")


def test_a_profile_without_an_environment_counts_none(environments, one_line):
    file = lines(environments, *armored("before"))
    done = environments.run("doctor", "--profile", "before", "--count", file)
    assert (done.code, done.out) == (3, b"")
    assert "has no environment" in one_line(done.err)
