"""A large file: throughput beside a bare loop on one thread, peak memory, and reads at random."""

from __future__ import annotations

import filecmp
import io
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from benchmarks import bare, keys
from benchmarks.report import Line
from benchmarks.sizes import MIB, Sizes
from benchmarks.workers import Values, output
from kmsbridge import EnvelopeCipher
from kmsbridge.message import cobblestone

READ = 4096
COMMAND = "kmsbridge"

_PEAK = """
import sys
def peak():
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    except FileNotFoundError:
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
"""
# VmHWM, because ru_maxrss begins with what the parent had when it started this process.
_BARE_PEAK = f"{_PEAK}print(peak())"
_FILE_PEAK = f"""{_PEAK}
from kmsbridge import EnvelopeCipher
uri, operation, source, target = sys.argv[1:]
with EnvelopeCipher.from_uri(uri) as cipher:
    getattr(cipher, operation)(source, target)
print(peak())
"""


def make_source(path: str, size: int) -> None:
    """A file of `size` bytes that do not compress."""
    block = random.Random(1).randbytes(MIB)
    with open(path, "wb") as file:
        file.writelines(block[: size - start] for start in range(0, size, MIB))


def _command(uri: str, operation: str) -> Callable[[str, str], object]:
    """`kmsbridge encrypt` or `kmsbridge decrypt` as a process of its own."""
    command, environment = (
        [sys.executable, "-m", "kmsbridge", operation],
        {**os.environ, "KMSBRIDGE_KEY": uri},
    )

    def step(source: str, target: str) -> None:
        subprocess.run([*command, source, "-o", target], check=True, env=environment)

    return step


def worker(sizes: Sizes, folder: str) -> Values:
    """Seconds a file, and a read."""
    uri, path = keys.uri(folder), partial(os.path.join, folder)
    source, sealed, bare_sealed, opened = path("source"), path("sealed"), path("bare"), path("opened")
    if not os.path.exists(source):
        make_source(source, sizes.file_bytes)
    nothing, sealed_nothing = path("nothing"), path("sealed-nothing")
    make_source(nothing, 0)
    encrypt, decrypt = _command(uri, "encrypt"), _command(uri, "decrypt")
    with EnvelopeCipher.from_uri(uri) as cipher:
        steps = {
            "bare encrypt": (bare.encrypt_file, source, bare_sealed),
            "encrypt_file": (cipher.encrypt_file, source, sealed),
            f"{COMMAND} encrypt": (encrypt, source, sealed),
            "start of encrypt": (encrypt, nothing, sealed_nothing),
            "bare decrypt": (bare.decrypt_file, bare_sealed, opened),
            "decrypt_file": (cipher.decrypt_file, sealed, opened),
            f"{COMMAND} decrypt": (decrypt, sealed, opened),
            "start of decrypt": (decrypt, sealed_nothing, path("opened-nothing")),
        }
        values = _take_turns(steps, sizes.file_rounds)
        assert filecmp.cmp(source, opened, shallow=False), "what came back is not what was put in"
        os.unlink(opened)
        values |= _read_at_random(cipher, sealed, sizes)
    os.unlink(bare_sealed)
    values |= _peaks(uri, source, sealed, opened)
    return values


def _take_turns(steps: dict[str, tuple[Callable[[str, str], object], str, str]], rounds: int) -> Values:
    """Each direction's steps in any order, since the later ones find warmer memory than the first.

    What a command takes for an empty file, its start, is taken off.
    """
    values: Values = {name: [] for name in steps}
    names = list(steps)
    for number in range(rounds + 1):
        for direction in (names[:4], names[4:]):
            for name in random.sample(direction, 4):
                seconds = _time(*steps[name])
                if number:  # a machine's first touch of its memory is not what is measured
                    values[name].append(seconds)
    for operation in ("encrypt", "decrypt"):
        name, starts = f"{COMMAND} {operation}", values.pop(f"start of {operation}")
        values[name] = [max(whole - start, 1e-6) for whole, start in zip(values[name], starts, strict=True)]
    return values


