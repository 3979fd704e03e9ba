"""Clocks, deadlines and random pauses."""

import random

from kmsbridge.clock import Deadline, age, jitter
from kmsbridge.keys.breaker import Breaker
from tests.support import Clock


def test_random_pauses_leave_the_applications_generator_alone():
    """A program that seeded it for its own purposes gets the same numbers, whatever fails meanwhile."""
    clock = Clock()
    random.seed(1)
    before = random.getstate()
    breaker = Breaker(clock)
    for _ in range(50):
        breaker.failed()
    assert [breaker.allows() for _ in range(3)] == [False] * 3
    assert random.getstate() == before


def test_a_random_pause_is_between_its_bounds():
    """And seldom the same as another."""
    pauses = [jitter(2.0, 3.0) for _ in range(1000)]
    assert all(2.0 <= pause <= 3.0 for pause in pauses)
    assert len(set(pauses)) > 990
    assert min(pauses) < 2.1
    assert max(pauses) > 2.9


def test_a_share_of_a_deadline_ends_before_it():
    """Each of four gets a quarter of what is left; what has passed leaves nothing."""
    clock = Clock()
    deadline = Deadline(8.0, clock)
    assert deadline.share(4).left() == 2.0
    clock.now += 4
    assert deadline.share(4).left() == 1.0
    clock.now += 5
    assert deadline.left() == deadline.share(4).left() == 0.0


def test_ages_only_grow():
    """They are never taken from the time of day."""
    first = age()
    assert age() >= first
