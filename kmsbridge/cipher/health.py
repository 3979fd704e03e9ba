"""How the keys and caches of a cipher do: what a readiness probe asks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from kmsbridge.cipher.session import Session
from kmsbridge.clock import Deadline
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import KeyCache
from kmsbridge.keys import ManagedKey
from kmsbridge.keys.trials import KeyTrials, LastCall, Trial, shortfall
from kmsbridge.threads import in_parallel

_LISTS: Final = ("encrypt_to", "decrypt_with")


@dataclass(frozen=True, slots=True)
class KeyHealth:
    """How one key does. What is None was not tried: it is known after `check(probe=True)` only.

    `key_id` is empty where it would have taken a call. `breaker` is `closed` where calls are made, `open` where
    the service failed too often to be called now, and `half-open` where the next call finds out whether it is
    back. `failing_for` are the seconds since the first failure that no success has followed, 0.0 where there is
    none. `throttled` says whether the service refused calls because of their rate in the last seconds.

    `ok` is false where the breaker is open, and where what the key is for was tried and does not work;
    `problem` says why, and what to do.
    """

    name: str
    key_id: str
    encrypt_to: bool
    decrypt_with: bool
    ok: bool
    breaker: Literal["closed", "open", "half-open"]
    failing_for: float
    throttled: bool
    problem: str = ""
    reachable: bool | None = None
    state: str = "unknown"
    version: str = ""
    describe: Trial | None = None
    wrap: Trial | None = None
    unwrap: Trial | None = None


@dataclass(frozen=True, slots=True)
class CacheHealth:
    """The data keys in memory: how many there are, how many there may be, and the age of the oldest in seconds."""

    data_keys: int
    max_entries: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Health:
    """How a cipher does. `ok` says whether it can do its work as far as is known.

    That takes every key of `encrypt_to`, since each wraps every data key, and one of `decrypt_with`. A cache is
    None where the cipher does not encrypt, or does not decrypt.
    """

    ok: bool
    profile: str
    keys: tuple[KeyHealth, ...]
    encryption_cache: CacheHealth | None
    decryption_cache: CacheHealth | None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as values that JSON has."""
        return dataclasses.asdict(self)


def check(
    session: Session, caches: Mapping[str, KeyCache], *, probe: bool, context: EncryptionContext
) -> Health:
    """Return how the keys of `session` do that are in the lists for which there are `caches`, and these."""
    lists = {setting: getattr(session, setting) for setting in caches}
    keys = list(dict.fromkeys(key for each in lists.values() for key in each))
    deadline = Deadline(session.profile.calls.deadline)

    def look(key: ManagedKey) -> KeyHealth:
        roles = {setting: key in each for setting, each in lists.items()}
        if not probe:
            return _known(key, **roles)
        return _tried(key, KeyTrials(key, LastCall(), context, deadline=deadline), **roles)

    found = tuple(in_parallel(look, keys) if probe else map(look, keys))
    wrapping, unwrapping = ([key.ok for key in found if getattr(key, name)] for name in _LISTS)
    return Health(
        ok=all(wrapping) and (any(unwrapping) or not unwrapping),
        profile=session.profile.name,
        keys=found,
        encryption_cache=_cache(caches.get("encrypt_to")),
        decryption_cache=_cache(caches.get("decrypt_with")),
    )


def _known(key: ManagedKey, *, encrypt_to: bool = False, decrypt_with: bool = False) -> KeyHealth:
    """Return what is known without a call."""
    breaker = key.health.breaker
    is_open = breaker.state == "open"
    return KeyHealth(
        name=key.name,
        key_id=key.known_id,
        encrypt_to=encrypt_to,
        decrypt_with=decrypt_with,
        ok=not is_open,
        breaker=breaker.state,
        failing_for=round(breaker.failing_for, 3),
        throttled=key.health.limiter.throttled,
        problem="the service failed too often to be called now; check the network to it" if is_open else "",
    )


def _tried(
    key: ManagedKey, trials: KeyTrials, *, encrypt_to: bool = False, decrypt_with: bool = False
) -> KeyHealth:
    """Return what is known after each operation that the key is for was tried once."""
    describe, description = trials.describe()
    state, version = (description.state.value, description.version) if description else ("unknown", "")
    wrap = unwrap = sample = None
    if encrypt_to:
        wrap, sample = trials.wrap()
    if decrypt_with:
        unwrap, _ = trials.unwrap(sample or trials.sample(version))
    tried = [(name, trial) for name, trial in (("wrap", wrap), ("unwrap", unwrap)) if trial is not None]
    problems = dict.fromkeys(filter(None, (shortfall(name, trial, state) for name, trial in tried)))
    return dataclasses.replace(
        _known(key, encrypt_to=encrypt_to, decrypt_with=decrypt_with),
        ok=not problems,
        problem="; ".join(problems),
        reachable=trials.reachable,
        state=state,
        version=version,
        describe=describe,
        wrap=wrap,
        unwrap=unwrap,
    )


def _cache(cache: KeyCache | None) -> CacheHealth | None:
    if cache is None:
        return None
    return CacheHealth(len(cache), cache.policy.max_entries, round(cache.oldest(), 3))
