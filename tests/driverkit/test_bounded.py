"""Work that knows no timeout: given up in time, shared by those who need it, and no hindrance to the process's end."""

import subprocess
import sys
import threading

import pytest

from kmsbridge.driverkit.bounded import BoundedCalls, SharedCall
from kmsbridge.driverkit.deadline import left
from kmsbridge.errors import ClosedError
from tests.support import PATIENCE, Outcome, finish, fork


@pytest.fixture
def calls():
    """Bounded calls, two at once."""
    calls = BoundedCalls("test", limit=2)
    yield calls
    calls.close()


@pytest.fixture
def go_on():
    """An event that ends what hangs; set at the end of the test, whatever it came to."""
    event = threading.Event()
    yield event
    event.set()


# --- bounded calls --------------------------------------------------------------------------------


def test_result_comes_back_from_another_thread(calls):
    assert calls.call(threading.get_ident, PATIENCE) != threading.get_ident()


def test_exception_comes_back_as_it_is(calls):
    error = KeyError("the library's own")

    def fail():
        raise error

    with pytest.raises(KeyError) as caught:
        calls.call(fail, PATIENCE)
    assert caught.value is error


def test_call_that_hangs_is_given_up_at_its_timeout(calls, go_on):
    with pytest.raises(TimeoutError):
        calls.call(lambda: go_on.wait(PATIENCE), 0.05)
    assert calls.call(lambda: "the other thread", PATIENCE) == "the other thread"


def test_call_that_finds_no_thread_is_never_begun(calls, go_on):
    """What was given up must not reach a service later."""
    begun = []
    for _ in range(2):
        with pytest.raises(TimeoutError):
            calls.call(lambda: go_on.wait(PATIENCE), 0.05)
    with pytest.raises(TimeoutError):
        calls.call(lambda: begun.append("late"), 0.05)
    go_on.set()
    assert calls.call(lambda: "free again", PATIENCE) == "free again"
    assert begun == []


def test_work_is_told_how_long_it_is_waited_for(calls):
    assert 0 < calls.call(left, 5) <= 5


def test_call_after_close_is_refused(calls):
    calls.close()
    calls.close()
    with pytest.raises(ClosedError):
        calls.call(lambda: None, PATIENCE)


@pytest.mark.parametrize(
    "hanging",
    (
        'BoundedCalls("test").call(threading.Event().wait, 0.05)',
        'SharedCall("test", threading.Event().wait, patience=60).wait(0.05)',
    ),
    ids=("bounded", "shared"),
)
def test_process_ends_while_a_call_hangs(hanging):
    program = f"""
import threading
from kmsbridge.driverkit.bounded import BoundedCalls, SharedCall
try:
    {hanging}
except TimeoutError:
    print(sum(thread.name == "kmsbridge-test" for thread in threading.enumerate()), "hangs")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert (done.stdout, done.stderr) == ("1 hangs\n", "")


# --- shared calls ---------------------------------------------------------------------------------


def test_all_who_ask_meanwhile_wait_for_the_same(go_on):
    done = []

    def work():
        go_on.wait(PATIENCE)
        done.append("once")
        return "the token"

    shared = SharedCall("test", work, patience=PATIENCE)
    first = shared.begin()
    waiting = [Outcome(lambda: shared.wait(PATIENCE)) for _ in range(8)]
    assert shared.begin() is first
    go_on.set()
    assert [each.join().value for each in waiting] == ["the token"] * 8
    assert done == ["once"]


def test_what_comes_too_late_for_one_serves_the_next(go_on):
    done = []
    shared = SharedCall("test", lambda: done.append(go_on.wait(PATIENCE)), patience=PATIENCE)
    with pytest.raises(TimeoutError):
        shared.wait(0.05)
    go_on.set()
    shared.begin().wait(PATIENCE)
    assert done[0] is True


def test_what_failed_is_begun_anew():
    results = [OSError("once"), "then"]

    def work():
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    shared = SharedCall("test", work, patience=PATIENCE)
    with pytest.raises(OSError, match="once"):
        shared.wait(PATIENCE)
    assert shared.wait(PATIENCE) == "then"


def test_shared_work_has_its_own_patience():
    """However short the call is that asked first."""
    shared = SharedCall("test", left, patience=20)
    assert 5 < shared.wait(5) <= 20


def test_shared_call_leaves_no_thread_behind():
    seen = []
    SharedCall("test", lambda: seen.append(threading.current_thread()), patience=PATIENCE).wait(PATIENCE)
    seen[0].join(PATIENCE)
    assert not seen[0].is_alive()


def test_child_begins_what_was_under_way_in_the_parent(go_on):
    """Its thread is not there, and nobody waits for it."""
    hangs = [True]
    shared = SharedCall("test", lambda: hangs[0] and go_on.wait(PATIENCE), patience=PATIENCE)
    shared.begin()

    def child():
        hangs[0] = False
        assert shared.wait(PATIENCE / 2) is False

    finish([fork(child)])
