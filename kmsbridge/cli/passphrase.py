"""The passphrase for a new key file: asked for, or taken from where the configuration will name it."""

from __future__ import annotations

import os
import sys
from typing import Final

from kmsbridge.cli.exits import CommandError
from kmsbridge.cli.streams import named
from kmsbridge.secret import Secret

VARIABLE: Final = "KMSBRIDGE_PASSPHRASE"
_LONGEST: Final = 64 * 1024


def from_environment_or_terminal(variable: str = VARIABLE, other: str = "") -> Secret:
    """The variable's value, or what is typed twice alike; `other` ends the advice where neither is there."""
    value = os.environb.get(os.fsencode(variable))
    return Secret(value) if value else _asked(f"set {variable}{other}")


def from_file(path: str) -> Secret:
    """The text in a file; one newline at its end does not count, as in the configuration."""
    with named(path), open(path, "rb") as file:
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


def _asked(remedy: str) -> Secret:
    from getpass import getpass

    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandError("there is no terminal to ask for the passphrase on", remedy=remedy)
    first = Secret.of_text(getpass("Passphrase: ", sys.stderr))
    checked(first.reveal())
    if Secret.of_text(getpass("The same again: ", sys.stderr)).reveal() != first.reveal():
        raise CommandError("the two are not the same; nothing was made", remedy="run it again")
    return first


def checked(text: bytes) -> Secret:
    """The passphrase, which must not be empty."""
    if not text:
        raise CommandError("the passphrase is empty; nothing was made", remedy="give one, or leave it out")
    return Secret(text)
