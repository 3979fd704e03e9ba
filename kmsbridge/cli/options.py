"""Options that several commands have: the global options, contexts and associated data."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click

from kmsbridge.errors import KmsBridgeError

F = TypeVar("F", bound=Callable[..., Any])
Pairs = Mapping[str, str]

# click does not check files: errors when a file is opened have this program's own texts.
PATH: Final = click.Path(readable=False)
PATH_OR_DASH: Final = click.Path(allow_dash=True, readable=False)


@dataclass(slots=True)
class Settings:
    """The values of the global options."""

    config: str | None = None
    profile: str | None = None
    quiet: bool = False
    debug: bool = False

    def note(self, text: str) -> None:
        """Print a notice for people on stderr, unless `--quiet` is given."""
        if not self.quiet:
            from kmsbridge.cli.output import say

            say(text)


def settings() -> Settings:
    """Return the global options of the running command."""
    return click.get_current_context().ensure_object(Settings)


def global_options() -> list[click.Parameter]:
    """Return the global options, which may be given before a command's name or after it. The last one counts."""

    def remember(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value not in (None, False) and parameter.name is not None:
            setattr(context.ensure_object(Settings), parameter.name, value)

    shared: dict[str, Any] = {"expose_value": False, "callback": remember}
    return [
        click.Option(["--config"], type=PATH, help="The configuration file.", **shared),
        click.Option(["--profile"], metavar="NAME", help="The profile of the configuration.", **shared),
        click.Option(["-q", "--quiet"], is_flag=True, help="No notices and no progress bar.", **shared),
        click.Option(["--debug"], is_flag=True, help="On an error, show where it happened.", **shared),
    ]


class Command(click.Command):
    """A command that also takes the global options, and whose errors do not quote unexpected arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += global_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and refuse excess ones without showing them: one may be a passphrase."""
        ctx.allow_extra_args = True
        try:
            rest = super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # for the name of the command whose help to see
            raise
        if ctx.args and not ctx.resilient_parsing:
            raise click.UsageError(f"{len(ctx.args)} argument{'s' * (len(ctx.args) > 1)} too many", ctx)
        return rest


class Group(click.Group):
    """A group of such commands."""

    command_class = Command


def _checked(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> Pairs:
    from kmsbridge.context import EncryptionContext

    pairs = [value.partition("=") for value in values]
    if not all(sign for _, sign, _ in pairs):
        raise click.BadParameter("write NAME=VALUE", ctx, param)
    context = {name: value for name, _, value in pairs}
    if len(context) != len(pairs):
        raise click.BadParameter("a name is given twice", ctx, param)
    try:
        return EncryptionContext.of(context)
    except KmsBridgeError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def context_option(command: F) -> F:
    """Add the option `--context NAME=VALUE`, which may be repeated."""
    return click.option(
        "-c",
        "--context",
        multiple=True,
        callback=_checked,
        metavar="NAME=VALUE",
        help="A pair of the encryption context; may be repeated. Decrypting needs the same pairs.",
    )(command)


def bound_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add `--context`, `--aad` and `--aad-file`. The command gets them as `bound`, keyword arguments for the API."""

    @functools.wraps(command)
    def with_bound(*args: Any, context: Pairs, aad: str | None, aad_file: str | None, **options: Any) -> None:
        command(*args, bound={"context": context, "aad": _aad(aad, aad_file)}, **options)

    for decorate in (
        click.option("--aad-file", type=PATH, help="Associated data from a file, byte for byte."),
        click.option("--aad", metavar="TEXT", help="Associated data. Decrypting needs the same."),
        context_option,
    ):
        decorate(with_bound)
    return with_bound


def _aad(aad: str | None, aad_file: str | None) -> bytes:
    from kmsbridge.cipher.aad import MAX_AAD
    from kmsbridge.cli.exits import CommandError
    from kmsbridge.cli.streams import errors_about

    if aad is not None and aad_file is not None:
        raise click.UsageError("--aad and --aad-file cannot be used together", click.get_current_context())
    if aad_file is None:
        return os.fsencode(aad or "")
    with errors_about(aad_file), open(aad_file, "rb") as file:
        data = file.read(MAX_AAD + 1)
    if len(data) > MAX_AAD:
        raise CommandError(
            f"{aad_file} is larger than {MAX_AAD} bytes", remedy="use a hash of it as aad instead"
        )
    return data


def json_option(command: F) -> F:
    """Add the option `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)
