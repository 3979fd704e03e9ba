"""`config explain`."""

from __future__ import annotations

import click

from kmsbridge.cli import output
from kmsbridge.cli.options import Command, Group, json_option, settings


@click.group(cls=Group, short_help="Explain the configuration in effect.")
def config() -> None:
    """Work with the configuration."""


@config.command(cls=Command, short_help="Show every value and where it came from.")
@json_option
def explain(as_json: bool) -> None:
    """Show every value in effect and where it came from. Secrets are masked."""
    from kmsbridge import config as configuration

    values = configuration.explain(settings().config, profile=settings().profile)
    if as_json:
        output.document([value._asdict() for value in values])
    else:
        rows = ((value.name, value.value, value.origin) for value in values)
        output.table(rows, ("SETTING", "VALUE", "FROM"))
