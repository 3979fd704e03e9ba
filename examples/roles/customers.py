"""The table of customers that the three applications share, and the profile of each encrypted column."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

PROFILES: Final = {"phone": "phones", "api_key": "api-keys"}
"""The profile that encrypts and decrypts each column. Each profile has a key of its own."""

TENANTS: Final = ("acme", "globex")


class Place(NamedTuple):
    """The place of a value: the row's id and tenant, and the column."""

    id: int
    tenant: str
    column: str

    @property
    def context(self) -> dict[str, str]:
        """The encryption context: the key service sees it."""
        return {"tenant": self.tenant}

    @property
    def aad(self) -> tuple[str, int, str]:
        """The associated data: a value that is moved to another row or column cannot be decrypted."""
        return "customers", self.id, self.column


Values = dict[Place, bytes]
"""Messages or plaintexts, by where they stand in the table."""


def create(path: Path) -> None:
    """Make a database with an empty table."""
    with sqlite3.connect(path) as database:
        database.execute(
            "CREATE TABLE customers (id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, phone BLOB, api_key BLOB)"
        )
    database.close()


def store(path: Path, values: Values) -> None:
    """Write these values to their places. Rows that do not exist are made."""
    with sqlite3.connect(path) as database:
        for place, value in values.items():
            database.execute(
                f"INSERT INTO customers (id, tenant, {place.column}) VALUES (?, ?, ?) "
                f"ON CONFLICT (id) DO UPDATE SET {place.column} = excluded.{place.column}",
                (place.id, place.tenant, value),
            )
    database.close()


def load(path: Path) -> Values:
    """Return every message of the table."""
    database = sqlite3.connect(path)
    rows = database.execute("SELECT id, tenant, phone, api_key FROM customers ORDER BY id").fetchall()
    database.close()
    return {
        Place(number, tenant, column): message
        for number, tenant, *messages in rows
        for column, message in zip(PROFILES, messages, strict=True)
        if message is not None
    }


def places(ids: Iterable[int]) -> list[Place]:
    """Return the places of these customers' values. Customers belong to the tenants in turn."""
    return [Place(each, TENANTS[each % len(TENANTS)], column) for each in ids for column in PROFILES]


def plaintext(place: Place) -> bytes:
    """Return what the customer types into the form: made up, and different for each place."""
    return (
        f"+1 555 {place.id:04}".encode() if place.column == "phone" else f"sk_live_{place.id:024x}".encode()
    )
