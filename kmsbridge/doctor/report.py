"""The report on the keys of a profile, and the problems in it. The fields are those of the command's JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

Expectation = Literal["encrypt-only", "decrypt-only", "rewrap-only", "full"]
Measured = Literal["", "service", "probe", "local", "message", "forged", "combined"]
"""How an operation was tried: by a call that needs no wrapped key, with a probe, with a probe that this host
wrapped by itself, with a message, with a wrapped key that is not authentic, or as unwrap and wrap together. Empty
for an operation that was not tried."""

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
_UNUSABLE: Final = ("disabled", "pending deletion")


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of trying one operation.

    `may` says whether this host may do it, None where that is unknown. `proven` is false where the service only
    accepted the request, without showing that it would succeed. `milliseconds` includes retries, and is None where
    no call was made. `error` is the name of the error's class; `problem` and `remedy` are its text.
    """

    may: bool | None = None
    proven: bool = False
    measured: Measured = ""
    milliseconds: float | None = None
    request_id: str = ""
    error: str = ""
    problem: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class KeyReport:
    """The results for one key of the profile. `reachable` is None where the key could not be opened.

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
    describe: Trial = Trial()
    wrap: Trial = Trial()
    unwrap: Trial = Trial()
    rewrap: Trial = Trial()
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
        """Whether no key has a problem."""
        return not any(key.problems for key in self.keys)


def with_problems(key: KeyReport, expect: Expectation | None) -> KeyReport:
    """Return the report with its problems filled in.

    Without an expectation, it is a problem where an operation that `encrypt_to` or `decrypt_with` needs does not
    work; a permission for more is not.
    """
    return replace(key, problems=tuple(dict.fromkeys(_problems(key, expect))))


def _problems(key: KeyReport, expect: Expectation | None) -> Iterator[str]:
    if expect == "rewrap-only" and key.rewrap.measured == "combined":
        yield (
            "rewrap-only is expected, but the service does not rewrap with this key, so that a host that rewraps "
            "must be able to unwrap and wrap; expect full"
        )
        return
    lists = (key.encrypt_to or None, key.decrypt_with or None, None)
    for operation, wanted in zip(("wrap", "unwrap", "rewrap"), _WANTED.get(expect, lists), strict=True):
        trial: Trial = getattr(key, operation)
        if wanted is not None and trial.may is not wanted:
            yield (
                _more(key.name, operation, trial, expect)
                if trial.may
                else _less(key.name, operation, trial, wanted)
            )
        elif wanted and not trial.proven and key.state in _UNUSABLE:
            yield f"{operation}: the key is {key.state}; enable it or cancel its deletion"
    # A host that can make the service rewrap to a key of its own choice can decrypt without unwrap here.
    if expect == "encrypt-only" and key.rewrap.may and key.rewrap.measured != "combined":
        yield _more(key.name, "rewrap", key.rewrap, expect)


def _more(name: str, operation: str, trial: Trial, expect: Expectation | None) -> str:
    if trial.measured == "local":
        return (
            f"{expect} is expected, but this host can wrap with the public key, which no permission prevents; "
            "use a symmetric key, or expect full"
        )
    return (
        f"{expect} is expected, but this host may {operation}; take the permission away, "
        f"{_policy(name, _LEFT[expect])}"
    )


def _policy(name: str, role: str) -> str:
    return f"as printed by 'kmsbridge policy {shlex.quote(name)} --role {role}'"


def _less(name: str, operation: str, trial: Trial, wanted: bool) -> str:
    text = f"{trial.problem}; {trial.remedy}" if trial.remedy else trial.problem
    if wanted and trial.error == "KmsAccessDenied" and trial.measured:
        text += f", {_policy(name, _NEEDS[operation])}"
    if not trial.measured:
        return text  # the reason why nothing was tried, which is the same for every operation
    return f"{operation}: {text}" if wanted else f"it is unknown whether this host may {operation}: {text}"
