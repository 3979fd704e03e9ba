"""`kmsbridge exec`, always as a process of its own: it becomes another program."""

from __future__ import annotations

import os
import signal

import pytest

import kmsbridge
from kmsbridge.cli.execute import _replace_process
from kmsbridge.cli.exits import CommandError


@pytest.fixture
def message(home):
    return home.ok("encrypt", "--armor", stdin="sëcret\nvalue ".encode()).decode().strip()


def test_only_the_child_sees_the_plaintexts(home, message):
    """Messages are decrypted, other values passed on, arguments kept, and the exit code is the child's."""
    script = 'printf "%s|%s|%s|%s" "$SECRET" "$OTHER" "$1" "$#"; exit 33'
    done = home.real(
        "exec", "--", "sh", "-c", script, "sh", "--only", "", env={"SECRET": message, "OTHER": "kmsb"}
    )
    assert done.code == 33, done.err
    assert done.out == "sëcret\nvalue |kmsb|--only|2".encode()


def test_only_named_variables_are_decrypted(home, message):
    """--only leaves other messages as they are."""
    env = {"A": message, "B": message}
    done = home.real("exec", "--only", "A", "--", "printenv", "B", env=env)
    assert done.text.strip() == message
    done = home.real("exec", "--only", "A", "--", "printenv", "A", env=env)
    assert done.out == "sëcret\nvalue \n".encode()


def test_without_messages_nothing_is_opened(empty):
    """No configuration is needed where there is nothing to decrypt."""
    assert empty.real("exec", "--", "echo", "hello").out == b"hello\n"


def test_the_context_is_used(home):
    """--context holds for all of them."""
    message = home.ok("encrypt", "-a", "-c", "tenant=acme", stdin=b"x").decode().strip()
    assert home.real("exec", "-c", "tenant=acme", "printenv", "S", env={"S": message}).out == b"x\n"
    assert home.real("exec", "printenv", "S", env={"S": message}).code == 5


@pytest.mark.parametrize(
    ("value", "code"),
    (
        (lambda cipher: cipher.encrypt_text("canary-x", context={"a": "b"}), 5),
        (lambda cipher: "kmsb1_canary-x", 4),
        (lambda cipher: "kmsb1_", 4),
        (lambda cipher: kmsbridge.message.armor(cipher.encrypt(b"canary-x\xff")), 1),
        (lambda cipher: cipher.encrypt_text("canary-x\0"), 1),
    ),
    ids=("another context", "junk", "prefix alone", "not text", "NUL"),
)
def test_a_value_that_does_not_decrypt_stops_everything(home, message, one_line, value, code):
    """Nothing is executed; the error names the variable and not its value."""
    import kmsbridge.message

    with kmsbridge.EnvelopeCipher.from_config() as cipher:
        bad = value(cipher)
    done = home.real("exec", "--debug", "--", "touch", "ran", env={"GOOD": message, "BAD": bad})
    assert done.code == code, done.err
    assert "the variable BAD: " in one_line(done.err.splitlines(keepends=True)[-1])
    assert "canary" not in done.err
    assert bad not in done.err or bad == "kmsb1_"
    assert not os.path.exists("ran")


@pytest.mark.parametrize(
    ("args", "code", "says"),
    (
        (("--", "no-such-command-here"), 127, "no command"),
        (("--", "./folder"), 126, "cannot be run"),
        (("--", "./plain"), 126, "permission denied"),
        (("--only", "UNSET", "--", "true"), 1, "UNSET"),
        ((), 2, "missing argument"),
    ),
    ids=("not found", "a folder", "not executable", "variable not set", "no command"),
)
def test_what_cannot_be_run(home, one_line, args, code, says):
    """The codes are those of a shell."""
    home.write("plain", b"")
    os.mkdir("folder")
    done = home.real("exec", *args)
    assert done.code == code
    assert says in one_line(done.err)


def test_the_child_is_the_same_process_with_default_signals(home):
    """exec leaves no parent behind, and a broken pipe ends the child as usual."""
    with home.start("exec", "--", "sh", "-c", "echo $$") as process:
        out, _ = process.communicate()
    assert int(out) == process.pid
    with home.start("exec", "--", "yes") as process:
        process.stdout.read(10)
        process.stdout.close()
        process.wait(10)
    assert process.returncode == -signal.SIGPIPE


# --- variables from a file ------------------------------------------------------------------------


def test_a_file_adds_variables_which_win_over_those_of_the_environment(home, message):
    """Messages in it are decrypted, other values are passed on; the last of several files counts."""
    home.write("one.env", f"# comment\nexport SECRET={message}\nPLAIN='a b'\nLAST=1\nSECRET_COPY=$SECRET\n")
    home.write("two.env", "LAST=2\n")
    script = 'printf "%s|%s|%s|%s|%s" "$SECRET" "$PLAIN" "$LAST" "$KEPT" "$SECRET_COPY"'
    files = ("--env-file", "one.env", "--env-file", "two.env")
    done = home.real("exec", *files, "--", "sh", "-c", script, env={"PLAIN": "old", "KEPT": "kept"})
    assert done.out == "sëcret\nvalue |a b|2|kept|$SECRET".encode(), done.err


def test_only_names_variables_of_the_file_as_well(home, message):
    home.write("one.env", f"A={message}\nB={message}\n")
    done = home.real("exec", "--env-file", "one.env", "--only", "A", "--", "printenv", "A", "B")
    assert done.out == f"sëcret\nvalue \n{message}\n".encode()


@pytest.mark.parametrize(
    ("line", "code", "says"),
    (
        ("BAD=kmsb1_canary", 4, "line 2: the variable BAD: "),
        ("BAD='canary", 1, "line 2 is not NAME=VALUE"),
        ("canary", 1, "line 2 is not NAME=VALUE"),
    ),
)
def test_an_error_in_a_file_names_the_line_and_nothing_of_it(home, one_line, line, code, says):
    home.write("one.env", f"GOOD=1\n{line}\n")
    done = home.run("exec", "--env-file", "one.env", "--", "touch", "ran")
    assert (done.code, os.path.exists("ran")) == (code, False)
    assert f"one.env: {says}" in one_line(done.err)
    assert "canary" not in done.err


def test_a_file_that_is_missing_stops_everything(home, one_line):
    done = home.run("exec", "--env-file", "missing.env", "--", "touch", "ran")
    assert (done.code, os.path.exists("ran")) == (1, False)
    assert "missing.env: no such file" in one_line(done.err)


def test_a_command_that_cannot_be_run_leaves_the_signals_as_they_were(monkeypatch):
    """Else a pipe that breaks while the error is told would end the process without a word."""
    monkeypatch.setattr("os.execvpe", lambda *_: (_ for _ in ()).throw(FileNotFoundError()))
    before = {number: signal.getsignal(number) for number in (signal.SIGPIPE, signal.SIGXFSZ)}
    with pytest.raises(CommandError, match="no command"):
        _replace_process(("/nowhere",), {})
    assert before == {number: signal.getsignal(number) for number in before}
