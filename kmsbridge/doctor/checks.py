"""Tries every operation with each key of a profile, and reports the results."""

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
from kmsbridge.doctor.report import Expectation, KeyReport, Report, with_problems
from kmsbridge.errors import ConfigError, KmsBridgeError, UnsupportedMessage, forget_locals
from kmsbridge.keys.trials import KeyTrials, LastCall, Message, Trial
from kmsbridge.message import DataKeyIn, Header
from kmsbridge.observer import Observers
from kmsbridge.threads import in_parallel

Pairs = Mapping[str, str]


def check_keys(
    profile: Profile,
    *,
    expect: Expectation | None = None,
    context: Pairs | None = None,
    header: Header | None = None,
    aad: bytes = b"",
) -> Report:
    """Try to wrap, unwrap and rewrap a probe with each key of `profile`, up to 16 keys at a time.

    A probe is 32 random bytes, bound to `context` and the reserved pair `kmsbridge` = `probe`, so that it
    is never mistaken for a data key. `header` is the header of a message with that context and aad, to try
    unwrapping with keys that this host may not wrap with. After a service has not answered within the profile's
    deadline, nothing more is tried with that key. Raises `AuditError`, and `UnsupportedMessage` for a header without
    recipients.
    """
    try:
        pairs = EncryptionContext.of(context)
        message = None if header is None else _message(header, pairs, aad)
        return Report(profile.name, expect, _key_reports(profile, expect, pairs, message))
    except BaseException as error:
        forget_locals(error)
        raise


def _key_reports(
    profile: Profile, expect: Expectation | None, pairs: EncryptionContext, message: Message | None
) -> tuple[KeyReport, ...]:
    configs = {config.name: config for config in profile.encrypt_to + profile.decrypt_with}.values()
    with contextlib.ExitStack() as cleanup:
        audit = AuditTrail(profile.audit, profile=profile.name)
        cleanup.callback(audit.close)

        def open_trials(config: KeyConfig) -> KeyTrials | ConfigError:
            last_call = LastCall()
            try:
                key = configured_key(config, profile, Observers([audit, last_call]))
            except ConfigError as error:
                return error
            cleanup.callback(key.close)
            return KeyTrials(key, last_call, pairs, message)

        def report(key: tuple[KeyConfig, KeyTrials | ConfigError]) -> KeyReport:
            config, trials = key
            initial = _initial_report(config, profile)
            if isinstance(trials, KeyTrials):
                return with_problems(_run_trials(initial, trials), expect, trials.printable_policies())
            return with_problems(_report_unopened(initial, trials), expect, ())

        # An interrupt does not wait for calls: the threads find their keys closed.
        return tuple(in_parallel(report, [(config, open_trials(config)) for config in configs]))


def _message(header: Header, pairs: EncryptionContext, aad: bytes) -> Message:
    if header.layout.data_key_in is DataKeyIn.STORE:
        raise UnsupportedMessage(
            "the message has no recipients: its data key is in a key store",
            remedy="give a message that has recipients",
        )
    is_direct = header.is_direct
    bound = direct.bound_context(pairs, aad) if is_direct else data_key_context(pairs)
    return Message({recipient.key_id: recipient for recipient in header.recipients}, bound)


def _initial_report(config: KeyConfig, profile: Profile) -> KeyReport:
    return KeyReport(
        config.name,
        str(config.uri),
        encrypt_to=config.name in [key.name for key in profile.encrypt_to],
        decrypt_with=config.name in [key.name for key in profile.decrypt_with],
    )


def _report_unopened(initial: KeyReport, error: KmsBridgeError) -> KeyReport:
    failed = Trial(error=type(error).__name__, problem=error.message, remedy=error.remedy)
    return replace(initial, describe=failed, wrap=failed, unwrap=failed, rewrap=failed)


def _run_trials(initial: KeyReport, trials: KeyTrials) -> KeyReport:
    describe, description = trials.describe()
    wrap, sample = trials.wrap()
    sample = sample or trials.sample(description.version if description else "")
    unwrap, payload = trials.unwrap(sample)
    report = replace(
        initial,
        key_id=trials.key_id,
        reachable=trials.reachable,
        describe=describe,
        wrap=wrap,
        unwrap=unwrap,
        rewrap=trials.rewrap(sample, payload, wrap, unwrap),
        message_marked=trials.look_at_message(),
    )
    if description is None:
        return report
    return replace(
        report,
        state=description.state.value,
        version=description.version,
        rotation=description.rotation,
    )
