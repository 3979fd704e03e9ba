"""SIGKILL at named and at random points: every message still opens, every key file still loads."""

import builtins
import contextlib
import fcntl
import io
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import pytest

from kmsbridge import EnvelopeCipher, inspect_file, journal
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.errors import ConfigError
from kmsbridge.message.cobblestone import CHUNK, ENCRYPTED_CHUNK

pytestmark = pytest.mark.torture

PLAIN = os.urandom(200_000)
PATIENCE = 60.0
CALLS = ("open", "write", "pwrite", "fsync", "replace", "rename", "link", "unlink", "flock", "ftruncate")


@pytest.fixture
def folder(tmp_path):
    """In memory where the system has such a folder: what a SIGKILL leaves does not depend on the disk."""
    memory = "/dev/shm"
    if not os.path.isdir(memory):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="kmsbridge-", dir=memory) as path:
        yield Path(path)


class Killer:
    """Ends this process before or after the n-th call of a function that changes what is on disk."""

    def __init__(self, nth, after):
        self.left, self.after = nth, after

    def __call__(self, function):
        def call(*arguments, **options):
            self.left -= 1
            if self.left == 0 and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*arguments, **options)
            finally:  # a call that fails is a point too
                if self.left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call

    def install(self):
        """Patch the functions of `os`, and the writing of unbuffered files, for the rest of this process."""
        for name in CALLS:
            if hasattr(os, name):
                setattr(os, name, self(getattr(os, name)))
        fcntl.flock = self(fcntl.flock)
        opened, kill = io.open, self

        class File(io.FileIO):
            write = kill(io.FileIO.write)

        def watched(name, mode="r", buffering=-1, *arguments, opener=None, **options):
            if buffering == 0:
                return File(name, mode.replace("b", ""), opener=opener, closefd=options.get("closefd", True))
            return opened(name, mode, buffering, *arguments, opener=opener, **options)

        builtins.open = io.open = watched


