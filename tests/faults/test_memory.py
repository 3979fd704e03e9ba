"""Files of any size in constant memory."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kmsbridge.drivers.local.keyfile import KeyFile

MIB = 2**20
ALLOWED = 64 * MIB

MEASURE = """
import resource, sys
import kmsbridge
operation, folder, source, target = sys.argv[1:]
if operation:
    from kmsbridge.cipher import parallel
    parallel.processors = lambda: 4
    with kmsbridge.EnvelopeCipher.from_uri(f"local:{folder}/keys.json#app") as cipher:
        if operation.endswith("_file"):
            getattr(cipher, operation)(source, target)
        elif operation == "open":
            with cipher.open(source) as reader:
                while reader.read(1 << 20):
                    pass
        else:
            with open(source, "rb") as reader, open(target, "wb") as writer:
                getattr(cipher, operation)(reader, writer)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(*arguments):
    """The largest resident size, in bytes, of a process that does this; "" does nothing."""
    code = (
        MEASURE
        if arguments[0]
        else "import resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    # Through a small process of its own: a forked child's peak begins with its parent's size.
    launcher = (
        "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', *sys.argv[1:]]).returncode)"
    )
    done = subprocess.run(
        [sys.executable, "-c", launcher, code, *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout) * 1024


@pytest.fixture(scope="module")
def big(torture):
    """A folder in memory with a key file, a big file, and a message of it; and what a bare process takes."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="kmsbridge-", dir=memory) as name:
        folder = Path(name)
        KeyFile.create(folder / "keys.json", "app")
        with open(folder / "plain", "wb") as file:
            file.truncate(1024 * MIB if torture.scale == 1 else 256 * MIB)
        from kmsbridge import EnvelopeCipher

        with EnvelopeCipher.from_uri(f"local:{folder}/keys.json#app") as cipher:
            cipher.encrypt_file(folder / "plain", folder / "sealed")
        yield folder, peak("")


@pytest.mark.slow
@pytest.mark.parametrize(
    "operation", ("encrypt_file", "decrypt_file", "encrypt_stream", "decrypt_stream", "open")
)
def test_a_big_file_takes_less_than_64_mib(big, operation):
    """The peak above a bare interpreter's, imports included, whatever the file's size; with as many threads as may be."""
    folder, bare = big
    source = folder / ("plain" if operation.startswith("encrypt") else "sealed")
    target = folder / operation
    taken = peak(operation, folder, source, target) - bare
    target.unlink(missing_ok=True)
    assert taken < ALLOWED, f"{taken / MIB:.0f} MiB"
