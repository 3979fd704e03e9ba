"""Key files on disk: who may use them, how they are made and changed, alone and by many processes."""

import fcntl
import grp
import json
import os
import pwd
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from kmsbridge.driver import ErrorKind, KeyState, Secret
from kmsbridge.drivers.local import files, protection
from kmsbridge.drivers.local.document import Cost
from kmsbridge.drivers.local.errors import LocalKeyError
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.drivers.local.passphrase import passphrase_key
from kmsbridge.errors import ClosedError, ConfigError, KmsKeyNotFound, KmsTimeout
from tests.support import PATIENCE

FAST = Cost(iterations=1, memory_kib=64, lanes=1)
WORD = Secret(b"correct horse")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


def run(code, *arguments, **options):
    """Start a Python process on `code`."""
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], text=True, **options)


def succeeded(process):
    """Wait for a process and take its exit code."""
    return process.wait(timeout=60) == 0


# --- making ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", (0o000, 0o022, 0o077), ids="umask {:03o}".format)
def test_a_new_file_is_for_its_owner_alone(path, umask):
    """Mode 0600 under any umask, for the file and for its lock."""
    before = os.umask(umask)
    try:
        KeyFile.create(path, "app").rotate("app")
    finally:
        os.umask(before)
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in path.parent.iterdir()}
    assert modes == {"keys.json": 0o600, "keys.json.lock": 0o600}


@pytest.mark.parametrize("what", ("file", "empty file", "folder", "dangling link", "fifo"))
def test_nothing_is_ever_overwritten(path, what):
    """`create` leaves what is there as it is, whatever it is, and says so."""
    makers = {
        "file": lambda: path.write_bytes(b"precious"),
        "empty file": path.touch,
        "folder": path.mkdir,
        "dangling link": lambda: path.symlink_to(path.parent / "elsewhere"),
        "fifo": lambda: os.mkfifo(path),
    }
    makers[what]()
    before = path.lstat()
    with pytest.raises(ConfigError, match="never overwritten"):
        KeyFile.create(path, "app")
    assert path.lstat() == before
    assert os.listdir(path.parent) == ["keys.json"]


def test_of_two_who_create_one_file_one_wins(path):
    """The file that stands at the end is one that its maker was told of."""
    code = """if True:
        import sys
        from kmsbridge.errors import ConfigError
        from kmsbridge.drivers.local.keyfile import KeyFile
        sys.stdin.readline()
        try:
            KeyFile.create(sys.argv[1], sys.argv[2])
        except ConfigError:
            sys.exit(3)
    """
    several = {name: run(code, path, name, stdin=subprocess.PIPE) for name in ("a", "b", "c")}
    for process in several.values():
        process.stdin.write("\n")
        process.stdin.close()
    codes = {name: process.wait(timeout=60) for name, process in several.items()}
    assert sorted(codes.values()) == [0, 3, 3]
    assert codes[KeyFile(path).names()[0]] == 0


@pytest.mark.parametrize(
    "name", ("", ".", "..", ".a", "-a", "a/b", "a..b", "a\n", "a\0", "é", "a b", "a" * 129)
)
def test_a_name_that_no_key_can_have_makes_no_file(path, name):
    """Refused before anything is on disk."""
    with pytest.raises(ConfigError, match="not valid for a local key"):
        KeyFile.create(path, name)
    assert not path.exists()


@pytest.mark.parametrize("place", ("missing/keys.json", "file/keys.json"))
def test_a_missing_folder_is_named(tmp_path, place):
    """The folder is not made; the error says which is missing."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="folder .* for the key file does not exist") as caught:
        KeyFile.create(tmp_path / place, "app")
    assert str((tmp_path / place).parent) in str(caught.value)


@pytest.mark.parametrize("path", ("", "a\0b"), ids=["empty", "NUL"])
def test_a_path_that_cannot_be_is_refused(path):
    """A `ConfigError`, not the `ValueError` of the operating system's interface."""
    with pytest.raises(ConfigError, match="path of a key file"):
        KeyFile(path)


