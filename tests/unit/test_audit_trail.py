"""Events reach their sinks; a sink that fails is dealt with as the policy says."""

import json
import logging
import os
import stat
import subprocess
import sys
import time

import pytest

from kmsbridge.audit import AuditEvent, AuditTrail, verify
from kmsbridge.audit import file as audit_file
from kmsbridge.audit.event import timestamp
from kmsbridge.errors import AuditError, ClosedError
from kmsbridge.policy import AuditPolicy

EVENT = AuditEvent(
    "wrap",
    key_id="aws-kms:arn:aws:kms:eu-west-1:1:key/2",
    key_version="3",
    context={"tenant": "acme"},
    request_id="r-1",
    messages=4,
    attempts=2,
    time=1_700_000_000.000001,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def open_trail(path, *, required=False):
    return AuditTrail(AuditPolicy(file=str(path), required=required), profile="prod")


def read(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_line_says_everything_that_is_known_of_an_event(path):
    """Field by field, the time in RFC 3339; the profile is the trail's where the event names none."""
    open_trail(path).record(EVENT)
    [line] = read(path)
    hashes = {line.pop("prev"), line.pop("sum")}
    assert "0" * 64 in hashes
    assert line == {
        "seq": 1,
        "time": "2023-11-14T22:13:20.000001Z",
        "operation": "wrap",
        "outcome": "ok",
        "key_id": "aws-kms:arn:aws:kms:eu-west-1:1:key/2",
        "key_version": "3",
        "context": {"tenant": "acme"},
        "profile": "prod",
        "request_id": "r-1",
        "source": "call",
        "messages": 4,
        "attempts": 2,
    }


def test_an_event_without_a_time_gets_that_of_its_recording(caplog):
    """And keeps one that it was given."""
    caplog.set_level(logging.INFO, "kmsbridge.audit")
    before = time.time()
    AuditTrail(AuditPolicy(), profile="p").record(AuditEvent("wrap"))
    AuditTrail(AuditPolicy(), profile="p").record(AuditEvent("wrap", time=1.5))
    first, second = (record.kmsbridge["time"] for record in caplog.records)
    assert timestamp(before) <= first <= timestamp(time.time())
    assert second == timestamp(1.5)


@pytest.mark.parametrize(
    ("outcome", "level"),
    (
        pytest.param("ok", logging.INFO, id="success"),
        pytest.param("KmsTimeout", logging.WARNING, id="failure"),
    ),
)
def test_logging_gets_one_readable_line_and_the_event_as_data(caplog, outcome, level):
    """A newline in a context cannot start a line of its own."""
    caplog.set_level(logging.INFO, "kmsbridge.audit")
    event = AuditEvent("unwrap", outcome, key_id="k:1", context={"a": "x\nunwrap ok", "b": "\ud800"})
    AuditTrail(AuditPolicy(), profile="p").record(event)
    [record] = caplog.records
    assert (record.name, record.levelno) == ("kmsbridge.audit", level)
    assert record.getMessage() == (
        f'unwrap {outcome} key_id=k:1 context={{"a": "x\\nunwrap ok", "b": "\\ud800"}} profile=p source=call'
    )
    assert record.kmsbridge["context"] == {"a": "x\nunwrap ok", "b": "\ud800"}


def test_nothing_is_formatted_when_nobody_listens(monkeypatch):
    """INFO is off by default, and then an event costs a level check."""

    def formatted(self):
        raise AssertionError

    monkeypatch.setattr(AuditEvent, "as_line", formatted)
    logging.getLogger("kmsbridge.audit").setLevel(logging.WARNING)
    try:
        AuditTrail(AuditPolicy(), profile="p").record(EVENT)
    finally:
        logging.getLogger("kmsbridge.audit").setLevel(logging.NOTSET)


def test_a_program_without_logging_prints_no_events():
    """A refusal is the application's to report; stderr is not an audit sink."""
    code = (
        "from kmsbridge.audit import *; from kmsbridge.policy import AuditPolicy\n"
        "AuditTrail(AuditPolicy(), profile='p').record(AuditEvent('refusal', 'RoleError'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")


def test_the_file_is_the_owners_alone(path):
    """0600, whatever the umask allows."""
    old = os.umask(0)
    try:
        open_trail(path).record(EVENT)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_text_of_any_kind_stays_on_one_line_of_ascii(path):
    """Newlines, other scripts and lone surrogates are escaped."""
    nasty = "a\nb\r\u2028\ud800\0ключ"
    open_trail(path).record(AuditEvent("wrap", key_id=nasty, context={nasty: nasty}))
    assert path.read_bytes().count(b"\n") == 1
    assert path.read_bytes().isascii()
    assert read(path)[0]["context"] == {nasty: nasty}
    assert verify(path).lines == 1


def test_a_trail_goes_on_where_the_last_one_ended(path):
    """Other trails, and other processes, continue one chain."""
    first, second = open_trail(path), open_trail(path)
    for each in (first, second, second, first, first, second):
        each.record(EVENT)
    open_trail(path).record(EVENT)
    assert [line["seq"] for line in read(path)] == [1, 2, 3, 4, 5, 6, 7]
    assert verify(path).lines == 7


def test_a_last_line_replaced_under_a_running_trail_breaks_the_chain(path):
    """The trail remembers what it wrote, so that not even its newest line can be exchanged unseen."""
    audit = open_trail(path)
    audit.record(EVENT)
    genuine = path.read_bytes()
    path.unlink()
    open_trail(path).record(EVENT._replace(attempts=9))
    forged = path.read_bytes()
    assert len(forged) == len(genuine)
    path.unlink()
    audit.record(EVENT)
    with path.open("r+b") as file:
        file.write(forged)
    audit.record(EVENT)
    with pytest.raises(AuditError, match=r"line 2 .* does not follow"):
        verify(path)


def test_a_long_last_line_is_found_whole(path):
    """The end of the chain is read in blocks; a line may be longer than one."""
    open_trail(path).record(AuditEvent("wrap", context={"a": "x" * 300_000}))
    open_trail(path).record(EVENT)
    open_trail(path).record(EVENT)
    assert verify(path).lines == 3


def test_rotation_of_the_file_begins_a_new_chain(path):
    """What was moved away stays as it was; nothing is written to it any more."""
    audit = open_trail(path)
    audit.record(EVENT)
    audit.record(EVENT)
    moved = path.with_suffix(".1")
    path.rename(moved)
    audit.record(EVENT)
    assert verify(moved).lines == 2
    assert verify(path).lines == 1


def test_a_file_moved_away_while_the_lock_is_waited_for_is_left(path, monkeypatch):
    """Between opening and locking, another process may have rotated it."""
    audit, moved = open_trail(path), path.with_suffix(".1")
    audit.record(EVENT)
    real = audit_file.lock

    def rotate_first(*arguments):
        monkeypatch.setattr(audit_file, "lock", real)
        path.rename(moved)
        real(*arguments)

    monkeypatch.setattr(audit_file, "lock", rotate_first)
    audit.record(EVENT)
    assert verify(moved).lines == 1
    assert verify(path).lines == 1


@pytest.mark.parametrize("required", (False, True), ids=["not required", "required"])
@pytest.mark.parametrize("torn", (b'{"seq":3,"time":"20', b"{", b'{"seq":3,"ti\0\0\0\0', b"\0" * 100))
def test_a_torn_last_line_is_cut_off_and_recorded(path, torn, required):
    """A crash in mid-write bricks nothing, and how much was lost is in the log."""
    open_trail(path).record(EVENT)
    open_trail(path).record(EVENT)
    with path.open("ab") as file:
        file.write(torn)
    open_trail(path, required=required).record(EVENT)
    lines = read(path)
    assert [line["operation"] for line in lines] == ["wrap", "wrap", "recover", "wrap"]
    assert lines[2]["cut_bytes"] == len(torn)
    assert verify(path).lines == 4


def test_a_torn_first_line_is_cut_off_too(path):
    """The chain then begins with the record of it."""
    path.write_bytes(b'{"seq":1,"op')
    open_trail(path).record(EVENT)
    assert [line["operation"] for line in read(path)] == ["recover", "wrap"]
    assert verify(path).lines == 2


@pytest.mark.parametrize(
    "content",
    (
        pytest.param(b"a diary\n", id="another text"),
        pytest.param(b"a diary without a newline", id="another text, unfinished"),
        pytest.param(b'{"seq":1}\n', id="other JSON lines"),
        pytest.param(b"\n\n", id="empty lines"),
        pytest.param(b"x" * (3 * 2**20), id="one endless line"),
    ),
)
def test_a_file_that_is_no_audit_file_is_left_alone(path, content):
    """It is neither cut nor continued."""
    path.write_bytes(content)
    with pytest.raises(AuditError, match="does not end like an audit file; "):
        open_trail(path, required=True).record(EVENT)
    assert path.read_bytes() == content


def failing(path, kind):
    """A path where an audit file cannot be."""
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.with_suffix(".target").touch()
        path.symlink_to(path.with_suffix(".target"))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "missing folder":
        return path / "sub" / "audit.jsonl"
    return "/dev/full" if kind == "device" else path


KINDS = ["folder", "link", "pipe", "device", "missing folder"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_required_file_that_cannot_be_opened_fails_at_once(path, kind):
    """When the trail is made: not at the first operation."""
    with pytest.raises(AuditError) as caught:
        open_trail(failing(path, kind), required=True)
    assert caught.value.remedy
    assert "audit" in str(caught.value) or "/dev/full" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_not_required_is_warned_about_once_a_minute(path, kind, caplog, monkeypatch):
    """The operation goes on, and the log is not flooded."""
    clock = Clock()
    monkeypatch.setattr("kmsbridge.audit.trail.time.monotonic", clock)
    audit = open_trail(failing(path, kind))
    for _ in range(5):
        audit.record(EVENT)
    assert [(record.name, record.levelname) for record in caplog.records] == [("kmsbridge", "WARNING")]
    assert "an audit event was not recorded" in caplog.text
    clock.now += 60
    audit.record(EVENT)
    assert len(caplog.records) == 2


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_nothing_reaches_the_target_of_a_symbolic_link(path):
    """A link in a folder that others may write would make this process write their choice of file."""
    failing(path, "link")
    open_trail(path).record(EVENT)
    assert path.with_suffix(".target").read_bytes() == b""


FULL = """
import resource, sys
from kmsbridge.audit import AuditEvent, AuditTrail, verify
from kmsbridge.errors import AuditError
from kmsbridge.policy import AuditPolicy
path, required = sys.argv[1], sys.argv[2] == "required"
trail = AuditTrail(AuditPolicy(file=path, required=required), profile="p")
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
failures = 0
for _ in range(20):
    try:
        trail.record(AuditEvent("wrap"))
    except AuditError as error:
        failures += 1
lines = verify(path).lines
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
trail.record(AuditEvent("wrap"))
print(failures, lines, verify(path).lines)
"""


@pytest.mark.parametrize("mode", ("required", "optional"))
def test_a_full_disk_leaves_whole_lines_and_heals(path, mode):
    """The write that did not fit is undone; once there is room the chain goes on."""
    run = subprocess.run([sys.executable, "-c", FULL, path, mode], capture_output=True, text=True, check=True)
    failures, before, after = map(int, run.stdout.split())
    assert 0 < before < 20
    assert after == before + 1
    assert failures == (20 - before if mode == "required" else 0)
    assert ("an audit event was not recorded" in run.stderr) == (mode == "optional")


def test_a_required_line_is_on_disk_when_the_operation_goes_on(path, monkeypatch):
    """One fsync for each line; none where auditing is not required."""
    synced = []
    real = os.fsync

    def count(descriptor):
        synced.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", count)
    audit = open_trail(path, required=True)
    synced.clear()
    audit.record(EVENT)
    audit.record(EVENT)
    assert len(synced) == 2
    open_trail(path).record(EVENT)
    assert len(synced) == 2


def test_a_failing_fsync_undoes_the_line_and_fails_the_operation(path, monkeypatch):
    """An operation that was refused is not in the log as one that went on."""
    audit = open_trail(path, required=True)
    audit.record(EVENT)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(AuditError, match="Input/output error"):
        audit.record(EVENT)
    monkeypatch.undo()
    audit.record(EVENT)
    assert verify(path).lines == 2


def fail(descriptor):
    raise OSError(5, "Input/output error")


def test_a_lock_held_by_another_process_is_not_waited_for_for_ever(path, monkeypatch):
    """After the limit the sink has failed."""
    monkeypatch.setattr(audit_file, "LOCK_WAIT", 0.05)
    audit = open_trail(path, required=True)
    code = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, 2); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(AuditError, match="stayed locked"):
            audit.record(EVENT)
        holder.communicate("\n")
    audit.record(EVENT)
    assert verify(path).lines == 1


@pytest.mark.parametrize("required", (False, True), ids=["not required", "required"])
def test_a_logging_handler_that_raises_is_a_failing_sink(path, required, caplog):
    """The file still gets the event."""

    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError("canary")

    logger, broken = logging.getLogger("kmsbridge.audit"), Broken()
    caplog.set_level(logging.INFO, "kmsbridge.audit")
    logger.addHandler(broken)
    try:
        audit = open_trail(path, required=required)
        if required:
            with pytest.raises(AuditError, match="a logging handler failed") as caught:
                audit.record(EVENT)
            assert "canary" not in str(caught.value)
        else:
            audit.record(EVENT)
    finally:
        logger.removeHandler(broken)
    assert verify(path).lines == 1


def test_a_closed_trail_refuses_events(path):
    """Closing twice is fine."""
    audit = open_trail(path)
    audit.record(EVENT)
    audit.close()
    audit.close()
    with pytest.raises(ClosedError):
        audit.record(EVENT)
    assert verify(path).lines == 1


def test_no_descriptor_is_held_between_events(path):
    """A trail that nobody closes leaks nothing."""
    before = len(os.listdir("/proc/self/fd"))
    audit = open_trail(path, required=True)
    audit.record(EVENT)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_unrecordable_event_fails_only_where_auditing_is_required(path, caplog):
    """A line beyond 1 MiB could not be verified later."""
    event = AuditEvent("wrap", context={"a": "x" * 2**20})
    open_trail(path).record(event)
    assert "was not recorded" in caplog.text
    with pytest.raises(AuditError):
        open_trail(path, required=True).record(event)
    assert path.read_bytes() == b""
