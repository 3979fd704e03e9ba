"""`docs/reference/cli.md` leaves nothing out."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from kmsbridge.cli.app import app
from kmsbridge.cli.exits import TABLE

PAGE = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text()


def commands(group: click.Group, prefix: str = "") -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, f"{prefix}{name} ")
        else:
            found.append((f"{prefix}{name}", command))
    return found


COMMANDS = commands(app)
GLOBAL = {name for option in app.params for name in option.opts}


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_and_option_is_described(name, command):
    """Each command has a section with an example, and each of its options stands there."""
    assert f"\n## {name}\n" in PAGE
    section = PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]
    if name == "decrypt":
        section += PAGE.split("\n## encrypt\n")[1].split("\n## ")[0]
    assert f"$ kmsbridge {name}" in section or f"kmsbridge {name}" in section.split("```console")[1]
    options = {opt for param in command.params if isinstance(param, click.Option) for opt in param.opts}
    assert not {option for option in options - GLOBAL if f"`{option}" not in section}


def test_every_global_option_is_described():
    """They stand in one table."""
    assert not {option for option in GLOBAL if f"`{option}" not in PAGE}


def test_every_exit_code_is_described_in_the_words_of_the_table():
    """The page and the help say the same."""
    rows = [f"| {row.code} | {row.meaning} |" for row in sorted(TABLE, key=lambda row: row.code)]
    assert "\n".join(rows) in PAGE
