"""Chooses the key that unwraps a message's data key, and the next one where it cannot."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence

from kmsbridge.clock import Deadline
from kmsbridge.context import EncryptionContext
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
    UnsupportedMessage,
    listed,
)
from kmsbridge.keys import ManagedKey
from kmsbridge.message import Header, Recipient

TRY_NEXT_KEY_AFTER = (KmsError, AuthenticationError, ConfigError, LimitExceeded)
"""Failures of one key, after which the next is tried."""
TRANSIENT = (KmsUnavailable, KmsThrottled, KmsTimeout)

Match = tuple[ManagedKey, Recipient]


class Unwrapping:
    """The keys of `decrypt_with` in their order; no other is ever contacted, whatever a message names.

    A key whose service failed and has not answered since comes after the others. It is asked again in
    the background, about every 5 s while it would have been the one to ask, so that no reader waits.
    """

    def __init__(self, keys: Sequence[ManagedKey]) -> None:
        self.keys = tuple(keys)

    def matches(self, header: Header, deadline: Deadline) -> tuple[list[Match], list[KmsBridgeError]]:
        """Return our keys that the message is for, healthy ones first; and the errors of those whose id could
        not be found.

        Raise `NoMatchingKey` where neither is there, and `UnsupportedMessage` where the header has no recipients.
        """
        check_recipients(header)
        named = {recipient.key_id for recipient in header.recipients}
        identified: list[ManagedKey] = []
        failures: list[KmsBridgeError] = []
        keys = sorted(self.keys, key=lambda key: key.unhealthy)
        for number, key in enumerate(keys):
            if key.unhealthy and not key.known_id and any(each.known_id in named for each in identified):
                continue  # to ask for its id would cost what is being avoided
            try:
                # A part of the time each, and one for unwrapping.
                share = deadline.share(len(keys) - number + 1)
                key.identify(attempts=1 if len(keys) > 1 else None, deadline=share)
            except KmsError as error:
                failures.append(error)
            else:
                identified.append(key)
        matches = [
            (key, recipient)
            for key in identified
            for recipient in header.recipients
            if _is_for(recipient, key, identified)
        ]
        if not matches and not failures:
            raise NoMatchingKey(
                f"the message is for {listed([each.key_id for each in header.recipients])}, and this profile decrypts with "
                f"{listed([key.key_id for key in self.keys])}",
                remedy="add one of the message's keys to decrypt_with",
            )
        return matches, failures

    def unwrap(
        self,
        match: Match,
        bound: EncryptionContext,
        deadline: Deadline,
        *,
        attempts: int | None = None,
        probing: bool = False,
    ) -> bytes:
        """Return what the key wrapped for this recipient. `bound` is the context with its reserved pairs."""
        return match[0].unwrap(
            wrapped_by(match), bound, attempts=attempts, probing=probing, deadline=deadline
        )

    def payload(self, header: Header, bound: EncryptionContext, deadline: Deadline) -> bytes:
        """Return the payload of a direct message, which its one recipient wrapped."""
        matches, failures = self.matches(header, deadline)
        if not matches:
            raise worst(failures)
        return self.unwrap(matches[0], bound, deadline)

    def probe_unhealthy(self, header: Header, bound: EncryptionContext, seconds: float) -> None:
        """Probe in the background the unhealthy keys that were passed over, for `seconds` each at most."""
        for key in self.keys:
            recipient = next((each for each in header.recipients if _is_for(each, key, self.keys)), None)
            if key.unhealthy and (recipient or not key.known_id) and key.take_probe():
                with contextlib.suppress(RuntimeError):  # the interpreter is ending
                    threading.Thread(
                        target=self._probe,
                        args=(key, recipient, bound, seconds),
                        name="kmsbridge-probe",
                        daemon=True,
                    ).start()

    def _probe(
        self, key: ManagedKey, recipient: Recipient | None, bound: EncryptionContext, seconds: float
    ) -> None:
        deadline = Deadline(seconds)
        with contextlib.suppress(Exception):  # its failure was told before, and will be again
            if recipient is None:
                key.identify(attempts=1, probing=True, deadline=deadline)
            else:
                self.unwrap((key, recipient), bound, deadline, attempts=1, probing=True)


def check_recipients(header: Header) -> None:
    """Raise `UnsupportedMessage` where the header has no recipients, because its data key is in a key store."""
    if not header.recipients:
        raise UnsupportedMessage(
            "the message's data key is in a key store", remedy="decrypt it with a version that has stores"
        )


def wrapped_by(match: Match) -> WrappedKey:
    """Return a message's recipient as the wrapped key that the driver of its key takes, under the id that the key
    has now.
    """
    key, recipient = match
    return WrappedKey(key.known_id or recipient.key_id, recipient.key_version, recipient.wrapped)


def _is_for(recipient: Recipient, key: ManagedKey, keys: Sequence[ManagedKey]) -> bool:
    """Return whether the recipient is for `key`: it names the key, or a former id of it that none of `keys` has."""
    if recipient.key_id == key.known_id:
        return True
    return key.driver.has_former_id(recipient.key_id) and all(
        each.known_id != recipient.key_id for each in keys
    )


def worst(failures: list[KmsBridgeError]) -> KmsBridgeError:
    """Return the failure to raise, with the others in its notes.

    A refusal comes before an outage, and either before a lack of authenticity, which it may be the cause of.
    """
    first, *others = sorted(failures, key=_weight)
    for other in others:
        first.add_note(f"also: {other}")
    return first


def _weight(error: KmsBridgeError) -> int:
    """Return the failure's place in the order in which they are raised: the least comes first."""
    if isinstance(error, TRANSIENT):
        return 1
    if isinstance(error, KmsError):
        return 0
    return 3 if isinstance(error, AuthenticationError) else 2
