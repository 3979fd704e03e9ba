"""Data keys that are too old are dropped from memory, also where nobody asks for them any more."""

import gc
import threading
import time

import pytest

from kmsbridge import EnvelopeCipher
from kmsbridge.datakeys import DataKey
from kmsbridge.datakeys.sweeping import sweeper
from tests.support import PATIENCE

CONTEXTS = 20


def in_memory():
    """How many data keys the interpreter still holds."""
    gc.collect()
    return sum(isinstance(each, DataKey) for each in gc.get_objects())


def eventually(condition):
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it never happens"
        time.sleep(0.02)


def use(cipher):
    for n in range(CONTEXTS):
        context = {"n": str(n)}
        cipher.decrypt(cipher.encrypt(b"x", context=context), context=context)


@pytest.fixture(autouse=True)
def no_thread_of_others():
    """Other tests' ciphers are gone, and so is the thread that looked after their data keys."""
    gc.collect()
    sweeper.look_again()
    eventually(lambda: not _sweeper() or in_memory() == 0)


def _sweeper():
    return [thread for thread in threading.enumerate() if thread.name == "kmsbridge-sweep"]


def test_what_is_too_old_leaves_memory_by_itself(service):
    """Twenty data keys each way are there, and a little later none."""
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_age": 3}) as cipher:
        before = in_memory()
        use(cipher)
        assert in_memory() - before > CONTEXTS
        eventually(lambda: in_memory() == before)
        assert len(cipher._encryption.data_keys._cache) == len(cipher._decryption.data_keys._cache) == 0
        use(cipher)
        eventually(lambda: in_memory() == before)


def test_the_counts_of_what_was_swept_are_in_the_audit_trail(service, caplog):
    """As of a data key that was used up."""
    caplog.set_level("INFO", "kmsbridge.audit")
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_age": 0.2}) as cipher:
        use(cipher)
        eventually(
            lambda: len(cipher._encryption.data_keys._cache) == len(cipher._decryption.data_keys._cache) == 0
        )

        def counted():
            events = [record.kmsbridge for record in caplog.records]
            return sum(event["messages"] for event in events if event["source"] == "cache")

        eventually(lambda: counted() == 2 * CONTEXTS)


def test_one_thread_sweeps_for_all_and_ends_with_the_last(service):
    """Ten ciphers, one thread; closed or thrown away, none."""
    ciphers = [EnvelopeCipher.from_uri("fake:app") for _ in range(10)]
    for cipher in ciphers:
        cipher.encrypt(b"x")
    assert len(_sweeper()) == 1
    for cipher in ciphers[:5]:
        cipher.close()
    assert len(_sweeper()) == 1
    for cipher in ciphers[5:]:
        cipher.close()
    eventually(lambda: not _sweeper())


def test_a_key_put_while_the_thread_sleeps_long_is_swept_in_its_own_time(service):
    """A cipher with a short life beside one with a long one."""
    with (
        EnvelopeCipher.from_uri("fake:app") as long,
        EnvelopeCipher.from_uri("fake:app", data_keys={"max_age": 0.2}) as short,
    ):
        long.encrypt(b"x")
        time.sleep(0.1)
        short.encrypt(b"x")
        eventually(lambda: len(short._encryption.data_keys._cache) == 0)
        assert len(long._encryption.data_keys._cache) == 1
        short.encrypt(b"x")
        eventually(lambda: len(short._encryption.data_keys._cache) == 0)


def test_a_sink_that_fails_does_not_end_the_sweeping(monkeypatch, service):
    """The other caches' keys are dropped all the same."""
    with (
        EnvelopeCipher.from_uri("fake:app", data_keys={"max_age": 0.2}) as broken,
        EnvelopeCipher.from_uri("fake:app", data_keys={"max_age": 0.2}) as sound,
    ):

        def fail(event):
            raise OSError("disk full")

        broken.encrypt(b"x")
        sound.encrypt(b"x")
        monkeypatch.setattr(broken._session.observer, "record", fail)
        eventually(
            lambda: len(sound._encryption.data_keys._cache) == len(broken._encryption.data_keys._cache) == 0
        )
        monkeypatch.undo()
