"""Opens the seeds of a private file by the key that protects them, once for each driver."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Final

from kmsbridge import registry
from kmsbridge.driver import (
    Capability,
    DriverError,
    EncryptionContext,
    ErrorDetails,
    ErrorKind,
    KeyDriver,
    KeyURI,
    Operation,
    Options,
    OtherCall,
    WrappedKey,
    report_call,
    report_request_id,
)
from kmsbridge.drivers.hpke.document import Pair
from kmsbridge.drivers.hpke.errors import HpkeError
from kmsbridge.drivers.hpke.pairs import RESTORE, open_pair
from kmsbridge.errors import AuthenticationError, ConfigError, KmsBridgeError
from kmsbridge.reports import take_request_id

OPTION: Final = "protect_with"
_ENVIRONMENT: Final = "kmsbridge-environment"


class Protection:
    """The key that wraps the seeds, behind its own driver, and the private keys opened so far.

    A failure of that driver leaves `open` unchanged, so that the library retries it as it does any other; `classify`
    and `error_details` say what it means. Every unwrap of a seed is reported as a call with that key.
    """

    def __init__(self, driver: KeyDriver, *, allowed_in_production: bool) -> None:
        self.driver = driver
        self._allowed_in_production = allowed_in_production
        self._opened: dict[str, Any] = {}
        # Held during the call, so that many threads make one. Reentrant, because a signal handler on the thread that
        # holds it may need a private key as well.
        self._lock = threading.RLock()
        self._closed = False

    @classmethod
    def of(cls, options: Options) -> Protection | None:
        """Return the protection that the table `protect_with` of a key describes; None where there is no such table.

        Touches no network. Raises `ConfigError`.
        """
        table = options.table(OPTION)
        text, allowed = table.text("uri"), table.flag("allow_in_production")
        if not text:
            return None
        uri = KeyURI.parse(text)
        if uri.scheme == "hpke":
            raise ConfigError(
                f"{table.name} is a public-key recipient itself",
                remedy="protect the seed with a key of a key service, or with a local key",
            )
        driver = registry.driver_class(uri.scheme).open(uri, table)
        if Capability.BINDS_CONTEXT not in driver.capabilities:
            driver.close()
            raise ConfigError(
                f"{table.name} is a key that does not bind the encryption context",
                remedy="protect the seed with a symmetric key of the key service",
            )
        return cls(driver, allowed_in_production=allowed)

    def private_key(self, pair: Pair, context: EncryptionContext, *, timeout: float) -> Any:
        """Return the private key of `pair`, which costs a call the first time.

        The seed may be bound to the environment that `context` has, if it has one.
        """
        version = pair.public_key.version
        opened = self._opened.get(version)
        if opened is not None:
            return opened
        deadline = time.monotonic() + timeout
        if not self._lock.acquire(timeout=max(timeout, 0)):
            raise HpkeError(
                ErrorKind.TIMEOUT,
                f"the seed of {pair.public_key.key_id} was not opened in time",
                "try again; check the key service that protects it",
            )
        try:
            opened = self._opened.get(version)
            if opened is None:
                opened = self._open(pair, context.get(_ENVIRONMENT, ""), deadline)
                if not self._closed:
                    self._opened[version] = opened
            return opened
        finally:
            self._lock.release()

    def classify(self, error: BaseException, operation: Operation) -> ErrorKind | None:
        """Return what an exception of the key service means; None for one that its driver did not cause."""
        kind = self.driver.classify(error, operation)
        return ErrorKind.INVALID_REQUEST if kind is ErrorKind.NOT_AUTHENTIC else kind

    def error_details(self, error: BaseException) -> ErrorDetails:
        """Return the key service's code and request id, and a remedy that names the key that protects the seed."""
        details = self.driver.error_details(error)
        return details._replace(remedy=self._remedy(details.remedy))

    def development_settings(self) -> list[str]:
        """Return what is not fit for production in the key that protects the seeds."""
        if self._allowed_in_production:
            return []
        return [f"the seed's key: {setting}" for setting in self.driver.development_settings()]

    def close(self) -> None:
        """Forget the private keys, and close the key service's driver."""
        self._closed = True
        self._opened.clear()
        self.driver.close()

    def _open(self, pair: Pair, environment: str, deadline: float) -> Any:
        def unwrap(wrapped: WrappedKey, context: EncryptionContext) -> bytes:
            key_id = self.driver.resolve(timeout=_left(deadline))
            if key_id != wrapped.key_id and not self.driver.has_former_id(wrapped.key_id):
                raise ConfigError(
                    f"the seed of {pair.public_key.key_id} is protected by {wrapped.key_id}, and {OPTION} is {key_id}",
                    remedy=f"name that key in {OPTION}",
                )
            if environment:
                # Nothing in the private file tells whether the seed is bound to an environment.
                with contextlib.suppress(HpkeError, AuthenticationError):
                    marked = context.with_reserved(kmsbridge_environment=environment)
                    return self._unwrapped(wrapped, marked, deadline)
            return self._unwrapped(wrapped, context, deadline)

        return open_pair(pair, unwrap)

    def _unwrapped(self, wrapped: WrappedKey, context: EncryptionContext, deadline: float) -> bytes:
        """Return the seed. Raises `HpkeError` or `AuthenticationError` where the key service refuses it as not
        authentic, and what the driver raises for any other failure.
        """
        take_request_id()  # that of an earlier call
        started = time.monotonic()

        def report(kind: ErrorKind | None, request_id: str) -> None:
            seconds = time.monotonic() - started
            report_call(
                OtherCall("unwrap", wrapped.key_id, context, wrapped.version, kind, request_id, seconds)
            )

        try:
            seed = self.driver.unwrap(wrapped, context, timeout=_left(deadline))
        except Exception as error:
            kind, details = self._meaning(error)
            if kind is None:
                raise  # not from the driver: a signal handler raised it
            report(kind, details.request_id)
            report_request_id(details.request_id)
            if isinstance(error, DriverError):  # of which `error_details` is not asked
                error.remedy = self._remedy(error.remedy)
            if kind is not ErrorKind.NOT_AUTHENTIC or isinstance(error, AuthenticationError):
                raise
        else:
            report(None, take_request_id())
            return seed
        raise HpkeError(
            ErrorKind.INVALID_REQUEST,
            "the key service refused the seed as changed, or as another key's",
            RESTORE,
            details.code,
        )

    def _remedy(self, remedy: str) -> str:
        what = f"it is the key that protects the seed, of {self.driver.scheme}, that failed"
        return f"{remedy}; {what}" if remedy else what

    def _meaning(self, error: Exception) -> tuple[ErrorKind | None, ErrorDetails]:
        if isinstance(error, AuthenticationError):
            return ErrorKind.NOT_AUTHENTIC, ErrorDetails(request_id=take_request_id())
        if isinstance(error, KmsBridgeError):
            return None, ErrorDetails()
        if isinstance(error, DriverError):
            return error.kind, ErrorDetails(error.code, error.request_id or take_request_id())
        kind = self.driver.classify(error, "unwrap")
        return kind, self.driver.error_details(error) if kind else ErrorDetails()


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)
