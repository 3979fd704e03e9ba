"""Rewrapping by the key service itself, which shows nobody the data key."""

from __future__ import annotations

from collections.abc import Sequence

from kmsbridge import message
from kmsbridge.audit import AuditTrail
from kmsbridge.calls import Key, in_parallel
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.trail import told_call
from kmsbridge.datakeys.unwrapping import Match, wrapped_by
from kmsbridge.errors import AuthenticationError, KmsError


def rewrapped_by_service(
    header: message.Header,
    bound: EncryptionContext,
    keys: Sequence[Key],
    matches: Sequence[Match],
    audit: AuditTrail,
) -> message.Header | None:
    """The header for `keys`, if each one's service can rewrap what one of `matches` wrapped; else None.

    None also where a service refuses or fails: the caller may be one that unwraps and wraps. Raises
    `AuthenticationError` where there is no other recipient that may be sound. `bound` is the context with its
    reserved pairs.
    """
    pairs = [(key, _source(key, matches)) for key in keys]
    steps = [(key, source) for key, source in pairs if source is not None]
    if len(steps) < len(keys):
        return None

    def rewrap(step: tuple[Key, message.Recipient]) -> message.Recipient:
        key, source = step
        with told_call(audit, "rewrap", key, bound) as told:
            wrapped = key.rewrap(wrapped_by(source), bound)
            told.version = wrapped.version
        return message.Recipient(wrapped.key_id, wrapped.version, wrapped.ciphertext)

    try:
        return message.inline(tuple(in_parallel(rewrap, steps)), kind=header.kind)
    except KmsError:
        return None
    except AuthenticationError:
        if len(matches) == 1:
            raise
        return None


def _source(key: Key, matches: Sequence[Match]) -> message.Recipient | None:
    # Where the library binds the context itself, a hash of it is in the payload, and would go along.
    fit = (
        recipient
        for source, recipient in matches
        if source.binds_context and key.rewraps_from(recipient.key_id)
    )
    return next(fit, None)
