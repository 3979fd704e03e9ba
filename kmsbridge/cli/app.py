"""The program: the group of all commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, NoReturn

import click

from kmsbridge.cli import (
    audit,
    completion,
    config,
    crypt,
    doctor,
    execute,
    index,
    init,
    inspect,
    keygen,
    keys,
    policy,
    rewrap,
)
from kmsbridge.cli.exits import TABLE
from kmsbridge.cli.options import Group, global_options
from kmsbridge.cli.runner import run

EPILOG = """\b
Begin with:
  kmsbridge init
  kmsbridge encrypt notes.txt -o notes.kmsb
  kmsbridge decrypt notes.kmsb

Results go to stdout, everything else to stderr.

\b
Exit codes:
""" + "\n".join(f"  {row.code:<3}  {row.meaning}" for row in sorted(TABLE, key=attrgetter("code")))


class App(Group):
    """The group of all commands, which exits with this program's exit codes."""

    def main(self, args: Sequence[str] | None = None, *_: Any, **_extra: Any) -> NoReturn:
        """Run a command and exit, for callers that expect a click program."""
        sys.exit(run(self, sys.argv[1:] if args is None else args))


def _version(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    from importlib.metadata import version

    from kmsbridge.cli.output import result

    result(f"kmsbridge {version('kmsbridge')}")
    context.exit()


@click.group(
    cls=App,
    params=global_options(),
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version."
)
def app() -> None:
    """Protect files, pipes and environments with keys that live in a key service."""


for command in (
    init.init,
    crypt.encrypt,
    crypt.decrypt,
    inspect.inspect,
    rewrap.rewrap,
    keygen.keygen,
    index.index,
    keys.rotate,
    keys.keys,
    keys.providers,
    doctor.doctor,
    policy.policy,
    config.config,
    audit.audit,
    execute.execute,
    completion.completion,
):
    app.add_command(command)
