"""`python -m localstack` runs every server until Ctrl-C, and prints a configuration that uses them."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from localstack import servers


def main(arguments: list[str]) -> None:
    """Run all servers; or with `keep NAME FOLDER PID`, for the tests, one of them."""
    match arguments:
        case ["keep", name, folder, process]:
            servers.keep(name, Path(folder), int(process))
        case []:
            run_all()
        case _:
            sys.exit("usage: python -m localstack")


def run_all() -> None:
    """Start all servers, print a configuration for them, and wait for Ctrl-C."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with tempfile.TemporaryDirectory(prefix="kmsbridge-backends-") as folder:
        running = {name: servers.make(name, _folder(folder, name)) for name in ("aws", "gcp", "vault")}
        try:
            with ThreadPoolExecutor() as pool:
                started = {name: pool.submit(server.start) for name, server in running.items()}
                while not ended.wait(0.1) and not all(start.done() for start in started.values()):
                    pass
                if ended.is_set():
                    _close(running)  # makes the starts in progress fail
                    return
            facts = {name: start.result() for name, start in started.items()}
            print(configuration(facts), flush=True)
            print("# the servers run until Ctrl-C", flush=True)
            while not ended.wait(1):
                pass
        finally:
            _close(running)


def configuration(facts: dict[str, dict[str, str]]) -> str:
    """Return a kmsbridge.toml with a profile for each server."""
    return "\n".join(server["configuration"] for server in facts.values())


def _close(running: dict[str, servers.Server]) -> None:
    for server in running.values():
        server.close()


def _folder(parent: str, name: str) -> Path:
    folder = Path(parent, name)
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main(sys.argv[1:])
