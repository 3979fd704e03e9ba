"""The nonces of compact messages: one prefix for each data key and process, 2^24 messages under it, none twice."""

import collections
import os
import random
import signal
import sys
import threading

import pytest

from kmsbridge import AuthenticationError, EnvelopeCipher
from kmsbridge.cipher import encryption
from kmsbridge.datakeys import datakey
from kmsbridge.message import compact
from tests.support import encrypt_compact, finish, fork, on_threads, parts
from tests.unit.compact_messages import AAD, BINDING, CONTEXT, made, with_body

PREFIX, NONCE = 12, 24
THREADS = 8


def prefix_of(message):
    return parts(message)[1][:PREFIX]


def nonce_of(message):
    return parts(message)[1][:NONCE]


def held(cipher, context=CONTEXT):
    """The data key that a cipher encrypts with, as code has it between finding and using it."""
    return cipher._encryption.data_keys.cached(context, 0)


# --- distinct, with one prefix ------------------------------------------------------------------------


def test_100_000_messages_have_as_many_nonces_and_one_prefix(service, cipher):
    """One by one and many at a time; a wrap for all of them."""
    messages = [cipher.encrypt(b"x", **BINDING) for _ in range(50_000)]
    messages += cipher.encrypt_many([b"x"] * 50_000, context=CONTEXT, aads=[AAD] * 50_000)
    assert len({nonce_of(message) for message in messages}) == 100_000
    assert len({prefix_of(message) for message in messages}) == 1
    assert service.app.calls == {"wrap": 1}


def test_every_data_key_has_a_prefix_of_its_own(service, cipher):
    """Whichever cipher and context it is of."""
    prefixes = [prefix_of(cipher.encrypt(b"x", context={"n": str(n)})) for n in range(100)]
    with EnvelopeCipher.from_uri("fake:app") as other:
        prefixes += [prefix_of(other.encrypt(b"x", context={"n": str(n)})) for n in range(100)]
    assert len(set(prefixes)) == 200


def test_rewrapping_draws_no_nonce(service, cipher):
    """The body is as it was."""
    message = cipher.encrypt(b"x", **BINDING)
    with EnvelopeCipher.from_uri("fake:other", decrypt_uris=["fake:app"]) as mover:
        assert nonce_of(mover.rewrap(message, context=CONTEXT)) == nonce_of(message)


# --- in a forked child --------------------------------------------------------------------------------


@pytest.mark.parametrize("many", (False, True), ids=("encrypt", "encrypt_many"))
def test_a_data_key_that_is_held_over_a_fork_has_another_prefix_in_the_child(tmp_path, cipher, many):
    """The parent goes on with its own; and what a child's child makes has a nonce of its own as well."""
    before = cipher.encrypt(b"x", **BINDING)
    data_key = held(cipher)

    def encrypted():
        return data_key.encrypt_many([b"x"], [AAD])[0] if many else data_key.encrypt(b"x", AAD)

    def child(name):
        (tmp_path / name).write_bytes(encrypted())

    def child_and_grandchild():
        child("child")
        finish([fork(lambda: child("grandchild"))])

    finish([fork(child_and_grandchild), fork(lambda: child("second child"))])
    after = encrypted()
    made_by_children = [path.read_bytes() for path in tmp_path.iterdir()]
    assert len(made_by_children) == 3
    for message in (before, after, *made_by_children):
        assert cipher.decrypt(message, **BINDING) == b"x"
    assert prefix_of(before) == prefix_of(after)
    children = {prefix_of((tmp_path / name).read_bytes()) for name in ("child", "second child")}
    assert len(children) == 2
    assert prefix_of(before) not in children
    assert len({nonce_of(message) for message in (before, after, *made_by_children)}) == 5


