"""Forked children of a process that uses a cipher: they go on, and share nothing with it that must not be shared."""

import functools
import itertools
import threading

import pytest

from kmsbridge import EnvelopeCipher
from kmsbridge import message as wire
from tests.support import BODIES, PATIENCE, Outcome, finish, fork, parts

CHILDREN = 16
SALT = 24
"""Bytes that a body begins with: the salt of a chunked one, the nonce of a compact one."""


def write_salts(cipher, payload, count, path):
    path.write_bytes(b"".join(parts(cipher.encrypt(payload))[1][:SALT] for _ in range(count)))


@pytest.mark.torture
@pytest.mark.parametrize("payload", (b"x", bytes(65_537)), ids=("compact", "chunked"))
def test_children_of_a_warm_parent_write_no_salt_or_nonce_twice(torture, tmp_path, cipher, payload):
    """16 children write 10,000 messages each; so does the parent meanwhile."""
    count = torture.times(10_000)
    cipher.decrypt(cipher.encrypt(payload))
    write = functools.partial(write_salts, cipher, payload, count)
    children = [fork(lambda n=n: write(tmp_path / str(n))) for n in range(CHILDREN)]
    write(tmp_path / "parent")
    finish(children)
    salts = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    each = {salts[start : start + SALT] for start in range(0, len(salts), SALT)}
    assert len(each) == (CHILDREN + 1) * count


def test_a_child_makes_a_data_key_of_its_own(tmp_path, cipher, encrypt):
    """The header, and so the data key, is not the parent's; the parent reads it all the same."""
    before = encrypt(cipher, b"parent")
    finish([fork(lambda: (tmp_path / "message").write_bytes(encrypt(cipher, b"child")))])
    message = (tmp_path / "message").read_bytes()
    assert cipher.decrypt(message) == b"child"
    assert wire.parse(message).recipients != wire.parse(before).recipients


def roundtrip(cipher):
    for encrypt in BODIES.values():
        assert cipher.decrypt(encrypt(cipher, b"child")) == b"child"


LOCKS = {
    "the cache of encryption": lambda cipher: cipher._encryption.data_keys._cache._lock,
    "the cache of decryption": lambda cipher: cipher._decryption.data_keys._cache._lock,
    "the cache of rewraps": lambda cipher: cipher._rewrapping._headers._lock,
}


@pytest.mark.parametrize("lock", LOCKS.values(), ids=LOCKS)
def test_a_child_forked_while_a_lock_is_held_does_not_hang(cipher, lock):
    """Whatever another thread of the parent was in the middle of."""
    roundtrip(cipher)

    def work():
        roundtrip(cipher)
        for encrypt in BODIES.values():
            assert len(cipher.rewrap(encrypt(cipher, b"x"))) > 0

    with lock(cipher):
        children = [fork(work)]
    finish(children)


def test_children_forked_during_a_wrap_call_make_their_own(service, cipher):
    """A call under way in the parent is not waited for in the child."""
    calling, go_on = threading.Event(), threading.Event()

    def hang(operation):
        calling.set()
        go_on.wait(PATIENCE)

    service.before = hang
    slow = Outcome(lambda: cipher.encrypt(b"x"))
    assert calling.wait(PATIENCE)
    service.before = lambda operation: None
    finish([fork(lambda: roundtrip(cipher)) for _ in range(4)])
    go_on.set()
    assert cipher.decrypt(slow.join().value) == b"x"


def test_children_forked_while_threads_encrypt_do_not_hang(service, cipher):
    """Four threads of the parent are writing; whichever lock they hold, each child goes on."""
    done = threading.Event()

    def work():
        writers = itertools.cycle(BODIES.values())
        for n in range(1_000_000):
            next(writers)(cipher, b"x", context={"n": str(n % 50)})
            if done.is_set():
                return

    threads = [Outcome(work) for _ in range(4)]
    children = [fork(lambda: roundtrip(cipher)) for _ in range(12)]
    done.set()
    finish(children)
    assert [thread.join().error for thread in threads] == [None] * 4


def test_a_child_of_a_child_goes_on(cipher):
    """Twice forked is no different."""
    cipher.encrypt(b"warm")
    finish([fork(lambda: finish([fork(lambda: roundtrip(cipher))]))])


def test_a_closed_cipher_stays_closed_in_a_child(cipher):
    """Forking does not open it again."""
    from kmsbridge import ClosedError

    cipher.close()

    def work():
        with pytest.raises(ClosedError):
            cipher.encrypt(b"x")

    finish([fork(work)])


def test_closing_in_a_child_leaves_the_parents_driver_open(cipher):
    """The parent's connections are not the child's to end."""
    roundtrip(cipher)
    finish([fork(cipher.close)])
    roundtrip(cipher)


def test_local_keys_survive_a_fork(tmp_path, encrypt):
    """The local driver in the child reads the key file anew."""
    from kmsbridge.drivers.local.keyfile import KeyFile

    path = tmp_path / "keys.json"
    KeyFile.create(path, "app")
    with EnvelopeCipher.from_uri(f"local:{path}#app") as cipher:
        message = encrypt(cipher, b"parent")
        cipher.decrypt(message)

        def work():
            assert cipher.decrypt(message) == b"parent"
            roundtrip(cipher)

        finish([fork(work) for _ in range(4)])
