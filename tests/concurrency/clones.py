"""A program that has itself copied, memory and process id, and writes down what each copy draws.

`clones.py KEYFILE FOLDER WAY`: it is process 1 of a namespace, as a container's first process is, uses a
cipher, and is then copied into further namespaces where the copy is process 1 as well. Each copy leaves a
file in FOLDER with a line for each salt, nonce, data key and wrapping that it made. WAY is `fork`, by Python's fork,
whose hooks run in the child, or `clone`, by the bare system call, of which the library learns nothing.
Exits with 77 where this machine allows no such namespaces.
"""

import ctypes
import errno
import io
import os
import platform
import signal
import sys
from pathlib import Path

CLONE_NEWPID = 0x20000000
CLONE = {"x86_64": 56, "aarch64": 220}
REFUSED = 77
SALT = 24
NONCE = 24
MESSAGES = 10_000
STREAM = 20
"""So many messages for each stream."""

libc = ctypes.CDLL(None, use_errno=True)


def checked(result):
    if result < 0:
        if ctypes.get_errno() in (errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.ENOSPC):
            os._exit(REFUSED)
        raise OSError(ctypes.get_errno(), "cannot clone")
    return result


def cloned(work):
    """Run `work()` as process 1 of a new namespace in a copy of this process; no hook runs. Waits for it."""
    if platform.machine() not in CLONE:
        os._exit(REFUSED)
    child = checked(libc.syscall(CLONE[platform.machine()], CLONE_NEWPID | signal.SIGCHLD, 0, 0, 0, 0))
    if not child:
        ended(work)
    wait(child)


def forked(work):
    """The same by `os.fork`; once in a process's life, so says the system."""
    checked(libc.unshare(CLONE_NEWPID))
    child = os.fork()
    if not child:
        ended(work)
    wait(child)


def ended(work):
    code = 1
    try:
        assert os.getpid() == 1
        work()
        code = 0
    finally:
        os._exit(code)


def wait(child):
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        os._exit(code)


def draw(cipher, drawn, path):
    """Encrypt under the key at hand, under new ones, and as a stream; write down what it took."""
    del drawn[:]
    for number in range(MESSAGES):
        message = cipher.encrypt(b"x", context={"n": str(number)} if number % 2 else None)
        start = int.from_bytes(message[6:8], "big")
        drawn.append(message[start : start + NONCE])
        if number % 2:
            drawn.append(message[:start])
        elif number % STREAM == 0:
            stream = io.BytesIO()
            cipher.encrypt_stream(io.BytesIO(b"x"), stream)
            body = stream.getvalue()[int.from_bytes(stream.getvalue()[6:8], "big") :]
            drawn.append(body[:SALT])
    path.write_text("".join(f"{each.hex()}\n" for each in drawn))


def main(key_file, folder, way):
    from kmsbridge import EnvelopeCipher
    from kmsbridge.datakeys.sweeping import sweeper
    from kmsbridge.message import cobblestone

    if way == "clone":
        # The bare system call copies one thread. A lock that another one holds at that moment, also one of Python's
        # own, would never be let go of in the copy.
        sweeper.keep_swept = lambda *_: None

    drawn, new_key = [], cobblestone.new_key

    def noted():
        key = new_key()
        drawn.append(key)
        return key

    cobblestone.new_key = noted
    cipher = EnvelopeCipher.from_uri(f"local:{key_file}")
    cipher.decrypt(cipher.encrypt(b"warm"))
    folder = Path(folder)
    if way == "fork":
        forked(lambda: draw(cipher, drawn, folder / "child"))
    else:
        cloned(lambda: draw(cipher, drawn, folder / "one"))
        cloned(lambda: draw(cipher, drawn, folder / "two"))
    draw(cipher, drawn, folder / "parent")


if __name__ == "__main__":
    cloned(lambda: main(*sys.argv[1:]))
