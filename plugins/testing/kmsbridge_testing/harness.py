"""`Harness`, which the author of a driver implements: it gives the contract suite keys and can break them."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, NoReturn

from kmsbridge.driver import KeyDriver
from kmsbridge.testing.fakes.service import Role

Which = Literal["first", "second"]


class Fault(enum.Enum):
    """A fault of the network, or of something between a driver and its service.

    The value is a text for test ids and for `Harness.cannot`. A "page" is an HTML page of a proxy or the like.
    """

    REFUSED = "connection refused"
    RESET_BEFORE = "reset before the request"
    RESET_AFTER = "reset after the request"
    RESET_AMID = "reset amid the answer"
    CLOSED = "closed without an answer"
    HALF = "half an answer"

    HANG = "no answer"
    TRICKLE = "an answer byte by byte"
    STALLED = "half an answer and then nothing"
    CONTINUE = "status 100 and then nothing"
    EARLY_HINTS = "status 103 and then nothing"

    FOREIGN = "an answer of another protocol"
    TLS_ALERT = "a TLS alert"
    TLS_PORT = "status 400 of a TLS port"
    UNREADABLE = "an answer that does not parse"
    EMPTY = "an empty answer"
    NULL = "an answer of null"
    LIST = "an answer of another shape"
    OBJECT = "an answer without its fields"
    CUT_BY_LENGTH = "a length that cuts the answer"
    BROKEN_CHUNKS = "chunks that are none"
    BROKEN_GZIP = "compressed data that is none"
    ENDLESS_BODY = "an answer without end"
    ENDLESS_HEAD = "headers without end"

    REDIRECT = "a redirect to another host"
    REDIRECT_307 = "a redirect to another host with the request"

    LOGIN_PAGE = "status 200 with a page"
    BLOCKED_PAGE = "status 403 with a page"
    NOT_FOUND_PAGE = "status 404 with a page"
    GATEWAY_PAGE = "status 502 with a page"
    PROXY_LOGIN = "status 407"
    REQUEST_TIMEOUT = "status 408"
    MISDIRECTED = "status 421"
    THROTTLED = "status 429"
    INTERNAL = "status 500"
    INTERNAL_LIST = "status 500 of another shape"
    BAD_GATEWAY = "status 502"
    UNAVAILABLE = "status 503"
    GATEWAY_TIMEOUT = "status 504"
    UNKNOWN_STATUS = "status 520"

    DELAY = "an answer half a second late"
    STALE = "idle connections closed"
    VANISHED = "idle connections gone silent"


class Misdirection(enum.Enum):
    """A reason why a driver cannot reach its service at the configured address."""

    UNKNOWN_CA = "a certificate of an unknown CA"
    OTHER_HOST = "a certificate of another host"
    EXPIRED = "an expired certificate"
    NO_TLS = "no TLS where it is expected"
    NO_SUCH_HOST = "a host name that does not exist"


@dataclass(frozen=True, slots=True)
class KeyAddress:
    """The configuration of one key: its URI, and its options, which may contain secrets."""

    uri: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Harness(ABC):
    """Two keys for one case of the suite, and the means to change and break them.

    Each case makes a new harness and closes it at its end. `address` must be implemented. Each other ability is
    either implemented or declared in `cannot`, with the reason; a case that needs one that is neither fails.
    """

    driver: ClassVar[type[KeyDriver] | None] = None
    """The driver's class, or None if it is installed through an entry point."""
    cannot: Mapping[str, str] = MappingProxyType({})
    """The reasons for what this harness or its service cannot do.

    A name is an ability, the value of a `Fault` or `Misdirection`, or a case that the service is known to fail:
    `test_...`, with or without its `[...]`. Declare `sdk` and `secrets` here if there are none."""
    sdk: ClassVar[Sequence[str]] = ()
    """The provider's modules, such as `boto3`, which opening a driver must not import. Must be set, or declared in
    `cannot`."""
    secrets: Sequence[bytes] = ()
    """The tokens and passphrases in the options, which the suite searches for in errors, logs and the like. Must be
    set, or declared in `cannot`."""

    @abstractmethod
    def address(self, which: Which, role: Role = "both") -> KeyAddress:
        """Return the address of the first or the second key. Both are enabled, and nothing else uses them.

        `role` is the caller's, and its credentials are in the options: a caller that may do everything ("both"), only
        wrap ("encrypt-only") or only unwrap ("decrypt-only"). The last two are the ability `roles`.
        """

    def named(self, name: str) -> KeyAddress:
        """Return the address of a key called `name`, which does not exist, with a caller that may do everything.

        `name` goes into the URI unchanged: it can contain `..`, `%2f` or a line end.
        """
        self._lacks("named")

    def rotate(self, which: Which) -> None:
        """Make a new version of the key directly at the service, without the driver."""
        self._lacks("rotate")

    def disable(self, which: Which) -> None:
        """Disable the key."""
        self._lacks("disable")

    def enable(self, which: Which) -> None:
        """Enable the disabled key."""
        self._lacks("disable")

    def schedule_deletion(self, which: Which) -> None:
        """Put the key into the state in which it waits for its deletion."""
        self._lacks("schedule_deletion")

    def delete(self, which: Which) -> None:
        """Delete the key for good."""
        self._lacks("delete")

    def expire_credentials(self) -> None:
        """Make the credentials in all addresses returned so far invalid."""
        self._lacks("expire_credentials")

    def break_network(self, fault: Fault) -> None:
        """Apply `fault` to all calls from now on, also those of open drivers. Replaces an earlier fault."""
        self._lacks("break_network")

    def heal_network(self) -> None:
        """End the fault."""
        self._lacks("break_network")

    def arrivals(self) -> int:
        """Return the number of connections, or calls, that met the fault since `break_network`."""
        self._lacks("break_network")

    def astray(self) -> int:
        """Return the number of connections to the host that the redirects name, since `break_network`."""
        self._lacks("astray")

    def misdirected(self, why: Misdirection) -> KeyAddress:
        """Return an address of the first key at which the service cannot be reached, because of `why`."""
        self._lacks("misdirected")

    def calls(self, which: Which) -> int:
        """Return how many wrap, unwrap and rewrap requests the service has received for the key.

        A batch counts as one request, and refused requests count, too.
        """
        self._lacks("calls")

    def close(self) -> None:  # noqa: B027 - there may be nothing to do
        """Remove everything that the harness made."""

    def _lacks(self, ability: str) -> NoReturn:
        raise NotImplementedError(
            f"{type(self).__name__} does not implement {ability!r}; implement it, or declare in `cannot` why not"
        )


ABILITIES: Final = (
    *("roles", "named", "rotate", "disable", "schedule_deletion", "delete", "expire_credentials"),
    *("break_network", "misdirected", "calls", "fresh_process", "sdk", "secrets"),
    *(member.value for enumeration in (Fault, Misdirection) for member in enumeration),
)
"""The names that `Harness.cannot` may contain besides cases. `fresh_process`: another process sees the same keys."""
