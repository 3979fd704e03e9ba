"""The attackers: each with its possessions, and with exactly those values that it is predicted to get."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from examples.roles.attacker import attack, storage
from examples.roles.stage import Stage, why_left_out

UNEXPECTED: Final = 12
"""The exit code of `kmsbridge doctor` for a host that may do more or less than is expected."""

Attack = Callable[[Stage, str], set[str]]


class Opens(enum.Enum):
    """The values that an attacker can decrypt, or that a worker takes for something else."""

    NOTHING = "none"
    LIVE = "those under live data keys"
    PHONES = "all phone numbers"
    ALL = "all"
    OLD = "the old value, in its own place"
    FORGED = "the one that they wrote"

    def places(self, stage: Stage, backend: str) -> set[str]:
        """Return the places, as `ID/COLUMN`, that follow from the settings."""
        places = stage.places(backend)
        match self:
            case Opens.NOTHING:
                return set()
            case Opens.LIVE:
                return {each for each in places if stage.is_live(backend, each)}
            case Opens.PHONES:
                return {each for each in places if each.endswith("/phone")}
            case Opens.ALL:
                return places
            case Opens.OLD | Opens.FORGED:
                return {stage.victim}


class Scenario(NamedTuple):
    """An attacker in the place of a host's owner, on both backends."""

    attacker: str
    holds: str
    opens: Mapping[str, Opens]
    attack: Attack
    needs_root: bool = False
    needs_memory: bool = False


def _both(opens: Opens) -> Mapping[str, Opens]:
    return {"openbao": opens, "hpke": opens}


_WHILE_SHARED: Final = {"openbao": Opens.LIVE, "hpke": Opens.NOTHING}
"""With OpenBao values share data keys, which live for a while; with a public key each value has its own."""


def _with_nothing(stage: Stage, backend: str) -> set[str]:
    return attack(stage.loot(backend))


def _with_files(host: str, *names: str) -> Attack:
    """Return the attack with these files of a host; all of them where none is named."""

    def run(stage: Stage, backend: str) -> set[str]:
        files = {
            name: data
            for name, data in stage.files(backend, host).items()
            if not names or name.endswith(names)
        }
        return attack(stage.loot(backend)._replace(files=files))

    return run


def _with_trails(stage: Stage, backend: str) -> set[str]:
    files = {
        f"{host}-{name}": data
        for host in ("web", "worker")
        for name, data in stage.files(backend, host).items()
        if name.startswith("audit")
    }
    return attack(stage.loot(backend)._replace(files=files))


def _with_memory(name: str) -> Attack:
    def run(stage: Stage, backend: str) -> set[str]:
        loot = stage.loot(backend)._replace(
            files=stage.files(backend, "web"), memory=stage.memory[backend, name]
        )
        return attack(loot)

    return run


def _inside(host: str) -> Attack:
    def run(stage: Stage, backend: str) -> set[str]:
        found = stage.inside[backend, host]
        secrets = [bytes.fromhex(each) for each in found["secrets"]]
        loot = stage.loot(backend)._replace(files=stage.files(backend, host), secrets=secrets)
        return attack(loot._replace(opened=found["opened"]))

    return run


def _with_token_of_web(stage: Stage, backend: str) -> set[str]:
    """Attack with the worker's backup and the token of the web server that uses OpenBao.

    A web server with public keys has no token, and the seeds of the pairs are protected by keys of OpenBao.
    """
    files = {**stage.files(backend, "worker"), "token": stage.files("openbao", "web")["token"]}
    return attack(stage.loot(backend)._replace(files=files))


def _by_mistake(stage: Stage, backend: str) -> set[str]:
    """Attack a web server that was given the worker's files. `kmsbridge doctor` has to find that mistake."""
    files = stage.files(backend, "worker")
    done = stage.deployment.doctor(files, "phones", "encrypt-only")
    if done.returncode != UNEXPECTED:
        raise RuntimeError(f"the check did not find the mistake: exit code {done.returncode}: {done.stdout}")
    return attack(stage.loot(backend)._replace(files=files))


