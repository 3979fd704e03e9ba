"""What was found, and what of it is a problem. The fields are those of the command's JSON."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

Expectation = Literal["encrypt-only", "decrypt-only", "rewrap-only", "full"]
Measured = Literal["", "service", "probe", "local", "message", "forged", "combined"]
"""How: by asking the service, with a probe, with one that this host wrapped by itself, with a message,
with a wrapped key that is not authentic, or by unwrap and wrap together; empty for what was not tried."""

# Wrap, unwrap and rewrap: whether this host must, or must not, be able to; None where it does not matter.
_WANTED: Final[dict[str | None, tuple[bool | None, bool | None, bool | None]]] = {
    "encrypt-only": (True, False, None),
    "decrypt-only": (False, True, None),
    "rewrap-only": (False, False, True),
    "full": (True, True, None),
}
# Whose policy has the operation, and whose is all that is left of what is too much.
_NEEDS: Final = {"wrap": "encryptor", "unwrap": "decryptor", "rewrap": "rewrapper"}
_LEFT: Final[dict[str | None, str]] = {
    "encrypt-only": "encryptor",
    "decrypt-only": "decryptor",
    "rewrap-only": "rewrapper",
}
_UNUSABLE: Final = ("disabled", "pending deletion")


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of trying one operation.

    `may` is None where that could not be told. `proven` is false where the service let this host ask
    and nothing more is known. `milliseconds` has the call's retries in it, and is None where no call was
    made. `error` is the name of the error's class, `problem` and `remedy` are its text.
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
    """One key of the profile. `reachable` is None where the key could not be opened.

    `problems` are sentences: what is wrong and what to do; none where all is as it should be.
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
    """All keys of a profile, in its order. `expect` is None where the profile's own lists are the measure."""

    profile: str
    expect: Expectation | None
    keys: tuple[KeyReport, ...]

    @property
    def ok(self) -> bool:
        """Whether no key has a problem."""
        return not any(key.problems for key in self.keys)


def judged(key: KeyReport, expect: Expectation | None) -> KeyReport:
    """The same with its problems.

    Without an expectation, what `encrypt_to` and `decrypt_with` need must work, and more is no problem.
    """
    return replace(key, problems=tuple(dict.fromkeys(_problems(key, expect))))


def _problems(key: KeyReport, expect: Expectation | None) -> Iterator[str]:
    if expect == "rewrap-only" and key.rewrap.measured == "combined":
        yield (
            "rewrap-only is expected, and with this key the service does not rewrap: who rewraps must unwrap "
            "and wrap; expect full"
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
            yield f"{operation}: the key is {key.state}; enable it or cancel the deletion"
    # Who may have the service rewrap for another key, perhaps one of his own, needs no unwrap here.
    if expect == "encrypt-only" and key.rewrap.may and key.rewrap.measured != "combined":
        yield _more(key.name, "rewrap", key.rewrap, expect)


def _more(name: str, operation: str, trial: Trial, expect: Expectation | None) -> str:
    if trial.measured == "local":
        return (
            f"this host wraps with the public key alone, which no permission prevents, and {expect} is expected; "
            "use a symmetric key, or expect full"
        )
    return (
        f"this host may {operation}, and {expect} is expected; take the permission away, "
        f"{_policy(name, _LEFT[expect])}"
    )


def _policy(name: str, role: str) -> str:
    return f"as 'kmsbridge policy {shlex.quote(name)} --role {role}' prints it"


def _less(name: str, operation: str, trial: Trial, wanted: bool) -> str:
    text = f"{trial.problem}; {trial.remedy}" if trial.remedy else trial.problem
    if wanted and trial.error == "KmsAccessDenied" and trial.measured:
        text += f", {_policy(name, _NEEDS[operation])}"
    if not trial.measured:
        return text  # what kept it from being tried, which the next one not tried says too
    return (
        f"{operation}: {text}" if wanted else f"whether this host may {operation} could not be told: {text}"
    )
