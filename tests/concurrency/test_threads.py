"""Threads that share one cipher: one call to the key service, whatever happens to whoever makes it."""

import itertools
import linecache
import sys
import threading

import pytest

from kmsbridge import ClosedError, EnvelopeCipher, KmsAccessDenied
from kmsbridge.clock import Deadline
from kmsbridge.datakeys import flight
from kmsbridge.driver import ErrorKind
from kmsbridge.message import chunked, compact
from tests.support import PATIENCE, Outcome, crowd, on_threads, parts

THREADS = 64
CONTEXT = {"tenant": "acme"}
SALT = 24
"""Bytes that a body begins with: the salt of a chunked one, the nonce of a compact one."""


def salt_of(message):
    return parts(message)[1][:SALT]


def test_64_threads_on_a_cold_cache_make_one_wrap(monkeypatch, service, cipher, encrypt):
    """All of them wait for the first one's call, and get messages of one data key."""
    everyone = crowd(monkeypatch, cipher._encryption.data_keys.flights, THREADS)
    service.before = lambda operation: everyone.wait(PATIENCE)
    outcomes = on_threads(THREADS, lambda: encrypt(cipher, b"x", context=CONTEXT))
    messages = [outcome.value for outcome in outcomes]
    assert service.app.calls == {"wrap": 1}
    assert len({salt_of(message) for message in messages}) == THREADS
    assert {cipher.decrypt(message, context=CONTEXT) for message in messages} == {b"x"}


def test_64_threads_on_a_cold_cache_make_one_unwrap(monkeypatch, service, cipher, encrypt):
    """The same on the way back."""
    with EnvelopeCipher.from_uri("fake:app") as writer:
        message = encrypt(writer, b"x", context=CONTEXT)
    everyone = crowd(monkeypatch, cipher._decryption.data_keys.flights, THREADS)
    service.before = lambda operation: everyone.wait(PATIENCE)
    outcomes = on_threads(THREADS, lambda: cipher.decrypt(message, context=CONTEXT))
    assert [outcome.value for outcome in outcomes] == [b"x"] * THREADS
    assert service.app.calls["unwrap"] == 1


def test_one_who_looked_before_the_first_wrap_ended_makes_no_second(monkeypatch, service, cipher):
    """A thread that finds the cache cold, and gets to its own call when another's is over, uses that one's."""
    run, first = cipher._encryption.data_keys.flights.run, itertools.count()

    def late(name, load, deadline):
        if next(first) == 0:
            assert Outcome(lambda: cipher.encrypt(b"in between")).join().value
        return run(name, load, deadline)

    monkeypatch.setattr(cipher._encryption.data_keys.flights, "run", late)
    cipher.encrypt(b"x")
    assert service.app.calls == {"wrap": 1}


def test_different_contexts_do_not_wait_for_one_another(service, cipher):
    """While one context's wrap hangs, another context gets its own data key."""
    hanging, go_on = threading.Event(), threading.Event()
    first = itertools.count()

    def hang_once(operation):
        if next(first) == 0:
            hanging.set()
            go_on.wait(PATIENCE)

    service.before = hang_once
    slow = Outcome(lambda: cipher.encrypt(b"x", context={"tenant": "slow"}))
    assert hanging.wait(PATIENCE)
    assert cipher.encrypt(b"x", context={"tenant": "quick"})
    go_on.set()
    assert slow.join().value


def test_all_who_waited_get_the_leaders_error_each_its_own(monkeypatch, service, cipher):
    """One refused call, 64 errors that say the same and are not one object."""
    service.app.fail("wrap", ErrorKind.ACCESS_DENIED)
    everyone = crowd(monkeypatch, cipher._encryption.data_keys.flights, THREADS)
    service.before = lambda operation: everyone.wait(PATIENCE)
    errors = [outcome.error for outcome in on_threads(THREADS, lambda: cipher.encrypt(b"x"))]
    assert {type(error) for error in errors} == {KmsAccessDenied}
    assert len({str(error) for error in errors}) == 1
    assert len({id(error) for error in errors}) == THREADS
    assert service.app.calls == {"wrap": 1}


def test_a_failure_is_not_remembered(service, cipher):
    """The next call after a failed one asks the service again."""
    service.app.fail("wrap", ErrorKind.ACCESS_DENIED, times=1)
    with pytest.raises(KmsAccessDenied):
        cipher.encrypt(b"x")
    assert cipher.decrypt(cipher.encrypt(b"x")) == b"x"


@pytest.mark.parametrize("interrupt", (KeyboardInterrupt, SystemExit), ids=lambda kind: kind.__name__)
def test_a_leader_that_is_interrupted_does_not_poison_the_others(monkeypatch, service, cipher, interrupt):
    """It alone gets the interrupt; of the others one leads again, and all succeed."""
    everyone = crowd(monkeypatch, cipher._encryption.data_keys.flights, THREADS)
    first = itertools.count()

    def interrupted_once(operation):
        everyone.wait(PATIENCE)
        if next(first) == 0:
            raise interrupt

    service.before = interrupted_once
    outcomes = on_threads(THREADS, lambda: cipher.encrypt(b"x"))
    failed = [outcome.error for outcome in outcomes if outcome.error is not None]
    assert len(failed) == 1
    assert sum(outcome.value is not None for outcome in outcomes) == THREADS - 1


