"""`doctor`."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from kmsbridge.cli import output, streams
from kmsbridge.cli.configured import load_profile
from kmsbridge.cli.exits import MISUSED, UNEXPECTED, CommandError, code_of
from kmsbridge.cli.options import PATH_OR_DASH, Command, bound_options, json_option
from kmsbridge.errors import MessageError

if TYPE_CHECKING:
    from kmsbridge.doctor import KeyReport, Report, Trial
    from kmsbridge.message import Header

EXPECTATIONS: Final = ("encrypt-only", "decrypt-only", "rewrap-only", "full")
_HOW: Final = {
    "local": ", wrapped by this host itself with the public key",
    "message": ", measured with the message",
    "combined": ", by unwrap and wrap",
}

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
@bound_options
@json_option
def doctor(expect: Any, message: str | None, bound: dict[str, Any], as_json: bool) -> None:
    """Try what this host may do with each key of the profile: wrap, unwrap and rewrap a probe.

    A probe is random bytes made for this, not a data key. Without --expect the command fails where a key of encrypt_to
    does not wrap, or a key of decrypt_with does not unwrap. The context is that of the message; probes
    are bound to it too, for services whose policies require a certain pair.

    \b
    kmsbridge doctor --profile web --expect encrypt-only
    kmsbridge doctor --profile worker --expect decrypt-only --message notes.kmsb -c tenant=acme
    """
    from kmsbridge.doctor import check_keys

    profile = load_profile()
    header = None if message is None else _header(message)
    report = check_keys(profile, expect=expect, header=header, **bound)
    if as_json:
        output.document({"ok": report.ok, **dataclasses.asdict(report)})
    else:
        for key in report.keys:
            _show(key)
    _raise_for_problems(report)


def _header(name: str) -> Header:
    from kmsbridge import message as wire
    from kmsbridge.cli.armored import detect

    try:
        with streams.open_source(name) as file:
            reader: Any = detect(file)[0]
            return wire.parse_header(io.BufferedReader(reader).read(wire.MAX_HEADER))
    except MessageError as error:
        raise CommandError(f"{name}: {error.message}", remedy=error.remedy, code=code_of(error)) from None


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
