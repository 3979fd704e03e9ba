"""The integration and the naive implementation, each with a database of its own."""

import pytest

from kmsbridge.integrations import sqlalchemy as ours
from tests.integrations.sqlalchemy import naive
from tests.integrations.sqlalchemy.world import World


@pytest.fixture(params=(ours, naive), ids=("ours", "naive"))
def world(request, cipher):
    """For a test that is a `trap`."""
    world = World(request.param, cipher)
    yield world
    world.engine.dispose()


@pytest.fixture
def ours_alone(cipher):
    """For what the naive implementation has not, or does right."""
    world = World(ours, cipher)
    yield world
    world.engine.dispose()
