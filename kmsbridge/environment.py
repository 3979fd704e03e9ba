"""The environment of a profile, which everything that its keys wrap is bound to."""

from __future__ import annotations

import math
import re
import time
from typing import Final, NamedTuple

from kmsbridge.context import EncryptionContext
from kmsbridge.errors import ConfigError

MAX_NAME: Final = 64
PAIR: Final = "kmsbridge-environment"
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class Environment(NamedTuple):
    """The name of an environment, empty for none, and until when what was wrapped without one is accepted.

    `unmarked_until` is a time as `time.time` gives it, 0.0 for never.
    """

    name: str = ""
    unmarked_until: float = 0.0

    def mark(self, context: EncryptionContext) -> EncryptionContext:
        """Return the context that a key service is given: with the reserved pair `kmsbridge-environment`, where
        there is a name.
        """
        return context.with_reserved(kmsbridge_environment=self.name) if self.name else context

    def accepts_unmarked(self) -> bool:
        """Return whether what was wrapped without an environment may be unwrapped now."""
        return time.time() < self.unmarked_until

    def longest(self) -> float:
        """Return the most seconds that what is unwrapped now may be used: a data key that was wrapped without an
        environment must not outlive the date. Infinite where none is accepted.
        """
        left = self.unmarked_until - time.time()
        return left if left > 0 else math.inf


NO_ENVIRONMENT: Final = Environment()


def environment(name: str | None, until: object = None) -> Environment:
    """Return the environment of this name. Raise `ConfigError` for a name or date that is not valid.

    `until` is a `datetime.date`, or text such as 2027-01-31: the last day, in UTC, on which what was wrapped without
    an environment is accepted.
    """
    # Messages begin with the setting's name, so that the parser can prefix the table's name.
    if name is None:
        if until is not None:
            raise ConfigError(
                "accept_unmarked_until is set, but no environment is",
                remedy="set environment, or leave accept_unmarked_until out",
            )
        return NO_ENVIRONMENT
    _check_name(name)
    return Environment(name, 0.0 if until is None else _end_of(until))


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise ConfigError(
            f"environment is of the wrong type ({type(name).__name__})", remedy="give text, such as prod"
        )
    if not name.isprintable() or name.strip() != name or not 0 < len(name.encode()) <= MAX_NAME:
        raise ConfigError(
            "environment is not a valid name",
            remedy=f"use 1 to {MAX_NAME} bytes of printable text without spaces around it, such as prod",
        )


def _end_of(day: object) -> float:
    """Return the time at which this day ends in UTC."""
    import datetime

    text = day.isoformat() if type(day) is datetime.date else day
    try:
        if not isinstance(text, str) or not _DATE.fullmatch(text):
            raise ValueError
        midnight = datetime.datetime.combine(datetime.date.fromisoformat(text), datetime.time(), datetime.UTC)
        return midnight.timestamp() + 86_400
    except ValueError:
        raise ConfigError(
            "accept_unmarked_until is not a date", remedy="write a day as YEAR-MONTH-DAY, such as 2027-01-31"
        ) from None
