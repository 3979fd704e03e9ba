"""The integration and the naive implementation, each with a database of its own."""

import secrets

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from kmsbridge.integrations import sqlalchemy as ours
from tests.backends import facts
from tests.integrations.sqlalchemy import naive
from tests.integrations.sqlalchemy.world import SQLITE, Database, World


@pytest.fixture
def postgres():
    """A schema of its own in the server of this run."""
    url, schema = facts("postgres")["url"], f"world_{secrets.token_hex(6)}"
    server = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with server.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    options = {"poolclass": NullPool, "connect_args": {"options": f"-csearch_path={schema}"}}
    yield Database(url, url, options, options)
    with server.connect() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))


@pytest.fixture(params=("ours", "naive", "ours on PostgreSQL"))
def world(request, cipher):
    """For a test that is a `trap`."""
    database = request.getfixturevalue("postgres") if "PostgreSQL" in request.param else SQLITE
    world = World(naive if request.param == "naive" else ours, cipher, database)
    yield world
    world.engine.dispose()


@pytest.fixture
def ours_alone(cipher):
    """For what the naive implementation has not, or does right."""
    world = World(ours, cipher)
    yield world
    world.engine.dispose()
