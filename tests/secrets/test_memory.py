"""Another process finds no data key in a process's memory when it is too old, nor after `close`.

Looked for are also the keys that are derived from a data key, which open messages just as well.
"""

import contextlib
import ctypes
import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections import Counter
from functools import partial

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from kmsbridge import ClosedError
from kmsbridge import message as wire
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.datakey import bound_bytes
from kmsbridge.drivers.memory import driver as memory_driver
from kmsbridge.message import cobblestone, compact, xaes
from kmsbridge.secret import CipherKey, Secret
from kmsbridge.secretvalue import SecretValue
from kmsbridge.testing import KeyAddress
from kmsbridge.threads import Workers
from tests import backends
from tests.interrupts import interrupted_at
from tests.secrets import searching, subject
from tests.support import PATIENCE, Outcome

COUNT = 100
LONG, SHORT = {"max_age": 600, "max_messages": 1000}, {"max_age": 0.05, "max_messages": 1000}


def _harness(name):
    from tests.backends.every import harness
    from tests.backends.gcp import AsymmetricGcpHarness
    from tests.backends.hpke import HpkeHarness

    return {"hpke": HpkeHarness, "gcp-pinned": AsymmetricGcpHarness}.get(name, lambda: harness(name))()


@pytest.fixture
def end():
    """Closes what a test opened."""
    with contextlib.ExitStack() as end:
        yield end


@pytest.fixture
def key(request, end):
    """The address of a key, by the name of its driver; of one that keeps nothing, the key itself."""
    name = request.param
    if name in ("memory", "keeps-nothing"):
        key = os.urandom(32).hex() if name == "keeps-nothing" else ""
        return {"uri": "" if key else "memory:app", "options": {}, "key": key}
    harness = _harness(name)
    end.callback(harness.close)
    address: KeyAddress = harness.address("first")
    return {"uri": address.uri, "options": dict(address.options), "key": ""}


