"""Opens the seeds of a private file by the key that protects them, once for each driver."""

from __future__ import annotations

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
    WrappedKey,
)
from kmsbridge.drivers.hpke.document import Pair
from kmsbridge.drivers.hpke.errors import HpkeError
from kmsbridge.drivers.hpke.pairs import open_pair
from kmsbridge.errors import ConfigError

OPTION: Final = "protect_with"


class Protection:
    """The key that wraps the seeds, behind its own driver, and the private keys opened so far.

    A failure of that driver leaves `open` unchanged, so that the library retries it as it does any other; `classify`
    and `error_details` say what it means.
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

    def private_key(self, pair: Pair, *, timeout: float) -> Any:
        """Return the private key of `pair`, which costs a call the first time."""
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
                opened = self._open(pair, deadline)
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
        what = f"it is the key that protects the seed, of {self.driver.scheme}, that failed"
        return details._replace(remedy=f"{details.remedy}; {what}" if details.remedy else what)

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

    def _open(self, pair: Pair, deadline: float) -> Any:
        def unwrap(wrapped: WrappedKey, context: EncryptionContext) -> bytes:
            key_id = self.driver.resolve(timeout=_left(deadline))
            if key_id != wrapped.key_id:
                raise ConfigError(
                    f"the seed of {pair.public_key.key_id} is protected by {wrapped.key_id}, and {OPTION} is {key_id}",
                    remedy=f"name that key in {OPTION}",
                )
            return self._unwrapped(wrapped, context, _left(deadline))

        return open_pair(pair, unwrap)

    def _unwrapped(self, wrapped: WrappedKey, context: EncryptionContext, timeout: float) -> bytes:
        try:
            return self.driver.unwrap(wrapped, context, timeout=timeout)
        except DriverError as error:
            if error.kind is not ErrorKind.NOT_AUTHENTIC:
                raise
            refused = error
        raise HpkeError(
            ErrorKind.INVALID_REQUEST,
            "the key service refused the seed as changed, or as another key's",
            "restore the private file from a backup",
            refused.code,
        )


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)
