"""Alembic's autogenerate: an encrypted column is a column of bytes, and a migrated database has no difference."""

import sqlalchemy
from alembic import op
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations

from tests.integrations.sqlalchemy.world import trap


@trap
def test_a_migration_has_bytes_and_the_second_one_is_empty(world):
    """What is rendered runs without this library, and needs no import."""
    world.Base.registry.configure()
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        made = produce_migrations(context, world.Base.metadata)
        code = render_python_code(made.upgrade_ops)
        assert "sa.Column('phone', sa.LargeBinary(), nullable=True)" in code
        assert "kmsbridge" not in code
        with Operations.context(context):
            names = {"op": op, "sa": sqlalchemy}
            exec("def upgrade():\n    " + code, names)
            names["upgrade"]()  # type: ignore[operator]
        assert compare_metadata(context, world.Base.metadata) == []
    engine.dispose()
