"""Full disks, folders that are not there or not ours: an error that names the path, and nothing changed."""

import errno
import io
import os
import resource
import signal
import stat
import tempfile
from pathlib import Path

import pytest

from kmsbridge import EnvelopeCipher
from kmsbridge.drivers.local.keyfile import KeyFile
from tests.support import finish, fork

SIZE = 3 * 2**20


@pytest.fixture
def folder():
    """A folder that any user may enter, with a key file, a plaintext and a message."""
    with tempfile.TemporaryDirectory(prefix="kmsbridge-") as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "plain").write_bytes(os.urandom(SIZE))
        yield path


@pytest.fixture
def files(folder, cipher):
    cipher.encrypt_file(folder / "plain", folder / "sealed")
    return folder


def snapshot(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def limited(size, work):
    """Run `work` in a child whose files cannot grow beyond `size` bytes."""

    def child():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is looked at
            work()
        assert caught.value.errno == errno.EFBIG

    finish([fork(child)])


@pytest.mark.parametrize("room", (0, 100, 2**20, 2**20 + 77, SIZE), ids="room for {} bytes".format)
@pytest.mark.parametrize("operation", ("encrypt_file", "decrypt_file"))
def test_a_full_disk_leaves_the_old_target_and_nothing_else(files, cipher, operation, room):
    """The write that no longer fits raises; the target is as before."""
    source, target = ("plain", "sealed") if operation == "encrypt_file" else ("sealed", "opened")
    (files / "opened").write_bytes(b"older")
    before = snapshot(files)
    if operation == "decrypt_file":
        room = min(room, SIZE - 1)
    limited(room, lambda: getattr(cipher, operation)(files / source, files / target))
    assert snapshot(files) == before


@pytest.mark.parametrize("missing", (1, 100, 4095, 2**20 + 1), ids="{} bytes too few".format)
def test_a_disk_full_while_rewrapping_by_a_copy_keeps_the_message_whole(files, service, cipher, missing):
    """A last write of which only a part fits must not pass for a whole one."""
    with EnvelopeCipher.from_uri("fake:other") as other, open(files / "message", "wb") as target:
        other.encrypt_stream(io.BytesIO((files / "plain").read_bytes()), target)
    assert_rewrapping_keeps_it(files, missing)


@pytest.mark.parametrize("missing", (1, 100, 4095, 65_000), ids="{} bytes too few".format)
def test_a_disk_full_while_rewrapping_a_compact_message_keeps_it_whole(files, service, cipher, missing):
    """Of which the copy is no shorter either."""
    with EnvelopeCipher.from_uri("fake:other") as other:
        (files / "message").write_bytes(other.encrypt(bytes(65_536)))
    assert_rewrapping_keeps_it(files, missing)


def assert_rewrapping_keeps_it(files, missing):
    """Rewrap the message of key other, with room for all but so many bytes of it."""
    with EnvelopeCipher.from_uri("fake:app", decrypt_uris=["fake:other"]) as mover:
        rewrap = mover._encryption.data_keys.rewrap
        mover._encryption.data_keys.rewrap = lambda *given: [_longer(new) for new in rewrap(*given)]
        whole = (files / "message").stat().st_size
        before = snapshot(files)
        limited(whole - missing, lambda: mover.rewrap_file(files / "message"))
        assert snapshot(files) == before


def _longer(recipients):
    """The first of them, with a wrapped key that is too long to go in the old one's place."""
    return (recipients[0]._replace(wrapped=recipients[0].wrapped + bytes(50)),)


def test_a_disk_full_while_rewrapping_in_place_keeps_the_message(files, service, cipher):
    """Where the old header cannot be put aside, the new one is not written."""
    service.app.rotate()
    before = snapshot(files)
    limited(10, lambda: cipher.rewrap_file(files / "sealed"))
    assert snapshot(files) == before


def as_nobody(work):
    """Run `work` in a child that is not root."""

    def child():
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        work()

    finish([fork(child)])


@pytest.mark.parametrize("operation", ("encrypt_file", "decrypt_file"))
def test_a_folder_that_cannot_be_written_is_named(files, cipher, operation):
    """`PermissionError` with the target's name."""
    closed = files / "closed"
    closed.mkdir(mode=0o555)
    source = files / ("plain" if operation == "encrypt_file" else "sealed")
    source.chmod(0o644)

    def work():
        with pytest.raises(PermissionError) as caught:
            getattr(cipher, operation)(source, closed / "target")
        assert caught.value.filename == str(closed / "target")

    as_nobody(work)
    assert not list(closed.iterdir())


def test_a_source_that_cannot_be_read_is_named(files, cipher):
    """`PermissionError` with the source's name; no target."""
    (files / "plain").chmod(0o000)

    def work():
        with pytest.raises(PermissionError) as caught:
            cipher.encrypt_file(files / "plain", files / "target")
        assert caught.value.filename == str(files / "plain")

    as_nobody(work)
    assert not (files / "target").exists()


def test_a_full_pipe_that_breaks_is_a_broken_pipe(cipher):
    """The reader went away: `BrokenPipeError`, as from any other write."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as writer, pytest.raises(BrokenPipeError):
        cipher.encrypt_stream(io.BytesIO(bytes(SIZE)), writer)


def test_a_local_key_file_that_goes_away_is_told_and_comes_back(folder):
    """Data keys at hand go on; a new one needs the file, and gets it when it is there again."""
    from kmsbridge import KmsKeyNotFound

    path = folder / "keys.json"
    KeyFile.create(path, "app")
    with EnvelopeCipher.from_uri(f"local:{path}") as cipher:
        message = cipher.encrypt(b"x")
        path.rename(folder / "away")
        assert cipher.encrypt(b"y")
        with pytest.raises(KmsKeyNotFound, match="backup"):
            cipher.decrypt(message)
        (folder / "away").rename(path)
        assert cipher.decrypt(message) == b"x"


def test_the_plaintext_is_for_its_owner_alone(files, cipher):
    """0600, under any umask, also while it is being written."""
    before = os.umask(0)
    try:
        cipher.decrypt_file(files / "sealed", files / "opened", progress=lambda _: _check_modes(files))
    finally:
        os.umask(before)
    assert stat.S_IMODE((files / "opened").stat().st_mode) == 0o600


def _check_modes(folder):
    for path in folder.glob(".opened.*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
