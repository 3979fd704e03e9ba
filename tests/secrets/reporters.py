"""Error reporters that show the local variables of an exception's frames. Each returns a text."""

import importlib
import io
import json
import logging
import sys
import traceback
import warnings

import better_exceptions
import sentry_sdk
from rich.console import Console
from rich.traceback import Traceback
from sentry_sdk.transport import Transport
from sentry_sdk.utils import event_from_exception

LONG = 100_000
"""More than any value here: what a reporter cuts off could hide a leak."""


class Kept(Transport):
    """Keeps what would be sent to Sentry."""

    def __init__(self, options=None):
        super().__init__(options)
        self.envelopes = []

    def capture_envelope(self, envelope):
        self.envelopes.append(envelope)


def sentry(error):
    """The event as it is serialized for the server."""
    kept = Kept()
    client = sentry_sdk.Client(
        dsn="http://public@localhost/1",
        transport=kept,
        default_integrations=False,
        max_value_length=LONG,
        max_request_body_size="always",
    )
    event, hint = event_from_exception(error, client_options=client.options)
    client.capture_event(event, hint)
    (envelope,) = kept.envelopes
    return json.dumps(envelope.items[0].payload.json)


def rich(error):
    """With the local variables, of the library's frames too."""
    told = Traceback.from_exception(
        type(error),
        error,
        error.__traceback__,
        show_locals=True,
        locals_max_length=None,
        locals_max_string=None,
        locals_hide_dunder=False,
    )
    console = Console(file=io.StringIO(), width=1000)
    console.print(told)
    return console.file.getvalue()


def better(error):
    """With the values of the names in each line."""
    formatter = better_exceptions.formatter.ExceptionFormatter(colored=False, max_length=None)
    return "".join(formatter.format_exception(type(error), error, error.__traceback__))


def standard(error):
    """The standard library's own."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(told.format())


def logged(error):
    """`logging.exception`."""
    stream = io.StringIO()
    logger = logging.Logger("application")  # noqa: LOG001 - not one that others find
    logger.addHandler(logging.StreamHandler(stream))
    logger.error("it failed: %r", error, exc_info=error)
    return stream.getvalue()


def cgi(error):
    """cgitb, which Python had until 3.12, and which follows the attributes that a line of source names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cgitb = importlib.import_module("cgitb")
    trio = (type(error), error, error.__traceback__)
    try:
        return cgitb.text(trio) + cgitb.html(trio)
    except KeyError as missing:  # an argument's value in a frame that was cleared: it prints nothing
        return repr(missing)


REPORTERS = {
    "Sentry": sentry,
    "rich": rich,
    "better_exceptions": better,
    "traceback": standard,
    "logging": logged,
}
if sys.version_info < (3, 13):
    REPORTERS["cgitb"] = cgi