def test_the_format_is_what_the_documentation_says(path):
    """A person can read the file, and every member is the documented one."""
    KeyFile.create(path, "app", WORD, cost=FAST)
    whole = json.loads(path.read_text())
    assert list(whole) == ["format", "protection", "keys"]
    assert list(whole["protection"]) == ["kdf", "salt", "iterations", "memory_kib", "lanes", "check"]
    assert list(whole["keys"]["app"]) == ["id", "created", "state", "current", "versions"]
    assert list(whole["keys"]["app"]["versions"]["1"]) == ["created", "material"]


# --- who may read and write -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", (0o604, 0o640, 0o644, 0o660, 0o666, 0o602, 0o601, 0o610), ids="{:04o}".format
)
def test_a_file_that_others_can_use_is_refused_with_the_command_that_helps(path, mode):
    """Any bit for group or others, even for root, who could read it all the same."""
    KeyFile.create(path, "app")
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        KeyFile(path).names()
    assert caught.value.remedy == f"chmod 600 {path}"


@pytest.mark.parametrize("mode", (0o600, 0o400, 0o700), ids="{:04o}".format)
def test_a_file_for_its_owner_alone_is_accepted(path, mode):
    """The owner's own bits are the owner's affair."""
    KeyFile.create(path, "app")
    path.chmod(mode)
    assert KeyFile(path).names() == ["app"]


def test_a_file_opened_to_others_later_is_refused_at_the_next_use(path):
    """A change of mode is a change of the file, seen like any other."""
    file = KeyFile.create(path, "app")
    assert file.names() == ["app"]
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="is open to other users"):
        file.names()


def test_a_file_of_another_user_is_refused(path, monkeypatch):
    """Neither this user's nor root's: its owner could change it at any time."""
    KeyFile.create(path, "app")
    status = list(path.stat())
    status[4] = os.geteuid() + 1
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result(status))
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(ConfigError, match="belongs to another user") as caught:
        KeyFile(path).names()
    assert caught.value.remedy == f"chown 4711 {path}"


@pytest.mark.parametrize(
    ("mode", "accepted"),
    (
        (0o700, True),
        (0o755, True),
        (0o1777, True),
        (0o1775, True),
        (0o777, False),
        (0o757, False),
        (0o702, False),
    ),
    ids=lambda value: f"{value:04o}" if type(value) is int else "",
)
def test_a_folder_in_which_everyone_can_replace_files_is_refused(path, mode, accepted):
    """As /tmp it is accepted: the sticky bit keeps others from replacing what is ours."""
    KeyFile.create(path, "app")
    path.parent.chmod(mode)
    if accepted:
        assert KeyFile(path).names() == ["app"]
    else:
        with pytest.raises(ConfigError) as caught:
            KeyFile(path).names()
        assert caught.value.remedy == f"chmod o-w {path.parent}"
    path.parent.chmod(0o700)


@pytest.mark.parametrize(
    ("owner", "mode", "accepted"),
    (
        ("user", 0o700, True),
        ("root", 0o755, True),
        ("root", 0o1777, True),
        ("other", 0o755, False),
        ("other", 0o1777, False),
    ),
    ids=("own", "of root", "like /tmp", "of another", "sticky of another"),
)
def test_a_folder_of_another_user_is_refused(path, monkeypatch, owner, mode, accepted):
    """Its owner can put another file in the place of ours, sticky bit or not."""
    KeyFile.create(path, "app")
    real, uid = os.stat, {"user": os.geteuid(), "root": 0, "other": os.geteuid() + 4711}[owner]

    def stat_of(place, **options):
        status = list(real(place, **options))
        if place == str(path.parent):
            status[0], status[4] = stat.S_IFDIR | mode, uid
        return os.stat_result(status)

    monkeypatch.setattr(os, "stat", stat_of)
    if accepted:
        files.check_folder(str(path))
    else:
        with pytest.raises(ConfigError, match="belongs to another user") as caught:
            files.check_folder(str(path))
        assert f"chown {os.geteuid()} {path.parent}" in caught.value.remedy


