"""Exit codes, and the form of every error; bad input of every kind changes nothing."""

from __future__ import annotations

import errno
import inspect
import json
import os

import pytest

from kmsbridge import errors
from kmsbridge.cli import exits
from kmsbridge.cli.exits import TABLE, CommandError, code_of

CODES = {
    "KmsBridgeError": 1,
    "ConfigError": 3,
    "ProviderNotFound": 3,
    "ProviderLoadError": 3,
    "MessageError": 4,
    "MalformedMessage": 4,
    "UnsupportedMessage": 4,
    "AuthenticationError": 5,
    "NoMatchingKey": 6,
    "RoleError": 6,
    "LimitExceeded": 1,
    "ClosedError": 1,
    "ReentrantCall": 1,
    "AuditError": 9,
    "KmsError": 8,
    "KmsUnavailable": 7,
    "KmsThrottled": 7,
    "KmsTimeout": 7,
    "KmsAccessDenied": 8,
    "KmsKeyNotFound": 8,
    "KmsKeyDisabled": 8,
    "KmsInvalidRequest": 8,
    "KmsUnauthenticated": 8,
    "KmsCredentialMisused": 11,
}


def test_every_error_of_the_library_has_its_exit_code():
    """The whole tree is covered, and a class that is added must be thought about here."""
    classes = {
        name: cls
        for name, cls in vars(errors).items()
        if inspect.isclass(cls) and issubclass(cls, errors.KmsBridgeError)
    }
    assert {name: code_of(cls("x")) for name, cls in classes.items()} == CODES


def test_other_errors_have_codes_too():
    """Whatever is not in the table ends with 1; an error of the command's own brings its code."""
    assert code_of(OSError()) == code_of(MemoryError()) == 1
    assert code_of(CommandError("x", code=126)) == 126
    assert len({row.code for row in TABLE}) == len(TABLE)


@pytest.fixture
def hosts(home):
    """Plaintext, messages, and configurations that are wrong in all the ways that there are."""
    home.write("plain", b"payload")
    home.ok("encrypt", "plain", "-o", "message", "-c", "a=b")
    good = (home.path / "message").read_bytes()
    home.write("text", "this is not a message at all, but a line of text\n")
    home.write("short", good[:50])
    home.write("later", b"KMSB\x02" + good[5:])
    home.write("junk.txt", b"kmsb1_AAAA!AAAA")
    home.write("swapped.txt", home.ok("encrypt", "-a", stdin=b"x").strip() + b"=")
    armored = home.ok("encrypt", "-a", stdin=b"x" * 100)
    home.write("wrapped.txt", armored[:76] + b"\n" + armored[76:])
    home.write("empty", b"")
    os.mkdir("folder", 0o700)
    keys = json.loads((home.path / "dev-keys.json").read_bytes())
    home.write("cut.json", (home.path / "dev-keys.json").read_bytes()[:100])
    os.chmod("cut.json", 0o600)
    home.write("open.json", json.dumps(keys))
    os.chmod("open.json", 0o644)
    toml = (home.path / "kmsbridge.toml").read_text()
    home.write("cut.toml", toml.replace("dev-keys", "cut"))
    home.write("open.toml", toml.replace("dev-keys", "open"))
    home.write("nokeys.toml", toml.replace("dev-keys", "missing"))
    home.write("typo.toml", toml.replace("encrypt_to", "encrypt_too"))
    home.write("broken.toml", toml[:-10] + "=")
    home.write("twice.toml", toml + toml[toml.index("[keys.dev]") :])
    home.write("binary.toml", b"\xff\xfe")
    home.write("scheme.toml", toml.replace("local:dev-keys.json#app", "aws-kmss://alias/x"))
    home.write("plugin.toml", toml.replace("local:dev-keys.json#app", "gcp-kms://x"))
    home.write("variable.toml", toml.replace("local:dev-keys.json#app", "env:UNSET_URI"))
    home.write("production.toml", toml + "production = true\n")
    os.symlink("loop.toml", "loop.toml")
    os.mkfifo("fifo.toml")
    other = home.path / "other"
    other.mkdir(mode=0o700)
    home.ok("init", "-q", "--config", "other/kmsbridge.toml")
    home.ok("encrypt", "--config", "other/kmsbridge.toml", "plain", "-o", "stranger")
    return home