class Subject:
    """A process that has used its data keys, and stands still."""

    def __init__(self, end, job):
        self._job, self._keys = job, {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.secrets.subject"],
            cwd=backends.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        end.callback(self._end)
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        self._process.stdin.flush()
        if job["uri"].startswith("memory:"):
            key_id, key = json.loads(self._process.stdout.readline())
            memory_driver._keys["app"] = memory_driver._Key(key_id, Secret(bytes.fromhex(key)))
            end.callback(memory_driver._keys.pop, "app", None)

    def wait(self):
        """Wait until it stands still."""
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def run_on(self):
        """Let it run until it stands still again."""
        os.kill(self._process.pid, signal.SIGCONT)

    def found(self):
        """Return the data keys in its memory, then the keys derived from them: name -> set of places."""
        self._keys = self._keys or keys_of(self._job)
        try:
            places = searching.found(self._process.pid, self._keys)
        except PermissionError as error:
            pytest.skip(f"this user may not read another process's memory: {error}")
        data = {name: where for name, where in places.items() if name.startswith("data")}
        return data, {name: where for name, where in places.items() if name not in data}

    def _end(self):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def keys_of(job):
    """The data keys of the job's messages and the keys derived from them, which are found by decrypting."""
    keys = {}
    with open(job["file"], encoding="ascii") as file:
        messages = [bytes.fromhex(line) for line in file]
    with subject.open_cipher({**job, "data_keys": LONG}) as cipher:
        for number, (message, pairs) in enumerate(zip(messages, subject.contexts(COUNT), strict=True)):
            cipher.decrypt(message, context=pairs)
            (entry,) = (
                each for each in cipher._decryption.data_keys.cache._entries.values() if each.context == pairs
            )
            data_key = keys[f"data-{number}"] = entry.secret.reveal()
            header = wire.parse_header(message)
            derived = _compact_keys if header.commitment else _chunked_keys
            for kind, each in derived(data_key, EncryptionContext.of(pairs), message[header.length :]):
                keys[f"{kind}-{number}"] = each
    return keys


def _compact_keys(data_key, context, body):
    key, _ = compact.derive(data_key, context.canonical())
    encrypt = Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update
    mask, prefix = xaes._doubled(encrypt(bytes(16))), body[: xaes.PREFIX]
    blocks = (int.from_bytes(start + prefix, "big") ^ mask for start in xaes._STARTS)
    return [("xaes", key), ("aes", b"".join(encrypt(block.to_bytes(16, "big")) for block in blocks))]


def _chunked_keys(data_key, context, body):
    salt, commitment = body[: cobblestone.SALT], body[cobblestone.SALT : cobblestone.OVERHEAD]
    info = cobblestone._INFO + salt + bound_bytes(context)
    derived = HKDFExpand(cobblestone.HASH, cobblestone._DERIVED, info).derive(data_key)
    assert derived.endswith(commitment)
    return [("chunks", derived[: cobblestone.KEY])]


@pytest.mark.parametrize(
    "key",
    (
        "local",
        "memory",
        "hpke",
        "keeps-nothing",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("vault", "aws", "gcp-pinned")),
    ),
    indirect=True,
)
def test_no_data_key_is_found_when_it_is_too_old_or_after_close(key, end, tmp_path):
    """None of 100 data keys is found afterwards; before, all are."""
    if not os.path.exists("/proc/self/mem"):
        pytest.skip("this system has no /proc/PID/mem")
    nothing = {**key, "count": COUNT, "busy": False, "closes": False, "data_keys": SHORT}
    jobs = {
        "closing": {**nothing, "does": ["encrypt"], "closes": True, "data_keys": LONG},
        "busy": {**nothing, "does": ["encrypt"], "busy": True},
        "quiet": {**nothing, "does": ["encrypt", "decrypt"]},
    }
    if key["uri"].startswith("memory:"):
        del jobs["busy"]  # each process has a key of its own
    if "public_key" in key["options"]:
        # Unwrapping goes through gRPC, whose buffers keep what came through them.
        jobs = {"closing": jobs["closing"]}
    left, alone = {}, [[name] for name in jobs] if key["uri"].startswith("memory:") else [list(jobs)]
    for names in alone:
        subjects = {name: Subject(end, {**jobs[name], "file": str(tmp_path / name)}) for name in names}
        for each in subjects.values():
            each.wait()
        if "closing" in subjects:
            data, derived = subjects["closing"].found()
            assert len(data) == COUNT
            assert len(derived) >= COUNT / 2
        for each in subjects.values():
            each.run_on()
        for name, each in subjects.items():
            each.wait()
            left[name] = each.found()
    assert {name: data for name, (data, _) in left.items()} == {name: {} for name in jobs}
    for name, (_, derived) in left.items():
        kinds = Counter(each.partition("-")[0] for each in derived)
        # One of each thread that encrypts or decrypts; and what `cryptography` leaves of decrypting a chunked body.
        assert kinds <= Counter(aes=2, chunks=2), (name, derived)


@pytest.mark.parametrize("key", ("hpke",), indirect=True)
def test_no_data_key_is_found_right_after_messages_that_share_none(key, end, tmp_path):
    """Each is gone with its message; HPKE's own default, and the same as `max_messages = 1`."""
    job = {**key, "count": COUNT, "busy": False, "closes": False, "does": ["encrypt"], "data_keys": {}}
    each = Subject(end, {**job, "file": str(tmp_path / "messages")})
    each.wait()
    data, derived = each.found()
    assert data == {}
    assert len(derived) <= 1


# --- one secret -----------------------------------------------------------------------------------


def _address(value):
    """Return the address of the bytes of `value`.

    A test reads them there after `value` is gone, so from memory that may be reused.
    """
    return id(value) + bytes.__basicsize__ - 1


@pytest.mark.parametrize("kind", (Secret, SecretValue))
def test_a_secret_is_overwritten_with_its_last_reference(kind):
    secret = kind(os.urandom(200))
    address, copy = _address(secret.reveal()), bytearray(secret.reveal())
    other = secret
    del secret
    assert ctypes.string_at(address, 200) == copy
    del other
    assert not any(ctypes.string_at(address, 200)[32:])


def test_a_secret_value_is_overwritten_when_it_is_closed():
    value = SecretValue(os.urandom(200))
    address = _address(value.reveal())
    value.close()
    assert not any(ctypes.string_at(address, 200)[32:])
    with pytest.raises(ClosedError):
        value.reveal()
    value.close()


