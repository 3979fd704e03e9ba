"""The course of events that the attackers meet: what was written when, and what of the memory was taken then."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from examples.roles import customers
from examples.roles.attacker import Loot, inside, memory
from examples.roles.customers import PROFILES, Place
from examples.roles.deployment import BACKENDS, FIRST_USER, Deployment, can_change_users, environment
from kmsbridge import Encryptor

OLD: Final = [1, 2]
"""The customers that are stored first. Their data keys have ended when the attackers come."""
FRESH: Final = [3, 4]
"""The customers that are stored right before the attackers come."""
AFTER: Final = 2.5
"""Seconds after its end in which a data key may still be in the process's memory."""

_YAMA: Final = Path("/proc/sys/kernel/yama/ptrace_scope")


class TooSlow(Exception):
    """The machine is so busy that data keys ended before an attacker could look: let them live longer."""


class Times(NamedTuple):
    """When some customers were stored, by a clock that only counts."""

    began: float
    ended: float


class Stage:
    """A deployment in which customers are stored, some of them so long ago that their data keys have ended.

    `memory` is what was read of the web servers' processes, by backend and reader; `inside` is what code found in the
    processes, by backend and host.
    """

    victim: Final = f"{OLD[0]}/phone"

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.memory: dict[tuple[str, str], bytes] = {}
        self.inside: dict[tuple[str, str], Any] = {}
        self._written: dict[tuple[str, int], Times] = {}
        self._taken: dict[str, float] = {}

    def play(self) -> None:
        """Store customers, wait until their data keys have ended, store others, and take the memory at once.

        Raises `TooSlow` where the later data keys have ended meanwhile too.
        """
        self._store(OLD)
        self._wait()
        self._store(FRESH)
        for backend in BACKENDS:
            self._take(backend)
        if not all(self.is_live("openbao", f"{each}/phone") for each in FRESH):
            raise TooSlow
        for backend in BACKENDS:
            for host in ("worker", "internal"):
                self.inside[backend, host] = self._run_inside(backend, host)

    def places(self, backend: str) -> set[str]:
        """Return the places of all values, as `ID/COLUMN`."""
        return {f"{place.id}/{place.column}" for place in customers.load(self.deployment.database(backend))}

    def is_live(self, backend: str, name: str) -> bool:
        """Return whether the data key of this place lived when the web server's memory was taken."""
        written = self._written[backend, int(name.partition("/")[0])]
        return self._taken[backend] < written.began + self.deployment.max_age

    def files(self, backend: str, host: str) -> dict[str, bytes]:
        """Return the files of a host, by their names, and its environment as one more."""
        files = {path.name: path.read_bytes() for path in self.deployment.path(backend, host).iterdir()}
        return {**files, "environ": repr(environment()).encode()}

    def loot(self, backend: str) -> Loot:
        """Return what every attacker has: the database, and the network."""
        return Loot(self.deployment.database(backend), self.deployment.server.address)

    @contextlib.contextmanager
    def rewritten(self, backend: str) -> Iterator[Path]:
        """Give the path of a database to change, which is as before after the block."""
        path = self.deployment.database(backend)
        before = path.read_bytes()
        try:
            yield path
        finally:
            path.write_bytes(before)

    def replay(self, backend: str) -> set[str]:
        """Have a value changed, put the old one back, and return where a worker reads the old one."""
        with self.rewritten(backend) as database:
            place = self._victim(database)
            old = customers.load(database)[place]
            customers.store(database, {place: self._encrypted(backend, place, b"+1 555 9999")})
            if self._read(backend) != "+1 555 9999":
                raise RuntimeError("the value was not changed")
            customers.store(database, {place: old})
            return {self.victim} if self._read(backend) == customers.plaintext(place).decode() else set()

    def forge(self, backend: str) -> set[str]:
        """Write a false value with what the web server has, and return where a worker reads it."""
        with self.rewritten(backend) as database:
            place = self._victim(database)
            customers.store(database, {place: self._encrypted(backend, place, b"+1 900 0000")})
            return {self.victim} if self._read(backend) == "+1 900 0000" else set()

    def _victim(self, database: Path) -> Place:
        return next(each for each in customers.load(database) if f"{each.id}/{each.column}" == self.victim)

    def _encrypted(self, backend: str, place: Place, value: bytes) -> bytes:
        configuration = self.deployment.path(backend, "web") / "kmsbridge.toml"
        with Encryptor.from_config(configuration, profile=PROFILES[place.column]) as encryptor:
            return encryptor.encrypt(value, context=place.context, aad=place.aad)

    def _read(self, backend: str) -> str:
        read = self.deployment.hosts[backend, "worker"].tell("read", OLD[:1])
        return str(read[self.victim])

    def _store(self, ids: list[int]) -> None:
        # Those whose data keys go on living are stored last, and looked at first.
        for backend in reversed(BACKENDS):
            began = time.monotonic()
            done = self.deployment.hosts[backend, "web"].tell("write", ids)
            if set(done.values()) != {"ok"}:
                raise RuntimeError(f"the web server could not write: {done}")
            for each in ids:
                self._written[backend, each] = Times(began, time.monotonic())

    def _wait(self) -> None:
        """Wait until no data key that was made is in use or in memory any more."""
        end = max(each.ended for each in self._written.values()) + self.deployment.max_age + AFTER
        time.sleep(max(0.0, end - time.monotonic()))

    def _take(self, backend: str) -> None:
        """Take the memory of the web server, in every way that there is, and run code in it at last."""
        web = self.deployment.hosts[backend, "web"]
        self.memory[backend, "same user"] = self._dump(web.process.pid)
        web.tell("harden")
        self.memory[backend, "same user, hardened"] = self._dump(web.process.pid)
        if self.deployment.users:
            self.memory[backend, "root"] = memory.dump(web.process.pid)
        self.inside[backend, "web"] = self._run_inside(backend, "web")
        self._taken[backend] = time.monotonic()

    def _run_inside(self, backend: str, host: str) -> Any:
        return self.deployment.hosts[backend, host].tell("run", Path(inside.__file__).read_text())

    def _dump(self, process: int) -> bytes:
        """Return the memory of a process as another one of its user can read it; nothing where it cannot."""
        if why_left_out(memory=True, root=False):
            return b""
        path = self.deployment.folder / "memory"
        user = [str(FIRST_USER + 1), str(FIRST_USER)] if self.deployment.users else []
        command = [sys.executable, "-I", "-S", memory.__file__, str(process), str(path), *user]
        done = subprocess.run(command, check=False)
        if done.returncode not in (0, memory.REFUSED):
            raise RuntimeError(f"reading the memory failed: exit code {done.returncode}")
        data = path.read_bytes()
        path.unlink()
        return data


def why_left_out(*, memory: bool, root: bool) -> str:
    """Return why what needs another process's memory, or root, cannot be played here; nothing where it can."""
    if root and not can_change_users():
        return "it needs root, on Linux"
    if memory and not Path("/proc/self/mem").exists():
        return "it needs /proc, which Linux has"
    if memory and _YAMA.exists() and _YAMA.read_text().strip() != "0":
        return "this kernel lets no process read another's memory (kernel.yama.ptrace_scope)"
    return ""
