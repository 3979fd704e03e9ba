"""Shows three hosts that share a database and may not do the same with it, then attacks them. Run it by `make demo-roles`.

It fails where an attacker gets more, or less, than is predicted. Everything listens on this machine alone, and is ended and
removed at the end.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from examples.roles import scenarios
from examples.roles.deployment import BACKENDS, MAY, Deployment, can_change_users
from examples.roles.stage import OLD, Stage, TooSlow
from localstack.openbao import OpenBaoDev

MAX_AGE: Final = 5.0
NAMES: Final = {
    "web": "customer web server",
    "worker": "background worker",
    "internal": "internal web server",
}
WITH: Final = {"openbao": "keys in OpenBao", "hpke": "public keys (HPKE)"}
BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")


def main() -> None:
    """Set the hosts up, show what they can do, and attack them."""
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that everything is cleaned up
    with tempfile.TemporaryDirectory(prefix="kmsbridge-roles-") as folder:
        server = OpenBaoDev(Path(folder))
        try:
            server.start()
            with Deployment(Path(folder), server, max_age=MAX_AGE, users=can_change_users()) as deployment:
                show_policies(deployment)
                check(deployment)
                deployment.start()
                stage = Stage(deployment)
                say(
                    f"\nCustomers are stored. Their data keys end after {MAX_AGE:g} s; then others are stored, and the attackers come."
                )
                stage.play()
                show_what_they_can(deployment)
                attack(stage)
        except TooSlow:
            sys.exit("FAILED: this machine is too busy for data keys that live so shortly; run it again")
        finally:
            server.close()
    say(f"\nEvery host and every attacker got what was predicted, in {time.monotonic() - started:.0f} s.")
    say("Next: docs/how-to/separate-roles.md")


def show_policies(deployment: Deployment) -> None:
    """Show who gets which permissions."""
    title("1. Give each host the permissions of its role, and no others")
    for host, may in MAY.items():
        rights = ", ".join(f"{role} of {key}" for key, role in may.items())
        say(f"  {NAMES[host]}: {rights}")
    say("\n  $ kmsbridge policy phones --role encryptor")
    say("".join(f"    {line}\n" for line in deployment.policies["phones", "encryptor"].splitlines()))
    say("  With public keys a web server has no permission at all. Its whole configuration:\n")
    say(
        "".join(
            f"    {line}\n"
            for line in (deployment.path("hpke", "web") / "kmsbridge.toml").read_text().splitlines()
        )
    )


def check(deployment: Deployment) -> None:
    """Check the web servers before they go live."""
    title("2. Check them before they go live")
    for backend in BACKENDS:
        for host, status in (("web", 0), ("worker", scenarios.UNEXPECTED)):
            files = {path.name: path.read_bytes() for path in deployment.path(backend, host).iterdir()}
            done = deployment.doctor(files, "phones", "encrypt-only")
            whose = "its own" if host == "web" else "by mistake the worker's"
            say(f"  A web server with {WITH[backend]}, and {whose} configuration:")
            say(f"  $ kmsbridge doctor --profile phones --expect encrypt-only   exits {done.returncode}")
            problems = [line.strip() for line in done.stdout.splitlines() if "is expected, but" in line]
            say(
                "".join(f"    {line}\n" for line in problems)
                or "    this host can encrypt, and nothing else\n"
            )
            require(done.returncode == status, f"the exit code is {status}")


def show_what_they_can(deployment: Deployment) -> None:
    """Show what each process can do with the values that it finds in the table."""
    title("3. Three processes, one database")
    rows: list[tuple[str, ...]] = [("host", "pid", "stores", "reads phone numbers", "reads API keys")]
    for (backend, name), host in deployment.hosts.items():
        read = host.tell("read", OLD[:1])
        wrote = host.tell("write", OLD[:1]) if name != "web" else {"": "ok"}
        can = [
            "yes" if "ok" in wrote.values() else "no",
            *(
                "yes" if read[f"{OLD[0]}/{column}"].startswith(("+1", "sk_")) else "no"
                for column in ("phone", "api_key")
            ),
        ]
        expected = {
            "web": ["yes", "no", "no"],
            "worker": ["no", "yes", "yes"],
            "internal": ["no", "yes", "no"],
        }[name]
        require(can == expected, f"the {NAMES[name]} can do what it should, and no more")
        rows.append((f"{NAMES[name]}, {WITH[backend]}", str(host.process.pid), *can))
    show(rows)


def attack(stage: Stage) -> None:
    """Play the attackers, and show what each got."""
    title("4. The attackers")
    say(
        f"  {len(stage.places('openbao'))} values in each database: a phone number and an API key of each customer."
    )
    say("  What is counted: values that could be decrypted, or that a worker took for something else.\n")
    rows: list[tuple[str, ...]] = [("who", *(f"with {WITH[backend]}" for backend in BACKENDS))]
    wrong, left_out = [], []
    for scenario in scenarios.SCENARIOS:
        results = [scenarios.play(scenario, stage, backend) for backend in BACKENDS]
        rows.append((scenario.attacker, *map(as_cell, results)))
        wrong += [f"{scenario.attacker}, {each.backend}" for each in results if each.opened != each.predicted]
        left_out += [
            f"who {scenario.attacker}, because {each.left_out}" for each in results[:1] if each.left_out
        ]
    show(rows)
    for each in left_out:
        say(f"  left out: {each}")
    require(not wrong, f"each attacker got what was predicted; not so: {'; '.join(wrong)}")


def as_cell(result: scenarios.Result) -> str:
    """Return the score of an attacker for the table."""
    if result.left_out:
        return "left out"
    if result.opened == result.predicted:
        return f"{len(result.opened)}, as predicted"
    return f"{len(result.opened)}, not {len(result.predicted)}: {', '.join(sorted(result.opened ^ result.predicted))}"


def show(rows: list[tuple[str, ...]]) -> None:
    """Print a table, whose first row is its head."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        say("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def title(text: str) -> None:
    """Print the title of a part."""
    say(f"\n{BOLD}{text}{PLAIN}\n")


def say(text: str) -> None:
    """Print a text for the reader."""
    print(text, flush=True)


def require(holds: bool, what: str) -> None:
    """End the demonstration if `what` is not true."""
    if not holds:
        sys.exit(f"FAILED: {what}")


if __name__ == "__main__":
    main()
