"""What a profile may tune: the life of data keys, the patience with key services, the audit file."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeVar

from kmsbridge.errors import ConfigError

SECONDS: Final = "seconds"
BYTES: Final = "bytes"
COUNT: Final = ""

DAY: Final = 86_400.0


class DataKeyPolicy(NamedTuple):
    """When a data key is replaced, and how many are kept.

    `max_age` is in seconds; `max_messages` and `max_bytes` count what one data key encrypts;
    `max_entries` bounds the cache.
    """

    max_age: float = 300.0
    max_messages: int = 1_000_000
    max_bytes: int = 64 * 2**30
    max_entries: int = 1000


class CallPolicy(NamedTuple):
    """How long one attempt and all attempts of a call to a key service may take, in seconds."""

    attempt_timeout: float = 3.0
    deadline: float = 10.0
    max_attempts: int = 3


class AuditPolicy(NamedTuple):
    """The audit file's path (empty: none), and whether a sink that fails makes the operation fail."""

    file: str = ""
    required: bool = False


Policy = DataKeyPolicy | CallPolicy | AuditPolicy
P = TypeVar("P", bound=Policy)


class Bounds(NamedTuple):
    """What a setting is measured in, and from where to where it may go."""

    unit: str
    least: float
    most: float


BOUNDS: Final = {
    "max_age": Bounds(SECONDS, 0.001, DAY),
    "max_messages": Bounds(COUNT, 1, 2**32),
    "max_bytes": Bounds(BYTES, 1, 2**50),
    "max_entries": Bounds(COUNT, 1, 1_000_000),
    "attempt_timeout": Bounds(SECONDS, 0.001, 300.0),
    "deadline": Bounds(SECONDS, 0.001, 600.0),
    "max_attempts": Bounds(COUNT, 1, 10),
}
"""Of every setting that is a number, by its name."""


def checked(policy: P) -> P:
    """`policy`. Raises `ConfigError` for a value out of bounds, and for values that contradict each other."""
    # Messages begin with the field's name, so that the parser can put the table's in front.
    for name, value in policy._asdict().items():
        if name in BOUNDS:
            _check_bounds(name, value)
    match policy:
        case CallPolicy(attempt, deadline) if attempt > deadline:
            raise ConfigError(
                f"attempt_timeout is {attempt:g} s and the deadline {deadline:g} s",
                remedy="raise deadline or lower attempt_timeout: one attempt must fit into the deadline",
            )
        case AuditPolicy(file) if "\0" in file:
            raise ConfigError("file has a NUL character", remedy="give a path")
        case AuditPolicy("", True):  # logging alone never reports that it failed
            raise ConfigError("required is true and there is no file", remedy="name the audit file in file")
    return policy


def _check_bounds(name: str, value: float) -> None:
    unit, least, most = BOUNDS[name]
    if not least <= value <= most:  # also what NaN fails
        raise ConfigError(
            f"{name} is {value}, which is out of bounds",
            remedy=f"give {least:.15g} to {most:.15g} {unit}".rstrip(),
        )
