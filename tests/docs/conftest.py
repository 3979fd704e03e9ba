"""What a page's code sets for its process ends with the page."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _loggers_as_they_were():
    loggers = [logging.getLogger(name) for name in ("kmsbridge", "kmsbridge.audit")]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