def test_an_interrupt_at_any_line_of_a_flight_leaves_nobody_waiting():
    """Ctrl-C at each line that a leader runs: the next one who wants the same gets it."""
    for nth in itertools.count():
        flights = flight.SingleFlight()
        steps = itertools.count()
        interrupted = []

        def trace(frame, event, argument, nth=nth, steps=steps, interrupted=interrupted):
            if frame.f_code.co_filename != flight.__file__:
                return None
            # An interpreter takes no interrupt between a with block and the release of its lock.
            can_be = event == "line" and "with" not in linecache.getline(flight.__file__, frame.f_lineno)
            if can_be and next(steps) == nth:
                interrupted.append(frame.f_lineno)
                raise KeyboardInterrupt
            return trace

        def lead(flights=flights, trace=trace):
            sys.settrace(trace)
            try:
                return flights.run("name", lambda: "answer", Deadline(PATIENCE))
            finally:
                sys.settrace(None)

        Outcome(lead).join()
        next_one = Outcome(lambda flights=flights: flights.run("name", lambda: "answer", Deadline(PATIENCE)))
        assert next_one.join().value == "answer", f"waits after an interrupt at line {interrupted}"
        if not interrupted:
            break
    assert nth > 10


SEALING = {"compact": (compact, "encrypt", b"x"), "chunked": (chunked, "encrypt", bytes(65_537))}
OPENING = {"compact": (compact, "decrypt", b"x"), "chunked": (chunked, "decrypt", bytes(65_537))}


@pytest.mark.parametrize(("module", "name", "payload"), SEALING.values(), ids=SEALING)
def test_no_lock_is_held_while_a_body_is_sealed(monkeypatch, cipher, module, name, payload):
    """A thread inside the cipher does not stop another's encrypt of the same context."""
    cipher.encrypt(payload)
    blocked, go_on = _block_first(monkeypatch, module, name)
    slow = Outcome(lambda: cipher.encrypt(payload))
    assert blocked.wait(PATIENCE)
    assert Outcome(lambda: cipher.encrypt(payload)).join().value
    go_on.set()
    assert slow.join().value


@pytest.mark.parametrize(("module", "name", "payload"), OPENING.values(), ids=OPENING)
def test_no_lock_is_held_while_a_body_is_opened(monkeypatch, cipher, module, name, payload):
    """The same for decrypt."""
    message = cipher.encrypt(payload)
    cipher.decrypt(message)
    blocked, go_on = _block_first(monkeypatch, module, name)
    slow = Outcome(lambda: cipher.decrypt(message))
    assert blocked.wait(PATIENCE)
    assert Outcome(lambda: cipher.decrypt(message)).join().value == payload
    go_on.set()
    assert slow.join().value == payload


def _block_first(monkeypatch, module, name):
    """Make the first call of this function wait; events for when it does and when it may go on."""
    blocked, go_on, first, real = (
        threading.Event(),
        threading.Event(),
        itertools.count(),
        getattr(module, name),
    )

    def slow(*arguments):
        if next(first) == 0:
            blocked.set()
            go_on.wait(PATIENCE)
        return real(*arguments)

    monkeypatch.setattr(module, name, slow)
    return blocked, go_on


@pytest.mark.torture
def test_a_million_messages_of_one_context_take_one_wrap(torture, service, cipher):
    """The default limit is not passed before."""
    for _ in range(torture.times(1_000_000)):
        cipher.encrypt(b"x", context=CONTEXT)
    assert service.app.calls == {"wrap": 1}


def test_threads_never_take_more_than_a_data_keys_allowance(service, encrypt):
    """64 threads write 100 messages each with 128 to a data key: exactly 50 wraps."""
    with EnvelopeCipher.from_uri("fake:app", data_keys={"max_messages": 128}) as cipher:
        outcomes = on_threads(THREADS, lambda: [encrypt(cipher, b"x") for _ in range(100)])
    headers = [parts(message)[0] for each in outcomes for message in each.value]
    assert {headers.count(header) for header in set(headers)} == {128}
    assert service.app.calls["wrap"] == THREADS * 100 / 128


def test_close_while_threads_encrypt_gives_them_messages_or_a_closed_error(service, cipher, encrypt):
    """No other error, and none of them hangs."""
    started = threading.Semaphore(0)

    def work():
        started.release()
        while True:
            encrypt(cipher, b"x")

    outcomes = [Outcome(work) for _ in range(8)]
    for _ in outcomes:
        started.acquire()
    cipher.close()
    assert {type(outcome.join().error) for outcome in outcomes} == {ClosedError}