def _rewrite(stage: Stage, backend: str) -> set[str]:
    reader = stage.deployment.hosts[backend, "worker"]
    with stage.rewritten(backend) as database:
        return storage.attack(database, lambda ids: reader.tell("read", ids))


SCENARIOS: Final = (
    Scenario("stole the database", "the database", _both(Opens.NOTHING), _with_nothing),
    Scenario(
        "stole a backup of the web server",
        "the database, configuration and public keys; no token",
        _both(Opens.NOTHING),
        _with_files("web", ".toml", ".pub"),
    ),
    Scenario(
        "stole the audit trails",
        "the database, the audit files of web server and worker",
        _both(Opens.NOTHING),
        _with_trails,
    ),
    Scenario(
        "stole the web server's credentials",
        "the database, environment and files of the web server with its token, access to OpenBao",
        _both(Opens.NOTHING),
        _with_files("web"),
    ),
    Scenario(
        "runs another process as the web server's user",
        "the same, and the process's memory",
        _WHILE_SHARED,
        _with_memory("same user"),
        needs_memory=True,
    ),
    Scenario(
        "does so after `harden_process()`",
        "the same, but no memory",
        _both(Opens.NOTHING),
        _with_memory("same user, hardened"),
    ),
    Scenario(
        "runs code in the web server's process",
        "the same, and the library's objects",
        _WHILE_SHARED,
        _inside("web"),
    ),
    Scenario(
        "is root on the web server, hardened or not",
        "the same, and the process's memory",
        _WHILE_SHARED,
        _with_memory("root"),
        needs_root=True,
    ),
    Scenario(
        "stole a backup of the worker",
        "the database, configuration, private files; no token",
        _both(Opens.NOTHING),
        _with_files("worker", ".toml"),
    ),
    Scenario(
        "stole that and the web server's token",
        "the same, a token that may wrap",
        _both(Opens.NOTHING),
        _with_token_of_web,
    ),
    Scenario(
        "rewrites the storage, and waits for a worker to read",
        "write access to the database",
        _both(Opens.NOTHING),
        _rewrite,
    ),
    Scenario(
        "puts an old value back", "write access to the database, a backup", _both(Opens.OLD), Stage.replay
    ),
    Scenario(
        "took the web server over and writes false values",
        "write access to the database, the web server's configuration and token",
        _both(Opens.FORGED),
        Stage.forge,
    ),
    Scenario(
        "took the internal server over",
        "the database, all files, code in the process",
        _both(Opens.PHONES),
        _inside("internal"),
    ),
    Scenario(
        "stole the internal server's credentials",
        "the database, all files, access to OpenBao",
        _both(Opens.PHONES),
        _with_files("internal"),
    ),
    Scenario(
        "took the worker over",
        "the database, all files, code in the process",
        _both(Opens.ALL),
        _inside("worker"),
    ),
    Scenario(
        "stole the credentials of a web server that has the worker's by mistake",
        "the database, all files, access to OpenBao",
        _both(Opens.ALL),
        _by_mistake,
    ),
)


class Result(NamedTuple):
    """The result of a scenario on one backend. `left_out` is the reason why it was not played, or empty."""

    scenario: Scenario
    backend: str
    opened: AbstractSet[str] = frozenset()
    predicted: AbstractSet[str] = frozenset()
    left_out: str = ""


def play(scenario: Scenario, stage: Stage, backend: str) -> Result:
    """Have the attacker try everything."""
    left_out = why_left_out(memory=scenario.needs_memory, root=scenario.needs_root)
    if left_out:
        return Result(scenario, backend, left_out=left_out)
    predicted = scenario.opens[backend].places(stage, backend)
    return Result(scenario, backend, scenario.attack(stage, backend), predicted)


def table() -> str:
    """Return the scenarios as the table of the page."""
    head = ["| who | holds | opens with OpenBao | opens with public keys |", "|---|---|---|---|"]
    rows = [
        f"| {each.attacker} | {each.holds} | {each.opens['openbao'].value} | {each.opens['hpke'].value} |"
        for each in SCENARIOS
    ]
    return "\n".join([*head, *rows])
