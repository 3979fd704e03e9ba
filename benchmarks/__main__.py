"""`python -m benchmarks`: measure, print a table, and leave it with a picture in `benchmarks/results/`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from benchmarks import workers
from benchmarks.report import Line, markdown, terminal
from benchmarks.sizes import FULL, MIB, QUICK, TINY, Sizes
from benchmarks.workers import Values

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(HERE, "results")
MARK = "<!-- below: written by python -m benchmarks --page -->"


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, in under a minute")
    parser.add_argument("--tiny", action="store_true", help="only see that it runs; the figures mean nothing")
    parser.add_argument("--results", default=RESULTS, metavar="FOLDER", help="where to leave the results")
    parser.add_argument("--page", metavar="FILE", help="also put table and picture into this page")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        part, sizes, folder = options.worker
        values = importlib.import_module(f"benchmarks.{part}").worker(Sizes.from_json(sizes), folder)
        json.dump(values, sys.stdout)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # else files of GiBs stay in memory
    start = time.monotonic()
    lines, runs, notes = measure(TINY if options.tiny else QUICK if options.quick else FULL)
    print(terminal(lines, [*notes, f"It took {time.monotonic() - start:.0f} s."]))
    keep(options.results, lines, runs, notes)
    if options.page:
        publish(options.results, options.page)


def measure(sizes: Sizes) -> tuple[list[Line], dict[str, list[Values]], list[str]]:
    """Every part: the table's lines, what the processes measured, and what to know about it."""
    from benchmarks import files, messages, peers, providers, publickeys, rows, sharing, starts

    where, in_memory = workers.storage(4 * sizes.file_bytes + 8 * sizes.peer_bytes)
    with tempfile.TemporaryDirectory(prefix="kmsbridge-bench-", dir=where) as folder:
        runs = {
            "messages": workers.run("messages", sizes, folder, sizes.message_processes),
            "publickeys": workers.run("publickeys", sizes, folder, sizes.message_processes),
            "files": workers.run("files", sizes, folder, sizes.file_processes),
            "sharing": workers.run("sharing", sizes, folder, 3),
            "starts": workers.run("starts", sizes, folder, 1),
            "rows": workers.run("rows", sizes, folder, sizes.peer_processes),
            "providers": workers.run("providers", sizes, folder, 1),
            "peers": workers.run("peers", sizes, folder, sizes.peer_processes),
        }
    lines = [
        *messages.lines(runs["messages"]),
        *publickeys.lines(runs["publickeys"]),
        *files.lines(runs["files"], sizes),
        *sharing.lines(runs["sharing"], sizes),
        *starts.lines(runs["starts"]),
        *rows.lines(runs["rows"], sizes),
        *providers.lines(runs["providers"]),
        *peers.lines(runs["peers"], sizes),
    ]
    return lines, runs, [*_notes(sizes, where, in_memory=in_memory), *_absences(peers.missing())]


def _notes(sizes: Sizes, where: str, *, in_memory: bool) -> list[str]:
    memory = "memory-backed" if in_memory else "perhaps NOT memory: /dev/shm is absent or too small"
    return [
        machine(),
        f"Files of {sizes.file_bytes // MIB} MiB under {where} ({memory}).",
        (
            "Ratios are to the bare cipher of the same direction, or to kmsbridge, measured in turns in the same "
            f"process: medians over {sizes.message_processes} processes for messages, {sizes.file_processes} "
            f"for files, {sizes.peer_processes} for the other libraries. For MB/s, more than 1 is faster."
        ),
        (
            "The other libraries make and wrap a data key for each message; kmsbridge does in the lines that "
            "say so. Tink's messages have no key commitment, and its key service binds no context."
        ),
    ]


def _absences(missing: list[str]) -> list[str]:
    return [f"SKIPPED: {name} is not installed; requirements/bench.txt has it." for name in missing]


def machine() -> str:
    """What it was measured on."""
    import pyperf

    told = pyperf.Run([1.0], metadata={"name": "machine"}).get_metadata()
    packages = []
    for name in ("cryptography", "aws-encryption-sdk", "tink"):
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return (
        f"{told.get('cpu_model_name', platform.machine())}, {told.get('cpu_count', os.cpu_count())} CPUs, "
        f"{platform.system()} {platform.release()}, {platform.python_implementation()} "
        f"{platform.python_version()}, {', '.join(packages)}; load at the end {told.get('load_avg_1min', '?')}."
    )


def keep(folder: str, lines: list[Line], runs: dict[str, list[Values]], notes: list[str]) -> None:
    """Leave the table as Markdown and JSON, every value for pyperf, and a picture."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "table.md"), "w", encoding="utf-8") as file:
        file.write(markdown(lines, notes))
    with open(os.path.join(folder, "table.json"), "w", encoding="utf-8") as file:
        json.dump({"lines": [dataclasses.asdict(line) for line in lines], "notes": notes}, file, indent=1)
    _for_pyperf(runs).dump(os.path.join(folder, "pyperf.json"), replace=True)
    try:
        from benchmarks import picture

        picture.draw(lines, notes[0], os.path.join(folder, "picture.svg"))
    except ImportError:
        print("SKIPPED: no picture, since matplotlib is not installed; requirements/bench.txt has it.")
    print(f"The table, every value (for `python -m pyperf`) and a picture are in {os.path.relpath(folder)}.")


def publish(folder: str, page: str) -> None:
    """Put the table in the place of what stands below `MARK` in `page`, and the picture beside it."""
    with open(page, encoding="utf-8") as file:
        above, mark, _ = file.read().partition(MARK)
    assert mark, f"{page} has no line {MARK}"
    with open(os.path.join(folder, "table.md"), encoding="utf-8") as file:
        table = file.read()
    with open(page, "w", encoding="utf-8") as file:
        file.write(f"{above}{mark}\n\n{table}")
    picture = os.path.join(folder, "picture.svg")
    if os.path.exists(picture):
        shutil.copyfile(picture, os.path.splitext(page)[0] + ".svg")


def _for_pyperf(runs: dict[str, list[Values]]) -> Any:
    import pyperf

    return pyperf.BenchmarkSuite(
        [
            pyperf.Benchmark(
                [
                    pyperf.Run(values[name], metadata={"name": f"{part}: {name}"}, collect_metadata=False)
                    for values in processes
                ]
            )
            for part, processes in runs.items()
            for name in processes[0]
            if not name.startswith("chunks") and not name.endswith("bytes")  # the rest is seconds
        ]
    )


if __name__ == "__main__":
    main()
