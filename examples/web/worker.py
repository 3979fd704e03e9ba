"""The worker: it reads phone numbers to call customers, and moves all rows to the key's current version.

DATABASE_URL=... KMSBRIDGE_CONFIG=worker.toml python -m examples.web.worker call|rewrap
"""

from __future__ import annotations

import os
import sys

from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, sessionmaker

from examples.web.models import Customer
from kmsbridge import EnvelopeCipher
from kmsbridge.integrations.sqlalchemy import bind, decrypt_all, rewrap_rows


def call(sessions: sessionmaker[Session]) -> None:
    """Print the phone number of every customer, which stands for calling them."""
    with sessions() as session:
        customers = session.scalars(select(Customer).order_by(Customer.name)).all()
        decrypt_all(session, customers, "phone")
        for customer in customers:
            print(customer.name, customer.phone)


def rewrap(sessions: sessionmaker[Session], cipher: EnvelopeCipher) -> None:
    """Rewrap the table, a hundred rows in each transaction."""
    after = None
    while True:
        with sessions.begin() as session:
            after = rewrap_rows(session, cipher, Customer, after=after, limit=100)
        if after is None:
            return


def main(task: str) -> None:
    """Do one task."""
    engine = create_engine(os.environ["DATABASE_URL"])
    sessions = sessionmaker(engine)
    with EnvelopeCipher.from_config(profile="phones") as cipher:
        bind(sessions, write=cipher, read=cipher)
        if task == "call":
            call(sessions)
        else:
            rewrap(sessions, cipher)
    engine.dispose()


if __name__ == "__main__":
    main(sys.argv[1])