@pytest.mark.parametrize(
    "value",
    (b"", b"a", b"a constant of this file", bytes(32), bytearray(b"mutable"), os.urandom(32)),
    ids=len,
)
def test_what_somebody_else_holds_is_left(value):
    """Constants, the shared objects for short bytes, and the bytes that a driver or a user keeps."""
    copy = bytearray(value)
    for kind in (Secret, SecretValue):
        secret = kind(value)
        assert secret.reveal() == copy
        del secret
        closed = kind(value)
        lent = closed.reveal()
        del closed
        assert lent == value == copy


def test_what_another_thread_uses_is_left():
    """It got the bytes before the last reference went."""
    secret, entered, leave = Secret(os.urandom(32)), threading.Event(), threading.Event()
    copy, seen = bytearray(secret.reveal()), []

    def use(value):
        entered.set()
        leave.wait(PATIENCE)
        seen.append(value == copy)

    thread = threading.Thread(target=use, args=(secret.reveal(),))
    thread.start()
    entered.wait(PATIENCE)
    del secret
    leave.set()
    thread.join(PATIENCE)
    assert seen == [True]


def test_a_secret_that_a_finalizer_got_hold_of_again_gives_no_zeros():
    """Encrypting under them would be worse than failing."""
    found = []

    class Cycle:
        def __del__(self):
            found.append(self)

    cycle = Cycle()
    cycle.itself, cycle.secret = cycle, Secret(os.urandom(32))
    del cycle
    gc.collect()
    (cycle,) = found
    with pytest.raises(ReferenceError):
        cycle.secret.reveal()
    cycle.itself = None


def test_a_secret_in_a_cycle_is_overwritten_without_a_word():
    """The garbage collector finalizes all of a cycle in an order of its own: what is unraisable fails this test."""
    for order in range(2):
        holder: list[object] = [Secret(os.urandom(200))] if order else []
        holder.append(holder)
        if not order:
            holder.append(Secret(os.urandom(200)))
        secret = next(each for each in holder if isinstance(each, Secret))
        address = _address(secret.reveal())
        del holder, secret
        gc.collect()
        assert not any(ctypes.string_at(address, 200)[32:])


def test_a_secret_that_was_never_made_ends():
    Secret.__new__(Secret)
    with pytest.raises(TypeError):
        Secret("text")


def test_the_key_of_a_cipher_is_overwritten_with_the_cipher():
    key = CipherKey(os.urandom(32))
    view = (ctypes.c_char * 32).from_buffer(key)
    address = ctypes.addressof(view)
    cipher = xaes.AESGCM(key)
    copy = bytearray(key)
    del view, key
    assert ctypes.string_at(address, 32) == copy
    sealed = cipher.encrypt(bytes(12), b"x", None)
    assert xaes.AESGCM(bytes(copy)).decrypt(bytes(12), sealed, None) == b"x"
    del cipher
    assert ctypes.string_at(address, 32)[16:24] != copy[16:24]


def test_no_secret_keeps_another_object_alive():
    """What overwrites it is no cycle, which only the garbage collector would find."""
    secret = Secret(b"x" * 40)
    held = weakref.ref(secret._held)
    gc.disable()
    try:
        del secret
        assert held() is None
    finally:
        gc.enable()


def test_an_interrupt_while_a_thread_is_started_leaves_none_that_hangs():
    """At each line of the standard library's module too: the next job is done."""
    places = threading.__file__, Workers.begin.__code__.co_filename

    def interrupt_everywhere():
        numbers, was_there = itertools.count(), True
        while was_there:
            workers = Workers("test", 1)
            _, was_there = interrupted_at(next(numbers), partial(workers.begin, int), places=places)
            assert workers.begin(lambda: 5).wait(PATIENCE / 2)
            workers.close()
        return next(numbers)

    # On a thread: an interrupt in a handler of the standard library's leaves the exception that it handles behind.
    work = Outcome(interrupt_everywhere).join()
    assert work.error is None
    assert work.value > 10
