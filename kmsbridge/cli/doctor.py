"""`doctor`."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, cast

import click

from kmsbridge.cli import output, streams
from kmsbridge.cli.configured import load_profile
from kmsbridge.cli.exits import MISUSED, NEEDS_REWRAP, UNEXPECTED, CommandError, code_of
from kmsbridge.cli.options import PATH_OR_DASH, Command, bound_options, json_option
from kmsbridge.errors import KmsBridgeError, MessageError

if TYPE_CHECKING:
    from kmsbridge.context import EncryptionContext
    from kmsbridge.doctor import KeyReport, Report, Trial
    from kmsbridge.message import Header

EXPECTATIONS: Final = ("encrypt-only", "decrypt-only", "rewrap-only", "full")
_HOW: Final = {
    "local": ", wrapped by this host itself with the public key",
    "message": ", measured with the message",
    "combined": ", by unwrap and wrap",
}

_COUNTED: Final = "messages  {} made in this environment, {} without one, {} unknown"
_MARKED: Final = {
    True: "made in this environment",
    False: "made without an environment; rewrap it before the date of accept_unmarked_until",
}


@click.command(cls=Command, short_help="Try what this host may do with the profile's keys.")
@click.option(
    "--expect",
    type=click.Choice(EXPECTATIONS),
    help="Fail if the host can do more or less than this with any key.",
)
@click.option(
    "--message",
    metavar="FILE",
    type=PATH_OR_DASH,
    help="A message for these keys, to try unwrapping where wrapping is refused.",
)
@click.option(
    "--count",
    metavar="FILE",
    type=PATH_OR_DASH,
    help="Messages, one on each line, to count by whether they were made in the profile's environment.",
)
@bound_options
@json_option
def doctor(expect: Any, message: str | None, count: str | None, bound: dict[str, Any], as_json: bool) -> None:
    """Try what this host may do with each key of the profile: wrap, unwrap and rewrap a probe.

    A probe is random bytes made for this, not a data key. Without --expect the command fails where a key of encrypt_to
    does not wrap, or a key of decrypt_with does not unwrap. The context is that of the message; probes
    are bound to it too, for services whose policies require a certain pair.

    A line of --count is an armored message, or a JSON object with a message and its context. Each data key takes one
    call to the key service, two if it was wrapped without an environment.

    \b
    kmsbridge doctor --profile web --expect encrypt-only
    kmsbridge doctor --profile worker --expect decrypt-only --message notes.kmsb -c tenant=acme
    kmsbridge doctor --profile worker --count exported.jsonl
    """
    from kmsbridge.doctor import check_keys, count_messages

    if message == count == streams.DASH:
        raise click.UsageError("--message and --count cannot both be -", click.get_current_context())
    profile = load_profile(signed_in=True)
    header = None if message is None else _header(message)
    report = check_keys(profile, expect=expect, header=header, **bound)
    counted = (
        None if count is None else count_messages(profile, _lines(count, bound["context"]), bound["aad"])
    )
    if as_json:
        messages = {} if counted is None else {"messages": counted._asdict()}
        output.document({"ok": report.ok, **dataclasses.asdict(report), **messages})
    else:
        for key in report.keys:
            _show(key)
        if counted is not None:
            output.result(_COUNTED.format(*counted))
    _raise_for_problems(report)
    if counted is not None and counted.unmarked:
        click.get_current_context().exit(NEEDS_REWRAP)


def _header(name: str) -> Header:
    from kmsbridge import message as wire
    from kmsbridge.cli.armored import detect

    try:
        with streams.open_source(name) as file:
            reader: Any = detect(file)[0]
            return wire.parse_header(io.BufferedReader(reader).read(wire.MAX_HEADER))
    except MessageError as error:
        raise CommandError(f"{name}: {error.message}", remedy=error.remedy, code=code_of(error)) from None


def _lines(name: str, context: EncryptionContext) -> Iterator[tuple[Header, EncryptionContext]]:
    """Yield the header and the context of the message on each line; `context` is that of lines without their own."""
    from kmsbridge import message as wire
    from kmsbridge.context import EncryptionContext

    with streams.open_source(name) as file:
        for number, line in enumerate(io.BufferedReader(cast(Any, file)), 1):
            if not line.strip():
                continue
            try:
                text, own = _line(line)
                pairs = context if own is None else EncryptionContext.of(own)
                header = wire.parse_header(wire.dearmor(text))
            except (KmsBridgeError, ValueError, TypeError, KeyError, RecursionError):
                raise CommandError(
                    f"{name}, line {number}: not an armored message, nor a JSON object with one and its context",
                    remedy='write {"message": "kmsb1_...", "context": {"tenant": "acme"}}',
                    code=4,
                ) from None
            yield header, pairs


def _line(line: bytes) -> tuple[str, Any]:
    import json

    text = line.decode().strip()
    if not text.startswith("{"):
        return text, None
    values = json.loads(text)
    return str(values["message"]), values.get("context")


def _show(key: KeyReport) -> None:
    lists = (("encrypt_to", key.encrypt_to), ("decrypt_with", key.decrypt_with))
    role = ", ".join(name for name, is_in in lists if is_in)
    output.result(output.plain(f"{key.name}  {key.key_id or key.uri}  {role}"))
    output.table((f"  {word}", text) for word, text in _rows(key))


def _rows(key: KeyReport) -> Iterator[tuple[str, str]]:
    yield "reachable", {True: "yes", False: "no", None: "unknown"}[key.reachable] + _figures(key.describe)
    version = f", version {key.version}" if key.version else ""
    # Where nothing else was tried, the reason is shown as a problem.
    why = f": {key.describe.problem}" if key.wrap.measured and not key.describe.may else ""
    yield "state", f"{key.state}{version}{why}"
    if key.rotation:
        yield "rotation", key.rotation
    for word, trial in (("wrap", key.wrap), ("unwrap", key.unwrap), ("rewrap", key.rewrap)):
        yield word, _trial_text(trial)
    if key.message_marked is not None:
        yield "message", _MARKED[key.message_marked]
    for problem in key.problems:
        yield "problem", problem


def _trial_text(trial: Trial) -> str:
    if not trial.measured:
        return "not tried"
    if trial.proven and trial.may:
        return f"yes{_HOW.get(trial.measured, '')}{_figures(trial)}"
    if trial.may:  # the remedy says what would prove it
        return f"{trial.problem}; {trial.remedy}{_figures(trial)}"
    return f"{'unknown' if trial.may is None else 'no'}: {trial.problem}{_figures(trial)}"


def _figures(trial: Trial) -> str:
    took = "" if trial.milliseconds is None else f", {trial.milliseconds:.1f} ms"
    return took + (f", request {trial.request_id}" if trial.request_id else "")


def _raise_for_problems(report: Report) -> None:
    if report.ok:
        return
    bad = [key.name for key in report.keys if key.problems]
    trials = [trial for key in report.keys for trial in (key.describe, key.wrap, key.unwrap, key.rewrap)]
    what = f"match {report.expect}" if report.expect else "do what the profile needs"
    raise CommandError(
        f"some keys do not {what} ({len(bad)} of {len(report.keys)}): {', '.join(bad)}",
        remedy="see the problems above",
        code=MISUSED if "KmsCredentialMisused" in [trial.error for trial in trials] else UNEXPECTED,
    )
