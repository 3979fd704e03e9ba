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


def test_a_key_file_without_a_configuration_is_left(empty, one_line):
    """What it protects is unknown, so init says what to do and changes nothing."""
    empty.ok("init")
    os.unlink("kmsbridge.toml")
    before = empty.files()
    done = empty.run("init")
    assert "restore the configuration" in one_line(done.err)
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
    """Afterwards all works, or the next init makes it work; and git never sees a key."""
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
        there = tuple(os.path.exists(name) for name in ("kmsbridge.toml", "dev-keys.json"))
        ends.append(there)
        if there != (True, True):
            empty.ok("init")
        assert empty.ok("decrypt", stdin=empty.ok("encrypt", stdin=b"x")) == b"x"
        if done.returncode == 0:
            break
    assert list(dict.fromkeys(ends)) == [(False, False), (True, False), (True, True)]


@pytest.mark.parametrize("ending", (".toml", ".json"), ids=("configuration", "key file"))
def test_a_file_that_cannot_be_written_leaves_nothing_half_made(empty, monkeypatch, one_line, ending):
    """Neither a key that no configuration names is left behind, nor a configuration without its key."""
    from kmsbridge import atomic

    real = atomic.replacing

    def full(path, **options):
        if str(path).endswith(ending):
            raise OSError(28, "No space left on device")
        return real(path, **options)

    monkeypatch.setattr(atomic, "replacing", full)
    done = empty.run("init")
    assert done.code in (1, 8)
    assert ending in one_line(done.err)
    assert not [name for name in empty.files() if name.endswith((".toml", ".json"))]


def test_a_clone_without_its_key_file_is_completed(empty):
    """The key file is made, the configuration is left as it is, git is told, and both are named."""
    empty.ok("init")
    before = (empty.path / "kmsbridge.toml").read_bytes() + b"# ours\n"
    empty.write("kmsbridge.toml", before)
    os.unlink("dev-keys.json")
    git("init", "-q")
    done = empty.run("init")
    assert done.code == 0, done.err
    assert "kmsbridge.toml (left as it was)" in done.text
    assert "dev-keys.json" in done.text
    assert "git ignores dev-keys.json" in done.err
    assert "new key" in done.err
    assert (empty.path / "kmsbridge.toml").read_bytes() == before
    assert empty.ok("decrypt", stdin=empty.ok("encrypt", stdin=b"x")) == b"x"
    assert stat.S_IMODE(os.stat("dev-keys.json").st_mode) == 0o600


def test_a_clone_with_other_names_is_told_the_command(empty, one_line):
    """Where the configuration names another file and key, the error's command makes those."""
    args = ("--config", "sub/a.toml", "--key-file", "sub/my keys.json", "--name", "main")
    os.mkdir("sub", 0o700)
    empty.ok("init", *args)
    os.unlink("sub/my keys.json")
    before = empty.files()
    done = empty.run("init", "--config", "sub/a.toml")
    assert done.code == 1
    text = one_line(done.err)
    assert "sub/a.toml exists, but has no key app in sub/dev-keys.json; nothing was changed" in text
    assert text.endswith("kmsbridge init --config sub/a.toml --key-file 'sub/my keys.json' --name main")
    assert empty.files() == before
    empty.ok("init", *args)
    assert (
        empty.ok("decrypt", "--config", "sub/a.toml", stdin=empty.ok("--config", "sub/a.toml", "encrypt"))
        == b""
    )


@pytest.mark.parametrize(
    "text",
    (
        '[keys.dev]\nuri = "aws-kms://alias/app"\n',
        '[keys.dev]\nuri = "env:KEY_URI"\n',
        '[keys.dev]\nuri = "local:dev-keys.json#other"\n',
        '[keys.dev]\nuri = "local:other.json#app"\n',
        "",
    ),
    ids=("another scheme", "a reference", "another name", "another file", "nothing"),
)
def test_a_configuration_without_this_key_is_not_completed(empty, one_line, text):
    """Only what the configuration really names is made."""
    empty.write("kmsbridge.toml", text)
    before = empty.files()
    done = empty.run("init")
    assert done.code == 1
    assert "kmsbridge.toml exists, but has no key app in dev-keys.json" in one_line(done.err)
    assert empty.files() == before


