"""Public-key recipients, whose seeds a local key wraps."""

import os
import shutil
import tempfile
from pathlib import Path

from kmsbridge.driver import KeyURI, Options
from kmsbridge.drivers.hpke import privatefile
from kmsbridge.drivers.hpke.document import parse
from kmsbridge.drivers.hpke.pairs import new_name, new_pair
from kmsbridge.drivers.hpke.suites import HYBRID
from kmsbridge.drivers.local import LocalDriver
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.testing import Harness, KeyAddress

NO_CALL = "unwrapping makes no call once the seed is opened"


class HpkeHarness(Harness):
    """Two keys of one suite."""

    cannot = {
        "disable": "a private file holds keys, and nobody is asked",
        "schedule_deletion": "a private file is there or it is not",
        "expire_credentials": NO_CALL,
        "break_network": NO_CALL,
        "misdirected": NO_CALL,
        "calls": NO_CALL,
        "sdk": "HPKE comes with cryptography, which the library uses itself",
    }

    def __init__(self, suite=HYBRID):
        self.suite = suite
        self._folder = Path(tempfile.mkdtemp())
        keys = self._folder / "keys.json"
        KeyFile.create(keys, "seeds").close()
        self.protecting = {"uri": f"local:{keys}#seeds"}
        self._driver = LocalDriver.open(KeyURI.parse(self.protecting["uri"]), Options({}))
        self.secrets = []
        self._names = {which: new_name(which) for which in ("first", "second")}
        for which in self._names:
            privatefile.create(self._path(which), self._new_pair(which))

    def address(self, which, role="both"):
        uri = f"hpke:{self._names[which]}"
        if role == "encrypt-only":
            return KeyAddress(uri, {"public_key": self.public_key(which).line()})
        return KeyAddress(uri, {"private_file": self._path(which), "protect_with": self.protecting})

    def named(self, name):
        return KeyAddress(f"hpke:{name}", {"public_key": self.public_key("first").line()})

    def rotate(self, which):
        privatefile.add(self._path(which), lambda _: self._new_pair(which))

    def delete(self, which):
        os.unlink(self._path(which))

    def public_key(self, which):
        """The public key that a host encrypts to now."""
        document = parse(Path(self._path(which)).read_bytes(), "")
        return document.encrypting(privatefile.now()).public_key

    def close(self):
        self._driver.close()
        shutil.rmtree(self._folder)

    def _path(self, which):
        return str(self._folder / f"{which}.toml")

    def _new_pair(self, which):
        now = privatefile.now()
        return new_pair(
            self._names[which], self.suite, self._wrap, self._unwrap, created=now, encrypt_from=now
        )

    def _wrap(self, seed, context):
        self.secrets.append(seed)
        return self._driver.wrap(seed, context, timeout=10)

    def _unwrap(self, wrapped, context):
        return self._driver.unwrap(wrapped, context, timeout=10)