BAD = {
    "empty context value": (2, ("encrypt", "plain", "-o", "out", "-c", "a="), "empty value"),
    "empty context name": (2, ("encrypt", "plain", "-o", "out", "-c", "=b"), "empty name"),
    "context without a value": (2, ("encrypt", "plain", "-o", "out", "-c", "ab"), "NAME=VALUE"),
    "context name given twice": (2, ("encrypt", "plain", "-o", "out", "-c", "a=b", "-c", "a=c"), "twice"),
    "reserved context": (2, ("encrypt", "plain", "-o", "out", "-c", "kmsbridge=dek"), "reserved"),
    "huge context": (2, ("encrypt", "plain", "-o", "out", "-c", f"a={'b' * 5000}"), "4096"),
    "65 pairs": (2, ("encrypt", "plain", *(f"-ca{n}=b" for n in range(65))), "64"),
    "context not UTF-8": (2, ("encrypt", "plain", "-c", os.fsdecode(b"a=\xff")), "UTF-8"),
    "unknown option": (2, ("encrypt", "plain", "--contxt", "a=b"), "did you mean"),
    "option without its value": (2, ("encrypt", "plain", "-o"), "see 'kmsbridge encrypt --help'"),
    "shell missing": (2, ("completion",), "missing argument 'SHELL'; choose from: bash, zsh, fish;"),
    "empty target": (1, ("encrypt", "plain", "-o", ""), "an empty name"),
    "empty source": (1, ("decrypt", ""), "an empty name"),
    "armored message in lines": (4, ("decrypt", "wrapped.txt", "-o", "out"), "join it to one line"),
    "another context for a named file": (
        5,
        ("decrypt", "message", "-c", "a=c"),
        "message: the message could",
    ),
    "table given twice": (3, ("--config", "twice.toml", "keys"), "given twice"),
    "unknown command": (2, ("encript", "plain"), "'encrypt'?"),
    "a command of a group missing": (2, ("config", "explan"), "explain"),
    "too many arguments": (2, ("decrypt", "message", "out"), "1 argument too many"),
    "unknown profile": (3, ("--profile", "prod", "encrypt", "plain", "-o", "out"), "valid: dev"),
    "no configuration": (3, ("--config", "none.toml", "encrypt", "plain"), "none.toml"),
    "folder as configuration": (3, ("--config", "folder", "encrypt", "plain"), "a folder"),
    "FIFO as configuration": (3, ("--config", "fifo.toml", "encrypt", "plain"), "not a regular file"),
    "configuration that links to itself": (3, ("--config", "loop.toml", "keys"), "loop.toml"),
    "configuration that is no TOML": (3, ("--config", "broken.toml", "keys"), "not valid TOML"),
    "configuration that is no text": (3, ("--config", "binary.toml", "keys"), "UTF-8"),
    "misspelt setting": (3, ("--config", "typo.toml", "keys"), "did you mean 'encrypt_to'"),
    "unknown scheme": (3, ("--config", "scheme.toml", "encrypt", "plain"), "did you mean 'aws-kms'"),
    "variable that is not set": (3, ("--config", "variable.toml", "keys"), "UNSET_URI"),
    "local key in production": (3, ("--config", "production.toml", "encrypt", "plain"), "production"),
    "missing key file": (3, ("--config", "nokeys.toml", "encrypt", "plain"), "restore it from a backup"),
    "key file cut short": (3, ("--config", "cut.toml", "decrypt", "message", "-o", "out"), "cut.json"),
    "key file for all to read": (3, ("--config", "open.toml", "encrypt", "plain"), "chmod 600"),
    "message that is text": (4, ("decrypt", "text", "-o", "out"), "does not begin"),
    "message cut short": (4, ("decrypt", "short", "-o", "out"), "cut short"),
    "message of a later version": (4, ("decrypt", "later", "-o", "out"), "upgrade"),
    "armored message with junk": (4, ("decrypt", "junk.txt", "-o", "out"), "damaged"),
    "armored message with padding": (4, ("decrypt", "swapped.txt", "-o", "out"), "damaged"),
    "binary where text was insisted on": (4, ("decrypt", "-a", "message", "-o", "out"), "kmsb1_"),
    "empty message": (4, ("decrypt", "empty", "-o", "out"), "too few"),
    "another context": (5, ("decrypt", "message", "-o", "out", "-c", "a=c"), "could not be authenticated"),
    "a stranger's message": (6, ("decrypt", "stranger", "-o", "out"), "decrypt_with"),
    "a stranger's message to rewrap": (6, ("rewrap", "stranger"), "stranger: "),
    "missing source": (1, ("encrypt", "none", "-o", "out"), "none: no such file"),
    "folder as source": (1, ("encrypt", "folder", "-o", "out"), "folder: is a directory"),
    "folder as message": (1, ("decrypt", "folder", "-o", "out"), "folder: is a directory"),
    "folder as target": (1, ("encrypt", "plain", "-o", "folder", "--force"), "folder: is a directory"),
    "target in no folder": (1, ("encrypt", "plain", "-o", "none/out"), "none/out: no such file"),
    "target under a file": (
        1,
        ("decrypt", "message", "-ca=b", "-o", "plain/out"),
        "plain/out: not a directory",
    ),
    "name too long": (1, ("encrypt", "plain", "-o", "n" * 256), "file name too long"),
    "folder as audit file": (9, ("audit", "verify", "folder"), "folder"),
    "text as audit file": (9, ("audit", "verify", "text"), "line 1"),
}


