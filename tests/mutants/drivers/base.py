"""What a mutant is, and how it is examined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from kmsbridge_testing.fakes.harnesses import FakeHarness
from kmsbridge_testing.harness import Harness

from kmsbridge.driver import KeyDriver

Driver = TypeVar("Driver", bound=type[KeyDriver])


@dataclass(frozen=True, slots=True)
class Mutant:
    """A broken driver, the name of the case that must fail with it, and the harness it is examined with."""

    driver: type[KeyDriver]
    caught_by: str
    harness: type[Harness]

    @property
    def name(self) -> str:
        """What is wrong with it, in one word."""
        return self.driver.__name__

    def make_harness(self) -> Harness:
        """The harness, with the broken driver in the place of the sound one."""
        harness: Harness = type(f"{self.name}Harness", (self.harness,), {"driver": self.driver})()
        return harness


MUTANTS: Final[list[Mutant]] = []


def caught_by(case: str, harness: type[Harness] = FakeHarness) -> Callable[[Driver], Driver]:
    """Enter a driver into `MUTANTS`."""

    def enter(driver: Driver) -> Driver:
        MUTANTS.append(Mutant(driver, case, harness))
        return driver

    return enter
