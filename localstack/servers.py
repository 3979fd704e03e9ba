"""The servers by name, and the process that keeps one of them for a test run."""

from __future__ import annotations

import importlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Final, Protocol

MODULES: Final = {
    "aws": "localstack.aws:LocalStack",
    "gcp": "localstack.gcp:Emulator",
    "postgres": "localstack.postgres:Postgres",
    "vault": "localstack.openbao:OpenBaoDev",
    "vault-production": "localstack.openbao:OpenBaoProduction",
}
FACTS, FAILURE = "facts.json", "failure.txt"


class Server(Protocol):
    """A server of this package."""

    def start(self) -> dict[str, str]:
        """Start it, wait until it is ready, and return what a client must know."""

    def close(self) -> None:
        """End it. May be called twice."""


def make(name: str, folder: Path) -> Server:
    """Return the server of this name, not started. It keeps its data in `folder`."""
    module, _, attribute = MODULES[name].partition(":")
    server: Server = getattr(importlib.import_module(module), attribute)(folder)
    return server


def keep(name: str, folder: Path, watched: int) -> None:
    """Run a server until SIGTERM, or until the process `watched` has ended.

    Writes what `start` returned, or the reason why it failed, to a file in `folder`.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server = make(name, folder)
    try:
        _write(folder / FACTS, json.dumps(server.start()))
        while not ended.wait(1) and _is_alive(watched):
            pass
    except Exception as error:
        _write(folder / FAILURE, f"{type(error).__name__}: {error}")
        raise
    finally:
        server.close()


def _write(path: Path, text: str) -> None:
    half = path.with_suffix(".half")
    half.write_text(text)
    half.replace(path)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
