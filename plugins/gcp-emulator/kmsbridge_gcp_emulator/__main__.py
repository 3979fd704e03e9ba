"""The command `kmsbridge-gcp-emulator`: prints the emulator's endpoint and runs it until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc

from kmsbridge_gcp_emulator.control import Control
from kmsbridge_gcp_emulator.refusal import Refusal
from kmsbridge_gcp_emulator.service import KmsService

_THREADS: Final = 64
_LARGEST: Final = 2**20


def main() -> None:
    """Run the command: start the server, print its endpoint, and wait for the end."""
    arguments = _arguments()
    service = KmsService()
    server = grpc.server(
        ThreadPoolExecutor(_THREADS),
        handlers=service.handlers(),
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _LARGEST)],
    )
    try:
        for name in arguments.key:
            Control(service).create_key(name, "GOOGLE_SYMMETRIC_ENCRYPTION", "SOFTWARE")
        port = server.add_insecure_port(f"{arguments.listen}:{arguments.port}")
    except Refusal as refusal:
        sys.exit(f"kmsbridge-gcp-emulator: {refusal}")
    except RuntimeError:
        sys.exit(f"kmsbridge-gcp-emulator: cannot listen on {arguments.listen}:{arguments.port}")
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    server.start()
    with contextlib.suppress(BrokenPipeError):
        print(f"{arguments.listen}:{port}", flush=True)  # noqa: T201 - the command's output
    if arguments.until_input_ends:
        threading.Thread(target=_watch_input, args=(ended,), daemon=True).start()
    ended.wait()
    server.stop(grace=None).wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="kmsbridge-gcp-emulator",
        description="An emulator of Google Cloud KMS for tests. It keeps its keys in memory and protects nothing.",
    )
    parser.add_argument("--listen", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1")
    parser.add_argument("--port", default=0, type=int, help="default: a free one")
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="NAME",
        help="make this symmetric key, projects/P/locations/L/keyRings/R/cryptoKeys/K; may be repeated",
    )
    parser.add_argument(
        "--until-input-ends", action="store_true", help="end when standard input is closed, too"
    )
    return parser.parse_args()


def _watch_input(ended: threading.Event) -> None:
    # Not through sys.stdin: this thread would still hold its lock when the interpreter ends.
    while os.read(0, 4096):
        pass
    ended.set()


if __name__ == "__main__":
    main()
