"""Parses single values: durations, sizes, counts, flags and text. Every function raises `ConfigError`."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from kmsbridge.errors import ConfigError
from kmsbridge.policy import BOUNDS, BYTES, COUNT, SECONDS, Policy

_NUMBER: Final = r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)"
_MILLISECONDS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES: Final = {
    "B": 1,
    **{prefix + "B": 1000**n for n, prefix in enumerate(("k", "M", "G", "T"), 1)},
    **{prefix + "iB": 1024**n for n, prefix in enumerate(("K", "M", "G", "T"), 1)},
    "KB": 1000,
}


class Tunable(NamedTuple):
    """A setting of a policy: its default and its unit."""

    default: Any
    unit: str

    @property
    def takes_text(self) -> bool:
        """True if the setting may be given as text, and so as a reference."""
        return isinstance(self.default, str) or self.unit in (SECONDS, BYTES)


def tunables(policy: type[Policy]) -> dict[str, Tunable]:
    """Return the settings of a policy by name."""
    return {
        name: Tunable(default, BOUNDS[name].unit if name in BOUNDS else COUNT)
        for name, default in policy._field_defaults.items()
    }


def duration(value: object, name: str) -> float:
    """Return seconds, given a number of seconds or text such as 500ms, 30s, 5m, 2h or 1d."""
    if isinstance(value, str):
        return _with_unit(value, _MILLISECONDS, name, "a duration", "500ms, 30s, 5m, 2h or 1d") / 1000
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_type(value, name, "a number of seconds, or text such as 30s or 5m")
    try:
        return float(value)
    except OverflowError:
        return float("inf")  # the check of the bounds refuses it


def size(value: object, name: str) -> int:
    """Return bytes, given a whole number of bytes or text such as 64KiB, 10MiB or 1 GB."""
    if isinstance(value, str):
        number = _with_unit(value, _BYTES, name, "a size", "64KiB, 10MiB or 1 GB")
        if not number.is_integer():
            raise ConfigError(f"{name} is not a whole number of bytes", remedy="use a smaller unit")
        return int(number)
    return count(value, name, "a whole number of bytes, or text such as 10MiB")


def count(value: object, name: str, wanted: str = "a whole number") -> int:
    """Return a whole number. `true` and `false` are refused."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(value, name, wanted)
    return value


def flag(value: object, name: str) -> bool:
    """Return true or false. Text such as "true" is refused."""
    if not isinstance(value, bool):
        raise wrong_type(value, name, "true or false, without quotes")
    return value


def text(value: object, name: str) -> str:
    """Return text."""
    if not isinstance(value, str):
        raise wrong_type(value, name, "text")
    return value


def convert(value: object, setting: Tunable, name: str) -> Any:
    """Return the value of a policy's setting in the setting's unit. Bounds are not checked here."""
    if setting.unit == SECONDS:
        return duration(value, name)
    if setting.unit == BYTES:
        return size(value, name)
    if isinstance(setting.default, bool):
        return flag(value, name)
    return text(value, name) if isinstance(setting.default, str) else count(value, name)


def rendered(value: object, setting: Tunable) -> str:
    """Return the value of a policy's setting as text with its unit."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if setting.unit == SECONDS:
        return f"{value:.15g} s"
    return f"{value} bytes" if setting.unit == BYTES else str(value)


def wrong_type(value: object, name: str, wanted: str) -> ConfigError:
    """Return the error for a value of the wrong type, which does not quote the value: it may be a secret."""
    return ConfigError(f"{name} is of the wrong type ({type(value).__name__})", remedy=f"give {wanted}")


def _with_unit(value: str, units: dict[str, int], name: str, kind: str, examples: str) -> float:
    match = re.fullmatch(_NUMBER, value)
    if match is None or match[2] not in units:
        raise ConfigError(f"{name} is not {kind}", remedy=f"write it like {examples}")
    return float(match[1]) * units[match[2]]
