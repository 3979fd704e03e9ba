"""Work that several threads share: every part once, every error told, and no thread at work when it is over."""

import contextlib
import itertools
import signal
import threading
import time

import pytest

from kmsbridge.cipher import parallel
from tests.interrupts import LIBRARY, Interrupt, interrupted_at
from tests.support import PATIENCE, Outcome, threads_in

PLACE = (f"{LIBRARY}/cipher/parallel.py",)


@pytest.fixture(autouse=True)
def eight_processors(monkeypatch):
    """As on a machine that has them; and a thread for each part, however few there are."""
    monkeypatch.setattr(parallel, "processors", lambda: 8)
    monkeypatch.setattr(parallel, "PARTS_EACH", 1)


class Parts:
    """Work whose parts wait until every thread that is expected has one; it sees who does which."""

    def __init__(self, threads=1):
        self.everyone = threading.Barrier(threads)
        self.took, self.threads = [], set()
        self.at_work = 0
        self.fails = {}

    def __call__(self, numbers):
        me = threading.get_ident()
        for number in numbers:
            self.took.append(number)
            if me not in self.threads:
                self.threads.add(me)
                self.everyone.wait(PATIENCE)
            self.at_work += 1
            try:
                if number in self.fails:
                    raise self.fails[number]
                yield 10
            finally:
                self.at_work -= 1


def helpers():
    return threads_in(parallel._Shared.help_out)


def no_helper_lives():
    """A thread that has no part any more still takes a moment to end."""
    until = time.monotonic() + PATIENCE
    while helpers() and time.monotonic() < until:
        time.sleep(0.001)
    return not helpers()


@pytest.mark.parametrize(("count", "threads"), ((1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (1000, 4)))
def test_every_part_is_done_once_by_four_threads_at_most(count, threads):
    """Of which the caller's is one, and alone is told of it."""
    parts, told = Parts(threads), []
    parallel.run(parts, count, lambda size: told.append((size, threading.get_ident())))
    assert sorted(parts.took) == list(range(count))
    assert len(parts.threads) == threads
    assert threading.get_ident() in parts.threads
    assert {thread for _, thread in told} == {threading.get_ident()}
    assert sum(size for size, _ in told) == 10 * count
    assert all(size for size, _ in told)
    assert no_helper_lives()


def test_nothing_to_do_is_no_work():
    """Nobody is asked and nobody is told."""
    parallel.run(lambda numbers: pytest.fail("was asked"), 0, lambda size: pytest.fail("was told"))


@pytest.mark.parametrize(
    ("count", "processors", "threads"), ((100, 1, 1), (100, 2, 2), (15, 8, 1), (16, 8, 2), (24, 8, 3))
)
def test_there_is_one_thread_for_a_processor_and_for_eight_parts(monkeypatch, count, processors, threads):
    """For little work no thread is started."""
    monkeypatch.undo()
    monkeypatch.setattr(parallel, "processors", lambda: processors)
    parts = Parts(threads)
    parallel.run(parts, count, lambda size: None)
    assert len(parts.threads) == threads


def test_processors_are_those_that_this_process_may_use(monkeypatch):
    """Not all that the machine has; where the system does not say which, all of them."""
    monkeypatch.undo()
    monkeypatch.setattr(parallel.os, "sched_getaffinity", lambda process: {3}, raising=False)
    assert parallel.processors() == 1
    monkeypatch.delattr(parallel.os, "sched_getaffinity")
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: None)
    assert parallel.processors() == 1
    monkeypatch.setattr(parallel.os, "cpu_count", lambda: 6)
    assert parallel.processors() == 6


def test_where_no_thread_can_be_started_the_caller_does_it_all(monkeypatch):
    """As when the interpreter ends, or when the process has as many threads as it may."""

    def refused(function, arguments):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(parallel._thread, "start_new_thread", refused)
    parts, told = Parts(), []
    parallel.run(parts, 20, told.append)
    assert parts.took == list(range(20))
    assert sum(told) == 200


