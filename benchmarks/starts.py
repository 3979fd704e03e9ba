"""What it costs to import, to open, and to encrypt for the first time."""

from __future__ import annotations

import json
import statistics

from benchmarks import keys, peers
from benchmarks.report import Line
from benchmarks.sizes import Sizes
from benchmarks.workers import Values, cpu_seconds, output

BARE = "bare interpreter"
OURS = {
    BARE: "pass",
    "import kmsbridge": "import kmsbridge",
    "from kmsbridge import EnvelopeCipher": "from kmsbridge import EnvelopeCipher",
    "import cryptography.cobblestone": "import cryptography.cobblestone",
}
THEIRS = {
    "AWS Encryption SDK": (
        "import aws_encryption_sdk\n"
        "from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders"
    ),
    "Tink": "from tink import aead, streaming_aead",
}
LIMITS = {"import kmsbridge": 40.0}

_LOADED = "import sys; before = set(sys.modules); import kmsbridge; print(*set(sys.modules) - before)"
# Names at the top of what providers and the command line need.
SDKS = {"boto3", "botocore", "google", "hvac", "azure", "grpc", "requests", "urllib3"}
HEAVY = SDKS | {"click", "rich", "tomlkit", "stevedore", "asyncio"}
_COLD = """
import json, sys, time
times = [time.perf_counter()]
from kmsbridge import EnvelopeCipher
times.append(time.perf_counter())
cipher = EnvelopeCipher.from_uri(sys.argv[1])
times.append(time.perf_counter())
cipher.encrypt(bytes(100))
times.append(time.perf_counter())
cipher.encrypt(bytes(100))
times.append(time.perf_counter())
print(json.dumps([after - before for before, after in zip(times, times[1:])]))
"""
_STEPS = ("import EnvelopeCipher", "open it, local key", "first encrypt, local key", "second encrypt")


def worker(sizes: Sizes, folder: str) -> Values:
    """CPU seconds of each import, the bare interpreter's included, and seconds of each cold step."""
    missing = peers.missing()
    available = {name: code for name, code in THEIRS.items() if name not in missing}
    values: Values = {name: [] for name in (*OURS, *available)}
    for code in (OURS | available).values():
        cpu_seconds(code)  # so that the compiled modules are there
    for number in range(sizes.starts):
        for name, code in (OURS if number % 5 else OURS | available).items():
            values[name].append(cpu_seconds(code))
    for _ in range(sizes.starts):
        for step, seconds in zip(_STEPS, json.loads(output(_COLD, keys.uri(folder))), strict=True):
            values.setdefault(step, []).append(seconds)
    return values


def heavy_modules() -> list[str]:
    """What `import kmsbridge` loads of providers' and the command line's libraries: none, it should be."""
    return sorted({name.partition(".")[0] for name in output(_LOADED).split()} & HEAVY)


def lines(runs: list[Values]) -> list[Line]:
    """The table's lines."""
    values = {name: statistics.median(seconds) * 1e3 for name, seconds in runs[0].items()}
    bare = values.pop(BARE)
    part = "Import, CPU above the bare interpreter"
    found = [
        Line(part, name, max(milliseconds - bare, 0.0), "ms", limit=LIMITS.get(name))
        for name, milliseconds in values.items()
        if name not in _STEPS
    ]
    heavy = len(heavy_modules())
    found.append(Line(part, "SDKs and CLI libraries that import kmsbridge loads", heavy, "found", limit=0))
    return found + [Line("Cold start of one process", step, values[step], "ms") for step in _STEPS]
