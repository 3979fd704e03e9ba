"""The driver keeps the contract of kmsbridge."""

import shutil
import tempfile

import pytest
from kms_sqlite import add_version, database  # type: ignore[import-not-found]  # where it is installed

from kmsbridge.testing import DriverContract, Harness, KeyAddress


class SqliteHarness(Harness):
    cannot = {
        "roles": "who can read the file can do anything with it",
        "schedule_deletion": "a key is there or it is not",
        "expire_credentials": "a file takes none",
        "break_network": "a file has no network",
        "misdirected": "a file has no network",
        "calls": "a file does not count",
        "sdk": "Python brings SQLite along",
        "secrets": "a file takes none",
        "test_fork_amid_calls_leaves_the_child_able": "SQLite's own locks do not survive a fork amid calls",
    }

    def __init__(self):
        self.folder = tempfile.mkdtemp()
        self.path = f"{self.folder}/keys.db"
        for name in ("first", "second"):
            add_version(self.path, name)

    def address(self, which, role="both"):
        return self.named(which)

    def named(self, name):
        return KeyAddress(f"sqlite-kms:{self.path}#{name}")

    def rotate(self, which):
        add_version(self.path, which)

    def disable(self, which):
        self._execute("UPDATE keys SET state = 'disabled' WHERE name = ?", which)

    def enable(self, which):
        self._execute("UPDATE keys SET state = 'enabled' WHERE name = ?", which)

    def delete(self, which):
        self._execute("DELETE FROM keys WHERE name = ?", which)

    def close(self):
        shutil.rmtree(self.folder)

    def _execute(self, statement, which):
        with database(self.path, timeout=10) as connection:
            connection.execute(statement, (which,))


class TestSqlite(DriverContract):
    @pytest.fixture
    def harness(self):
        return SqliteHarness()
