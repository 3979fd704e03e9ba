"""`exec`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NoReturn

import click

from kmsbridge.cli import dotenv
from kmsbridge.cli.configured import open_cipher
from kmsbridge.cli.exits import NOT_EXECUTABLE, NOT_FOUND, CommandError, code_of
from kmsbridge.cli.options import PATH, Command, Pairs, context_option, settings
from kmsbridge.cli.streams import is_device
from kmsbridge.errors import KmsBridgeError, discreet

if TYPE_CHECKING:
    from kmsbridge.cipher import Decryptor

_PREFIX: Final = "kmsb1_"
_RELOADING: Final = click.Choice(("HUP", "USR1", "USR2"), case_sensitive=False)
_STOPPING: Final = click.Choice(("TERM", "QUIT", "INT", "HUP", "USR1", "USR2", "WINCH"), case_sensitive=False)


@click.command(
    "exec",
    cls=Command,
    short_help="Run a command with its environment decrypted.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@context_option
@click.option("--only", metavar="NAME", multiple=True, help="Decrypt this variable only; may be repeated.")
@click.option(
    "--env-file",
    "env_files",
    type=PATH,
    multiple=True,
    help="A dotenv file. Its variables win over those of the environment; may be repeated.",
)
@click.option(
    "--reload-on",
    metavar="SIGNAL",
    type=_RELOADING,
    help="Stay as the parent of CMD. On HUP, USR1 or USR2, read the files again, and restart CMD if a value changed.",
)
@click.option(
    "--stop-signal",
    metavar="SIGNAL",
    type=_STOPPING,
    help="The signal that has CMD end before a restart; TERM by default, then KILL after 10 seconds.",
)
@click.argument("command", metavar="CMD [ARGS]...", nargs=-1, required=True, type=click.UNPROCESSED)
@discreet
def execute(
    context: Pairs,
    only: tuple[str, ...],
    env_files: tuple[str, ...],
    reload_on: str | None,
    stop_signal: str | None,
    command: tuple[str, ...],
) -> None:
    """Run CMD with the armored messages in its environment decrypted.

    Only CMD and its child processes see the plaintexts. If a value cannot be decrypted, CMD is not run.

    \b
    export DB_PASSWORD="$(printf %s secret | kmsbridge encrypt --armor)"
    kmsbridge exec -- ./server --port 8080
    kmsbridge exec --env-file server.env --reload-on HUP -- ./server --port 8080
    """
    if reload_on is None:
        if stop_signal is not None:
            raise click.UsageError("--stop-signal needs --reload-on", click.get_current_context())
        _replace_process(command, _environment(context, only, env_files))
    if not env_files or any(map(is_device, env_files)):
        raise click.UsageError(
            "--reload-on needs an --env-file that can be read again", click.get_current_context()
        )
    from kmsbridge.cli.runner import report
    from kmsbridge.cli.supervisor import Supervisor

    supervisor = Supervisor(
        lambda: _environment(context, only, env_files),
        lambda environment: _replace_process(command, environment),
        reload_on=signal.Signals[f"SIG{reload_on}"],
        stop_signal=signal.Signals[f"SIG{stop_signal or 'TERM'}"],
        report=lambda error, prefix: report(error, debug=settings().debug, prefix=prefix),
        say=settings().note,
    )
    click.get_current_context().exit(supervisor.run())


def _environment(context: Pairs, only: tuple[str, ...], env_files: tuple[str, ...]) -> dict[bytes, bytes]:
    """Return the whole environment of the command."""
    values, places = dict(os.environ), {}
    for path in env_files:
        for name, entry in dotenv.read(path).items():
            values[name], places[name] = entry.value, f"{path}: line {entry.line}: "
    for name in only:
        if name not in values:
            raise CommandError(
                f"--only names the variable {name}, which is not set", remedy="set it, or leave it out"
            )
    names = only or [name for name, value in values.items() if value.startswith(_PREFIX)]
    plaintexts = _decrypted(names, values, places, context) if names else {}
    added = {os.fsencode(name): os.fsencode(values[name]) for name in places}
    # The environment is read last: a one-time credential in it was unset when it was used.
    return {**os.environb, **added, **plaintexts}


def _decrypted(
    names: Iterable[str], values: Mapping[str, str], places: Mapping[str, str], context: Pairs
) -> dict[bytes, bytes]:
    from kmsbridge import Decryptor

    with open_cipher(Decryptor) as cipher:
        return {
            os.fsencode(name): _decrypt_variable(
                cipher, f"{places.get(name, '')}the variable {name}", values[name], context
            )
            for name in names
        }


def _decrypt_variable(cipher: Decryptor, described: str, armored: str, context: Pairs) -> bytes:
    try:
        value = cipher.decrypt_text(armored, context=context).encode()
    except KmsBridgeError as error:
        problem, remedy, code = error.message, error.remedy, code_of(error)
    except ValueError:
        problem, remedy, code = "its plaintext is not text", "keep it in a file instead", 1
    else:
        if b"\0" not in value:
            return value
        problem, remedy, code = "its plaintext has a NUL character", "keep it in a file instead", 1
    raise CommandError(f"{described}: {problem}", remedy=remedy, code=code)


def _replace_process(command: tuple[str, ...], environment: Mapping[bytes, bytes]) -> NoReturn:
    # Python ignores these two signals, and the new program would inherit that.
    ignored = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGPIPE, signal.SIGXFSZ)}
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - what the user asked for
    except FileNotFoundError:
        problem, remedy, code = f"there is no command {command[0]!r}", "check its name and PATH", NOT_FOUND
    except OSError as error:
        problem = f"{command[0]!r} cannot be run: {(error.strerror or '').lower()}"
        remedy, code = "let this user execute it", NOT_EXECUTABLE
    for number, handler in ignored.items():
        signal.signal(number, handler)
    raise CommandError(problem, remedy=remedy, code=code)
