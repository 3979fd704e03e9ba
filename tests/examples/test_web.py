"""The web application of `examples/web`, as its users run it: on PostgreSQL and OpenBao, in processes of its own."""

import secrets
import threading

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from examples.web.browser import ask
from examples.web.deployment import Deployment
from kmsbridge import inspect
from tests.backends import facts
from tests.backends.vault import Vault

pytestmark = pytest.mark.slow
TENANTS = ("acme", "umbrella")


@pytest.fixture(scope="module")
def database_url():
    """A database of its own."""
    server = create_engine(facts("postgres")["url"], isolation_level="AUTOCOMMIT")
    name = f"web_{secrets.token_hex(6)}"
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield make_url(facts("postgres")["url"]).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture(scope="module")
def application(database_url, tmp_path_factory):
    with Deployment(tmp_path_factory.mktemp("web"), Vault(), database_url) as deployment:
        for tenant in TENANTS:
            for number in range(20):
                phone = f"020 7946 00{number:02}"
                status, _ = ask(
                    f"{deployment.url}/customers", tenant, {"name": f"c{number:02}", "phone": phone}
                )
                assert status == 201
        yield deployment


def rows(application):
    engine = create_engine(application.database_url)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT * FROM customers ORDER BY tenant, name")).mappings().all()
    engine.dispose()
    return found


def test_the_database_has_no_phone_number(application):
    stored = repr([list(row.values()) for row in rows(application)])
    assert "7946" not in stored
    assert len({row["phone_index"] for row in rows(application)}) == len(rows(application))


def test_the_web_server_finds_a_number_and_shows_its_last_digits(application):
    """However it is written, and for its own tenant only."""
    status, found = ask(f"{application.url}/customers/search", "acme", {"phone": "+44 (20) 7946-0007"})
    assert status == 200
    assert [(each["name"], each["phone"]) for each in found] == [("c07", "...0007")]
    assert ask(f"{application.url}/customers/search", "nobody", {"phone": "020 7946 0007"}) == (200, [])


def test_the_web_server_cannot_read_a_number(application):
    """Not by its program, and not by its token."""
    _, (customer,) = ask(f"{application.url}/customers/search", "acme", {"phone": "020 7946 0001"})
    status, answer = ask(f"{application.url}/customers/{customer['id']}/phone", "acme")
    assert status == 403
    assert "7946" not in repr(answer)
    done = application.kmsbridge("web", "doctor", "--profile", "phones", "--expect", "encrypt-only")
    assert done.returncode == 0, done.stdout
    assert "unwrap     no: access denied" in done.stdout


def test_the_worker_reads_all(application):
    lines = application.worker("call").splitlines()
    wanted = [f"c{number:02} 020 7946 00{number:02}" for number in range(20) for _ in TENANTS]
    assert [line for line in lines if line.startswith("c")] == wanted


def test_the_key_is_rotated_and_all_rows_rewrapped_while_requests_run(application):
    """No request fails, and no row is lost."""
    answers, ended = [], threading.Event()

    def keep_asking(number):
        while not ended.is_set():
            body = {"name": f"n{number}", "phone": f"+358 9 5550 {len(answers) % 1000:03}"}
            answers.append(ask(f"{application.url}/customers", "acme", body)[0])
            answers.append(ask(f"{application.url}/customers/search", "acme", {"phone": "020 7946 0003"})[0])

    before = {row["id"] for row in rows(application)}
    threads = [threading.Thread(target=keep_asking, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        done = application.kmsbridge("operator", "rotate", "phones", "--profile", "phones")
        assert done.returncode == 0, done.stderr
        application.worker("rewrap")
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert set(answers) == {200, 201}
    after = rows(application)
    assert len(after) == len(before) + answers.count(201)
    versions = {inspect(row["phone"]).recipients[0].key_version for row in after if row["id"] in before}
    assert versions == {"2"}
    assert len(application.worker("call").splitlines()) == len(after)


def test_a_number_that_is_none_is_refused_and_not_repeated(application):
    status, answer = ask(f"{application.url}/customers", "acme", {"name": "x", "phone": "secret-words"})
    assert status == 422
    assert "secret-words" not in repr(answer)
