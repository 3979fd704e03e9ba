"""A key service in memory for tests, which fails on demand. `FakeDriver` calls it, `HttpKeyService` serves it.

Its keys exist as long as the process and protect nothing.
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
    """A refusal by the fake service. Its `code` is the name of its `kind`; `request_id` is the request's."""

    def __init__(self, kind: ErrorKind, request_id: str = "") -> None:
        super().__init__(kind, code=kind.name, request_id=request_id)


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller of the service: what it may do, and the credential that it sends."""

    role: Role
    credential: Secret


@dataclass(slots=True)
class _Fault:
    kind: ErrorKind | None = None
    delay: float = 0.0
    answer: Any = None
    left: int | None = None


class FakeKey:
    """One key of the service.

    Tests may set `state`, a `KeyState`; read `calls`, a `Counter` by operation; and rotate the key or give it
    faults. `operation` is "wrap", "wrap_many", "unwrap", "unwrap_many", "rewrap", "describe" or "rotate"; a new
    fault replaces the operation's earlier one.
    """

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
        """Refuse `operation` with an error of `kind`: the next `times` times, or until `heal`."""
        self._faults[operation] = _Fault(kind=kind, left=times)

    def delay(self, operation: Operation, seconds: float, *, times: int | None = None) -> None:
        """Delay `operation` by `seconds`: the next `times` times, or until `heal`.

        A caller with a shorter timeout gets an error of kind TIMEOUT when that timeout ends.
        """
        self._faults[operation] = _Fault(delay=seconds, left=times)

    def answer(self, operation: Operation, answer: Any, *, times: int | None = None) -> None:
        """Answer `operation` with `answer` instead of the right result: the next `times` times, or until `heal`.

        For its form see `FakeService.perform`.
        """
        self._faults[operation] = _Fault(answer=answer, left=times)

    def heal(self) -> None:
        """End all faults of this key."""
        self._faults.clear()

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Return `plaintext` encrypted under the current version.

        The ciphertext begins with the version: one byte of length, then its number as text.
        """
        version = self.version
        head = bytes((len(version),)) + version.encode()
        return chunked.encrypt(self._versions[version], _CONTEXT + context, plaintext, head)

    def open(self, ciphertext: bytes, context: bytes) -> bytes:
        """Return the plaintext of what `seal` returned. Raises `FakeError`."""
        length = ciphertext[0] if ciphertext else 0
        version = ciphertext[1 : 1 + length].decode("ascii", "replace")
        if version not in self._versions:
            raise FakeError(ErrorKind.INVALID_REQUEST)
        try:
            return chunked.decrypt(self._versions[version], _CONTEXT + context, ciphertext[1 + length :])
        except AuthenticationError:
            raise FakeError(ErrorKind.NOT_AUTHENTIC) from None

    def suffer(self, operation: Operation, timeout: float) -> Any:
        """Count a call and apply the operation's fault, if it has one. Raises `FakeError`.

        Return the answer that the fault gives instead of the right one, or None.
        """
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
        """Replace the lock in a child process, where no thread exists to release it."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"FakeKey({self.name!r}, version {self.version}, {self.state.value})"


class FakeService:
    """A fake key service: keys by name, and the credentials that it no longer accepts."""

    def __init__(self) -> None:
        self._keys: dict[str, FakeKey] = {}
        self._expired: set[str] = set()
        self._requests = itertools.count(1)

    def create(self, name: str) -> FakeKey:
        """Make a new key and return it. It replaces any key of this name."""
        return self.put(FakeKey(name))

    def put(self, key: FakeKey) -> FakeKey:
        """Add `key` and return it. It replaces any key of its name."""
        self._keys[key.name] = key
        return key

    def delete(self, name: str) -> None:
        """Remove the key and all its versions for good. Raises `KeyError` if there is none."""
        del self._keys[name]

    def expire(self, credential: str) -> None:
        """Refuse `credential` from now on."""
        self._expired.add(credential)

    def next_request(self) -> str:
        """Return a new request id."""
        return f"fake-{next(self._requests)}"

    def key(self, name: str, operation: Operation, caller: Caller) -> FakeKey:
        """Return the key if `caller` may do `operation` with it. Raises `FakeError`."""
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
        """Perform one request and return its result. Raises `FakeError`.

        `arguments` and result by operation:

        - wrap: `(plaintext, context) -> (version, ciphertext)`
        - unwrap: `(ciphertext, context) -> plaintext`
        - wrap_many, unwrap_many: a list of the same; an item that failed has an `ErrorKind` as its result
        - rewrap: `(source, ciphertext, context) -> (version, ciphertext)`; `source` is the name of the key that
          wrapped it
        - describe, rotate: `None -> (state, version)`
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


def _batch(perform: Any) -> Any:
    """Return `perform` for a list of arguments; the result of an item that fails is an `ErrorKind`."""

    def attempt(key: FakeKey, item: Any) -> Any:
        try:
            return perform(key, item)
        except FakeError as error:
            return error.kind

    def many(key: FakeKey, items: list[Any]) -> list[Any]:
        if len(items) > BATCH_LIMIT:
            raise FakeError(ErrorKind.TOO_LARGE)
        return [attempt(key, item) for item in items]

    return many


_OPERATIONS: Final[dict[str, Any]] = {
    "wrap": _wrap,
    "wrap_many": _batch(_wrap),
    "unwrap": _unwrap,
    "unwrap_many": _batch(_unwrap),
}