@pytest.mark.parametrize(("code", "args", "says"), BAD.values(), ids=BAD)
def test_bad_input_is_told_and_changes_nothing(hosts, one_line, code, args, says):
    """One line that names the thing and what to do, the exit code, and the disk as it was."""
    before = hosts.files()
    done = hosts.run(*args)
    assert done.code == code, done.err
    text = one_line(done.err)
    assert says in text
    assert "; " in text or says == "'encrypt'?"
    assert done.out == b""
    assert hosts.files() == before


@pytest.mark.parametrize(("code", "args", "says"), BAD.values(), ids=BAD)
def test_debug_adds_places_and_no_values(hosts, code, args, says):
    """--debug shows where; the last line is the same, and no line holds source code or variables."""
    plain, debug = hosts.run(*args), hosts.run("--debug", *args)
    assert debug.code == code
    *trace, last = debug.err.splitlines()
    assert last == plain.err.splitlines()[-1]
    assert all(line.startswith("kmsbridge: debug: ") for line in trace)


def test_an_unforeseen_error_shows_its_type_alone(home, one_line, monkeypatch):
    """A fault of ours is one line too, without a text that could hold anything."""
    monkeypatch.setattr("kmsbridge.registry.providers", lambda: dict[str, str]()["canary"])
    done = home.run("--debug", "providers")
    assert done.code == 1
    assert "internal error (KeyError)" in one_line(done.err.splitlines(keepends=True)[-1])
    assert "canary" not in done.err


def test_warnings_of_the_library_look_like_ours(home, one_line):
    """An audit file that cannot be written, and need not be, is a warning in one line."""
    os.mkdir("folder")
    with open("kmsbridge.toml", "a") as file:
        file.write('audit = { file = "folder" }\n')
    done = home.run("encrypt", stdin=b"x")
    assert done.code == 0
    assert one_line(done.err).startswith("warning: ")


def test_without_click_the_remedy_is_named(tmp_path):
    """Installed without the extra, the command says what to install."""
    import subprocess
    import sys

    code = "import sys; sys.modules['click'] = None; sys.argv[1:] = ['keys']; from kmsbridge.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "kmsbridge: click is not installed; pip install 'kmsbridge[cli]'\n"


def test_documented_codes_are_those_of_the_table():
    """The help shows each code with its meaning."""
    from kmsbridge.cli.app import EPILOG

    assert all(f"{row.code}" in EPILOG and row.meaning in EPILOG for row in TABLE)
    assert exits.USAGE == 2


def test_a_configuration_named_by_a_variable_is_told_so(empty, one_line):
    """Who did not type the path is told where it came from."""
    done = empty.run("keys", env={"KMSBRIDGE_CONFIG": "gone.toml"})
    assert done.code == 3
    text = one_line(done.err)
    assert "'gone.toml' (environment variable KMSBRIDGE_CONFIG) does not exist" in text


UNREADABLE = (
    ("encrypt", "closed"),
    ("decrypt", "closed"),
    ("encrypt", "plain", "--aad-file", "closed"),
    ("inspect", "closed", "message"),
    ("rewrap", "closed", "message", "-c", "a=b"),
    ("audit", "verify", "closed"),
    ("--config", "closed", "keys"),
    ("init", "--config", "new.toml", "--key-file", "new.json", "--passphrase-file", "closed"),
)


@pytest.mark.parametrize("args", UNREADABLE, ids=" ".join)
def test_a_file_that_may_not_be_read_is_told_in_our_words(hosts, one_line, monkeypatch, args):
    """It is an error of the file, not of the command line; and files beside it are done."""
    hosts.write("closed")
    real_open, real_os_open, real_access = open, os.open, os.access

    def closed(path):
        return isinstance(path, (str, os.PathLike)) and os.path.basename(path) == "closed"

    def refusing(real):
        def call(path, *rest, **options):
            if closed(path):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
            return real(path, *rest, **options)

        return call

    # As root nothing is refused, so the refusal is played.
    monkeypatch.setattr("builtins.open", refusing(real_open))
    monkeypatch.setattr(os, "open", refusing(real_os_open))
    monkeypatch.setattr(os, "access", lambda path, *rest: not closed(path) and real_access(path, *rest))
    done = hosts.run(*args)
    assert done.code in {1, 3, 9}
    *others, last = done.err.splitlines(keepends=True)
    text = one_line(others[0] if others else last)
    assert "closed" in text
    assert "ermission denied" in text or "may not be read" in text
    assert "not readable" not in text
    assert (b"message" in done.out) == (args[0] == "inspect")
    assert ("already current 1" in done.err) == (args[0] == "rewrap")
