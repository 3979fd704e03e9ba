"""The commands that change nothing: `inspect`, `keys`, `providers`, `config explain`, `audit verify`, help and completion."""

from __future__ import annotations

import json
import subprocess

import click
import pytest

import kmsbridge
from kmsbridge import message as wire
from kmsbridge.cli.app import app


@pytest.mark.parametrize("armor", (False, True), ids=("binary", "armored"))
@pytest.mark.parametrize("pipe", (False, True), ids=("file", "pipe"))
def test_inspect_tells_what_the_library_tells(home, armor, pipe):
    """The same values as `kmsbridge.inspect`, for every form, from files and pipes."""
    message = home.ok("encrypt", *(("--armor",) if armor else ()), stdin=b"payload")
    home.write("message", message)
    name = "-" if pipe else "message"
    (told,) = json.loads(home.ok("inspect", name, "--json", stdin=message))
    info = kmsbridge.inspect(message.decode() if armor else message)
    assert told["file"] == name
    assert told["armored"] is armor
    assert told["plaintext_length"] == 7
    assert told["header_length"] == info.header_length
    assert told["recipients"][0]["key_id"] == info.recipients[0].key_id
    human = home.ok("inspect", name, stdin=message).decode()
    assert info.recipients[0].key_id in human
    assert "7 bytes" in human
    assert ("armored" in human) is armor


def test_inspect_needs_neither_configuration_nor_key(home):
    """A host with nothing can look at a message."""
    message = home.ok("encrypt", stdin=b"payload")
    for name in home.files():
        (home.path / name).unlink()
    assert b"7 bytes" in home.ok("inspect", "-", stdin=message)


def test_inspect_goes_on_after_a_bad_file(home, one_line):
    """The good ones are shown, the bad one is named on stderr, and the exit code is its."""
    home.write("good", home.ok("encrypt", stdin=b"x"))
    home.write("bad", b"KMSB\x01")
    done = home.run("inspect", "bad", "good", "--json")
    assert done.code == 4
    assert [each["file"] for each in json.loads(done.out)] == ["good"]
    assert "bad: " in one_line(done.err)


@pytest.mark.parametrize("armor", (False, True), ids=("binary", "armored"))
def test_inspect_of_a_compact_message(home, armor):
    """The commitment, which all messages of one data key have in common, and the format of the body."""
    with kmsbridge.EnvelopeCipher.from_config() as cipher:
        message = cipher.encrypt(b"payload")
    info = kmsbridge.inspect(message)
    given = wire.armor(message).encode() if armor else message
    (told,) = json.loads(home.ok("inspect", "-", "--json", stdin=given))
    assert (told["kind"], told["body"], told["commitment"]) == ("inline", "compact", info.commitment)
    assert (told["plaintext_length"], told["body_length"]) == (7, 47)
    assert b"version 1, inline, compact" in home.ok("inspect", "-", stdin=given)


@pytest.mark.parametrize("kind", ("stored", "stored, compact", "direct", "no such length"))
def test_inspect_of_other_kinds(home, kind):
    """Kinds that have no plaintext length, or none that can be, are shown nevertheless."""
    recipient = wire.Recipient("x:key", "", b"wrapped")
    if kind == "stored":
        message = wire.Header(wire.Kind.STORED, 40, (), bytes(range(32))).encode() + bytes(80)
    elif kind == "stored, compact":
        message = wire.Header(wire.Kind.STORED_COMPACT, 40, (), bytes(range(32))).encode() + bytes(80)
    elif kind == "direct":
        message = wire.inline((recipient,), kind=wire.Kind.DIRECT).encode()
    else:
        message = wire.inline((recipient,)).encode() + bytes(56 + 16400 + 15)
    out = home.ok("inspect", "-", stdin=message).decode()
    assert {
        "stored": bytes(range(32)).hex(),
        "stored, compact": bytes(range(32)).hex(),
        "direct": "unknown until unwrapped",
        "no such length": "the body was changed",
    }[kind] in out


HOSTILE = "x:\x1b]0;owned\x07\x1b[2Jkey\r\nkmsbridge: all is well\u202e\x9b31m"


