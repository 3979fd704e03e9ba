"""Sets up the policies, credentials and configurations of the three hosts, with keys in OpenBao and with public keys."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol, Self

from examples.roles import customers

ROOT: Final = Path(__file__).parents[2]
BACKENDS: Final = ("openbao", "hpke")
HOSTS: Final = ("web", "worker", "internal")
KEYS: Final = ("phones", "api-keys")
SEEDS: Final = tuple(f"{key}-seed" for key in KEYS)
"""The keys of OpenBao that protect the pairs of `KEYS`."""

FIRST_USER: Final = 64_000
"""The id of the group that may use the databases. The users of the hosts have the next ones."""

MAY: Final[Mapping[str, Mapping[str, str]]] = {
    "web": {"phones": "encryptor", "api-keys": "encryptor"},
    "worker": {"phones": "decryptor", "api-keys": "decryptor"},
    "internal": {"phones": "decryptor"},
}
"""The role of each host for each key that it may use."""


class Server(Protocol):
    """A server of OpenBao, as its administrator has it."""

    address: str
    token: str

    def ask(self, method: Any, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the answer's JSON."""


class Host:
    """A running host: it does what it is told, and answers."""

    def __init__(self, folder: Path, database: Path, user: int | None) -> None:
        self.folder = folder
        ids = [] if user is None else [str(user), str(FIRST_USER)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.roles.host", folder / "kmsbridge.toml", database, *ids],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, order: str, *arguments: Any) -> Any:
        """Have the host do something, and return its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([order, *arguments]) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> Any:
        """Wait for the next answer; the first one says that the host is ready."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the host {self.folder.name} has ended")
        return json.loads(line)

    def close(self) -> None:
        """End the process and wait for it."""
        self.process.communicate()