@pytest.mark.parametrize("warm", (True, False), ids=("warm", "at its first message"))
def test_a_fork_in_a_signal_handler_at_any_line_repeats_no_nonce(tmp_path, cipher, warm):
    """In the child, what the handler encrypts by the data key that is held has another prefix than the parent's, and
    so has what comes after the interrupted message; that one has a nonce of its own, or was made before the fork.
    """
    nth, interrupted = 0, True
    while interrupted:
        cipher.encrypt(b"x", context={"n": str(nth)}, aad=AAD)
        data_key = held(cipher, {"n": str(nth)})
        if not warm:
            data_key.forget_writer()
        interrupted, messages, children = fork_at(nth, data_key, tmp_path / str(nth))
        if interrupted:
            in_handler, resumed, later = children
            parents = {prefix_of(message) for message in messages}
            assert prefix_of(in_handler) not in parents
            assert prefix_of(later) not in parents
            if nonce_of(resumed) == nonce_of(messages[0]):
                assert resumed.rstrip(b"\0") == messages[0].rstrip(b"\0")
                resumed = b""
            nonces = [nonce_of(message) for message in (*messages, in_handler, later, resumed) if message]
            assert len(set(nonces)) == len(nonces)
        nth += 1
    assert nth > 4


def fork_at(nth, data_key, path):
    """Encrypt, and fork in a signal handler at line `nth` of what that runs.

    Gives whether it has so many lines, the parent's messages, and the child's three.
    """
    left, done, lines = [nth], [], ("datakeys/datakey.py", "message/compact.py")

    def trace(frame, event, argument):
        if not frame.f_code.co_filename.endswith(lines):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == -1:
                signal.raise_signal(signal.SIGUSR1)
        return trace

    def handler(number, frame):
        sys.settrace(None)
        child = os.fork()
        done.append(child)
        if not child:
            done.append(data_key.encrypt(b"in the handler", AAD))

    before = signal.signal(signal.SIGUSR1, handler)
    sys.settrace(trace)
    try:
        first = data_key.encrypt(b"interrupted", AAD)
    except BaseException:
        if done and done[0] == 0:
            os._exit(1)  # the child is no second test run
        raise
    finally:
        sys.settrace(None)
        signal.signal(signal.SIGUSR1, before)
    if done and done[0] == 0:
        path.write_bytes(
            b"".join(m.ljust(1000, b"\0") for m in (done[1], first, data_key.encrypt(b"x", AAD)))
        )
        os._exit(0)
    if not done:
        return False, [first], None
    assert os.waitstatus_to_exitcode(os.waitpid(done[0], 0)[1]) == 0
    data = path.read_bytes()
    return True, [first, data_key.encrypt(b"later", AAD)], [data[at : at + 1000] for at in (0, 1000, 2000)]


# --- after so many messages ---------------------------------------------------------------------------


@pytest.fixture
def open_with(service, monkeypatch):
    """Opens a cipher whose prefixes serve so many messages."""

    def open_with(per_prefix, **policy):
        monkeypatch.setattr(compact, "PER_PREFIX", per_prefix)
        return EnvelopeCipher.from_uri("fake:app", data_keys=policy)

    return open_with


def runs(messages):
    """How many messages in a row have the same prefix; none may come back."""
    prefixes = [prefix_of(message) for message in messages]
    counts = list(collections.Counter(prefixes).values())
    assert sorted(prefixes, key=prefixes.index) == prefixes
    return counts


def test_a_prefix_serves_its_number_of_messages_and_not_one_more(service, open_with):
    """No wrap is needed for the next one; a reader does not care."""
    with open_with(50) as cipher:
        messages = [cipher.encrypt(b"x") for _ in range(175)]
        assert runs(messages) == [50, 50, 50, 25]
        assert service.app.calls == {"wrap": 1}
        assert cipher.decrypt_many(messages) == [b"x"] * 175


