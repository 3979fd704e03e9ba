"""Opens what the configuration describes."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

from kmsbridge.cli.options import settings

if TYPE_CHECKING:
    from kmsbridge.cipher.base import SyncCipher
    from kmsbridge.config import Profile

C = TypeVar("C", bound="SyncCipher")


def opened(cls: type[C]) -> C:
    """An `Encryptor`, `Decryptor` or `EnvelopeCipher` for `--config` and `--profile`."""
    _show_warnings()
    return cls.from_config(settings().config, profile=settings().profile)


def profile() -> Profile:
    """The profile itself."""
    from kmsbridge import config

    _show_warnings()
    return config.load(settings().config, profile=settings().profile)


def _show_warnings() -> None:
    """Let what the library warns of look like our own lines."""
    import logging

    from kmsbridge.cli.output import say

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # Audit events are for the application's own handlers; their warnings are errors here anyway.
            if record.name == "kmsbridge":
                say(f"warning: {record.getMessage()}")

    logger, handler = logging.getLogger("kmsbridge"), Handler(logging.WARNING)
    logger.addHandler(handler)
    click.get_current_context().call_on_close(lambda: logger.removeHandler(handler))
