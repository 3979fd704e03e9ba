"""The program of all three hosts. What it can do depends on the configuration and the credentials alone.

It takes orders as lines of JSON and answers each with a line. `python -m examples.roles.host CONFIGURATION DATABASE`
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from examples.roles import customers
from examples.roles.customers import PROFILES, Place, Values
from kmsbridge import ConfigError, Decryptor, Encryptor, KmsBridgeError, RoleError, harden_process

_PR_SET_DUMPABLE = 4


class Host:
    """An application with one configuration and one database."""

    def __init__(self, configuration: Path, database: Path) -> None:
        self.configuration = configuration
        self.database = database
        self.encryptor = cache(lambda column: Encryptor.from_config(configuration, profile=PROFILES[column]))
        self.decryptor = cache(lambda column: Decryptor.from_config(configuration, profile=PROFILES[column]))

    def open(self) -> None:
        """Open what the configuration has, and try its keys."""
        for column in PROFILES:
            for opened in (self.encryptor, self.decryptor):
                with contextlib.suppress(
                    ConfigError, RoleError
                ):  # this host has no such profile, or not in this role
                    opened(column).check(probe=True)

    def write(self, ids: list[int]) -> dict[str, str]:
        """Store the values of these customers. Return what became of each."""
        return self._each(customers.places(ids), self._write)

    def read(self, ids: list[int]) -> dict[str, str]:
        """Return the values of these customers, or why there are none."""
        messages = {
            place: message for place, message in customers.load(self.database).items() if place.id in ids
        }
        return self._each(list(messages), lambda place: self._read(place, messages))

    def harden(self) -> dict[str, str]:
        """Turn off core dumps, and access to this memory by other processes of the same user."""
        harden_process()
        return {}

    def run(self, code: str) -> Any:
        """Run an attacker's code in this process, as a flaw in the application would let them."""
        scope: dict[str, Any] = {"__name__": "attacker"}
        exec(compile(code, "attacker", "exec"), scope)
        return scope["attack"](customers.load(self.database))

    def _write(self, place: Place) -> str:
        message = self.encryptor(place.column).encrypt(
            customers.plaintext(place), context=place.context, aad=place.aad
        )
        customers.store(self.database, {place: message})
        return "ok"

    def _read(self, place: Place, messages: Values) -> str:
        plaintext = self.decryptor(place.column).decrypt(
            messages[place], context=place.context, aad=place.aad
        )
        return plaintext.decode()

    def _each(self, places: list[Place], do: Any) -> dict[str, str]:
        done = {}
        for place in places:
            try:
                done[f"{place.id}/{place.column}"] = do(place)
            except KmsBridgeError as error:
                done[f"{place.id}/{place.column}"] = type(error).__name__
        return done


def become(user: int, group: int, folder: Path) -> None:
    """Go on as another user, to whom `folder` is given, as servers do that are started by root.

    The kernel protects the memory of a process that has changed its user. That is undone here, so that this process is as open
    as one that was started by its user.
    """
    for path in (folder, *folder.iterdir()):
        os.chown(path, user, group)
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    os.umask(0o007)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def main() -> None:
    """Take orders until the input ends."""
    configuration, database, *user = sys.argv[1:]
    host = Host(Path(configuration), Path(database))
    host.open()  # and with it import everything: another user may not be allowed to read where Python is installed
    if user:
        become(int(user[0]), int(user[1]), host.configuration.parent)
    print("{}", flush=True)
    for line in sys.stdin:
        order, *arguments = json.loads(line)
        print(json.dumps(getattr(host, order)(*arguments)), flush=True)


if __name__ == "__main__":
    main()