@pytest.mark.parametrize(
    ("group", "members", "accepted"),
    (("ann", [], True), ("ann", ["ann"], True), ("ann", ["ann", "bob"], False), ("staff", [], False)),
    ids=["the owner's own", "naming its owner", "with another member", "a shared group"],
)
def test_a_folder_that_a_group_can_write_is_accepted_where_the_group_is_one_person(
    path, monkeypatch, group, members, accepted
):
    """With a umask of 002 and a group for each user every folder is so; a shared group is refused."""
    KeyFile.create(path, "app")
    path.parent.chmod(0o770)
    status = path.parent.stat()
    ann = pwd.struct_passwd(("ann", "x", status.st_uid, status.st_gid, "", "/", "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: ann)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((group, "x", gid, members)))
    if accepted:
        assert KeyFile(path).names() == ["app"]
    else:
        with pytest.raises(ConfigError, match="a group may replace") as caught:
            KeyFile(path).names()
        assert caught.value.remedy == f"chmod g-w {path.parent}"


def test_create_refuses_the_folder_that_open_would_refuse(path):
    """No file is made that could not be opened afterwards."""
    path.parent.chmod(0o777)
    with pytest.raises(ConfigError, match="everyone may replace"):
        KeyFile.create(path, "app")
    path.parent.chmod(0o700)
    assert not path.exists()


@pytest.mark.parametrize("what", ("folder", "fifo", "device"))
def test_what_is_no_regular_file_is_refused_without_waiting(path, what):
    """A FIFO is not read, a device not either."""
    if what == "folder":
        path.mkdir(mode=0o700)
    elif what == "fifo":
        os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        KeyFile("/dev/null" if what == "device" else path).names()


def test_a_file_of_gigabytes_is_refused_without_reading_it(path):
    """A sparse file of 64 GiB costs no memory."""
    path.touch(mode=0o600)
    os.truncate(path, 64 << 30)
    with pytest.raises(ConfigError, match="larger than"):
        KeyFile(path).names()


def test_a_symbolic_link_stays_and_its_target_changes(tmp_path):
    """As with mounted secrets; the lock and the new file are where the target is."""
    (tmp_path / "real").mkdir(mode=0o700)
    target, link = tmp_path / "real" / "k.json", tmp_path / "keys.json"
    KeyFile.create(target, "app")
    link.symlink_to(target)
    assert KeyFile(link).rotate("app") == "2"
    assert link.is_symlink()
    assert KeyFile(target).describe("app").current == "2"
    assert sorted(os.listdir(tmp_path)) == ["keys.json", "real"]


@pytest.mark.parametrize("open_one", ("real", "links"))
def test_the_folder_of_a_link_and_that_of_its_target_are_both_checked(tmp_path, open_one):
    """Who can replace either decides what is read."""
    for name in ("real", "links"):
        (tmp_path / name).mkdir(mode=0o700)
    KeyFile.create(tmp_path / "real" / "k.json", "app")
    (tmp_path / "links" / "k.json").symlink_to("../real/k.json")
    (tmp_path / open_one).chmod(0o777)
    with pytest.raises(ConfigError, match="everyone may replace"):
        KeyFile(tmp_path / "links" / "k.json").names()


# --- changing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", (None, WORD), ids=["plain", "protected"])
def test_rotation_keeps_every_version_and_its_material(path, word):
    """The material of each version is the same after five rotations."""
    file = KeyFile.create(path, "app", word, cost=FAST)

    def materials():
        document = file.document()
        key = document.keys["app"]
        return {v: file.material(document, key, v, timeout=5).reveal() for v in key.versions}

    seen = materials()
    for number in range(2, 7):
        assert file.rotate("app") == str(number)
        now = materials()
        assert {version: now[version] for version in seen} == seen
        seen = now
    assert len(set(seen.values())) == 6


def test_rotation_after_going_back_by_hand_takes_a_new_number(path):
    """Someone who set `current` back to 1 gets version 3 next, not a second version 2."""
    file = KeyFile.create(path, "app")
    file.rotate("app")
    whole = json.loads(path.read_text())
    whole["keys"]["app"]["current"] = "1"
    path.write_text(json.dumps(whole))
    assert file.describe("app").current == "1"
    assert file.rotate("app") == "3"
    assert sorted(file.describe("app").versions) == ["1", "2", "3"]


def test_a_change_that_could_not_be_read_back_is_not_written(path):
    """Version 999999999 is the last; the file stays as it was."""
    file = KeyFile.create(path, "app")
    whole = json.loads(path.read_text())
    app = whole["keys"]["app"]
    app["versions"]["999999999"] = app["versions"]["1"]
    path.write_text(json.dumps(whole))
    before = path.read_bytes()
    with pytest.raises(ConfigError):
        file.rotate("app")
    assert path.read_bytes() == before


def test_keys_are_added_disabled_enabled_and_removed(path):
    """Each change is on disk when it returns, and touches no other key."""
    file = KeyFile.create(path, "app")
    first = file.describe("app")
    file.add_key("other")
    file.set_state("other", KeyState.DISABLED)
    assert KeyFile(path).names() == ["app", "other"]
    assert KeyFile(path).describe("other").state is KeyState.DISABLED
    file.set_state("other", KeyState.ENABLED)
    assert KeyFile(path).describe("other").state is KeyState.ENABLED
    file.remove_key("other")
    assert KeyFile(path).names() == ["app"]
    assert KeyFile(path).describe("app").key_id == first.key_id


def test_adding_a_key_that_exists_changes_nothing(path):
    """Keys are never overwritten."""
    file = KeyFile.create(path, "app")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="already has a key app"):
        file.add_key("app")
    assert path.read_bytes() == before


@pytest.mark.parametrize("state", (KeyState.UNKNOWN, KeyState.PENDING_DELETION))
def test_a_state_that_no_local_key_has_is_refused(path, state):
    """Only enabled and disabled are kept in the file."""
    with pytest.raises(ConfigError, match="cannot have the state"):
        KeyFile.create(path, "app").set_state("app", state)


@pytest.mark.parametrize(
    "change",
    (
        lambda file: file.rotate("nobody"),
        lambda file: file.remove_key("nobody"),
        lambda file: file.set_state("nobody", KeyState.DISABLED),
        lambda file: file.describe("nobody"),
        lambda file: file.rotate("app", expected_id="0" * 16),
    ),
    ids=["rotate", "remove", "disable", "describe", "rotate with another id"],
)
def test_a_key_that_is_not_there_is_named(path, change):
    """KEY_NOT_FOUND, also as an error of the library's tree, and the file stays as it was."""
    file = KeyFile.create(path, "app")
    before = path.read_bytes()
    with pytest.raises(LocalKeyError) as caught:
        change(file)
    assert caught.value.kind is ErrorKind.KEY_NOT_FOUND
    assert str(path) in str(caught.value)
    assert isinstance(caught.value.as_kms_error(), KmsKeyNotFound)
    assert path.read_bytes() == before


def test_use_after_close_raises_and_closing_twice_does_not(path):
    """Also for a protected file, whose passphrase is gone by then."""
    file = KeyFile.create(path, "app", WORD, cost=FAST)
    document = file.document()
    file.close()
    file.close()
    for use in (
        file.names,
        file.document,
        lambda: file.rotate("app"),
        lambda: file.material(document, document.keys["app"], "1", timeout=1),
    ):
        with pytest.raises(ClosedError):
            use()


# --- passphrases ----------------------------------------------------------------------------------


def test_the_default_cost_is_the_second_recommended_option_of_rfc_9106(path):
    """3 passes over 64 MiB in 4 lanes, and such a file opens."""
    file = KeyFile.create(path, "app", WORD)
    cost = json.loads(path.read_text())["protection"]
    assert (cost["iterations"], cost["memory_kib"], cost["lanes"]) == (3, 65536, 4)
    assert file.rotate("app") == "2"


def test_a_wrong_passphrase_is_told_from_a_changed_file(path):
    """UNAUTHENTICATED for the one; `ConfigError` for material that was moved to another place."""
    KeyFile.create(path, "app", WORD, cost=FAST).add_key("other")
    with pytest.raises(LocalKeyError) as caught:
        KeyFile(path, Secret(b"correct horse\n")).rotate("app")
    assert caught.value.kind is ErrorKind.UNAUTHENTICATED

    whole = json.loads(path.read_text())
    whole["keys"]["app"]["versions"]["1"] = whole["keys"]["other"]["versions"]["1"]
    path.write_text(json.dumps(whole))
    file = KeyFile(path, WORD)
    document = file.document()
    with pytest.raises(ConfigError, match="version 1 of the key app was changed"):
        file.material(document, document.keys["app"], "1", timeout=5)


@pytest.mark.parametrize(
    ("made_with", "opened_with", "text"),
    (
        (WORD, None, "is protected by a passphrase, but none is given"),
        (None, WORD, "a passphrase is given, but the key file .* is not protected"),
        (WORD, Secret(b""), "is empty"),
    ),
    ids=["missing", "not needed", "empty"],
)
def test_a_passphrase_that_does_not_fit_the_file_is_a_config_error(path, made_with, opened_with, text):
    """A file swapped for one without protection must not pass for the protected one."""
    KeyFile.create(path, "app", made_with, cost=FAST)
    with pytest.raises(ConfigError, match=text):
        KeyFile(path, opened_with).names()


def test_an_empty_passphrase_makes_no_file(path):
    """An environment variable that is set to nothing must not make a file that looks protected."""
    with pytest.raises(ConfigError, match="is empty"):
        KeyFile.create(path, "app", Secret(b""))
    assert not path.exists()


def test_many_threads_derive_the_key_once(path, monkeypatch):
    """64 threads at a cold file: one Argon2id, not 64 times its memory."""
    KeyFile.create(path, "app", WORD, cost=FAST)
    calls = []

    def derive(*arguments, **options):
        calls.append(1)
        return passphrase_key(*arguments, **options)

    monkeypatch.setattr(protection, "passphrase_key", derive)
    file, start, found = KeyFile(path, WORD), threading.Barrier(64), []

    def use():
        document = file.document()
        start.wait()
        found.append(file.material(document, document.keys["app"], "1", timeout=30).reveal())

    threads = [threading.Thread(target=use) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(calls), len(found), len(set(found))) == (1, 64, 1)


def test_who_waits_too_long_for_the_derivation_gets_a_timeout(path):
    """Another thread's derivation does not hold a caller past its own deadline."""
    file = KeyFile.create(path, "app", WORD, cost=FAST)
    file = KeyFile(path, WORD)
    document = file.document()
    with file._unlocker._lock, ThreadPoolExecutor(1) as other:
        waiting = other.submit(file.material, document, document.keys["app"], "1", timeout=0.01)
        with pytest.raises(LocalKeyError) as caught:
            waiting.result(PATIENCE)
    assert caught.value.kind is ErrorKind.TIMEOUT


def test_a_failed_derivation_does_not_block_the_next(path):
    """The lock is let go after a wrong passphrase."""
    KeyFile.create(path, "app", WORD, cost=FAST)
    file = KeyFile(path, Secret(b"wrong"))
    for _ in range(2):
        with pytest.raises(LocalKeyError) as caught:
            file.rotate("app", timeout=5)
        assert caught.value.kind is ErrorKind.UNAUTHENTICATED


# --- processes ------------------------------------------------------------------------------------


def test_no_rotation_of_many_processes_is_lost(path):
    """8 processes that each rotate 10 times make 80 new versions."""
    KeyFile.create(path, "app")
    code = """if True:
        import sys
        from kmsbridge.drivers.local.keyfile import KeyFile
        file = KeyFile(sys.argv[1])
        for _ in range(10):
            file.rotate("app", timeout=60)
    """
    assert all(succeeded(process) for process in [run(code, path) for _ in range(8)])
    key = KeyFile(path).describe("app")
    assert sorted(map(int, key.versions)) == list(range(1, 82))
    assert key.current == "81"


def test_no_rotation_of_many_threads_is_lost(path):
    """Threads that share one object take turns as processes do."""
    file = KeyFile.create(path, "app")
    threads = [threading.Thread(target=file.rotate, args=("app",)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(file.describe("app").versions) == 17


@pytest.fixture
def lock_holder(path):
    """Another process that holds the lock of `path` until its standard input is closed."""
    code = """if True:
        import sys
        from kmsbridge.drivers.local import files
        with files.locked(sys.argv[1], timeout=5):
            print("held", flush=True)
            sys.stdin.read()
    """
    with run(code, path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        if not process.stdin.closed:
            process.stdin.close()


def test_a_lock_held_elsewhere_is_a_timeout_and_not_a_hang(path, lock_holder):
    """TIMEOUT within the caller's time; once the lock is free the same object goes on."""
    file = KeyFile.create(path.with_name("other.json"), "app")
    os.rename(file.path, path)
    file = KeyFile(path)
    with pytest.raises(LocalKeyError) as caught:
        file.rotate("app", timeout=0.05)
    assert caught.value.kind is ErrorKind.TIMEOUT
    assert isinstance(caught.value.as_kms_error(), KmsTimeout)
    assert file.describe("app").current == "1"
    lock_holder.stdin.close()
    assert file.rotate("app", timeout=30) == "2"


def test_a_killed_holder_lets_go_of_the_lock(path, lock_holder):
    """The operating system frees it: no stale lock to remove by hand."""
    KeyFile.create(path.with_name("other.json"), "app")
    os.rename(path.with_name("other.json"), path)
    lock_holder.send_signal(signal.SIGKILL)
    assert KeyFile(path).rotate("app", timeout=30) == "2"


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_forked_under_the_lock_does_not_keep_it(path):
    """A server may fork while it rotates; the child may live for months."""
    KeyFile.create(path, "app")
    reading, writing = os.pipe()
    with files.locked(str(path), timeout=5):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    try:
        assert KeyFile(path).rotate("app", timeout=5) == "2"
    finally:
        os.close(writing)
        os.waitpid(child, 0)
        os.close(reading)


def test_a_lock_file_removed_meanwhile_is_not_trusted(path, monkeypatch):
    """Whoever waited for the removed one must take the new one, as everyone else does."""
    name, real, removed = f"{path}.lock", fcntl.flock, list[int]()

    def flock(descriptor, operation):
        real(descriptor, operation)
        if not removed:
            removed.append(os.fstat(descriptor).st_ino)
            os.rename(name, f"{name}.gone")

    monkeypatch.setattr(fcntl, "flock", flock)
    with files.locked(str(path), timeout=5):
        assert os.stat(name).st_ino != removed[0]


def test_a_lock_that_is_a_link_is_not_followed(path):
    """Nobody can have us make or lock a file elsewhere."""
    file = KeyFile.create(path, "app")
    os.unlink(f"{path}.lock")
    os.symlink(path.parent / "elsewhere", f"{path}.lock")
    with pytest.raises(OSError, match="symbolic link"):
        file.rotate("app")
    assert not (path.parent / "elsewhere").exists()


KILLED = """if True:
    import os, signal, sys
    from kmsbridge.drivers.local.keyfile import KeyFile
    file = KeyFile(sys.argv[1])
    setattr(os, sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    file.rotate("app")
"""


@pytest.mark.parametrize("step", ("fsync", "replace"))
def test_a_rotation_killed_half_way_leaves_the_old_file_and_the_next_one_cleans_up(path, step):
    """The key file is the old one; the half-written one, which holds keys, goes with the next change."""
    KeyFile.create(path, "app")
    before = path.read_bytes()
    assert run(KILLED, path, step).wait(timeout=60) == -signal.SIGKILL
    assert path.read_bytes() == before
    assert len(os.listdir(path.parent)) == 3
    assert KeyFile(path).rotate("app", timeout=5) == "2"
    assert sorted(os.listdir(path.parent)) == ["keys.json", "keys.json.lock"]


def test_a_full_disk_leaves_the_old_file(path, monkeypatch):
    """And nothing beside it."""
    file = KeyFile.create(path, "app")
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        file.rotate("app")
    assert path.read_bytes() == before
    assert sorted(os.listdir(path.parent)) == ["keys.json", "keys.json.lock"]


def test_a_change_by_another_process_is_seen_at_once(path):
    """Also where it comes within the tick of the file system's clock."""
    file = KeyFile.create(path, "app")
    other = KeyFile(path)
    for number in range(2, 30):
        other.rotate("app")
        assert file.describe("app").current == str(number)


def test_a_settled_file_is_not_read_again(path, monkeypatch):
    """Once it is older than any clock's tick, a stat is enough; a change is seen all the same."""
    file = KeyFile.create(path, "app")
    later = os.stat(path).st_ctime_ns + 3_000_000_000
    monkeypatch.setattr("kmsbridge.drivers.local.keyfile.time.time_ns", lambda: later)
    first = file.document()
    assert file.document() is first
    KeyFile(path).rotate("app")
    assert file.describe("app").current == "2"
