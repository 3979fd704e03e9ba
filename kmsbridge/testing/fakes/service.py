"""A key service in memory, which can be told to fail. `FakeDriver` calls it, `HttpKeyService` serves it.

Its keys live as long as the process. They protect nothing: this is for tests.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from kmsbridge import forks
from kmsbridge.driver import DriverError, ErrorKind, KeyState, Secret
from kmsbridge.errors import AuthenticationError
from kmsbridge.message import chunked, cobblestone

Role = Literal["both", "encrypt-only", "decrypt-only"]
Operation = Literal["wrap", "wrap_many", "unwrap", "unwrap_many", "rewrap", "describe", "rotate"]

MAX_PLAINTEXT: Final = 4096
BATCH_LIMIT: Final = 200
ALLOWED: Final[dict[str, frozenset[str]]] = {
    "both": frozenset(get_args(Operation)),
    "encrypt-only": frozenset({"wrap", "wrap_many", "describe"}),
    "decrypt-only": frozenset({"unwrap", "unwrap_many", "describe"}),
}
_CONTEXT: Final = b"kmsbridge-fake/v1\0"


class FakeError(DriverError):
    """What the fake service refuses with: a kind, whose name is the code, and the id of the request."""

    def __init__(self, kind: ErrorKind, request_id: str = "") -> None:
        super().__init__(kind, code=kind.name, request_id=request_id)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: what it may do, and the credential that it shows."""

    role: Role
    credential: Secret


@dataclass(slots=True)
class _Fault:
    kind: ErrorKind | None = None
    delay: float = 0.0
    answer: Any = None
    left: int | None = None