@pytest.mark.parametrize("number", (0, 1, 2, 3, 50))
@pytest.mark.parametrize("error", (OSError(28, "full"), KeyboardInterrupt(), MemoryError()), ids=repr)
def test_an_error_of_any_thread_ends_the_work_of_all(number, error):
    """It is raised as it is, and long before all parts are done."""
    parts = Parts(4)
    parts.fails[number] = error
    with pytest.raises(type(error)) as caught:
        parallel.run(parts, 10**9, lambda size: None)
    assert caught.value is error
    assert parts.at_work == 0
    assert no_helper_lives()


def test_the_work_of_a_helper_that_failed_keeps_no_variables():
    """They may be plaintext, and nobody clears them where another error is raised."""
    seen, me = [], threading.get_ident()

    def work(numbers):
        shown = "plaintext"
        for number in numbers:
            if threading.get_ident() != me:
                raise ZeroDivisionError(shown[:0] + str(number))
            time.sleep(0.001)
            yield 1

    with pytest.raises(ZeroDivisionError) as caught:
        parallel.run(work, 10**6, lambda size: None)
    trace = caught.value.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code is work.__code__:
            seen.append(dict(trace.tb_frame.f_locals))
        trace = trace.tb_next
    assert seen == [{}]


def test_an_error_of_done_ends_the_work_of_all():
    """The caller's own comes out."""
    parts = Parts(4)
    with pytest.raises(ZeroDivisionError):
        parallel.run(parts, 10**9, lambda size: size // 0)
    assert parts.at_work == 0
    assert no_helper_lives()


@pytest.mark.parametrize("fails", (False, True), ids=("all is well", "a part fails"))
def test_an_exception_at_any_line_leaves_nobody_at_work(fails):
    """As a signal handler can raise one: the caller gets it once every thread has put its part down."""
    number, more = 0, True
    while more:
        parts = Parts()
        if fails:
            parts.fails[7] = OSError("a part fails")
        slow = threading.Event()

        def work(numbers, parts=parts, slow=slow):
            for size in parts(numbers):
                slow.wait(0.0002)  # so that others are in the middle of a part
                yield size

        def use(work=work):
            with contextlib.suppress(OSError):
                parallel.run(work, 12, lambda size: None)

        error, more = interrupted_at(number, use, Interrupt, PLACE)
        taken = len(parts.took)
        assert parts.at_work == 0
        assert (error is not None) == more, f"line {number} was swallowed"
        assert error is not None or fails or taken == 12
        assert no_helper_lives()
        assert len(parts.took) == taken, "a thread took a part after the end"
        number += 1
    assert number > 30


def test_a_thread_that_begins_when_all_is_over_finds_nothing_to_do(monkeypatch):
    """One that the system was slow to start, after the caller was interrupted while it started it."""
    late = []

    def interrupted(function, arguments):
        late.append(function)
        raise Interrupt

    parts = Parts()
    with monkeypatch.context() as patch:
        patch.setattr(parallel._thread, "start_new_thread", interrupted)
        with pytest.raises(Interrupt):
            parallel.run(parts, 10, lambda size: None)
    assert Outcome(late[0]).join().error is None
    assert parts.took == []


# An interrupt can also arrive in a callback of Python's collector, which shows it and goes on.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_however_often_the_waiting_is_interrupted_it_goes_on():
    """Ctrl-C again and again while another thread is stuck in its part: it has ended when the caller goes on."""
    stuck, go_on, over = threading.Event(), threading.Event(), []
    interrupts, me = itertools.count(1), threading.get_ident()

    def handler(number, frame):
        if next(interrupts) == 20:
            go_on.set()
        raise KeyboardInterrupt

    def work(numbers):
        for _ in numbers:
            if threading.get_ident() != me:
                stuck.set()
                go_on.wait(PATIENCE)
                over.append(True)
            else:
                stuck.wait(PATIENCE)
            yield 1

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.01)
            try:
                parallel.run(work, 2, lambda size: None)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert over == [True]
    assert next(interrupts) > 20
    assert no_helper_lives()


def test_two_callers_do_not_share_their_threads():
    """Each has parts of its own."""
    several = [Parts(4) for _ in range(3)]
    runs = [Outcome(lambda parts=parts: parallel.run(parts, 100, lambda size: None)) for parts in several]
    assert [run.join().error for run in runs] == [None] * 3
    assert [sorted(parts.took) for parts in several] == [list(range(100))] * 3