@pytest.mark.parametrize(
    "args", (("inspect", "-"), ("decrypt",), ("decrypt", "--debug"), ("rewrap", "-")), ids=" ".join
)
def test_a_hostile_key_id_cannot_drive_the_terminal(home, args):
    """Text from a message is printed without control characters, on one line."""
    message = wire.inline((wire.Recipient(HOSTILE, "v\x1b[0m", b"w"),)).encode() + bytes(72)
    done = home.run(*args, stdin=message)
    shown = done.text + done.err
    assert "key" in shown
    assert all(char.isprintable() for char in shown.replace("\n", ""))
    assert "\nkmsbridge: all is well" not in shown


def test_keys_tells_state_version_and_role(home):
    """One row a key, for people and as JSON."""
    home.ok("rotate", "dev", "--quiet")
    (row,) = json.loads(home.ok("keys", "--json"))
    assert row["name"] == "dev"
    assert row["uri"] == "local:dev-keys.json#app"
    assert row["key_id"].startswith("local:app@")
    assert (row["state"], row["version"], row["role"]) == ("enabled", "2", "encrypt, decrypt")
    header, line = home.ok("keys").decode().splitlines()
    assert header.split()[0] == "NAME"
    assert row["key_id"] in line


def test_keys_lists_what_it_can_and_fails_for_the_rest(home, one_line):
    """A key that cannot be described keeps its row; the error names it."""
    text = (
        (home.path / "kmsbridge.toml")
        .read_text()
        .replace('decrypt_with = ["dev"]', 'decrypt_with = ["dev", "x"]')
    )
    home.write("kmsbridge.toml", text + '[keys.x]\nuri = "local:none.json#x"\n')
    done = home.run("keys", "--json")
    assert done.code == 3
    assert "keys.x" in one_line(done.err)
    assert [(row["name"], row["state"]) for row in json.loads(done.out)] == [
        ("dev", "enabled"),
        ("x", "unknown"),
    ]


def test_rotate_makes_a_version(home, one_line):
    """New messages use the new version, old ones still open; unknown names are refused."""
    old = home.ok("encrypt", stdin=b"x")
    row = json.loads(home.ok("rotate", "dev", "--json"))
    assert row["version"] == "2"
    assert home.ok("decrypt", stdin=old) == b"x"
    assert kmsbridge.inspect(home.ok("encrypt", stdin=b"x")).recipients[0].key_version == "2"
    done = home.run("rotate", "app")
    assert done.code == 3
    assert "its keys: dev" in one_line(done.err)


def test_rotate_is_in_the_audit_trail(home):
    """A rotation is an event like any other."""
    with open("kmsbridge.toml", "a") as file:
        file.write('audit = { file = "audit.jsonl", required = true }\n')
    home.ok("rotate", "dev")
    event = json.loads((home.path / "audit.jsonl").read_text().splitlines()[-1])
    assert (event["operation"], event["outcome"], event["key_version"]) == ("rotate", "ok", "2")


