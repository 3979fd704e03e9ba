"""Every error this library raises, in one tree.

An error says what happened, to which key or message, and what to do next. It never carries a
plaintext, a key, a token or a passphrase, nor the text of a provider's own exception, which may
contain any of these. Its length is bounded, however long the names are that it quotes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, ClassVar, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

MAX_MESSAGE: Final = 1000
MAX_REMEDY: Final = 500
MAX_QUOTED: Final = 100
MAX_KEY_ID: Final = 1024
MAX_CODE: Final = 200
"""The most characters that a provider's code or request id keeps."""


def shortened(text: object, most: int) -> str:
    """Return `text` with at most `most` characters (60 or more); a count takes the place of the middle that is cut."""
    text = str(text)
    if len(text) <= most:
        return text
    kept = most - 40
    tail = kept // 3
    return f"{text[: kept - tail]}... ({len(text) - kept} characters left out) ...{text[-tail:]}"


def quoted(text: str) -> str:
    """Return untrusted text as an error may show it: in quotes, on one line, shortened to 100 characters."""
    return shortened(repr(text), MAX_QUOTED)


def listed(texts: Sequence[str], most: int = 3) -> str:
    """Return the first `most` of `texts`, quoted, and the number of the others."""
    more = len(texts) - most
    return ", ".join(map(quoted, texts[:most])) + (f" and {more} more" if more > 0 else "")


class KmsBridgeError(Exception):
    """The base class of every error that this library raises.

    `message` says what happened, shortened to 1,000 characters; `remedy` says what to do, shortened to 500, and
    may be empty. `index` is the position, from 0, of the item that failed in an operation on many items;
    None for every other operation.
    """

    retryable: ClassVar[bool] = False
    """Whether the operation may succeed when it is repeated unchanged: a service was not available, or too busy."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        message = shortened(message, MAX_MESSAGE)
        super().__init__(message)
        self.message = message
        self.remedy = shortened(remedy, MAX_REMEDY)
        self.index: int | None = None

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, dict(self.__dict__))


class ConfigError(KmsBridgeError):
    """The configuration, a key URI or an option cannot be used as it stands."""


class ProviderNotFound(ConfigError):
    """No installed driver serves the scheme of a key URI."""


class ProviderLoadError(ConfigError):
    """A driver is installed, but could not be imported or is not a valid driver."""


class MessageError(KmsBridgeError):
    """The bytes are not a message that this version can read."""


class MalformedMessage(MessageError):
    """The bytes do not follow the message format: wrong magic, lengths or padding, or the message was cut short."""


class UnsupportedMessage(MessageError):
    """A message of a format version or kind that this version of the library cannot read."""


class AuthenticationError(KmsBridgeError):
    """The message was encrypted with another key, context or associated data, or was changed since.

    All of these have one class and one wording, so that the error does not tell an attacker which it was.
    """

    def __init__(
        self,
        message: str = "the message could not be authenticated",
        *,
        remedy: str = "pass the context and aad it was encrypted with; if they are right, "
        "the message was changed",
    ) -> None:
        super().__init__(message, remedy=remedy)


class NoMatchingKey(KmsBridgeError):
    """None of the message's recipients is among the keys this profile decrypts with."""


class RoleError(KmsBridgeError):
    """The profile lacks the keys for this operation: `encrypt_to` to encrypt, `decrypt_with` to decrypt."""


class LimitExceeded(KmsBridgeError):
    """A payload, a context or a message is larger than the format or the provider allows."""


class ClosedError(KmsBridgeError):
    """The object was used after `close()`."""


class ReentrantCall(KmsBridgeError):
    """A signal handler, a logging handler or a hook used an object that is busy with what it interrupts."""


class AuditError(KmsBridgeError):
    """A required audit sink could not record an event, or an audit file failed verification."""


