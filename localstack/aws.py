"""LocalStack's AWS KMS and STS, on this machine and without Docker, from `.venv-localstack`."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, ClassVar, Final

from localstack.ports import free_port

_ROOT: Final = Path(__file__).parents[1]
_PYTHON: Final = _ROOT / ".venv-localstack" / "bin" / "python"
_SHIM: Final = _ROOT / "localstack" / "sitecustomize"
_PATIENCE: Final = 120.0
REGION: Final = "eu-west-1"
ALIAS: Final = "alias/kmsbridge"

# LocalStack loses all keys when it ends. These tags make the demonstration's key the same at each start, so that
# messages can be decrypted after a restart. It is not a secret.
_TAGS: Final = [
    {"TagKey": "_custom_id_", "TagValue": "6b6d7362-7269-4467-a565-6177736b6579"},
    {
        "TagKey": "_custom_key_material_",
        "TagValue": base64.b64encode(b"for trying kmsbridge: no secret!").decode(),
    },
]

_SETTINGS: Final = {
    "SERVICES": "kms,sts",
    "STRICT_SERVICE_LOADING": "1",
    "EAGER_SERVICE_LOADING": "1",
    "DISABLE_EVENTS": "1",
    "SKIP_SSL_CERT_DOWNLOAD": "1",
    "DNS_ADDRESS": "0",
    "OVERRIDE_IN_DOCKER": "0",  # otherwise, in any container, it writes to /var/lib
    "GATEWAY_SERVER": "hypercorn",  # the other server listens on every interface, whatever GATEWAY_LISTEN says
}


class LocalStack:
    """A LocalStack process. It accepts any access key and enforces no permissions."""

    name: ClassVar[str] = "aws"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> dict[str, str]:
        """Start it, and make the key `alias/kmsbridge`. Raises `RuntimeError` if it does not start."""
        if not _PYTHON.exists():
            raise RuntimeError("LocalStack is not installed; run `make .venv-localstack/.localstack`")
        port = free_port()
        with (self._folder / "localstack.log").open("wb") as log:
            self._process = subprocess.Popen(
                [_PYTHON, "-m", "localstack.runtime.main"],
                cwd=self._folder,  # not the repository, in which the folder `localstack` would hide its package
                env=self._environment(port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        endpoint = f"http://127.0.0.1:{port}"
        self._wait(endpoint)
        make_demo_key(endpoint)
        facts = {"endpoint": endpoint, "region": REGION, "key": ALIAS}
        return {**facts, "configuration": configuration(endpoint)}

    def close(self) -> None:
        """End it. May be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        # SIGTERM sometimes takes half a minute, and there is nothing to save.
        process.kill()
        process.wait()

    def _environment(self, port: int) -> dict[str, str]:
        """Return the process's environment, without credentials and settings for another LocalStack."""
        home = str(self._folder)
        given = {"PATH": os.defpath, "HOME": home, "FILESYSTEM_ROOT": home, "PYTHONPATH": str(_SHIM)}
        return {**given, **_SETTINGS, "GATEWAY_LISTEN": f"127.0.0.1:{port}"}

    def _wait(self, endpoint: str) -> None:
        """Wait until the health answer says that KMS runs; the port opens before that."""
        deadline = time.monotonic() + _PATIENCE
        while not _is_running(endpoint):
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self._folder / "localstack.log").read_text(errors="replace")
                self.close()
                raise RuntimeError(f"LocalStack did not become ready:\n{log[-4000:]}")
            time.sleep(0.1)


def make_demo_key(endpoint: str) -> None:
    """Make the key `alias/kmsbridge` if it does not exist."""
    import boto3

    access = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    kms: Any = boto3.Session().client("kms", region_name=REGION, endpoint_url=endpoint, **access)
    try:
        if ALIAS not in {alias["AliasName"] for alias in kms.list_aliases()["Aliases"]}:
            key = kms.create_key(Description="for trying kmsbridge", Tags=_TAGS)["KeyMetadata"]["KeyId"]
            kms.create_alias(AliasName=ALIAS, TargetKeyId=key)
    finally:
        kms.close()


def configuration(endpoint: str) -> str:
    """Return a key and a profile for kmsbridge.toml."""
    return f"""\
[keys.aws]
uri = "aws-kms://{ALIAS}?region={REGION}&endpoint_url={endpoint}"
access_key_id = "test"
secret_access_key = "test"

[profiles.aws]
encrypt_to = ["aws"]
decrypt_with = ["aws"]
"""


def _is_running(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoint}/_localstack/health", timeout=5) as answer:
            health = json.load(answer)
    except (OSError, ValueError):
        return False
    return bool(health.get("services", {}).get("kms") == "running")