class Deployment:
    """The hosts of both backends, in `folder`, with keys in `server`. Data keys live for `max_age` seconds.

    With `users`, each host runs as a user of its own: see `can_change_users`.
    """

    def __init__(self, folder: Path, server: Server, *, max_age: float, users: bool) -> None:
        self.folder, self.server, self.max_age, self.users = folder, server, max_age, users
        self.mount = f"roles-{secrets.token_hex(4)}"
        self.policies: dict[tuple[str, str], str] = {}
        self.hosts: dict[tuple[str, str], Host] = {}

    def __enter__(self) -> Self:
        try:
            self._make_keys()
            self._make_files()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the hosts."""
        for backend in BACKENDS:
            for number, host in enumerate(HOSTS, 1):
                user = FIRST_USER + number if self.users else None
                self.hosts[backend, host] = Host(self.path(backend, host), self.database(backend), user)
        for each in self.hosts.values():
            each.answer()

    def close(self) -> None:
        """End every process, and remove from the server what was made on it."""
        for host in self.hosts.values():
            host.close()
        for key, role in self.policies:
            self.server.ask("DELETE", f"sys/policies/acl/{self._policy(key, role)}")
        self.server.ask("DELETE", f"sys/mounts/{self.mount}")

    def path(self, backend: str, host: str) -> Path:
        """Return the folder of a host: its configuration, and its credentials."""
        return self.folder / f"{backend}-{host}"

    def database(self, backend: str) -> Path:
        """Return the path of the database that the hosts of a backend share."""
        return self.folder / backend / "customers.db"

    def _make_keys(self) -> None:
        self.server.ask("POST", f"sys/mounts/{self.mount}", {"type": "transit"})
        for key in KEYS + SEEDS:
            self.server.ask("POST", f"{self.mount}/keys/{key}", {"type": "aes256-gcm96"})
        operator = self.folder / "operator"
        operator.mkdir(mode=0o700)
        keys = [self._key(key) for key in KEYS + SEEDS]
        profile = f"[profiles.all]\nencrypt_to = {json.dumps(KEYS + SEEDS)}\n"
        _write(operator / "token", self.server.token)
        _write(operator / "kmsbridge.toml", "\n".join([*keys, profile]))
        wanted = [
            *((key, "encryptor") for key in KEYS),
            *((key, "decryptor") for key in KEYS + SEEDS),
        ]
        with ThreadPoolExecutor() as pool:
            pairs = pool.map(self._make_pair, KEYS)
            policies = pool.map(
                lambda each: self._operator(f"kmsbridge policy {each[0]} --role {each[1]}"), wanted
            )
            self.policies = dict(zip(wanted, policies, strict=True))
            self.public_keys = dict(zip(KEYS, pairs, strict=True))
        for (key, role), text in self.policies.items():
            self.server.ask("POST", f"sys/policies/acl/{self._policy(key, role)}", {"policy": text})

    def doctor(
        self, files: Mapping[str, bytes], profile: str, expect: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `kmsbridge doctor` as a host that has these files would, and return what it says."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            for name, data in files.items():
                write(Path(folder, name), data)
            return command(f"kmsbridge doctor --profile {profile} --expect {expect}", Path(folder))

    def _operator(self, line: str) -> str:
        done = command(line, self.folder / "operator")
        if done.returncode != 0:
            raise RuntimeError(f"{line}: exit code {done.returncode}: {done.stderr}")
        return done.stdout

    def _make_pair(self, key: str) -> str:
        return self._operator(f"kmsbridge keygen {key} --protect-with {key}-seed --quiet -o {key}.hpke.toml")

    def _make_files(self) -> None:
        self.folder.chmod(0o711)
        for backend in BACKENDS:
            database = self.database(backend)
            database.parent.mkdir()
            customers.create(database)
            if self.users:
                for path in (database.parent, database):
                    os.chown(path, -1, FIRST_USER)
                database.parent.chmod(0o770)
                database.chmod(0o660)
            for host in HOSTS:
                self.path(backend, host).mkdir(mode=0o700)
                getattr(self, f"_furnish_{backend}")(host)

    def _furnish_openbao(self, host: str) -> None:
        use = "encrypt_to" if host == "web" else "decrypt_with"
        text = [self._key(key) + self._profile(key, use) for key in MAY[host]]
        _write(self.path("openbao", host) / "kmsbridge.toml", "\n".join(text))
        self._give_token(self.path("openbao", host), MAY[host].items())

    def _furnish_hpke(self, host: str) -> None:
        folder, text = self.path("hpke", host), []
        for key in MAY[host]:
            if host == "web":
                _write(folder / f"{key}.pub", self.public_keys[key])
                text += [f'[keys.{key}]\nuri = "hpke:{key}"\npublic_key = "file:{key}.pub"\n']
                text += [self._profile(key, "encrypt_to")]
            else:
                _write(
                    folder / f"{key}.hpke.toml", (self.folder / "operator" / f"{key}.hpke.toml").read_text()
                )
                text += [
                    f'[keys.{key}]\nuri = "hpke:{key}"\nprivate_file = "{key}.hpke.toml"\nprotect_with = "{key}-seed"\n'
                ]
                text += [self._key(f"{key}-seed") + self._profile(key, "decrypt_with")]
        _write(folder / "kmsbridge.toml", "\n".join(text))
        if host != "web":
            self._give_token(folder, [(f"{key}-seed", "decryptor") for key in MAY[host]])

    def _give_token(self, folder: Path, rights: Any) -> None:
        names = [self._policy(key, role) for key, role in rights]
        made = self.server.ask(
            "POST", "auth/token/create", {"policies": names, "ttl": "1h", "no_parent": True}
        )
        _write(folder / "token", made["auth"]["client_token"])

    def _key(self, key: str) -> str:
        return (
            f'[keys.{key}]\nuri = "vault-transit://{self.mount}/{key}"\naddress = "{self.server.address}"\n'
            'auth = { method = "token_file", file = "token" }\n\n'
        )

    def _profile(self, key: str, use: str) -> str:
        return (
            f'[profiles.{key}]\n{use} = ["{key}"]\ndata_keys = {{ max_age = {self.max_age} }}\n'
            f'audit = {{ file = "audit-{key}.jsonl" }}\n'
        )

    def _policy(self, key: str, role: str) -> str:
        return f"{self.mount}-{key}-{role}"


def environment() -> dict[str, str]:
    """Return the environment of every process that is started: nothing in it is secret."""
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LC_ALL") if name in os.environ}


def can_change_users() -> bool:
    """Return whether this process can start hosts that run as other users."""
    return os.geteuid() == 0 and sys.platform == "linux"


def command(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of `kmsbridge` in a folder, and return how it ended and what it printed."""
    _, *words = shlex.split(line)
    return subprocess.run(
        [sys.executable, "-m", "kmsbridge", *words],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def write(path: Path, data: bytes) -> None:
    """Write a file that only this user may read."""
    path.touch(mode=0o600)
    path.write_bytes(data)


def _write(path: Path, text: str) -> None:
    write(path, text.encode())
