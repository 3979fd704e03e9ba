"""Ten thousand rows of many tenants: how often the key service is asked."""

from contextlib import ExitStack

import pytest
from sqlalchemy import insert, select

from kmsbridge import Decryptor, Encryptor
from kmsbridge.integrations import sqlalchemy as ours
from tests.backends.every import configuration, harness

TENANTS = 50
BATCH = 200
"""Data keys that Vault unwraps in a request."""


def rows(count, tenants):
    return [{"id": str(n), "tenant": f"t{n % tenants}", "phone": f"+{n}"} for n in range(count)]


def test_a_flush_wraps_one_data_key_for_each_tenant(ours_alone, service, torture):
    """However many rows it has; and reading them all unwraps each once."""
    count = 10_000 if torture.scale == 1.0 else 2_000
    with ours_alone.Session() as session:
        session.add_all(ours_alone.User(**row) for row in rows(count, TENANTS))
        session.commit()
        assert ours_alone.cipher.calls == ["encrypt"]
        assert sum(service.app.calls[each] for each in ("wrap", "wrap_many")) <= TENANTS
        users = session.scalars(select(ours_alone.User)).all()
        ours.decrypt_all(session, users, "phone")
        assert {user.phone for user in users} == {f"+{n}" for n in range(count)}
        assert sum(service.app.calls[each] for each in ("unwrap", "unwrap_many")) <= TENANTS


@pytest.mark.slow
def test_decrypt_all_asks_vault_once_for_two_hundred_data_keys(ours_alone, tmp_path):
    """Of ten thousand rows, on a real server."""
    count, tenants = 10_000, 450
    with ExitStack() as stack:
        server = harness("vault")
        stack.callback(server.close)
        path = tmp_path / "kmsbridge.toml"
        profiles = {"web": {"encrypt_to": ["app"]}, "worker": {"decrypt_with": ["app"]}}
        path.write_text(configuration({"app": server.address("first")}, profiles))
        encryptor = stack.enter_context(Encryptor.from_config(path, profile="web"))
        decryptor = stack.enter_context(Decryptor.from_config(path, profile="worker"))
        with ours_alone.sessions(write=encryptor)() as session:
            encrypted = ours.encrypt_rows(session, ours_alone.User, rows(count, tenants))
            session.execute(insert(ours_alone.User), encrypted)
            session.commit()
        before = server.calls("first")
        assert before <= tenants
        with ours_alone.sessions(read=decryptor)() as session:
            users = session.scalars(select(ours_alone.User)).all()
            ours.decrypt_all(session, users, "phone", "prefs")
            assert {user.phone for user in users} == {f"+{n}" for n in range(count)}
        assert server.calls("first") - before == -(-tenants // BATCH)
