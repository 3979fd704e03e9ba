"""Tries what can be done with each key."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace

from kmsbridge.audit import AuditTrail
from kmsbridge.cipher import direct
from kmsbridge.cipher.session import configured_key
from kmsbridge.config import KeyConfig, Profile
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys import data_key_context
from kmsbridge.doctor.report import Expectation, KeyReport, Report, Trial, judged
from kmsbridge.doctor.trials import KeyTrials, LastCall, Message
from kmsbridge.errors import ConfigError, KmsBridgeError, UnsupportedMessage, forget_locals
from kmsbridge.message import DataKeyIn, Header
from kmsbridge.observer import Observers
from kmsbridge.threads import in_parallel

Pairs = Mapping[str, str]


def examine(
    profile: Profile,
    *,
    expect: Expectation | None = None,
    context: Pairs | None = None,
    header: Header | None = None,
    aad: bytes = b"",
) -> Report:
    """Try to wrap, unwrap and rewrap a probe with each key of `profile`, up to 16 keys at a time.

    A probe is 32 random bytes, bound to `context` and the reserved pair `kmsbridge` = `probe`, so that it
    is never taken for a data key. `header` is of a message of that context and aad, for keys that may
    unwrap and not wrap. No key is tried again once its service does not answer in the profile's deadline.
    Raises `AuditError`, and `UnsupportedMessage` for a header without recipients.
    """
    try:
        pairs = EncryptionContext.of(context)
        message = None if header is None else _message(header, pairs, aad)
        return Report(profile.name, expect, _each(profile, expect, pairs, message))
    except BaseException as error:
        forget_locals(error)
        raise


def _each(
    profile: Profile, expect: Expectation | None, pairs: EncryptionContext, message: Message | None
) -> tuple[KeyReport, ...]:
    configs = {each.name: each for each in profile.encrypt_to + profile.decrypt_with}.values()
    with contextlib.ExitStack() as end:
        audit = AuditTrail(profile.audit, profile=profile.name)
        end.callback(audit.close)

        def open_trials(each: KeyConfig) -> KeyTrials | ConfigError:
            last_call = LastCall()
            try:
                key = configured_key(each, profile, Observers([audit, last_call]))
            except ConfigError as error:
                return error
            end.callback(key.close)
            return KeyTrials(key, last_call, pairs, message)

        def report(each: tuple[KeyConfig, KeyTrials | ConfigError]) -> KeyReport:
            config, trials = each
            blank = _blank(config, profile)
            if isinstance(trials, KeyTrials):
                return judged(_examined(blank, trials), expect)
            return judged(_unopened(blank, trials), expect)

        # Whoever interrupts this waits for no call: the threads find their keys closed.
        return tuple(in_parallel(report, [(each, open_trials(each)) for each in configs]))


def _message(header: Header, pairs: EncryptionContext, aad: bytes) -> Message:
    if header.layout.data_key_in is DataKeyIn.STORE:
        raise UnsupportedMessage(
            "the message's data key is in a key store", remedy="give a message that has recipients"
        )
    is_direct = header.is_direct
    bound = direct.bound_context(pairs, aad) if is_direct else data_key_context(pairs)
    return Message({each.key_id: each for each in header.recipients}, bound)


def _blank(each: KeyConfig, profile: Profile) -> KeyReport:
    return KeyReport(
        each.name,
        str(each.uri),
        encrypt_to=each.name in [one.name for one in profile.encrypt_to],
        decrypt_with=each.name in [one.name for one in profile.decrypt_with],
    )


def _unopened(blank: KeyReport, error: KmsBridgeError) -> KeyReport:
    failed = Trial(error=type(error).__name__, problem=error.message, remedy=error.remedy)
    return replace(blank, describe=failed, wrap=failed, unwrap=failed, rewrap=failed)


def _examined(blank: KeyReport, trials: KeyTrials) -> KeyReport:
    describe, told = trials.describe()
    wrap, sample = trials.wrap()
    sample = sample or trials.sample(told.version if told else "")
    unwrap, payload = trials.unwrap(sample)
    found = replace(
        blank,
        key_id=trials.key_id,
        reachable=trials.reachable,
        describe=describe,
        wrap=wrap,
        unwrap=unwrap,
        rewrap=trials.rewrap(sample, payload, wrap, unwrap),
    )
    if told is None:
        return found
    return replace(found, state=told.state.value, version=told.version, rotation=told.rotation)