@pytest.mark.parametrize("reference", ("env:OUR_WORD", "file:word", "battery staple"))
def test_completing_protects_as_the_configuration_says(empty, one_line, cheap_passphrases, reference):
    """The passphrase comes from where the configuration says; without it, no key is made."""
    uri = 'uri = "local:dev-keys.json#app"'
    empty.ok("init")
    text = (empty.path / "kmsbridge.toml").read_text()
    empty.write("kmsbridge.toml", text.replace(uri, f'{uri}\npassphrase = "{reference}"'))
    os.unlink("dev-keys.json")
    if ":" in reference:
        done = empty.run("init")
        assert done.code == 1
        assert reference.partition(":")[2] in one_line(done.err)
        assert not os.path.exists("dev-keys.json")
    assert empty.run("init", "--passphrase").code == 1  # it is another one
    empty.write("word", b"battery staple\n")
    env = {"OUR_WORD": "battery staple"}
    empty.ok("init", env=env)
    assert empty.ok("decrypt", stdin=empty.ok("encrypt", stdin=b"x", env=env), env=env) == b"x"
    assert "argon2id" in (empty.path / "dev-keys.json").read_text().lower()


@pytest.mark.parametrize("variable", ("KMSBRIDGE_CONFIG", "KMSBRIDGE_KEY"))
def test_a_variable_that_hides_the_new_file_is_told(empty, variable):
    """Commands would read something else than what init made."""
    done = empty.run("init", env={variable: "elsewhere"})
    assert done.code == 0
    assert f"{variable} is set, so commands will not read kmsbridge.toml" in done.err
    os.unlink("dev-keys.json")
    assert "will not read" not in empty.run("init", env={"KMSBRIDGE_CONFIG": "kmsbridge.toml"}).err


def test_a_profile_is_refused(empty, one_line):
    """The profile that init makes has its own name."""
    done = empty.run("init", "--profile", "prod")
    assert done.code == 2
    assert "--profile" in one_line(done.err)
    assert empty.files() == {}


@pytest.mark.parametrize(
    ("args", "code", "says"),
    (
        (("--name", "a b"), 2, "--name"),
        (("--name", "../x"), 2, "--name"),
        (("--key-file", "no/such/keys.json"), 1, "does not exist"),
        (("--config", "no/such.toml"), 1, "does not exist"),
        (("--key-file", "kmsbridge.toml"), 1, "same file"),
        (("--passphrase",), 1, "no terminal"),
        (("--passphrase-file", "missing"), 1, "missing"),
        (("--passphrase-file", "empty"), 1, "empty"),
        (("--passphrase-file", "binary"), 1, "not UTF-8"),
        (("--passphrase", "--passphrase-file", "empty"), 2, "cannot be used together"),
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


@pytest.mark.parametrize("kind", ("link", "dangling link", "fifo", "folder"))
def test_a_gitignore_that_git_would_not_read_is_refused(empty, one_line, kind):
    """No key is made, and what a link leads to is left alone."""
    git("init", "-q", "project")
    elsewhere = empty.write("elsewhere", b"mine\n")
    path = empty.path / "project/.gitignore"
    match kind:
        case "link":
            path.symlink_to("../elsewhere")
        case "dangling link":
            path.symlink_to("../missing")
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
    os.chmod("project", 0o700)
    done = empty.run("init", "--key-file", "project/k.json")
    assert done.code == 1
    text = one_line(done.err)
    assert ".gitignore is " in text
    assert "regular file" in text
    assert elsewhere.read_bytes() == b"mine\n"
    assert sorted(os.listdir()) == ["elsewhere", "project"]
    assert sorted(os.listdir("project")) == [".git", ".gitignore"]


def test_a_line_that_a_later_one_undoes_is_written_again(empty):
    """A pattern that is there already does not count where git says otherwise."""
    git("init", "-q")
    empty.write(".gitignore", "/dev-keys.json\n!*.json\n")
    done = empty.run("init")
    assert "git ignores dev-keys.json, by .gitignore" in done.err
    assert "dev-keys" not in git("status", "--porcelain", "--untracked-files=all")


def test_no_key_is_made_where_git_still_does_not_ignore_it(empty, one_line, monkeypatch):
    """Git has the last word, not what was written."""
    git("init", "-q")
    program = empty.write("bin/git", "#!/bin/sh\nexit 1\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(program.parent))
    done = empty.run("init")
    assert done.code == 1
    assert "git does not ignore dev-keys.json" in one_line(done.err)
    assert not {"dev-keys.json", "dev-keys.json.lock", "kmsbridge.toml"} & set(os.listdir())


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
