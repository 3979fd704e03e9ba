"""Drivers that open, close, name or show themselves wrongly."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
from typing import Any, ClassVar, Self

from kmsbridge_testing.fakes.harnesses import FakeHttpHarness
from kmsbridge_testing.fakes.http_fake import FakeHttpDriver

from kmsbridge.driver import DriverError, EncryptionContext, ErrorDetails, KeyURI, Options, WrappedKey
from kmsbridge.errors import ConfigError
from kmsbridge.testing.fakes.fake import FakeDriver, caller_of
from kmsbridge.testing.fakes.service import FakeError, Operation
from tests.mutants.drivers.base import caught_by


@caught_by("test_open_touches_no_network")
class ConnectsAtOpen(FakeDriver):
    """Greets a server before anybody asked it for anything."""

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.settimeout(0.1)
            sock.connect(("127.0.0.1", 9))
        return super().open(uri, options)


@caught_by("test_open_imports_no_sdk", FakeHttpHarness)
class ImportsTheSdkAtOpen(FakeHttpDriver):
    """Costs everybody the import, used or not."""

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        import xmlrpc.client  # noqa: F401

        return super().open(uri, options)


@caught_by("test_hostile_name_is_refused[parent]")
class TakesAnyName(FakeDriver):
    """Puts whatever it is given into its requests."""

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        return cls(uri.path, caller_of(options))


@caught_by("test_hostile_name_is_refused[escaped parent]")
class ChecksTheNameTooLate(FakeDriver):
    """Finds out at the first call."""

    @classmethod
    def open(cls, uri: KeyURI, options: Options) -> Self:
        return cls(uri.path, caller_of(options))

    def call(self, operation: Operation, arguments: Any, timeout: float) -> Any:
        if "/" in self.name:
            raise ConfigError("no such name can be", remedy="choose another")
        return super().call(operation, arguments, timeout)


@caught_by("test_key_id_is_stable")
class ChangesItsName(FakeDriver):
    """Has a new id whenever it is asked for it."""

    numbers = itertools.count()

    @property
    def key_id(self) -> str:
        return f"fake:{self.name}-{next(self.numbers)}"


@caught_by("test_two_keys_have_two_ids")
class SharesItsName(FakeDriver):
    """Calls every key by one id."""

    @property
    def key_id(self) -> str:
        return "fake:key"


@caught_by("test_forked_child_uses_the_key")
class BelongsToOneProcess(FakeDriver):
    """Shares a connection among all drivers, and a forked child cannot use it."""

    owner: ClassVar[list[int]] = []

    def call(self, operation: Operation, arguments: Any, timeout: float) -> Any:
        self.owner[:] = self.owner or [os.getpid()]
        if self.owner != [os.getpid()]:
            raise RuntimeError("this connection is another process's")
        return super().call(operation, arguments, timeout)


@caught_by("test_close_twice")
class ClosesOnce(FakeDriver):
    """Fails when it is closed again."""

    closes = 0

    def close(self) -> None:
        self.closes += 1
        if self.closes == 2:  # later ones pass, so that a case can clean up
            raise RuntimeError("closed already")
        super().close()


@caught_by("test_close_of_one_driver_leaves_another_open")
class ClosesItsNeighbours(FakeDriver):
    """Shares a connection among all drivers, and the first that is closed ends it."""

    ended: ClassVar[set[str]] = set()

    def close(self) -> None:
        self.ended.add(self.name)

    def call(self, operation: Operation, arguments: Any, timeout: float) -> Any:
        if self.name in self.ended:
            raise RuntimeError("this connection is closed")
        return super().call(operation, arguments, timeout)


@caught_by("test_repr_shows_no_secret")
class ShowsItsToken(FakeDriver):
    """Has its credential in its repr."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self._caller.credential.reveal()!r})"


@caught_by("test_repr_shows_no_secret")
class ShowsTheKey(FakeDriver):
    """Has the last data key in its repr."""

    last = b""

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        self.last = plaintext
        return super().wrap(plaintext, context, timeout=timeout)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.last!r})"


@caught_by("test_disabled_key_is_told_discreetly", FakeHttpHarness)
class QuotesThePayload(FakeHttpDriver):
    """Gives what was sent as the provider's code, which errors show."""

    sent = b""

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        self.sent = plaintext
        return super().wrap(plaintext, context, timeout=timeout)

    def error_details(self, error: BaseException) -> ErrorDetails:
        return ErrorDetails(code=f"could not encrypt {self.sent!r}")


@caught_by("test_denied_caller_is_told_discreetly")
class AdvisesWithThePayload(FakeDriver):
    """Raises what was sent, in hex, as advice."""

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        try:
            return super().wrap(plaintext, context, timeout=timeout)
        except FakeError as error:
            remedy = f"send {plaintext.hex()} again"
            raise DriverError(error.kind, remedy=remedy) from None


@caught_by("test_development_settings_are_clauses")
class TellsItsTokenAsASetting(FakeDriver):
    """Says with which token it is for development."""

    def development_settings(self) -> list[str]:
        return [f"the token is {self._caller.credential.reveal_text()}"]


@caught_by("test_pickle_shows_no_secret")
class PicklesItsToken(FakeDriver):
    """Can be pickled, with its credential."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (self._caller.credential.reveal(),)


@caught_by("test_success_is_silent")
class LogsThePayload(FakeDriver):
    """Logs what it sends, for debugging."""

    def wrap(self, plaintext: bytes, context: EncryptionContext, *, timeout: float) -> WrappedKey:
        logging.getLogger(__name__).debug("wrapping %r", plaintext)
        return super().wrap(plaintext, context, timeout=timeout)
