"""What a profile may tune: the life of data keys, the patience with key services, the audit file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Final

from kmsbridge.errors import ConfigError

SECONDS: Final = "seconds"
BYTES: Final = "bytes"
COUNT: Final = ""

DAY: Final = 86_400.0


def _bounded(default: float, least: float, most: float, unit: str) -> Any:
    return field(default=default, metadata={"least": least, "most": most, "unit": unit})


@dataclass(frozen=True, slots=True)
class DataKeyPolicy:
    """When a data key is replaced, and how many are kept.

    `max_age` is in seconds; `max_messages` and `max_bytes` count what one data key encrypts;
    `max_entries` bounds the cache. Raises `ConfigError` for a value out of bounds.
    """

    max_age: float = _bounded(300.0, 0.001, DAY, SECONDS)
    max_messages: int = _bounded(1_000_000, 1, 2**32, COUNT)
    max_bytes: int = _bounded(64 * 2**30, 1, 2**50, BYTES)
    max_entries: int = _bounded(1000, 1, 1_000_000, COUNT)

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How long one attempt and all attempts of a call to a key service may take, in seconds.

    Raises `ConfigError` for a value out of bounds and for an `attempt_timeout` beyond `deadline`.
    """

    attempt_timeout: float = _bounded(3.0, 0.001, 300.0, SECONDS)
    deadline: float = _bounded(10.0, 0.001, 600.0, SECONDS)
    max_attempts: int = _bounded(3, 1, 10, COUNT)

    def __post_init__(self) -> None:
        _check(self)
        if self.attempt_timeout > self.deadline:
            raise ConfigError(
                f"attempt_timeout is {self.attempt_timeout:g} s and the deadline {self.deadline:g} s",
                remedy="raise deadline or lower attempt_timeout: one attempt must fit into the deadline",
            )


@dataclass(frozen=True, slots=True)
class AuditPolicy:
    """The audit file's path (empty: none), and whether a sink that fails makes the operation fail.

    Raises `ConfigError` for `required` without a file: logging alone never reports that it failed.
    """

    file: str = ""
    required: bool = False

    def __post_init__(self) -> None:
        if "\0" in self.file:
            raise ConfigError("file has a NUL character", remedy="give a path")
        if self.required and not self.file:
            raise ConfigError("required is true and there is no file", remedy="name the audit file in file")


def _check(policy: DataKeyPolicy | CallPolicy) -> None:
    # Messages begin with the field's name, so that the parser can put the table's in front.
    for each in fields(policy):
        value, least, most = getattr(policy, each.name), each.metadata["least"], each.metadata["most"]
        whole = isinstance(each.default, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise ConfigError(
                f"{each.name} is of the wrong type ({type(value).__name__})",
                remedy="give a whole number" if whole else "give a number",
            )
        if not least <= value <= most:  # also what NaN fails
            raise ConfigError(
                f"{each.name} is {value}, which is out of bounds",
                remedy=f"give {least:.15g} to {most:.15g} {each.metadata['unit']}".rstrip(),
            )
