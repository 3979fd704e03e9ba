"""Work on other threads: outcomes, and the threads themselves."""

import contextvars
import itertools
import threading
import time

import pytest

from kmsbridge import threads
from kmsbridge.threads import Outcome, Workers, in_parallel
from tests.support import PATIENCE


@pytest.fixture
def workers():
    workers = Workers("test", 3)
    yield workers
    workers.close()


def test_an_outcome_is_set_once():
    """A second setting changes nothing."""
    outcome = Outcome()
    outcome.set("answer")
    outcome.set(None, ValueError())
    assert outcome.get() == "answer"


def test_callbacks_are_called_whether_the_work_has_ended_or_not():
    """Each once."""
    outcome, called = Outcome(), []
    outcome.when_ended(lambda: called.append("before"))
    outcome.set("answer")
    outcome.when_ended(lambda: called.append("after"))
    assert called == ["before", "after"]


def test_waiting_ends_with_the_time_or_the_work():
    """Whichever is first."""
    outcome = Outcome()
    assert not outcome.wait(0.01)
    threading.Timer(0.05, lambda: outcome.set("answer")).start()
    assert outcome.wait(PATIENCE)
    assert outcome.wait(0)


def test_no_more_threads_than_the_limit_work_at_once(workers):
    """Twelve pieces of work, three threads."""
    at_once, most, numbers = itertools.count(1), [], []
    running = []

    def work():
        running.append(next(at_once))
        most.append(len(running))
        time.sleep(0.01)
        numbers.append(running.pop())
        return threading.current_thread().name

    outcomes = [workers.begin(work) for _ in range(12)]
    assert all(outcome.wait(PATIENCE) for outcome in outcomes)
    assert max(most) <= 3
    assert all(outcome.get().startswith("kmsbridge-test") for outcome in outcomes)


def test_what_the_work_raises_is_raised_to_who_gets_it(workers):
    """Unchanged, and the thread goes on."""
    error = KeyError("mine")

    def fail():
        raise error

    failed = workers.begin(fail)
    assert failed.wait(PATIENCE)
    with pytest.raises(KeyError) as caught:
        failed.get()
    assert caught.value is error
    later = workers.begin(lambda: "still there")
    assert later.wait(PATIENCE)
    assert later.get() == "still there"


def test_work_sees_the_context_variables_of_who_began_it(workers):
    """As a trace's id."""
    variable = contextvars.ContextVar("variable", default="")
    variable.set("of the caller")
    outcome = workers.begin(variable.get)
    assert outcome.wait(PATIENCE)
    assert outcome.get() == "of the caller"


def test_work_that_nobody_wants_any_more_is_not_begun(workers):
    """What stands in the queue behind three that hang is dropped by who gives up."""
    go_on, done = threading.Event(), []
    hanging = [workers.begin(lambda: go_on.wait(PATIENCE)) for _ in range(3)]
    waiting = workers.begin(lambda: done.append("unwanted"))
    wanted = workers.begin(lambda: done.append("wanted"))
    waiting.wanted = False
    go_on.set()
    assert all(outcome.wait(PATIENCE) for outcome in [*hanging, wanted])
    assert done == ["wanted"]


def test_where_no_thread_can_be_started_the_work_is_done_by_who_begins_it(monkeypatch, workers):
    """As when the interpreter is ending."""

    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads._thread, "start_new_thread", refuse)
    outcome = workers.begin(threading.get_ident)
    assert outcome.get() == threading.get_ident()


def test_where_only_one_more_thread_can_be_started_it_does_the_work(monkeypatch, workers):
    """The one that was to start it."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    outcome = workers.begin(threading.get_ident)
    assert outcome.wait(PATIENCE)
    assert outcome.get() != threading.get_ident()


def test_threads_end_when_they_are_closed_or_idle(monkeypatch):
    """None is left behind."""
    monkeypatch.setattr(threads, "IDLE", 0.05)
    idle, closed = Workers("idle", 3), Workers("closed", 3)
    outcomes = [workers.begin(lambda: None) for workers in (idle, closed) for _ in range(3)]
    assert all(outcome.wait(PATIENCE) for outcome in outcomes)
    closed.close()
    until = time.monotonic() + PATIENCE
    while any(thread.name in ("kmsbridge-idle", "kmsbridge-closed") for thread in threading.enumerate()):
        assert time.monotonic() < until, "a thread is left"
        time.sleep(0.01)


def test_an_interrupted_wait_for_parallel_work_does_not_wait_for_the_rest(monkeypatch):
    """What comes from outside goes out at once, though a piece of the work hangs."""
    go_on = threading.Event()
    wait = Outcome.wait

    def interrupted(outcome, timeout=None):
        wait(outcome, 0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(Outcome, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_parallel(lambda item: go_on.wait(PATIENCE), range(4))
    go_on.set()