def in_child(work, killer=None):
    """The exit code of `work()` in a forked child: 0, 1, or -9 where it was killed."""
    child = start(work, killer)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def start(work, killer=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        try:
            signal.alarm(int(PATIENCE))
            if killer is not None:
                killer.install()
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001 - the child ends here
            traceback.print_exc(file=sys.__stderr__)
            os._exit(1)
    return child


def kill_everywhere(folder, make, work, check):
    """Kill `work(folder)` at each named point, each time in a folder that `make` has made anew."""
    for after in (False, True):
        for nth in range(1, 1000):
            place = folder / f"{nth}{'after' if after else 'before'}"
            place.mkdir(mode=0o700)
            make(place)
            code = in_child(lambda place=place: work(place), Killer(nth, after))
            assert code in (0, -signal.SIGKILL)
            check(place)
            shutil.rmtree(place)
            if code == 0:
                break
        assert nth > 3, "there are named points"


def kill_at_random(folder, make, work, check, *, rng, times):
    """Kill `work(folder)`, repeated, after random times that reach from its start to its end."""
    place = folder / "timed"
    place.mkdir(mode=0o700)
    make(place)
    began = time.monotonic()
    assert in_child(lambda: work(place)) == 0
    usual = time.monotonic() - began
    shutil.rmtree(place)
    for n in range(times):
        place = folder / f"random{n}"
        place.mkdir(mode=0o700)
        make(place)
        child = start(lambda place=place: work(place))
        time.sleep(rng.uniform(0, usual * 1.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        check(place)
        shutil.rmtree(place)


def cipher_for(folder):
    return EnvelopeCipher.from_uri(f"local:{folder / 'keys.json'}#app")


def make_message(folder):
    """A key file, a plaintext, a message of it, and older files under the targets' names."""
    KeyFile.create(folder / "keys.json", "app")
    (folder / "plain").write_bytes(PLAIN)
    with cipher_for(folder) as cipher:
        cipher.encrypt_file(folder / "plain", folder / "message")
        shutil.copy(folder / "message", folder / "target")
    (folder / "opened").write_bytes(b"older")


def make_rotated(folder):
    """The same, and a newer version of the key."""
    make_message(folder)
    KeyFile(folder / "keys.json").rotate("app")


def make_full_header(folder):
    """The same, with a message that has no room for another header in place."""
    make_rotated(folder)
    with cipher_for(folder) as cipher, open(folder / "message", "wb") as file:
        KeyFile(folder / "keys.json").add_key("other")
        cipher.encrypt_stream(io.BytesIO(PLAIN), file)


def opened(folder, name="message"):
    with cipher_for(folder) as cipher:
        cipher.decrypt_file(folder / name, folder / "check")
        content = (folder / "check").read_bytes()
        with cipher.open(folder / name) as reader:
            assert reader.read() == content
        return content


def encrypt(folder):
    with cipher_for(folder) as cipher:
        cipher.encrypt_file(folder / "plain", folder / "target")


def check_encrypted(folder):
    assert opened(folder, "target") == PLAIN
    encrypt(folder)
    assert opened(folder, "target") == PLAIN


def decrypt(folder):
    with cipher_for(folder) as cipher:
        cipher.decrypt_file(folder / "message", folder / "opened")


def check_decrypted(folder):
    assert (folder / "opened").read_bytes() in (b"older", PLAIN)
    decrypt(folder)
    assert (folder / "opened").read_bytes() == PLAIN


def rewrap(folder):
    with cipher_for(folder) as cipher:
        cipher.rewrap_file(folder / "message")


def check_rewrapped(folder):
    assert opened(folder) == PLAIN
    rewrap(folder)
    assert opened(folder) == PLAIN
    assert inspect_file(folder / "message").recipients[0].key_version == "2"
    assert not list(folder.glob(f"*{journal.SUFFIX}"))


def both(folder):
    uri = f"local:{folder / 'keys.json'}"
    config = folder / "kmsbridge.toml"
    config.write_text(
        f'[keys.a]\nuri = "{uri}#app"\n[keys.b]\nuri = "{uri}#other"\n'
        '[profiles.p]\nencrypt_to = ["a", "b"]\ndecrypt_with = ["a"]\n'
    )
    return EnvelopeCipher.from_config(config)


def rewrap_to_both(folder):
    with both(folder) as cipher:
        cipher.rewrap_file(folder / "message")


def check_rewrapped_to_both(folder):
    assert opened(folder) == PLAIN
    rewrap_to_both(folder)
    assert opened(folder) == PLAIN
    assert len(inspect_file(folder / "message").recipients) == 2


def rotate(folder):
    KeyFile(folder / "keys.json").rotate("app")


def check_rotated(folder):
    key = KeyFile(folder / "keys.json").describe("app")
    assert key.current in ("1", "2")
    assert opened(folder) == PLAIN
    rotate(folder)
    assert KeyFile(folder / "keys.json").describe("app").current == str(int(key.current) + 1)
    assert opened(folder) == PLAIN


def nothing(folder):
    pass


def create(folder):
    KeyFile.create(folder / "keys.json", "app")


def check_created(folder):
    with contextlib.suppress(ConfigError):  # it is there already, and whole
        create(folder)
    with cipher_for(folder) as cipher:
        assert cipher.decrypt(cipher.encrypt(b"x")) == b"x"


def init(folder):
    from kmsbridge.cli import main

    os.chdir(folder)
    sys.stdout = sys.stderr = io.StringIO()
    with contextlib.suppress(SystemExit):
        sys.argv = ["kmsbridge", "init"]
        main()


def check_initialised(folder):
    """Each file is whole or not there, no key file is without a configuration, and a second init ends well."""
    key_file, config = folder / "dev-keys.json", folder / "kmsbridge.toml"
    if key_file.exists():
        assert KeyFile(key_file).names() == ["app"]
        assert config.exists()
    in_child(lambda: init(folder))
    assert key_file.exists()
    assert config.exists()

    def use():
        os.chdir(folder)
        with EnvelopeCipher.from_config() as cipher:
            assert cipher.decrypt(cipher.encrypt(b"x")) == b"x"

    assert in_child(use) == 0


def on_threads(work):
    """Do `work` as if the file were a large one and the machine had four processors."""

    def work_on_threads(folder):
        from kmsbridge.cipher import files, parallel

        parallel.processors = lambda: 4
        vars(parallel)["PARTS_EACH"] = 3
        files.STEP_CHUNKS, files.STEP, files.ENCRYPTED_STEP = 1, CHUNK, ENCRYPTED_CHUNK
        work(folder)

    work_on_threads.__name__ = f"{work.__name__} on threads"
    return work_on_threads


OPERATIONS = {
    "encrypt_file": (make_message, encrypt, check_encrypted),
    "encrypt_file on threads": (make_message, on_threads(encrypt), check_encrypted),
    "decrypt_file": (make_message, decrypt, check_decrypted),
    "decrypt_file on threads": (make_message, on_threads(decrypt), check_decrypted),
    "rewrap_file in place": (make_rotated, rewrap, check_rewrapped),
    "rewrap_file by a copy": (make_full_header, rewrap_to_both, check_rewrapped_to_both),
    "rotate": (make_message, rotate, check_rotated),
    "making a key file": (nothing, create, check_created),
    "init": (nothing, init, check_initialised),
}
each = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


@each
def test_a_kill_at_any_named_point_loses_nothing(folder, operation):
    """Before and after each call that changes the disk; afterwards the operation can be repeated."""
    kill_everywhere(folder, *operation)


@each
def test_a_kill_at_random_times_loses_nothing(torture, folder, operation):
    """About 500 kills in all at full size."""
    rng = torture.rng(f"kills/{operation[1].__name__}")
    kill_at_random(folder, *operation, rng=rng, times=torture.times(72))


def test_a_header_written_in_part_opens_by_the_journal(folder):
    """An in-place rewrap that died after k bytes of the header: for every k the file opens."""
    make_rotated(folder)
    message, beside = folder / "message", folder / f"message{journal.SUFFIX}"
    old = message.read_bytes()
    saved = _journal_of(folder)
    new = message.read_bytes()
    length = int.from_bytes(old[6:8], "big")
    with cipher_for(folder) as cipher:
        for k in range(length + 1):
            message.write_bytes(new[:k] + old[k:])
            beside.write_bytes(saved)
            with cipher.open(message) as reader:
                assert reader.read(10) == PLAIN[:10]
        rewrap(folder)
    assert not beside.exists()
    assert opened(folder) == PLAIN


def _journal_of(folder):
    """What the journal held during the rewrap that this makes."""
    kept, unlink = [], os.unlink

    def keep(path, *arguments, **options):
        if str(path).endswith(journal.SUFFIX):
            kept.append(Path(path).read_bytes())
        unlink(path, *arguments, **options)

    os.unlink = keep
    try:
        rewrap(folder)
    finally:
        os.unlink = unlink
    return kept[0]


def test_a_rewrap_that_died_after_its_last_write_counts(folder):
    """The new header is used although the journal is there: the old key may be dropped."""
    make_rotated(folder)
    saved = _journal_of(folder)
    (folder / f"message{journal.SUFFIX}").write_bytes(saved)
    with open(folder / "message", "rb") as file:
        assert journal.header_of(folder / "message", file).recipients[0].key_version == "2"


def test_a_journal_of_another_message_is_not_used(folder):
    """One left beside a file that was replaced meanwhile harms nobody."""
    make_rotated(folder)
    saved = _journal_of(folder)
    with cipher_for(folder) as cipher:
        cipher.encrypt_file(folder / "plain", folder / "message")
    (folder / f"message{journal.SUFFIX}").write_bytes(saved)
    assert opened(folder) == PLAIN


@pytest.mark.parametrize(
    "junk", (b"", b"KMSB", b"\0" * 600, os.urandom(700)), ids=("empty", "cut", "zeros", "junk")
)
def test_a_journal_that_is_none_is_not_used(folder, junk):
    """Whatever lies there, the file's own header counts."""
    make_message(folder)
    (folder / f"message{journal.SUFFIX}").write_bytes(junk)
    assert opened(folder) == PLAIN


def test_a_file_being_rewrapped_all_the_time_always_opens(torture, folder):
    """Readers in one process, a rewrapper in another, without a lock between them."""
    make_rotated(folder)
    until = time.monotonic() + (20 if torture.scale == 1 else 1)

    def rewrap_for_ever():
        while time.monotonic() < until:
            rewrap(folder)

    child = start(rewrap_for_ever)
    with cipher_for(folder) as cipher:
        while time.monotonic() < until:
            with cipher.open(folder / "message") as reader:
                assert reader.read(10) == PLAIN[:10]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
