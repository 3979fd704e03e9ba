"""`config explain`."""

from __future__ import annotations

import click

from kmsbridge.cli import output
from kmsbridge.cli.options import Command, Group, json_option, settings


@click.group(cls=Group, short_help="Explain the configuration in effect.")
def config() -> None:
    """Look into the configuration."""


@config.command(cls=Command, short_help="Show every value and where it came from.")
@json_option
def explain(as_json: bool) -> None:
    """Show every value that is in effect, and where it came from; secrets are masked."""
    from kmsbridge import config as configuration

    found = configuration.explain(settings().config, profile=settings().profile)
    if as_json:
        output.document([each._asdict() for each in found])
    else:
        output.table(((each.name, each.value, each.origin) for each in found), ("SETTING", "VALUE", "FROM"))
