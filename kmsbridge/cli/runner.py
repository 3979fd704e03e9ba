"""Runs one command, and prints an error as one line on stderr."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kmsbridge.cli import exits
from kmsbridge.errors import KmsBridgeError, ProviderFailure

if TYPE_CHECKING:
    import click

    from kmsbridge.cli.options import Settings

PROGRAM: Final = "kmsbridge"
COMPLETE: Final = "_KMSBRIDGE_COMPLETE"


def run(app: click.Group, args: Sequence[str]) -> int:
    """Run one command and return its exit code. An error is printed as one line on stderr."""
    import click

    from kmsbridge.cli.options import Settings

    settings = Settings()
    try:
        return _invoke(app, args, settings)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.UsageError as error:
        return _usage(error)
    except BrokenPipeError:
        return exits.BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - any error ends as one line
        report(error, debug=settings.debug)
        return exits.code_of(error)


def _invoke(app: click.Group, args: Sequence[str], settings: Settings) -> int:
    if instruction := os.environ.get(COMPLETE):
        from click.shell_completion import shell_complete

        return shell_complete(app, {}, PROGRAM, COMPLETE, instruction)
    with app.make_context(PROGRAM, list(args), obj=settings) as context:
        app.invoke(context)
    return 0


def report(error: BaseException, *, debug: bool = False, prefix: str = "") -> None:
    """Print an error on stderr after `prefix`, the name of a file or key; with `debug`, print its traceback first."""
    from kmsbridge.cli.output import say
    from kmsbridge.cli.streams import file_error

    if debug:
        _say_traceback(error)
    if isinstance(error, KmsBridgeError):
        say(f"{prefix}: {error}" if prefix else str(error))
    elif isinstance(error, OSError):
        say(str(file_error(error, str(prefix or error.filename or "a file"))))
    else:
        # The text of an unexpected exception may hold anything, so it is not shown.
        say(
            f"internal error ({type(error).__name__}); run the command with --debug, and report what it prints"
        )


def _usage(error: click.UsageError) -> int:
    import click

    from kmsbridge.cli.output import say

    if type(error).__name__ == "NoArgsIsHelpError":
        click.echo(error.format_message(), err=True)
        return exits.USAGE
    text = " ".join(error.format_message().split())
    text = text.replace("(Did you mean", "Did you mean").replace("?)", "?")
    text = re.sub(r"^\w|(?<=\. )\w", lambda match: match[0].lower(), text).replace(". ", "; ").rstrip(".")
    path = error.ctx.command_path if error.ctx else PROGRAM
    say(text if text.endswith("?") else f"{text}; see '{path} --help'")
    return exits.USAGE


def _say_traceback(error: BaseException) -> None:
    """Print the traceback of `error` and its causes: places in the code only, and no text but the library's own."""
    from kmsbridge.cli.output import say

    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        _say_traceback(cause)
        say("debug: which led to")
    for frame in traceback.extract_tb(error.__traceback__):
        say(f"debug:   {frame.filename}:{frame.lineno} in {frame.name}")
    known = isinstance(error, (KmsBridgeError, ProviderFailure))
    say(f"debug: {type(error).__qualname__}" + (f": {error}" if known else ""))
    for note in getattr(error, "__notes__", ()) if known else ():
        say(f"debug:   {note}")