class FakeKey:
    """One key of the service. Tests may set its `state`, rotate it, count its `calls` and break it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = KeyState.ENABLED
        self.calls: Counter[str] = Counter()
        self._versions: dict[str, bytes] = {}
        self._faults: dict[str, _Fault] = {}
        self._lock = threading.Lock()
        forks.watch(self)
        self.rotate()

    @property
    def version(self) -> str:
        """The version that a wrap uses now."""
        return str(len(self._versions))

    def rotate(self) -> None:
        """Make a new version; the older ones still unwrap."""
        with self._lock:
            self._versions[str(len(self._versions) + 1)] = cobblestone.new_key()

    def fail(self, operation: Operation, kind: ErrorKind, *, times: int | None = None) -> None:
        """Refuse `operation` with `kind`, the next `times` times or until `heal`."""
        self._faults[operation] = _Fault(kind=kind, left=times)

    def delay(self, operation: Operation, seconds: float, *, times: int | None = None) -> None:
        """Take `seconds` over `operation`; a caller with less patience gets TIMEOUT when it ends."""
        self._faults[operation] = _Fault(delay=seconds, left=times)

    def answer(self, operation: Operation, answer: Any, *, times: int | None = None) -> None:
        """Answer `operation` with `answer`, whatever is right."""
        self._faults[operation] = _Fault(answer=answer, left=times)

    def heal(self) -> None:
        """End every fault."""
        self._faults.clear()

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Wrap under the current version, whose number comes first: one byte of length, then the text."""
        version = self.version
        head = bytes((len(version),)) + version.encode()
        return chunked.encrypt(self._versions[version], _CONTEXT + context, plaintext, head)

    def open(self, ciphertext: bytes, context: bytes) -> bytes:
        """Unwrap. Raises `FakeError`."""
        length = ciphertext[0] if ciphertext else 0
        version = ciphertext[1 : 1 + length].decode("ascii", "replace")
        if version not in self._versions:
            raise FakeError(ErrorKind.INVALID_REQUEST)
        try:
            return chunked.decrypt(self._versions[version], _CONTEXT + context, ciphertext[1 + length :])
        except AuthenticationError:
            raise FakeError(ErrorKind.NOT_AUTHENTIC) from None

    def suffer(self, operation: Operation, timeout: float) -> Any:
        """Count the call and let its fault, if any, happen; the answer to give instead, if any."""
        with self._lock:
            self.calls[operation] += 1
            fault = self._faults.get(operation)
            if fault is None:
                return None
            if fault.left is not None:
                fault.left -= 1
                if not fault.left:
                    del self._faults[operation]
        if fault.delay:
            time.sleep(max(0.0, min(fault.delay, timeout)))
            if fault.delay > timeout:
                raise FakeError(ErrorKind.TIMEOUT)
        if fault.kind is not None:
            raise FakeError(fault.kind)
        return fault.answer

    def after_fork(self) -> None:
        """A child has a copy of the key, and whoever held its lock is not there to let go."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"FakeKey({self.name!r}, version {self.version}, {self.state.value})"


class FakeService:
    """The keys by name, and the credentials that are no longer valid."""

    def __init__(self) -> None:
        self._keys: dict[str, FakeKey] = {}
        self._expired: set[str] = set()
        self._requests = itertools.count(1)

    def create(self, name: str) -> FakeKey:
        """A new key, in place of any that had this name."""
        return self.put(FakeKey(name))

    def put(self, key: FakeKey) -> FakeKey:
        """The key, in place of any that had its name."""
        self._keys[key.name] = key
        return key

    def delete(self, name: str) -> None:
        """Remove the key and all its versions for good."""
        del self._keys[name]

    def expire(self, credential: str) -> None:
        """Refuse `credential` from now on."""
        self._expired.add(credential)

    def next_request(self) -> str:
        """The id of one more request."""
        return f"fake-{next(self._requests)}"

    def key(self, name: str, operation: Operation, caller: Caller) -> FakeKey:
        """The key, if `caller` may do `operation` with it. Raises `FakeError`."""
        if caller.credential.reveal_text() in self._expired:
            raise FakeError(ErrorKind.UNAUTHENTICATED)
        if name not in self._keys:
            raise FakeError(ErrorKind.KEY_NOT_FOUND)
        if operation not in ALLOWED[caller.role]:
            raise FakeError(ErrorKind.ACCESS_DENIED)
        return self._keys[name]

    def perform(
        self, name: str, operation: Operation, caller: Caller, arguments: Any, *, timeout: float
    ) -> Any:
        """One operation, as a service would do it for a request. Raises `FakeError`.

        `arguments` and result: wrap `(plaintext, context) -> (version, ciphertext)`; unwrap
        `(ciphertext, context) -> plaintext`; wrap_many and unwrap_many a list of such, with an `ErrorKind` for
        each that fails; rewrap `(source, ciphertext, context)`, `source` the name of the key that wrapped it,
        with wrap's result; describe and rotate `None -> (state, version)`.
        """
        if name in self._keys:
            wrong_answer = self._keys[name].suffer(operation, timeout)
            if wrong_answer is not None:
                return wrong_answer
        key = self.key(name, operation, caller)
        if operation == "describe":
            return key.state, key.version
        _check_enabled(key)
        if operation == "rotate":
            key.rotate()
            return key.state, key.version
        if operation == "rewrap":
            source, ciphertext, context = arguments
            origin = self.key(source, operation, caller)
            _check_enabled(origin)
            return _wrap(key, (origin.open(ciphertext, context), context))
        return _OPERATIONS[operation](key, arguments)


def _check_enabled(key: FakeKey) -> None:
    if key.state is not KeyState.ENABLED:
        raise FakeError(ErrorKind.KEY_DISABLED)


def _wrap(key: FakeKey, arguments: tuple[bytes, bytes]) -> tuple[str, bytes]:
    plaintext, context = arguments
    if len(plaintext) > MAX_PLAINTEXT:
        raise FakeError(ErrorKind.TOO_LARGE)
    ciphertext = key.seal(plaintext, context)
    return ciphertext[1 : 1 + ciphertext[0]].decode(), ciphertext


def _unwrap(key: FakeKey, arguments: tuple[bytes, bytes]) -> bytes:
    return key.open(*arguments)


def _each(one: Any) -> Any:
    """The same for a list, with an `ErrorKind` in the place of each that fails."""

    def attempt(key: FakeKey, item: Any) -> Any:
        try:
            return one(key, item)
        except FakeError as error:
            return error.kind

    def many(key: FakeKey, items: list[Any]) -> list[Any]:
        if len(items) > BATCH_LIMIT:
            raise FakeError(ErrorKind.TOO_LARGE)
        return [attempt(key, item) for item in items]

    return many


_OPERATIONS: Final[dict[str, Any]] = {
    "wrap": _wrap,
    "wrap_many": _each(_wrap),
    "unwrap": _unwrap,
    "unwrap_many": _each(_unwrap),
}
