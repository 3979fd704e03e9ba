"""Reads the passphrase for a new key file from the terminal, the environment or a file."""

from __future__ import annotations

import os
import sys
from typing import Final

from kmsbridge.cli.exits import CommandError
from kmsbridge.cli.streams import errors_about
from kmsbridge.secret import Secret

VARIABLE: Final = "KMSBRIDGE_PASSPHRASE"
_LONGEST: Final = 64 * 1024


def from_environment_or_terminal(variable: str = VARIABLE, other: str = "") -> Secret:
    """Return the variable's value, or else ask for the passphrase twice.

    Raises `CommandError` where the variable is not set and there is no terminal; `other` is the end of its remedy.
    """
    value = os.environb.get(os.fsencode(variable))
    return Secret(value) if value else _ask(f"set {variable}{other}")


def from_file(path: str) -> Secret:
    """Return the text in a file, without one newline at its end, like a `file:` reference in a configuration."""
    with errors_about(path), open(path, "rb") as file:
        text = file.read(_LONGEST + 1)
    if len(text) > _LONGEST:
        raise CommandError(f"{path} is too long for a passphrase", remedy="check that it is the right file")
    try:
        text.decode()
    except UnicodeDecodeError:
        usable = False
    else:
        usable = True
    if not usable:
        raise CommandError(f"{path} is not UTF-8", remedy="store the passphrase as text")
    return checked(text.removesuffix(b"\n").removesuffix(b"\r") if text.endswith(b"\n") else text)


def _ask(remedy: str) -> Secret:
    from getpass import getpass

    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandError("the passphrase cannot be asked for: there is no terminal", remedy=remedy)
    first = Secret.of_text(getpass("Passphrase: ", sys.stderr))
    checked(first.reveal())
    if Secret.of_text(getpass("The same again: ", sys.stderr)).reveal() != first.reveal():
        raise CommandError("the two passphrases differ, so nothing was made", remedy="run the command again")
    return first


def checked(text: bytes) -> Secret:
    """Return the passphrase. Raises `CommandError` where it is empty."""
    if not text:
        raise CommandError(
            "the passphrase is empty, so nothing was made",
            remedy="give a passphrase, or leave the option out",
        )
    return Secret(text)
