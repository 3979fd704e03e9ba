"""A whole program that encrypts one message, against one that makes the bare call with the provider's SDK."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.report import Line
from benchmarks.sizes import Sizes
from benchmarks.workers import Values
from localstack import servers

LIMIT = 1.2
OURS = """
from kmsbridge import Encryptor
with Encryptor.from_config(profile="{name}") as encryptor:
    encryptor.encrypt(b"+1 555 0100", context={{"tenant": "acme"}})
"""
# One wrap of 32 bytes, as the provider's own documentation shows it.
BARE = {
    "aws": """
import boto3
client = boto3.client("kms", region_name="{region}", endpoint_url="{endpoint}",
                      aws_access_key_id="test", aws_secret_access_key="test")
client.encrypt(KeyId="{key}", Plaintext=bytes(32), EncryptionContext={{"tenant": "acme"}})
""",
    "gcp": """
import grpc
from google.auth.credentials import AnonymousCredentials
from google.cloud import kms_v1
transport = kms_v1.services.key_management_service.transports.KeyManagementServiceGrpcTransport(
    channel=grpc.insecure_channel("{endpoint}"))
client = kms_v1.KeyManagementServiceClient(transport=transport)
client.encrypt(request={{"name": "{key}", "plaintext": bytes(32), "additional_authenticated_data": b"acme"}})
""",
    "vault": """
import base64, hvac
client = hvac.Client(url="{address}", token="{token}")
client.secrets.transit.encrypt_data(name="{key}", plaintext=base64.b64encode(bytes(32)).decode(),
                                    associated_data=base64.b64encode(b"acme").decode())
""",
}
# A child's peak memory begins with its parent's, so the parent is a small one.
_LAUNCHER = """
import os, sys, time
start = time.perf_counter()
child = os.posix_spawn(sys.executable, [sys.executable, "-c", sys.argv[1]], os.environ)
_, status, usage = os.wait4(child, 0)
print(f"[{status}, {time.perf_counter() - start}, {usage.ru_maxrss}]")
"""
_MIB = 2**20


def worker(sizes: Sizes, folder: str) -> Values:
    """Seconds and peak bytes of each program, by turns; the servers run beside."""
    values: Values = {}
    with ExitStack() as stack:
        for name, bare in BARE.items():
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
            server = servers.make(name, place)
            stack.callback(server.close)
            facts = server.start()
            configuration = place / "kmsbridge.toml"
            configuration.write_text(facts["configuration"])
            environment = {
                **os.environ,
                "KMSBRIDGE_CONFIG": str(configuration),
                "PYTHONPYCACHEPREFIX": str(place / "compiled"),  # all compiled anew, and then no more
            }
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            programs = {"bare": bare.format(**facts), "ours": OURS.format(name=name)}
            for number in range(sizes.starts + 1):
                for whose, code in programs.items():
                    seconds, peak = _whole_program(code, environment)
                    if number:  # the first one compiles modules and warms the server
                        values.setdefault(f"{name} {whose}", []).append(seconds)
                        values.setdefault(f"{name} {whose} bytes", []).append(peak)
            server.close()
    return values


def _whole_program(code: str, environment: dict[str, str]) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, code],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    status, seconds, peak = json.loads(done.stdout)
    if status:
        raise RuntimeError(f"a program ended with {os.waitstatus_to_exitcode(status)}: {code}")
    return seconds, peak * 1024.0


def lines(runs: list[Values]) -> list[Line]:
    """The table's lines."""
    (values,) = runs
    found = []
    for name in BARE:
        for what, suffix, unit, scale in (
            ("time", "", "ms", 1e3),
            ("peak memory", " bytes", "MiB", 1 / _MIB),
        ):
            bare, ours = (statistics.median(values[f"{name} {whose}{suffix}"]) for whose in ("bare", "ours"))
            part = "A program that encrypts one message, ratio to the SDK's bare call"
            found.append(Line(part, f"{name}, {what}", ours * scale, unit, ratio=ours / bare, limit=LIMIT))
    return found
