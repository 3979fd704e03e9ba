"""Background work: it goes on while there is something to do, and ends with whoever needs it."""

import gc
import queue
import subprocess
import sys
import threading

import pytest

from kmsbridge.driverkit.background import Background
from tests.support import PATIENCE, finish, fork


class Owner:
    """Renews something; `pauses` says how it goes on after each step."""

    def __init__(self, *pauses):
        self.pauses = list(pauses)
        self.steps = queue.Queue()
        self.background = Background("test", self.step)

    def step(self):
        pause = self.pauses.pop(0) if self.pauses else None
        self.steps.put(threading.current_thread())
        return pause

    def wait_for_steps(self, count):
        return [self.steps.get(timeout=PATIENCE) for _ in range(count)]


@pytest.fixture
def owner():
    """Makes owners, whose background work ends with the test."""
    made = []

    def make(*pauses):
        made.append(Owner(*pauses))
        return made[-1]

    yield make
    for each in made:
        each.background.close()


def test_nothing_runs_before_it_is_woken(owner):
    assert owner(0.0).background.thread is None


def test_steps_follow_each_other_until_there_is_nothing_to_do(owner):
    renewed = owner(0.0, 0.0)
    assert renewed.background.wake()
    (thread,) = set(renewed.wait_for_steps(3))
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert renewed.background.thread is None


def test_waking_ends_a_pause(owner):
    renewed = owner(3600.0, 3600.0)
    renewed.background.wake()
    renewed.wait_for_steps(1)
    renewed.background.wake()
    renewed.wait_for_steps(1)
    assert renewed.steps.empty()


def test_another_thread_is_started_when_there_is_something_to_do_again(owner):
    renewed = owner()
    renewed.background.wake()
    (first,) = renewed.wait_for_steps(1)
    first.join(PATIENCE)
    assert renewed.background.wake()
    (second,) = renewed.wait_for_steps(1)
    assert second is not first


def test_waking_during_the_last_step_is_not_lost():
    """A step that finds nothing to do did not see what came meanwhile."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Owner):
        def step(self):
            begun.set()
            go_on.wait(PATIENCE)
            return super().step()

    slow = Slow()
    slow.background.wake()
    assert begun.wait(PATIENCE)
    slow.background.wake()
    go_on.set()
    slow.wait_for_steps(2)
    slow.background.close()


def test_close_ends_the_thread(owner):
    renewed = owner(3600.0)
    renewed.background.wake()
    (thread,) = renewed.wait_for_steps(1)
    renewed.background.close()
    renewed.background.close()
    assert not thread.is_alive()
    assert not renewed.background.wake()


def test_step_may_close():
    class Closing(Owner):
        def step(self):
            self.background.close()
            return super().step()

    closing = Closing(3600.0)
    closing.background.wake()
    (thread,) = closing.wait_for_steps(1)
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_thread_ends_with_the_object_that_needs_it():
    """Dropped and never closed."""
    renewed = Owner(3600.0)
    renewed.background.wake()
    (thread,) = renewed.wait_for_steps(1)
    del renewed
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_system_without_threads_is_told_and_tried_again(owner, monkeypatch):
    renewed = owner(3600.0)

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not renewed.background.wake()
    assert renewed.background.wake()
    renewed.wait_for_steps(1)


def test_nothing_runs_in_a_forked_child(owner):
    """What the parent holds, the parent renews; also where another of its threads held the lock."""
    renewed = owner(3600.0)
    renewed.background.wake()
    renewed.wait_for_steps(1)

    def child():
        assert not renewed.background.wake()
        assert renewed.background.thread is None
        assert [thread.name for thread in threading.enumerate() if thread.name == "kmsbridge-test"] == []
        renewed.background.close()

    with renewed.background._lock:
        children = [fork(child)]
    finish(children)
    assert renewed.background.wake()
    renewed.wait_for_steps(1)


def test_process_ends_while_a_step_hangs():
    program = """
import threading
from kmsbridge.driverkit.background import Background

class Owner:
    def step(self):
        begun.set()
        threading.Event().wait()

begun, owner = threading.Event(), Owner()
background = Background("test", owner.step)
background.wake()
print(begun.wait(20))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
