"""`kmsbridge init`."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tomllib

import pytest

from kmsbridge import config


def git(*args: str) -> str:
    done = subprocess.run(["git", *args], check=True, capture_output=True, text=True)
    return done.stdout


def test_makes_a_configuration_and_a_private_key_file(empty):
    """What init made is enough to encrypt and decrypt with."""
    out = empty.ok("init").decode()
    assert "kmsbridge.toml" in out
    assert "dev-keys.json" in out
    assert stat.S_IMODE(os.stat("dev-keys.json").st_mode) == 0o600
    assert tomllib.loads((empty.path / "kmsbridge.toml").read_text())["default_profile"] == "dev"
    message = empty.ok("encrypt", stdin=b"payload")
    assert empty.ok("decrypt", stdin=message) == b"payload"


def test_options_say_where_and_what(empty):
    """--config, --key-file and --name are used, and the configuration finds the key from elsewhere."""
    os.mkdir("sub", 0o700)
    os.mkdir("keys", 0o700)
    empty.ok("init", "--config", "sub/a.toml", "--key-file", "keys/my keys#1.json", "--name", "main")
    profile = config.load("sub/a.toml")
    assert profile.encrypt_to[0].uri.fragment == "main"
    message = empty.ok("--config", "sub/a.toml", "encrypt", stdin=b"x")
    assert empty.ok("decrypt", "--config", "sub/a.toml", stdin=message) == b"x"


def test_a_folder_with_both_can_be_moved(empty):
    """A key file beside the configuration or below is named relative to it."""
    os.makedirs("a/keys", 0o700)
    empty.ok("init", "--config", "a/kmsbridge.toml", "--key-file", "a/keys/k.json")
    os.rename("a", "b")
    empty.ok("encrypt", "--config", "b/kmsbridge.toml", stdin=b"x")


@pytest.mark.parametrize(
    "there", (("kmsbridge.toml",), ("dev-keys.json",), ("kmsbridge.toml", "dev-keys.json")), ids=" and ".join
)
def test_overwrites_nothing(empty, one_line, there):
    """Whatever exists is named and left, and nothing else is made."""
    for name in there:
        empty.write(name, b"mine")
    before = empty.files()
    done = empty.run("init")
    assert done.code == 1
    text = one_line(done.err)
    assert all(name in text for name in there)
    assert empty.files() == before


def test_a_dangling_link_is_not_followed(empty):
    """A link that leads nowhere counts as something that exists."""
    os.symlink("elsewhere.json", "dev-keys.json")
    assert empty.run("init").code == 1
    assert sorted(os.listdir()) == ["dev-keys.json"]


def test_a_key_file_left_by_a_stopped_init_is_explained(empty, one_line):
    """A second init after one that was stopped before the configuration says what to do."""
    empty.ok("init")
    os.unlink("kmsbridge.toml")
    before = empty.files()
    done = empty.run("init")
    assert "broken-off init" in one_line(done.err)
    assert empty.files() == before
    empty.ok("init", "--key-file", "other.json")


KILLED = """
import os, sys
left = int(sys.argv.pop(1))
def killing(real):
    def call(*args, **options):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return real(*args, **options)
    return call
for name in ("fsync", "link", "replace", "unlink"):
    setattr(os, name, killing(getattr(os, name)))
