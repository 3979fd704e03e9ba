"""`exec`."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Final, NoReturn

import click

from kmsbridge.cli.configured import open_cipher
from kmsbridge.cli.exits import NOT_EXECUTABLE, NOT_FOUND, CommandError, code_of
from kmsbridge.cli.options import Command, Pairs, context_option
from kmsbridge.errors import KmsBridgeError, discreet

if TYPE_CHECKING:
    from kmsbridge.cipher import Decryptor

_PREFIX: Final = "kmsb1_"


@click.command(
    "exec",
    cls=Command,
    short_help="Run a command with its environment decrypted.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@context_option
@click.option("--only", metavar="NAME", multiple=True, help="Decrypt this variable only; may be repeated.")
@click.argument("command", metavar="CMD [ARGS]...", nargs=-1, required=True, type=click.UNPROCESSED)
@discreet
def execute(context: Pairs, only: tuple[str, ...], command: tuple[str, ...]) -> None:
    """Run CMD with the armored messages in its environment decrypted.

    Only CMD and its child processes see the plaintexts. If a value cannot be decrypted, CMD is not run.

    \b
    export DB_PASSWORD="$(printf %s secret | kmsbridge encrypt --armor)"
    kmsbridge exec -- ./server --port 8080
    """
    for name in only:
        if name not in os.environ:
            raise CommandError(
                f"--only names the variable {name}, which is not set", remedy="set it, or leave it out"
            )
    names = only or [name for name, value in os.environ.items() if value.startswith(_PREFIX)]
    plaintexts = _decrypted(names, context) if names else {}
    _replace_process(command, {**os.environb, **plaintexts})


def _decrypted(names: list[str] | tuple[str, ...], context: Pairs) -> dict[bytes, bytes]:
    from kmsbridge import Decryptor

    with open_cipher(Decryptor) as cipher:
        return {os.fsencode(name): _decrypt_variable(cipher, name, context) for name in names}


def _decrypt_variable(cipher: Decryptor, name: str, context: Pairs) -> bytes:
    try:
        value = cipher.decrypt_text(os.environ[name], context=context).encode()
    except KmsBridgeError as error:
        problem, remedy, code = error.message, error.remedy, code_of(error)
    except ValueError:
        problem, remedy, code = "its plaintext is not text", "keep it in a file instead", 1
    else:
        if b"\0" not in value:
            return value
        problem, remedy, code = "its plaintext has a NUL character", "keep it in a file instead", 1
    raise CommandError(f"the variable {name}: {problem}", remedy=remedy, code=code)


def _replace_process(command: tuple[str, ...], environment: dict[bytes, bytes]) -> NoReturn:
    # Python ignores these two signals, and the new program would inherit that.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - what the user asked for
    except FileNotFoundError:
        raise CommandError(
            f"there is no command {command[0]!r}", remedy="check its name and PATH", code=NOT_FOUND
        ) from None
    except OSError as error:
        raise CommandError(
            f"{command[0]!r} cannot be run: {(error.strerror or '').lower()}",
            remedy="let this user execute it",
            code=NOT_EXECUTABLE,
        ) from None
