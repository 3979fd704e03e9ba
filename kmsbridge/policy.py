"""The settings that a profile may tune: the lifetime of data keys, the timeouts of calls, and the audit file."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeVar

from kmsbridge.errors import ConfigError

SECONDS: Final = "seconds"
BYTES: Final = "bytes"
COUNT: Final = ""

DAY: Final = 86_400.0


class DataKeyPolicy(NamedTuple):
    """The limits after which a data key is replaced, and the size of the cache.

    `max_age` is in seconds. `max_messages` and `max_bytes` limit the messages and plaintext bytes that one data
    key encrypts. `max_entries` is the most data keys that a cache holds.
    """

    max_age: float = 300.0
    max_messages: int = 1_000_000
    max_bytes: int = 64 * 2**30
    max_entries: int = 1000


class CallPolicy(NamedTuple):
    """The time that one attempt, and a whole operation, may take in seconds, and the most attempts of a call."""

    attempt_timeout: float = 3.0
    deadline: float = 10.0
    max_attempts: int = 3


class AuditPolicy(NamedTuple):
    """The audit file's path, empty for none, and whether a sink that fails makes the operation fail."""

    file: str = ""
    required: bool = False


Policy = DataKeyPolicy | CallPolicy | AuditPolicy
P = TypeVar("P", bound=Policy)


class Bounds(NamedTuple):
    """A setting's unit, and the least and the greatest value it may have."""

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
"""The bounds of every setting that is a number, by its name."""


def checked(policy: P) -> P:
    """Return `policy` once it is checked.

    Raises `ConfigError` for a value out of bounds, and for values that contradict each other.
    """
    # Messages begin with the field's name, so that the parser can prefix the table's name.
    for name, value in policy._asdict().items():
        if name in BOUNDS:
            _check_bounds(name, value)
    match policy:
        case CallPolicy(attempt, deadline) if attempt > deadline:
            raise ConfigError(
                f"attempt_timeout is {attempt:g} s, longer than the deadline of {deadline:g} s",
                remedy="raise deadline or lower attempt_timeout",
            )
        case AuditPolicy(file) if "\0" in file:
            raise ConfigError("file has a NUL character", remedy="remove it from the path")
        case AuditPolicy("", True):  # logging alone never reports that it failed
            raise ConfigError(
                "required is true, but no audit file is set", remedy="set file to the audit file's path"
            )
    return policy


def _check_bounds(name: str, value: float) -> None:
    unit, least, most = BOUNDS[name]
    if not least <= value <= most:  # NaN fails this too
        raise ConfigError(
            f"{name} is {value}, which is out of bounds",
            remedy=f"use {least:.15g} to {most:.15g} {unit}".rstrip(),
        )
