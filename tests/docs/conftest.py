"""What a page's code sets for its process ends with the page."""

from __future__ import annotations

import logging
import sys

import pytest

from kmsbridge.cipher import sharing


@pytest.fixture(autouse=True)
def _no_cipher_of_another_page():
    """What a page shares for its whole process is closed, so that no data key of it stays in memory."""
    yield
    for opened in sharing._ciphers._opened.values():
        opened.session.close()
    sharing._ciphers._opened.clear()


@pytest.fixture(autouse=True)
def _loggers_as_they_were():
    loggers = [logging.getLogger(name) for name in ("kmsbridge", "kmsbridge.audit")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.fixture(autouse=True)
def _no_session_of_another_page():
    """`boto3.client` goes on with the credentials that it found first."""
    yield
    if "boto3" in sys.modules:
        sys.modules["boto3"].DEFAULT_SESSION = None