def test_providers_lists_drivers_without_importing_them(home):
    """The local driver is among them, and its module is not loaded for it."""
    assert "local" in [each["scheme"] for each in json.loads(home.ok("providers", "--json"))]
    assert "\nlocal " in home.ok("providers").decode()
    code = (
        "import sys; from kmsbridge.cli.app import app\n"
        "try: app.main(['providers'])\n"
        "except SystemExit: print('kmsbridge.drivers.local' in sys.modules)"
    )
    done = subprocess.run([_python(), "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_config_explain_tells_origins_and_masks_secrets(home):
    """Where every value came from is shown; what env: and file: led to is not."""
    home.write("token", b"canary-token")
    with open("kmsbridge.toml", "a") as file:
        file.write('data_keys = { max_age = "env:MAX_AGE" }\n[keys.dev2]\nuri = "local:dev-keys.json#app"\n')
    env = {"MAX_AGE": "37s", "KMSBRIDGE_PROFILE": "dev"}
    rows = json.loads(home.ok("config", "explain", "--json", env=env))
    by_name = {row["name"]: row for row in rows}
    assert by_name["profiles.dev.data_keys.max_age"]["value"] == "***"
    assert "MAX_AGE" in by_name["profiles.dev.data_keys.max_age"]["origin"]
    assert "KMSBRIDGE_PROFILE" in by_name["profile"]["origin"]
    assert b"37" not in home.ok("config", "explain", env=env)


def test_audit_verify_tells_the_head_and_finds_a_change(home, one_line):
    """A sound file gives its head; a changed, a cut and a missing one exit with 9."""
    with open("kmsbridge.toml", "a") as file:
        file.write('audit = { file = "audit.jsonl" }\n')
    home.ok("encrypt", stdin=b"x")
    home.ok("encrypt", stdin=b"x")
    told = json.loads(home.ok("audit", "verify", "audit.jsonl", "--json"))
    assert told["lines"] >= 2
    assert told["head"] in home.ok("audit", "verify", "audit.jsonl", "--head", told["head"]).decode()
    lines = (home.path / "audit.jsonl").read_bytes().splitlines(keepends=True)
    home.write("cut.jsonl", b"".join(lines[:-1]))
    home.write("changed.jsonl", b"".join(lines).replace(b'"ok"', b'"no"', 1))
    for name, more in (("cut.jsonl", ("--head", told["head"])), ("changed.jsonl", ()), ("none.jsonl", ())):
        done = home.run("audit", "verify", name, *more)
        assert done.code == 9
        assert name in one_line(done.err)


def commands(group: click.Group = app, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        found.append((*prefix, name))
        if isinstance(command, click.Group):
            found += commands(command, (*prefix, name))
    return found


@pytest.mark.parametrize("command", ((), *commands()), ids=" ".join)
def test_every_command_has_help(empty, command):
    """--help tells what it does and describes each option; it needs no configuration."""
    text = empty.ok(*command, "--help").decode()
    assert "Usage: kmsbridge" in text
    found: click.Command = app
    for name in command:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    assert found.help
    assert all(option.help for option in found.params if isinstance(option, click.Option))


def test_global_options_may_stand_on_either_side(home):
    """Before the command's name or after it; the later one counts."""
    home.ok("--profile", "dev", "keys")
    home.ok("keys", "--profile", "dev")
    home.ok("--profile", "none", "keys", "--profile", "dev")
    assert home.run("keys", "--profile", "none").code == 3


def test_version_and_missing_commands(empty):
    """--version is one line on stdout; no command at all shows the help and is a usage error."""
    assert empty.ok("--version").decode().split()[0] == "kmsbridge"
    done = empty.run()
    assert done.code == 2
    assert done.out == b""
    assert "Usage:" in done.err


@pytest.mark.parametrize("shell", ("bash", "zsh", "fish"))
def test_completion_prints_a_script(empty, shell):
    """The script names the command; bash completes with it."""
    script = empty.ok("completion", shell).decode()
    assert "_KMSBRIDGE_COMPLETE" in script
    if shell == "bash":
        empty.write("script", script)
        done = empty.shell(
            "set -e; source ./script; COMP_WORDS=(kmsbridge re); COMP_CWORD=1; "
            '_kmsbridge_completion kmsbridge re kmsbridge; echo "${COMPREPLY[@]}"'
        )
        assert done.text.split() == ["rewrap"]


def test_help_imports_nothing_heavy():
    """Help and completion come without cryptography, stevedore or rich."""
    code = (
        "import sys; from kmsbridge.cli.app import app\n"
        "try: app.main(['--help'])\n"
        "except SystemExit: print(sorted({'cryptography', 'stevedore', 'rich', 'kmsbridge.cipher'} & set(sys.modules)))"
    )
    done = subprocess.run([_python(), "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def _python() -> str:
    import sys

    return sys.executable


HELPED = [(), *((name,) for name in app.commands), ("audit", "verify"), ("config", "explain")]


@pytest.mark.parametrize("args", HELPED, ids=lambda args: " ".join(args) or "kmsbridge")
def test_help_shows_examples_as_they_are_typed(empty, args):
    """No markup is printed, and every example has a line to itself."""
    text = empty.ok(*args, "--help").decode()
    assert "\\b" not in text
    assert "\b" not in text
    for line in text.splitlines():
        assert line.count("kmsbridge ") <= 1 or "|" in line or line.startswith("Usage")


def test_help_of_keys_says_that_no_key_is_used(empty):
    """Who reads `enabled` must not take it for a test of the key."""
    assert b"No key is used" in empty.ok("keys", "--help")


@pytest.mark.parametrize("group", ("audit", "config"))
def test_short_help_is_not_cut(empty, group):
    """The lists of commands say what each does, to the end."""
    for args in ((), (group,)):
        _, lines = empty.ok(*args, "--help").decode().split("Commands:\n")
        assert "..." not in lines
