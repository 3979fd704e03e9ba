"""Counts which messages were made in a profile's environment, and which were made without one."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kmsbridge.audit import AuditTrail
from kmsbridge.cipher import direct
from kmsbridge.cipher.session import configured_key
from kmsbridge.config import KeyConfig, Profile
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import data_key_context
from kmsbridge.datakeys.unwrapping import Unwrapping
from kmsbridge.environment import NO_ENVIRONMENT, Environment
from kmsbridge.errors import (
    AuditError,
    AuthenticationError,
    ClosedError,
    ConfigError,
    KmsBridgeError,
    forget_locals,
)
from kmsbridge.keys import ManagedKey
from kmsbridge.message import Header
from kmsbridge.threads import in_parallel

Tries = Sequence[tuple[Unwrapping, bool]]
"""Keys to unwrap by, in order, and for each whether a message that they unwrap was made in the environment."""


class MessageCount(NamedTuple):
    """The numbers of messages that were made in the profile's environment, that were made without one, and of which
    it is unknown: those of another environment or context, and those that no key of the profile could unwrap.
    """

    marked: int
    unmarked: int
    unknown: int


def count_messages(
    profile: Profile, messages: Iterable[tuple[Header, EncryptionContext]], aad: bytes = b""
) -> MessageCount:
    """Count messages, given as their headers and contexts. `aad` is that of direct messages.

    The keys of `decrypt_with` are asked, up to 16 times at once, and once for all messages of one data key: one call
    where it was wrapped in the environment, two where it was wrapped without one. Raises `ConfigError` for a profile
    without an environment or without such keys, and `AuditError`.
    """
    if not profile.environment.name or not profile.decrypt_with:
        raise ConfigError(
            f"the profile {profile.name!r} has no environment, or no key in decrypt_with",
            remedy="count with a profile that has both",
        )
    counts = Counter(messages)
    try:
        return _count(profile, counts, aad)
    except BaseException as error:
        forget_locals(error)
        raise


def _count(
    profile: Profile, counts: Mapping[tuple[Header, EncryptionContext], int], aad: bytes
) -> MessageCount:
    inside = profile._replace(environment=Environment(profile.environment.name))
    outside = profile._replace(environment=NO_ENVIRONMENT)
    with contextlib.ExitStack() as cleanup:
        audit = AuditTrail(profile.audit, profile=profile.name)
        cleanup.callback(audit.close)

        def opened(config: KeyConfig, environment: Profile) -> ManagedKey:
            key = configured_key(config, environment, audit)
            cleanup.callback(key.close)
            return key

        tries = [
            (
                Unwrapping([opened(config, environment) for config in profile.decrypt_with]),
                environment is inside,
            )
            for environment in (inside, outside)
        ]
        distinct = list(counts)
        found = in_parallel(lambda each: _is_marked(tries, *each, aad), distinct)
    total: Counter[bool | None] = Counter()
    for each, marked in zip(distinct, found, strict=True):
        total[marked] += counts[each]
    return MessageCount(total[True], total[False], total[None])


def _is_marked(tries: Tries, header: Header, context: EncryptionContext, aad: bytes) -> bool | None:
    """Return whether the message was made in the environment; None where no key tells."""
    bound = direct.bound_context(context, aad) if header.is_direct else data_key_context(context)
    for unwrapping, marked in tries:
        try:
            deadline = unwrapping.keys[0].new_deadline()
            matches, failures = unwrapping.matches(header, deadline)
            for match in matches:
                with contextlib.suppress(AuthenticationError):
                    unwrapping.unwrap(match, bound, deadline)
                    return marked
        except (AuditError, ClosedError):
            raise
        except KmsBridgeError:
            return None  # it may have been made in the environment
        if failures:
            return None
    return None
