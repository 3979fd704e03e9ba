"""Which key unwraps a message's data key, and who is asked when one cannot."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from kmsbridge.audit import AuditTrail
from kmsbridge.calls import Key
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.trail import told_call, told_failure
from kmsbridge.driver import WrappedKey
from kmsbridge.errors import (
    AuthenticationError,
    ConfigError,
    KmsBridgeError,
    KmsError,
    KmsThrottled,
    KmsTimeout,
    KmsUnavailable,
    LimitExceeded,
    NoMatchingKey,
    listed,
)
from kmsbridge.message import Header, Recipient

ANOTHER_MAY_DO = (KmsError, AuthenticationError, ConfigError, LimitExceeded)
"""Failures of one key, after which the next is tried."""
PASSING = (KmsUnavailable, KmsThrottled, KmsTimeout)

Match = tuple[Key, Recipient]


class Unwrapping:
    """The keys of `decrypt_with` in their order; no other is ever contacted, whatever a message names.

    A key whose service failed and has not answered since comes after the others. It is asked again in
    the background, about every 5 s while it would have been the one to ask, so that no reader waits.
    """

    def __init__(self, keys: Sequence[Key], audit: AuditTrail) -> None:
        self.keys = tuple(keys)
        self._audit = audit

    def try_each(self, header: Header, bound: EncryptionContext) -> tuple[bytes, Recipient]:
        """What the recipients wrapped, by the first of our keys that can unwrap it.

        `bound` is the context with its reserved pairs. A key that fails is no reason not to try the
        next, and while there is a next one it gets one attempt. If all fail, a refusal is raised before
        an outage, and either before a lack of authenticity, which it may be the cause of; the others
        are in the error's notes, and each is in the audit trail.
        """
        matches, failures = self.matches(header)
        for number, (key, recipient) in enumerate(matches, 1):
            only_one = 1 if number < len(matches) else None
            try:
                payload = self._unwrap(recipient, key, bound, attempts=only_one)
            except ANOTHER_MAY_DO as error:
                failures.append(error)
            else:
                self._look_after(header, bound)
                return payload, recipient
        failures.sort(key=_weight)
        for other in failures[1:]:
            failures[0].add_note(f"also: {other}")
        raise failures[0]

    def matches(self, header: Header) -> tuple[list[Match], list[KmsBridgeError]]:
        """Our keys that the message is for, those first that answer; and why others could not tell their id.

        Raises `NoMatchingKey` where neither is there.
        """
        by_id = {recipient.key_id: recipient for recipient in header.recipients}
        matches: list[Match] = []
        failures: list[KmsBridgeError] = []
        for key in sorted(self.keys, key=lambda key: key.ailing):
            if matches and key.ailing and not key.known_id:
                continue  # to ask for its id would cost what is being avoided
            try:
                key_id = key.identify(attempts=1 if len(self.keys) > 1 else None)
            except KmsError as error:
                told_failure(self._audit, "resolve", key, error)
                failures.append(error)
            else:
                if key_id in by_id:
                    matches.append((key, by_id[key_id]))
        if not matches and not failures:
            raise NoMatchingKey(
                f"the message is for {listed(list(by_id))}, and this profile decrypts with "
                f"{listed([key.key_id for key in self.keys])}",
                remedy="add one of the message's keys to decrypt_with",
            )
        return matches, failures

    def _unwrap(
        self,
        recipient: Recipient,
        key: Key,
        bound: EncryptionContext,
        *,
        attempts: int | None,
        probing: bool = False,
    ) -> bytes:
        with told_call(self._audit, "unwrap", key, bound) as told:
            told.version = recipient.key_version
            return key.unwrap(wrapped_by(recipient), bound, attempts=attempts, probing=probing)

    def _look_after(self, header: Header, bound: EncryptionContext) -> None:
        """See in the background how those do that were passed over."""
        by_id = {recipient.key_id: recipient for recipient in header.recipients}
        for key in self.keys:
            recipient = by_id.get(key.known_id)
            if key.ailing and (recipient or not key.known_id) and key.take_probe():
                with contextlib.suppress(RuntimeError):  # the interpreter is ending
                    threading.Thread(
                        target=self._probe, args=(key, recipient, bound), name="kmsbridge-probe", daemon=True
                    ).start()

    def _probe(self, key: Key, recipient: Recipient | None, bound: EncryptionContext) -> None:
        with contextlib.suppress(Exception):  # its failure was told before, and will be again
            if recipient is None:
                key.identify(attempts=1, probing=True)
            else:
                self._unwrap(recipient, key, bound, attempts=1, probing=True)


def wrapped_by(recipient: Recipient) -> WrappedKey:
    """What a driver takes, of what a message holds."""
    return WrappedKey(recipient.key_id, recipient.key_version, recipient.wrapped)


def _weight(error: KmsBridgeError) -> int:
    """How far down in the order of failures to tell."""
    if isinstance(error, PASSING):
        return 1
    if isinstance(error, KmsError):
        return 0
    return 3 if isinstance(error, AuthenticationError) else 2
