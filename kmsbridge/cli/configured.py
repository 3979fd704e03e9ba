"""Opens the ciphers and profiles that `--config` and `--profile` select."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

from kmsbridge.cli.options import settings
from kmsbridge.cli.sign_in import sign_in

if TYPE_CHECKING:
    from kmsbridge.cipher.base import SyncCipher
    from kmsbridge.config import Profile

C = TypeVar("C", bound="SyncCipher")


def open_cipher(cls: type[C]) -> C:
    """Open an `Encryptor`, `Decryptor` or `EnvelopeCipher` with the selected profile, signed in to its keys."""
    from kmsbridge.cipher.base import from_profile

    return from_profile(cls, load_profile(signed_in=True))


def load_profile(*, signed_in: bool = False) -> Profile:
    """Return the selected profile; signed in to its keys, for a command that calls their services."""
    from kmsbridge import config

    _show_warnings()
    profile = config.load(settings().config, profile=settings().profile)
    if signed_in:
        sign_in((*profile.encrypt_to, *profile.decrypt_with))
    return profile


def _show_warnings() -> None:
    """Print the library's warnings on stderr in the form of this command's own lines."""
    import logging

    from kmsbridge.cli.output import say

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # Audit events are left out: those that are warnings are reported as errors of the command anyway.
            if record.name == "kmsbridge":
                say(f"warning: {record.getMessage()}")

    logger, handler = logging.getLogger("kmsbridge"), Handler(logging.WARNING)
    logger.addHandler(handler)
    click.get_current_context().call_on_close(lambda: logger.removeHandler(handler))
