"""Keys in a file."""

import shutil
import tempfile
from pathlib import Path

from kmsbridge.driver import KeyState, Secret
from kmsbridge.drivers.local.document import Cost
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.testing import Harness, KeyAddress


class LocalHarness(Harness):
    """Two keys in one file; with `passphrase`, a protected one."""

    cannot = {
        "roles": "who can read a key file can both wrap and unwrap",
        "schedule_deletion": "a key is in the file or it is not",
        "expire_credentials": "the file's permissions do not expire",
        "break_network": "there is no network to a file",
        "misdirected": "there is no network to a file",
        "calls": "a file does not count its readers",
        "sdk": "reading a file takes none",
    }

    def __init__(self, passphrase=""):
        self._folder = Path(tempfile.mkdtemp())
        self._path = self._folder / "keys.json"
        self._options = {"passphrase": passphrase} if passphrase else {}
        if passphrase:
            self.secrets = [passphrase.encode()]
        else:
            self.cannot = {**self.cannot, "secrets": "a file without a passphrase takes none"}
        secret = Secret(passphrase.encode()) if passphrase else None
        # As cheap as a passphrase can be made: what it costs to guess is not what is examined.
        cheapest = Cost(1, 8, 1)
        self._file = KeyFile.create(self._path, "first", secret, cost=cheapest)
        self._file.add_key("second")

    def address(self, which, role="both"):
        return KeyAddress(f"local:{self._path}#{which}", self._options)

    def named(self, name):
        return KeyAddress(f"local:{self._path}#{name}", self._options)

    def rotate(self, which):
        self._file.rotate(which)

    def disable(self, which):
        self._file.set_state(which, KeyState.DISABLED)

    def enable(self, which):
        self._file.set_state(which, KeyState.ENABLED)

    def delete(self, which):
        self._file.remove_key(which)

    def close(self):
        self._file.close()
        shutil.rmtree(self._folder)