class KmsError(KmsBridgeError):
    """A key service refused a call or could not answer it.

    `key_id` names the key and `operation` the call (wrap, unwrap, ...). `provider_code` and `request_id` are
    the provider's own, shortened to 200 characters, or empty where it gave none. `attempts` counts the calls
    that were made.
    """

    def __init__(
        self,
        message: str,
        *,
        remedy: str = "",
        key_id: str = "",
        operation: str = "",
        provider_code: str = "",
        request_id: str = "",
        attempts: int = 0,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.key_id = shortened(key_id, MAX_KEY_ID)
        self.operation = operation
        self.provider_code = shortened(provider_code, MAX_CODE)
        self.request_id = shortened(request_id, MAX_CODE)
        self.attempts = attempts


class KmsUnavailable(KmsError):
    """The service could not be reached, or said that it cannot serve now. Retried."""

    retryable = True


class KmsThrottled(KmsError):
    """The service refused the call because it receives too many. Retried."""

    retryable = True


class KmsTimeout(KmsError):
    """The service did not answer in time. Retried while the deadline allows."""

    retryable = True


class KmsAccessDenied(KmsError):
    """The service knows the caller, who lacks the permission for this operation with this key."""


class KmsKeyNotFound(KmsError):
    """The key, or the version of it that wrapped the data key, does not exist."""


class KmsKeyDisabled(KmsError):
    """The key, or the version of it that wrapped the data key, is disabled or scheduled for deletion."""


class KmsInvalidRequest(KmsError):
    """The service rejected the call as invalid."""


class KmsUnauthenticated(KmsError):
    """The caller's credentials are missing, expired, revoked or wrong."""


class KmsCredentialMisused(KmsUnauthenticated):
    """A one-time credential was already used, or was not issued for this host: a security event, not a fault."""


class ProviderFailure(Exception):
    """The cause of a `KmsError`, in place of the exception that a provider's client library raised.

    It holds the name of the exception's type and its traceback. The exception's text is left out, because it
    can quote what was sent.
    """

    @classmethod
    def of(cls, error: BaseException) -> ProviderFailure:
        """Return the replacement for `error`, and clear the local variables of the frames in its traceback."""
        forget_locals(error)
        kind = type(error)
        return cls(f"{kind.__module__}.{kind.__qualname__}").with_traceback(error.__traceback__)


def _rebuild(cls: type[KmsBridgeError], message: str, state: dict[str, Any]) -> KmsBridgeError:
    error = cls.__new__(cls, message)
    error.__dict__.update(state)
    # A pickle can be of another version, which shortened nothing.
    error.message, error.remedy = shortened(message, MAX_MESSAGE), shortened(error.remedy, MAX_REMEDY)
    Exception.__init__(error, error.message)
    return error


def is_from_signal_handler(error: BaseException) -> bool:
    """Return whether a signal handler raised `error`, so that it says nothing about the code it interrupted."""
    import signal

    handlers = (signal.getsignal(number) for number in signal.valid_signals())
    codes = {_code_of(handler) for handler in handlers if callable(handler)} - {None}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def _code_of(handler: Any) -> Any:
    while hasattr(handler, "func"):  # functools.partial
        handler = handler.func
    function = getattr(handler, "__func__", handler)
    return getattr(function, "__code__", None) or getattr(type(handler).__call__, "__code__", None)


def discreet(function: Callable[P, T]) -> Callable[P, T]:
    """Clear the local variables of `function`, and of what it called, in every exception that leaves it.

    Decorates the public functions that handle plaintexts or keys.
    """
    # There are two handlers, because a signal handler can raise while the first one is running.

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            try:
                return function(*args, **kwargs)
            except BaseException as error:
                forget_locals(error)
                raise
        except BaseException as error:
            del args, kwargs
            forget_locals(error)
            raise

    return guarded


def forget_locals(error: BaseException) -> None:
    """Clear the local variables of the finished frames in the tracebacks of `error` and its causes.

    Error reporters print tracebacks with local variables, and below the public API those are
    plaintexts and keys. Frames that are still running are left alone, and so are the frames of exceptions
    that the caller was already handling.
    """
    ours: set[FrameType] = set()
    seen: set[int] = set()  # causes can lead back: whoever raises may set them
    todo: list[tuple[BaseException | None, bool]] = [(error, True)]
    while todo:
        exc, is_ours = todo.pop()
        trace = exc.__traceback__ if exc is not None else None
        if exc is None or id(exc) in seen or not (is_ours or (trace and trace.tb_frame in ours)):
            continue
        seen.add(id(exc))
        if exc.__suppress_context__:
            exc.__context__ = None  # not shown, yet kept alive, and its text is a provider's
        while trace is not None:
            ours.add(trace.tb_frame)
            with contextlib.suppress(RuntimeError):  # it is still running
                trace.tb_frame.clear()
            trace = trace.tb_next
        todo += ((exc.__cause__, False), (exc.__context__, False))
        if isinstance(exc, BaseExceptionGroup):  # its parts may be from other threads and tasks
            todo += ((part, True) for part in exc.exceptions)
