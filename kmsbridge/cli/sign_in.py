"""Asks on the terminal for what a key's credentials need a person for, before anything is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from kmsbridge.cli.exits import CommandError
from kmsbridge.driver import DriverError, KeyDriver
from kmsbridge.errors import KmsBridgeError

if TYPE_CHECKING:
    from kmsbridge.config import KeyConfig

_REFUSED: Final = 8


def sign_in(keys: Iterable[KeyConfig]) -> None:
    """Have the drivers of these keys get the credentials that take a person, if this command has a terminal.

    No deadline runs meanwhile. Raises `CommandError` where a code was asked for and is refused.
    """
    from kmsbridge import registry

    for key in {each.name: each for each in keys}.values():
        cls = registry.driver_class(key.uri.scheme)
        if cls.sign_in is not KeyDriver.sign_in and _is_in_foreground():
            _sign_in(cls.open(key.uri, key.options), key.name)


def _sign_in(driver: KeyDriver, name: str) -> None:
    try:
        driver.sign_in(_ask)
    except KmsBridgeError:
        raise
    except Exception as error:  # noqa: BLE001 - the provider's
        code = _code(driver, error)
        raise CommandError(
            f"signing in for the key {name!r} failed ({code or type(error).__name__})",
            remedy="run the command again, with a new code",
            code=_REFUSED,
        ) from None
    finally:
        driver.close()


def _code(driver: KeyDriver, error: Exception) -> str:
    """Return the provider's code for an error; empty where it has none, or the driver does not know the error."""
    if isinstance(error, DriverError):
        return error.code
    return driver.error_details(error).code if driver.classify(error, "resolve") else ""


def _ask(prompt: str) -> str:
    from getpass import getpass

    return getpass(prompt)


def _is_in_foreground() -> bool:
    """Return whether this process may use a terminal. `getpass` uses it, whatever stdin is."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
