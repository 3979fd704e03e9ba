"""What the author of a driver writes to have it examined: how to open its keys, and how to break them."""

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
    """What can go wrong between a driver and its service. A page is HTML, of something in between."""

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
    """Why a service cannot be reached at the address that a driver is given."""

    UNKNOWN_CA = "a certificate of an unknown CA"
    OTHER_HOST = "a certificate of another host"
    EXPIRED = "an expired certificate"
    NO_TLS = "no TLS where it is expected"
    NO_SUCH_HOST = "a host name that does not exist"


@dataclass(frozen=True, slots=True)
class KeyAddress:
    """What a configuration holds of one key: its URI, and its options (which may be secret)."""

    uri: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Harness(ABC):
    """The keys of one case of the contract, and power over them.

    Each case makes a harness anew, and closes it. Only `address` must be written. The other abilities
    are written too, or declared in `cannot` with the reason why they cannot be had; what is neither
    fails the cases that need it.
    """

    driver: ClassVar[type[KeyDriver] | None] = None
    """The driver's class, where it is not installed through an entry point."""
    cannot: Mapping[str, str] = MappingProxyType({})
    """Why not, by what cannot be done: an ability, a `Fault` or `Misdirection` by its text, or the
    name of one case, `test_...` with or without its `[...]`, that the service is known to fail.
    `sdk` and `secrets` stand here where there are none."""
    sdk: ClassVar[Sequence[str]] = ()
    """The provider's modules, `boto3` or the like, which opening a driver must not import. Must be set, or
    declared in `cannot`."""
    secrets: Sequence[bytes] = ()
    """Tokens and passphrases among the options, for the cases which look for them where they must not be.
    Must be set, or declared in `cannot`."""

    @abstractmethod
    def address(self, which: Which, role: Role = "both") -> KeyAddress:
        """Where the first or second key is; they differ, are enabled and used by nobody else.

        `role` is the caller's, and comes with the options: one that may do everything, or only wrap, or
        only unwrap (ability `roles`).
        """

    def named(self, name: str) -> KeyAddress:
        """An address with this name, which no key has, put into the URI as it is; the caller is valid."""
        self._lacks("named")

    def rotate(self, which: Which) -> None:
        """Make a new version of the key by the service's own means."""
        self._lacks("rotate")

    def disable(self, which: Which) -> None:
        """Disable the key."""
        self._lacks("disable")

    def enable(self, which: Which) -> None:
        """Enable the disabled key."""
        self._lacks("disable")

    def schedule_deletion(self, which: Which) -> None:
        """Have the key wait for its deletion."""
        self._lacks("schedule_deletion")

    def delete(self, which: Which) -> None:
        """Delete the key for good."""
        self._lacks("delete")

    def expire_credentials(self) -> None:
        """Make the credentials in every address given so far invalid."""
        self._lacks("expire_credentials")

    def break_network(self, fault: Fault) -> None:
        """Have `fault` happen to every call from now on, of drivers that are open too."""
        self._lacks("break_network")

    def heal_network(self) -> None:
        """End the fault."""
        self._lacks("break_network")

    def arrivals(self) -> int:
        """How many connections, or calls, reached the network's fault since `break_network`."""
        self._lacks("break_network")

    def astray(self) -> int:
        """How many connections came to the host that the redirects lead to, since `break_network`."""
        self._lacks("astray")

    def misdirected(self, why: Misdirection) -> KeyAddress:
        """The first key at an address where its service cannot be reached."""
        self._lacks("misdirected")

    def calls(self, which: Which) -> int:
        """How many wraps, unwraps and rewraps the service was asked for so far, a batch as one, refused ones too."""
        self._lacks("calls")

    def close(self) -> None:  # noqa: B027 - there may be nothing to do
        """Remove what the harness made."""

    def _lacks(self, ability: str) -> NoReturn:
        raise NotImplementedError(
            f"{type(self).__name__} neither implements {ability!r} nor says in `cannot` why it does not"
        )


ABILITIES: Final = (
    *("roles", "named", "rotate", "disable", "schedule_deletion", "delete", "expire_credentials"),
    *("break_network", "misdirected", "calls", "fresh_process", "sdk", "secrets"),
    *(each.value for kind in (Fault, Misdirection) for each in kind),
)
"""What `Harness.cannot` may name besides cases. `fresh_process`: another process sees the same keys."""