from kmsbridge.cli import main
sys.exit(main())
"""


def test_a_kill_at_any_step_leaves_nothing_wrong(empty):
    """Afterwards all works, or the next init makes it work or says why not; and git never sees a key."""
    git("init", "-q")
    ends = []
    for steps in range(100):
        folder = empty.path / str(steps)
        folder.mkdir(mode=0o700)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(steps), "init"], cwd=folder, capture_output=True, check=False
        )
        os.chdir(folder)
        assert "dev-keys" not in git("status", "--porcelain", "--untracked-files=all")
        if os.path.exists("kmsbridge.toml"):
            ends.append("usable")
        elif empty.run("init").code == 0:
            ends.append("made anew")
        else:
            assert "broken-off init" in empty.run("init").err
            ends.append("explained")
            os.unlink("dev-keys.json")
            empty.ok("init")
        assert empty.ok("decrypt", stdin=empty.ok("encrypt", stdin=b"x")) == b"x"
        if done.returncode == 0:
            break
    assert list(dict.fromkeys(ends)) == ["made anew", "explained", "usable"]


def test_a_configuration_that_cannot_be_written_leaves_no_key(empty, monkeypatch, one_line):
    """A key that no configuration names is not left behind."""
    from kmsbridge import atomic

    real = atomic.write

    def full(path, data, **options):
        if str(path).endswith(".toml"):
            raise OSError(28, "No space left on device")
        real(path, data, **options)

    monkeypatch.setattr(atomic, "write", full)
    done = empty.run("init")
    assert done.code == 1
    assert "kmsbridge.toml: no space left" in one_line(done.err)
    assert empty.files() == {}


@pytest.mark.parametrize(
    ("args", "code", "says"),
    (
        (("--name", "a b"), 2, "--name"),
        (("--name", "../x"), 2, "--name"),
        (("--key-file", "no/such/keys.json"), 1, "no folder"),
        (("--config", "no/such.toml"), 1, "no folder"),
        (("--key-file", "kmsbridge.toml"), 1, "one file"),
        (("--passphrase",), 1, "no terminal"),
        (("--passphrase-file", "missing"), 1, "missing"),
        (("--passphrase-file", "empty"), 1, "empty"),
        (("--passphrase-file", "binary"), 1, "not UTF-8"),
        (("--passphrase", "--passphrase-file", "empty"), 2, "exclude each other"),
        (("--key-file", "a\nb.json"), 1, "cannot be written"),
        (("--key-file", os.fsdecode(b"a\xff.json")), 1, "cannot be written"),
    ),
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_arguments_change_nothing(empty, one_line, args, code, says):
    """Each is refused with its name, before anything is on disk."""
    empty.write("empty", b"\n")
    empty.write("binary", b"\xff")
    subprocess.run(["git", "init", "-q"], check=True)
    before = empty.files()
    done = empty.run("init", *args)
    assert done.code == code, done.err
    assert says in one_line(done.err)
    assert empty.files() == before


def test_a_folder_that_others_may_change_is_refused(empty, one_line):
    """A key file is not put where others could replace it."""
    os.mkdir("open")
    os.chmod("open", 0o777)
    done = empty.run("init", "--key-file", "open/keys.json")
    assert done.code == 3
    assert "chmod" in one_line(done.err)
    assert empty.files() == {}


def test_passphrase_from_the_environment(empty, one_line, cheap_passphrases):
    """--passphrase takes KMSBRIDGE_PASSPHRASE, which the configuration names and does not hold."""
    env = {"KMSBRIDGE_PASSPHRASE": "correct horse"}
    empty.ok("init", "--passphrase", env=env)
    text = (empty.path / "kmsbridge.toml").read_text()
    assert 'passphrase = "env:KMSBRIDGE_PASSPHRASE"' in text
    assert b"correct horse" not in b"".join(empty.files().values())
    message = empty.ok("encrypt", stdin=b"x", env=env)
    assert empty.ok("decrypt", stdin=message, env=env) == b"x"
    done = empty.run("decrypt", stdin=message)
    assert done.code == 3
    assert "KMSBRIDGE_PASSPHRASE" in one_line(done.err)
    wrong = empty.run("decrypt", stdin=message, env={"KMSBRIDGE_PASSPHRASE": "another"})
    assert wrong.code == 8
    assert "another" not in one_line(wrong.err)


def test_passphrase_from_a_file(empty, cheap_passphrases):
    """--passphrase-file is named in the configuration, relative to it."""
    empty.write("secret dir/pass", b"correct horse\r\n")
    empty.ok("init", "--passphrase-file", "secret dir/pass")
    assert 'passphrase = "file:secret dir/pass"' in (empty.path / "kmsbridge.toml").read_text()
    assert empty.ok("decrypt", stdin=empty.ok("encrypt", stdin=b"x")) == b"x"


@pytest.mark.parametrize("installed", (True, False), ids=("git installed", "git not installed"))
def test_git_is_told_to_ignore_the_key(empty, monkeypatch, installed):
    """The key file, its lock and what a kill leaves of it are ignored, and init says so."""
    git("init", "-q")
    empty.write("sub/.gitignore", b"*.log")
    os.chmod("sub", 0o700)
    if not installed:
        monkeypatch.setattr("shutil.which", lambda _: None)
    done = empty.run("init", "--key-file", "sub/k.json")
    monkeypatch.undo()
    os.chdir(empty.path)
    assert done.code == 0, done.err
    assert "git ignores k.json, by sub/.gitignore" in done.err
    assert (empty.path / "sub/.gitignore").read_text().startswith("*.log\n")
    untracked = git("status", "--porcelain", "--untracked-files=all")
    assert "k.json" not in untracked
    assert "kmsbridge.toml" in untracked
    empty.write("sub/.k.json.0123456789ab.tmp")
    assert ".tmp" not in git("status", "--porcelain", "--untracked-files=all")


def test_a_key_that_git_ignores_already_needs_no_line(empty):
    """Nothing is written where a pattern higher up does it."""
    git("init", "-q")
    empty.write(".gitignore", "*.json*\n.*.tmp\n")
    done = empty.run("init")
    assert "git ignores dev-keys.json already" in done.err
    assert (empty.path / ".gitignore").read_text() == "*.json*\n.*.tmp\n"


def test_strange_names_are_ignored_literally(empty):
    """A name with pattern characters ignores that file and no other."""
    git("init", "-q")
    empty.ok("init", "--key-file", "a[b]*? !#.json")
    empty.write("ab_x !#.json")
    status = git("status", "--porcelain", "-z", "--untracked-files=all")
    assert "a[b]" not in status
    assert "ab_x" in status


def test_a_tracked_key_file_is_warned_of_loudly(empty):
    """Ignoring what git tracks already has no effect."""
    git("init", "-q")
    empty.write("dev-keys.json", b"old")
    git("add", "dev-keys.json")
    os.unlink("dev-keys.json")
    done = empty.run("init", "--quiet")
    assert done.code == 0
    assert "IS TRACKED BY GIT" in done.err
    assert "git rm --cached" in done.err


def test_without_a_checkout_there_is_no_gitignore(empty):
    """No .gitignore is made where there is no git checkout."""
    empty.ok("init")
    assert ".gitignore" not in os.listdir()
