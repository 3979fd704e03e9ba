"""Shows a web server that stores, finds and shows parts of phone numbers that it cannot read. Run it by `make demo-web`.

PostgreSQL and OpenBao are started for it, listen on this machine alone, and are ended and removed at the end.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from sqlalchemy import create_engine, text

from examples.web.browser import ask
from examples.web.deployment import MAY, Deployment
from kmsbridge import inspect
from localstack.openbao import OpenBaoDev
from localstack.postgres import Postgres

PEOPLE: Final = {"Ada": "020 7946 0018", "Grace": "+1 202 555 0143", "Linus": "+358 9 5550 100"}
BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")


def main() -> None:
    """Set the application up and use it."""
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that everything is cleaned up
    with tempfile.TemporaryDirectory(prefix="kmsbridge-web-") as folder:
        for name in ("postgres", "openbao", "application"):
            Path(folder, name).mkdir()
        database, openbao = Postgres(Path(folder, "postgres")), OpenBaoDev(Path(folder, "openbao"))
        try:
            url = database.start()["url"]
            openbao.start()
            with Deployment(Path(folder, "application"), openbao, url) as deployment:
                show(deployment)
        finally:
            openbao.close()
            database.close()
    print(f"\nDone in {time.monotonic() - started:.0f} s. Next: docs/how-to/use-with-sqlalchemy.md")


def show(deployment: Deployment) -> None:
    """Use the application as browsers, workers and operators do."""
    title("1. Customers type their phone numbers")
    for name, phone in PEOPLE.items():
        request(deployment, "/customers", {"name": name, "phone": phone})

    title("2. What the database holds, and whoever steals it")
    show_rows(deployment)

    title("3. The web server finds a customer by phone number, however it is written")
    wanted = {"phone": "+44 (20) 7946-0018"}
    found = request(deployment, "/customers/search", wanted)
    request(deployment, "/customers/search", wanted, tenant="umbrella")

    title("4. The web server cannot read the number")
    request(deployment, f"/customers/{found[0]['id']}/phone")
    say("  Its permissions in OpenBao: " + ", ".join(f"{role} of {key}" for key, role in MAY["web"].items()))
    command(deployment, "web", "doctor", "--profile", "phones", "--expect", "encrypt-only")

    title("5. The worker can")
    say(indented(deployment.worker("call")))

    title("6. The key is rotated, and all rows are moved to the new version while requests run")
    command(deployment, "operator", "rotate", "phones", "--profile", "phones")
    statuses: list[int] = []
    ended = threading.Event()
    requests = threading.Thread(target=keep_asking, args=(deployment, statuses, ended))
    requests.start()
    try:
        deployment.worker("rewrap")
    finally:
        ended.set()
        requests.join()
    say(f"  {len(statuses)} requests meanwhile, answered with {sorted(set(statuses))}")
    show_rows(deployment)
    say(indented(deployment.worker("call")))


def keep_asking(deployment: Deployment, statuses: list[int], ended: threading.Event) -> None:
    """Send requests until it has ended."""
    while not ended.is_set():
        status, _ = ask(f"{deployment.url}/customers/search", "acme", {"phone": PEOPLE["Ada"]})
        statuses.append(status)


def request(deployment: Deployment, path: str, body: Any = None, tenant: str = "acme") -> Any:
    """Send a request, print it and its answer, and return that."""
    status, answer = ask(f"{deployment.url}{path}", tenant, body)
    say(f"  {'GET' if body is None else 'POST'} {path} {body or ''} by {tenant}")
    say(f"    {status} {answer}")
    return answer


def show_rows(deployment: Deployment) -> None:
    """Print the rows, as whoever steals the database has them."""
    engine = create_engine(deployment.database_url)
    with engine.connect() as connection:
        for row in connection.execute(
            text("SELECT name, phone, phone_index, phone_last4 FROM customers ORDER BY name")
        ):
            (recipient,) = inspect(row.phone).recipients
            say(
                f"  {row.name:6} phone {row.phone[-12:].hex()}... ({len(row.phone)} bytes, key version "
                f"{recipient.key_version})  index {row.phone_index.hex()[:12]}...  last four {row.phone_last4[-6:].hex()}..."
            )
    engine.dispose()


def command(deployment: Deployment, host: str, *arguments: str) -> None:
    """Run kmsbridge on a host, and print what it prints."""
    say(f"  {host}$ kmsbridge {' '.join(arguments)}")
    say(indented(Deployment.must(deployment.kmsbridge(host, *arguments))))


def indented(lines: str) -> str:
    """Return lines with space before them."""
    return "".join(f"    {line}\n" for line in lines.strip().splitlines()).rstrip()


def title(words: str) -> None:
    """Print a title."""
    say(f"\n{BOLD}{words}{PLAIN}")


def say(words: str) -> None:
    """Print at once."""
    print(words, flush=True)


if __name__ == "__main__":
    main()
