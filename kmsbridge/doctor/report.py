"""The report on the keys of a profile, and the problems in it. The fields are those of the command's JSON."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from kmsbridge.keys.trials import Trial, shortfall

Expectation = Literal["encrypt-only", "decrypt-only", "rewrap-only", "full"]

# For wrap, unwrap and rewrap: whether this host must (True) or must not (False) be able to; None for either.
_WANTED: Final[dict[str | None, tuple[bool | None, bool | None, bool | None]]] = {
    "encrypt-only": (True, False, None),
    "decrypt-only": (False, True, None),
    "rewrap-only": (False, False, True),
    "full": (True, True, None),
}
# The role whose policy allows the operation, and the role whose policy allows no more than is expected.
_NEEDS: Final = {"wrap": "encryptor", "unwrap": "decryptor", "rewrap": "rewrapper"}
_LEFT: Final[dict[str | None, str]] = {
    "encrypt-only": "encryptor",
    "decrypt-only": "decryptor",
    "rewrap-only": "rewrapper",
}

_NOT_TRIED: Final = Trial()


@dataclass(frozen=True, slots=True)
class KeyReport:
    """The results for one key of the profile. `reachable` is None where the key could not be opened.

    `message_marked` says whether the given message was made in the profile's environment, or without one; None where
    it was not unwrapped, and for a profile without an environment.

    `problems` are sentences that say what is wrong and what to do.
    """

    name: str
    uri: str
    encrypt_to: bool
    decrypt_with: bool
    key_id: str = ""
    reachable: bool | None = None
    state: str = "unknown"
    version: str = ""
    rotation: str = ""
    describe: Trial = _NOT_TRIED
    wrap: Trial = _NOT_TRIED
    unwrap: Trial = _NOT_TRIED
    rewrap: Trial = _NOT_TRIED
    message_marked: bool | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The reports on all keys of a profile, in its order.

    `expect` is None where the keys are compared with the profile's own `encrypt_to` and `decrypt_with`.
    """

    profile: str
    expect: Expectation | None
    keys: tuple[KeyReport, ...]

    @property
    def ok(self) -> bool:
        """True if no key has a problem."""
        return not any(key.problems for key in self.keys)


def with_problems(key: KeyReport, expect: Expectation | None, printable: Collection[str]) -> KeyReport:
    """Return the report with its problems filled in.

    `printable` are the roles whose policy `kmsbridge policy` prints for this key. Without an expectation, it is a
    problem where an operation that `encrypt_to` or `decrypt_with` needs does not work; a permission for more is not.
    """
    return replace(key, problems=tuple(dict.fromkeys(_problems(key, expect, printable))))


def _problems(key: KeyReport, expect: Expectation | None, printable: Collection[str]) -> Iterator[str]:
    if expect == "rewrap-only" and key.rewrap.measured == "combined":
        yield (
            "rewrap-only is expected, but the service does not rewrap with this key, so that a host that rewraps "
            "must be able to unwrap and wrap; expect full"
        )
        return
    lists = (key.encrypt_to or None, key.decrypt_with or None, None)
    for operation, wanted in zip(("wrap", "unwrap", "rewrap"), _WANTED.get(expect, lists), strict=True):
        trial: Trial = getattr(key, operation)
        if wanted and (problem := shortfall(operation, trial, key.state)):
            yield problem + _permission(key.name, operation, trial, printable)
        elif wanted is False and trial.may is not False:
            yield _more(key, operation, trial, expect, printable) if trial.may else _unknown(operation, trial)
    # A host that can make the service rewrap to a key of its own choice can decrypt without unwrap here.
    if expect == "encrypt-only" and key.rewrap.may and key.rewrap.measured != "combined":
        yield _more(key, "rewrap", key.rewrap, expect, printable)


def _more(
    key: KeyReport, operation: str, trial: Trial, expect: Expectation | None, printable: Collection[str]
) -> str:
    if trial.measured == "local":
        return (
            f"{expect} is expected, but this host can wrap with the public key, which no permission prevents; "
            "use a symmetric key, or expect full"
        )
    what = "its private key, or the permission for it," if key.wrap.measured == "local" else "the permission"
    return (
        f"{expect} is expected, but this host may {operation}; take {what} away"
        f"{_policy(key.name, _LEFT[expect], printable)}"
    )


def _policy(name: str, role: str, printable: Collection[str]) -> str:
    if role not in printable:
        return ""
    return f", as printed by 'kmsbridge policy {shlex.quote(name)} --role {role}'"


def _permission(name: str, operation: str, trial: Trial, printable: Collection[str]) -> str:
    """Return which policy allows an operation that was refused; empty where it failed otherwise."""
    if trial.error != "KmsAccessDenied" or not trial.measured:
        return ""
    return _policy(name, _NEEDS[operation], printable)


def _unknown(operation: str, trial: Trial) -> str:
    text = f"{trial.problem}; {trial.remedy}" if trial.remedy else trial.problem
    return f"it is unknown whether this host may {operation}: {text}" if trial.measured else text