@pytest.mark.parametrize(
    ("per_prefix", "max_messages", "expected"),
    (
        (50, 120, [50, 50, 20] * 2 + [10]),
        (50, 30, [30] * 8 + [10]),
        (50, 50, [50] * 5),
        (50, 51, [50, 1] * 4 + [46]),
    ),
)
def test_the_allowance_of_a_data_key_is_honoured_beyond_a_prefix(
    service, open_with, per_prefix, max_messages, expected
):
    """Whichever of the two ends first."""
    with open_with(per_prefix, max_messages=max_messages) as cipher:
        messages = [cipher.encrypt(b"x") for _ in range(250)]
    assert runs(messages) == expected
    headers = collections.Counter(parts(message)[0] for message in messages)
    assert max(headers.values()) == max_messages
    assert service.app.calls["wrap"] == len(headers) == -(-250 // max_messages)


def test_messages_of_a_stream_and_large_ones_count_as_well(open_with):
    """They have no prefix, and the bound is of all that the data key serves."""
    with open_with(10) as cipher:
        first = cipher.encrypt(b"x")
        for _ in range(9):
            cipher.encrypt(bytes(65_537))
        assert prefix_of(cipher.encrypt(b"x")) != prefix_of(first)


@pytest.mark.parametrize("batch", (1, 7, 10, 25))
def test_a_prefix_serves_no_more_messages_where_many_are_encrypted_at_once(monkeypatch, open_with, batch):
    """A batch is never longer than what a prefix may serve."""
    monkeypatch.setattr(encryption, "BATCH", batch)
    with open_with(50) as cipher:
        messages = cipher.encrypt_many([b"x"] * 333)
        messages += [cipher.encrypt(b"x") for _ in range(30)]
        messages += cipher.encrypt_many([b"x"] * 97)
        assert cipher.decrypt_many(messages) == [b"x"] * len(messages)
    assert max(runs(messages)) <= 50
    assert len({nonce_of(message) for message in messages}) == len(messages)


@pytest.fixture
def busy():
    """Threads that change at every turn."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Numbers:
    """Numbers messages as `itertools.count` does, and notes which one a thread got last."""

    def __init__(self, numbers):
        self.numbers, self.last = numbers, threading.local()

    def __next__(self):
        self.last.number = number = next(self.numbers)
        return number


@pytest.mark.parametrize("already", (1, 40, 49), ids="{} before".format)
def test_no_message_beyond_the_bound_has_the_old_prefix_whatever_thread_it_is_of(open_with, busy, already):
    """Those before it may have either, where they were late."""
    with open_with(50) as cipher:
        first = [cipher.encrypt(b"x", context=CONTEXT) for _ in range(already)]
        (old,) = {prefix_of(message) for message in first}
        data_key = held(cipher)
        data_key._numbers = numbers = Numbers(data_key._numbers)

        def work():
            return [
                (prefix_of(cipher.encrypt(b"x", context=CONTEXT)), numbers.last.number) for _ in range(60)
            ]

        written = [each for outcome in on_threads(THREADS, work) for each in outcome.value]
    assert len(written) == 60 * THREADS
    assert {number for prefix, number in written if prefix == old} <= set(range(50))


@pytest.mark.parametrize("many", (False, True), ids=("encrypt", "encrypt_many"))
def test_threads_pass_the_bound_of_a_prefix_by_what_they_have_in_hand_at_most(
    monkeypatch, open_with, busy, many
):
    """There is no lock: a message that was counted and not yet encrypted may have the next prefix."""
    monkeypatch.setattr(encryption, "BATCH", 5)
    with open_with(50) as cipher:
        write = (lambda: cipher.encrypt_many([b"x"] * 5)) if many else (lambda: [cipher.encrypt(b"x")])
        outcomes = on_threads(THREADS, lambda: [message for _ in range(100) for message in write()])
        messages = [message for outcome in outcomes for message in outcome.value]
        counts = collections.Counter(prefix_of(message) for message in messages)
    assert max(counts.values()) <= 50 + 5 * THREADS
    assert len(counts) >= len(messages) // (50 + 5 * THREADS)
    assert len({nonce_of(message) for message in messages}) == len(messages)


# --- what a reader keeps ------------------------------------------------------------------------------


def by_writers(service, count, rng):
    """A message by each of so many processes that share a data key: each has a prefix of its own."""
    return [made(service, b"%d" % n, nonce=rng.randbytes(NONCE)) for n in range(count)]


def ciphers_of(reader):
    (entry,) = reader._decryption.data_keys._cache._entries.values()
    return entry._ciphers


WAYS = {
    "decrypt": lambda reader, messages: [reader.decrypt(message, **BINDING) for message in messages],
    "decrypt_many": lambda reader, messages: reader.decrypt_many(
        messages, context=CONTEXT, aads=[AAD] * len(messages)
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_reader_keeps_64_ciphers_of_a_data_key_at_most(service, way):
    """The last one is among them; what has none opens all the same, again and again."""
    messages = by_writers(service, 200, random.Random(1))
    # One wrapped key for all: what seals draws a salt each time.
    header = parts(messages[0])[0]
    messages = [header + parts(message)[1] for message in messages]
    with EnvelopeCipher.from_uri("fake:app") as reader:
        for count in (1, 64, 65, 200):
            expected = [b"%d" % n for n in range(count)]
            assert way(reader, messages[:count]) == expected
            assert prefix_of(messages[count - 1]) in ciphers_of(reader)
            assert len(ciphers_of(reader)) <= datakey.MAX_PREFIXES
        assert way(reader, messages[::-1]) == [b"%d" % n for n in range(200)][::-1]
        assert set(ciphers_of(reader)) <= {prefix_of(message) for message in messages}
    assert service.app.calls["unwrap"] + service.app.calls["unwrap_many"] == 1


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_prefix_without_a_valid_tag_is_not_kept_and_pushes_none_out(service, way):
    """Anybody can make up prefixes; only who has the data key makes a tag."""
    rng = random.Random(2)
    good = made(service, b"payload")
    with EnvelopeCipher.from_uri("fake:app") as reader:
        way(reader, [good])
        cipher = ciphers_of(reader)[prefix_of(good)]
        for _ in range(300):
            forged = with_body(good, lambda body: rng.randbytes(PREFIX) + body[PREFIX:])
            with pytest.raises(AuthenticationError):
                way(reader, [forged])
        assert ciphers_of(reader) == {prefix_of(good): cipher}
        assert way(reader, [good]) == [b"payload"]
        assert ciphers_of(reader)[prefix_of(good)] is cipher


def test_threads_that_read_messages_of_many_writers_get_them(service, busy):
    """The ciphers come and go meanwhile."""
    messages = by_writers(service, 150, random.Random(3))
    header = parts(messages[0])[0]
    messages = [header + parts(message)[1] for message in messages]
    with EnvelopeCipher.from_uri("fake:app") as reader:

        def work():
            mine = [*enumerate(messages)]
            random.Random(threading.get_ident()).shuffle(mine)
            for number, message in mine:
                assert reader.decrypt(message, **BINDING) == b"%d" % number
            return True

        assert [outcome.value for outcome in on_threads(THREADS, work)] == [True] * THREADS
        assert len(ciphers_of(reader)) <= datakey.MAX_PREFIXES + THREADS


def test_a_writer_reads_its_own_messages_by_one_cipher(cipher):
    """All have its prefix."""
    messages = [encrypt_compact(cipher, b"%d" % n, **BINDING) for n in range(100)]
    assert [cipher.decrypt(message, **BINDING) for message in messages] == [b"%d" % n for n in range(100)]
    assert set(ciphers_of(cipher)) == {prefix_of(messages[0])}


def test_a_forked_child_keeps_nothing_of_its_parent_s(tmp_path, cipher):
    """It unwraps again, and reads what both wrote."""
    message = encrypt_compact(cipher, b"parent", **BINDING)
    cipher.decrypt(message, **BINDING)

    def child():
        assert not cipher._decryption.data_keys._cache._entries
        assert cipher.decrypt(message, **BINDING) == b"parent"
        (tmp_path / "message").write_bytes(cipher.encrypt(b"child", **BINDING))

    finish([fork(child)])
    assert cipher.decrypt((tmp_path / "message").read_bytes(), **BINDING) == b"child"