def _time(step: Callable[[str, str], object], source: str, target: str) -> float:
    if os.path.exists(target):
        os.unlink(target)  # to free a large file takes time as well
    start = time.perf_counter()
    step(source, target)
    return time.perf_counter() - start


class _Counting(io.FileIO):
    """A file that counts what is read of it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data or b"")
        return data


def _read_at_random(cipher: EnvelopeCipher, sealed: str, sizes: Sizes) -> Values:
    chooser = random.Random(2)
    offsets = [chooser.randrange(sizes.file_bytes - READ) for _ in range(sizes.reads)]
    start = time.perf_counter()
    with cipher.open(sealed) as reader:
        for offset in offsets:
            reader.seek(offset)
            reader.read(READ)
    seconds = (time.perf_counter() - start) / sizes.reads
    with _Counting(sealed) as counting, cipher.open(counting) as reader:
        before = counting.count
        for offset in offsets:
            reader.seek(offset)
            reader.read(READ)
    needed = sum(
        (offset + READ - 1) // cobblestone.CHUNK - offset // cobblestone.CHUNK + 1 for offset in offsets
    )
    touched = (counting.count - before) / cobblestone.ENCRYPTED_CHUNK
    return {"read": [seconds], "chunks touched": [touched], "chunks needed": [needed]}


def _peaks(uri: str, source: str, sealed: str, opened: str) -> Values:
    bare_peak = int(output(_BARE_PEAK))
    peaks = {
        "encrypt_file": int(output(_FILE_PEAK, uri, "encrypt_file", source, sealed)),
        "decrypt_file": int(output(_FILE_PEAK, uri, "decrypt_file", sealed, opened)),
    }
    os.unlink(opened)
    return {f"{name} bytes": [peak - bare_peak] for name, peak in peaks.items()}


def lines(runs: list[Values], sizes: Sizes) -> list[Line]:
    """The table's lines."""
    part = f"File of {sizes.file_bytes // MIB:,} MiB"
    found = [
        _speed(part, runs, name, sizes)
        for operation in ("encrypt", "decrypt")
        for name in (f"{operation}_file", f"{COMMAND} {operation}", f"bare {operation}")
    ]
    for name in ("encrypt_file", "decrypt_file"):
        peak = max(values[f"{name} bytes"][0] for values in runs) / MIB
        found.append(Line(part, f"{name}, peak memory above the interpreter", peak, "MiB", limit=64))
    return found + _read_lines(f"Decryptor.open on that file, {READ:,} bytes at random", runs, sizes)


def _speed(part: str, runs: list[Values], name: str, sizes: Sizes) -> Line:
    figure = sizes.file_bytes / 1e6 / statistics.median(s for values in runs for s in values[name])
    if name.startswith("bare"):
        return Line(part, f"{name}, read and write in a loop on one thread", figure, "MB/s")
    base = f"bare {'encrypt' if 'encrypt' in name else 'decrypt'}"
    pairs = [pair for values in runs for pair in zip(values[base], values[name], strict=True)]
    ratio = statistics.median(alone / ours for alone, ours in pairs)
    shown = f"{name}, without its start" if name.startswith(COMMAND) else name
    return Line(part, shown, figure, "MB/s", ratio=ratio, limit=1.5, at_least=True)


def _read_lines(part: str, runs: list[Values], sizes: Sizes) -> list[Line]:
    seconds = statistics.median(values["read"][0] for values in runs)
    needed, touched = runs[0]["chunks needed"][0], max(values["chunks touched"][0] for values in runs)
    return [
        Line(part, f"{sizes.reads:,} reads, each", seconds * 1e6, "us"),
        Line(part, "chunks read and decrypted", touched, "chunks", limit=needed),
    ]
