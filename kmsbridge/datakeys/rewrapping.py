"""Rewrapping by the key service itself, which shows nobody the data key."""

from __future__ import annotations

from collections.abc import Sequence

from kmsbridge import message
from kmsbridge.clock import Deadline
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.unwrapping import Match, wrapped_by
from kmsbridge.errors import AuthenticationError, KmsError
from kmsbridge.keys import ManagedKey
from kmsbridge.threads import in_parallel

Step = tuple[ManagedKey, Match]
"""A key to wrap to, and the recipient of the message that its service rewraps for it, with the key that it is for."""


def rewrapped_by_service(
    bound: EncryptionContext,
    keys: Sequence[ManagedKey],
    matches: Sequence[Match],
    deadline: Deadline,
) -> tuple[message.Recipient, ...] | None:
    """Return the recipients for `keys`, if each key's service can rewrap what one of `matches` wrapped; else
    None.

    None also where a service refuses or fails, because the caller may still unwrap and wrap; and where the
    message has several recipients of ours that would not each be rewrapped by itself: they may hold different
    data keys, and which one is right cannot be seen here. None also for a message that is not authentic while those
    without an environment are accepted: unwrapping tells which it is. Raise `AuthenticationError` where no other
    recipient can be right. `bound` is the context with its reserved pairs.
    """
    pairs = [(key, _source(key, matches, deadline)) for key in keys]
    steps = [(key, source) for key, source in pairs if source is not None]
    if len(steps) < len(keys) or not _keeps_all(steps, matches):
        return None

    def rewrap(step: Step) -> message.Recipient:
        key, source = step
        wrapped = key.rewrap(wrapped_by(source), bound, deadline=deadline)
        return message.Recipient(wrapped.key_id, wrapped.version, wrapped.ciphertext)

    try:
        return tuple(in_parallel(rewrap, steps, deadline))
    except KmsError:
        return None
    except AuthenticationError:
        if len(matches) == 1 and not keys[0].environment.accepts_unmarked():
            raise
        return None


def _keeps_all(steps: Sequence[Step], matches: Sequence[Match]) -> bool:
    """Return whether no recipient that may be the only sound one is given up for another."""
    if len(matches) == 1:
        return True
    carried = {recipient.key_id for key, (source, recipient) in steps if key.known_id == source.known_id}
    return len(carried) == len(steps) and carried == {recipient.key_id for _, recipient in matches}


def _source(key: ManagedKey, matches: Sequence[Match], deadline: Deadline) -> Match | None:
    # Where the library binds the context itself, a hash of it is in the payload, and would go along.
    fit = [
        match
        for match in matches
        if match[0].binds_context and key.rewraps_from(match[0].known_id, deadline=deadline)
    ]
    # Its own where there is one.
    return min(fit, key=lambda match: match[0].known_id != key.known_id, default=None)
