"""Whatever is done to an audit file afterwards shows."""

import fcntl
import hashlib
import json
import os

import pytest

from kmsbridge.audit import AuditEvent, AuditTrail, chain, verification, verify
from kmsbridge.errors import AuditError
from kmsbridge.policy import AuditPolicy

LINES = 6


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The bytes of a small, true log."""
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    trail = AuditTrail(AuditPolicy(file=str(path)), profile="p")
    for n in range(LINES):
        trail.record(AuditEvent("wrap", context={"n": str(n)}, time=1_700_000_000.0 + n))
    return path.read_bytes()


@pytest.fixture
def check(tmp_path):
    """Verify these bytes as an audit file."""
    path = tmp_path / "audit.jsonl"

    def check(content, **arguments):
        path.write_bytes(content)
        return verify(path, **arguments)

    return check


def test_an_untouched_log_verifies(sample, check):
    """With the number of lines, the last line's hash, and the first and last time."""
    result = check(sample)
    assert result.lines == LINES
    assert result.head == hashlib.sha256(sample.splitlines()[-1]).hexdigest()
    assert (result.first_time, result.last_time) == (
        "2023-11-14T22:13:20.000000Z",
        "2023-11-14T22:13:25.000000Z",
    )


def test_an_empty_log_verifies(check):
    """It is a chain of no lines."""
    result = check(b"")
    assert (result.lines, result.head, result.first_time) == (0, "0" * 64, "")


def test_every_change_of_one_byte_is_detected(sample, check):
    """In every place of every line, the last one included, and in every newline."""
    undetected = []
    for at in range(len(sample)):
        changed = bytearray(sample)
        changed[at] ^= 1 << (at % 7)
        try:
            check(bytes(changed))
        except AuditError as error:
            number = sample[:at].count(b"\n") + 1
            assert str(error).startswith((f"line {number} ", f"line {number + 1} "))
        else:
            undetected.append(at)
    assert undetected == []


@pytest.mark.parametrize("at", range(LINES - 1))
def test_a_removed_line_is_detected(sample, check, at):
    """The error names the number that is not there."""
    lines = sample.splitlines(keepends=True)
    with pytest.raises(AuditError, match=f"line {at + 1} of .* is missing: line {at + 2} "):
        check(b"".join(lines[:at] + lines[at + 1 :]))


@pytest.mark.parametrize("first", range(LINES))
@pytest.mark.parametrize("second", range(LINES))
def test_swapped_lines_are_detected(sample, check, first, second):
    """Whichever two; swapping a line with itself is no change."""
    lines = sample.splitlines(keepends=True)
    lines[first], lines[second] = lines[second], lines[first]
    if first == second:
        assert check(b"".join(lines)).lines == LINES
    else:
        with pytest.raises(AuditError, match=f"line {min(first, second) + 1} "):
            check(b"".join(lines))


@pytest.mark.parametrize("at", range(LINES + 1))
@pytest.mark.parametrize(
    "kind", ("a copy of the first", "a forged one", "an empty one", "a blank one", "junk")
)
def test_an_inserted_line_is_detected(sample, check, at, kind):
    """A forged one that fits its place is found by the line after it, unless it is the last."""
    lines = sample.splitlines(keepends=True)
    end = chain.Link(at, hashlib.sha256(lines[at - 1][:-1]).hexdigest() if at else chain.NO_HASH)
    forged, _ = chain.encode({"time": "2023-11-14T22:13:20.000000Z", "operation": "wrap"}, end)
    inserted = {
        "a copy of the first": lines[0],
        "a forged one": forged,
        "an empty one": b"\n",
        "a blank one": b" \n",
        "junk": b"{}\n",
    }[kind]
    content = b"".join([*lines[:at], inserted, *lines[at:]])
    if at == LINES and kind == "a forged one":
        assert check(content).lines == LINES + 1
    else:
        with pytest.raises(AuditError, match=f"line {at + 1} |line {at + 2} "):
            check(content)


@pytest.mark.parametrize("at", range(LINES - 1))
def test_a_replaced_line_with_a_sum_of_its_own_is_detected(sample, check, at):
    """Whoever changes a line and its sum must change every line after it."""
    lines = sample.splitlines(keepends=True)
    fields = json.loads(lines[at])
    fields["outcome"] = "KmsTimeout"
    end = chain.Link(fields.pop("seq") - 1, fields.pop("prev"))
    del fields["sum"]
    lines[at], _ = chain.encode(fields, end)
    with pytest.raises(AuditError, match=f"line {at + 2} of .* does not follow"):
        check(b"".join(lines))


@pytest.mark.parametrize("cut", (1, 2, 50))
def test_a_torn_last_line_is_named(sample, check, cut):
    """It is not a change by somebody, so the advice is another."""
    with pytest.raises(AuditError, match=f"line {LINES} of .* is incomplete, as after a crash"):
        check(sample[:-cut])


def test_a_cut_at_the_end_is_seen_with_a_head_noted_before(sample, check):
    """Without it the shorter chain is in itself unbroken."""
    lines = sample.splitlines(keepends=True)
    heads = [hashlib.sha256(line[:-1]).hexdigest() for line in lines]
    shorter = b"".join(lines[:4])
    assert check(shorter).lines == 4
    assert check(shorter, head=heads[3].upper() + "\n").lines == 4
    assert check(sample, head=heads[3]).lines == LINES
    with pytest.raises(AuditError, match=r"no line of .* has the hash"):
        check(shorter, head=heads[4])


def test_a_chain_written_anew_is_seen_with_a_head_noted_before(sample, check, tmp_path):
    """The hashes are no secret: who may write the file can make another true chain."""
    trail = AuditTrail(AuditPolicy(file=str(tmp_path / "other")), profile="p")
    for _ in range(LINES):
        trail.record(AuditEvent("wrap"))
    other = (tmp_path / "other").read_bytes()
    assert check(other).lines == LINES
    with pytest.raises(AuditError, match="no line of"):
        check(other, head=check(sample).head)


def test_a_writer_in_mid_line_is_waited_for(sample, check, tmp_path, monkeypatch):
    """Half a line that is being written is not called torn; a writer that hangs is named."""
    monkeypatch.setattr(verification, "LOCK_WAIT", 0.05)
    path = tmp_path / "audit.jsonl"
    path.write_bytes(sample[:-10])
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(AuditError, match="stayed locked"):
            verify(path)


@pytest.mark.parametrize(
    "content",
    (
        pytest.param(b"x" * (2**20 + 1), id="a line beyond 1 MiB"),
        pytest.param(b"[" * 200_000 + b"\n", id="deep nesting"),
        pytest.param(b'{"seq":' + b"9" * 10_000 + b"}\n", id="a huge number"),
        pytest.param(b"\xff\xfe\n", id="not text"),
        pytest.param(b"\0" * 4096, id="zeros"),
    ),
)
def test_junk_is_an_audit_error(check, content):
    """No other exception, whatever the file holds."""
    with pytest.raises(AuditError, match=r"line 1 "):
        check(content)


@pytest.mark.parametrize("fields", ({"seq": "1"}, {"prev": None}, {"time": 5}, {"seq": None}))
def test_a_well_summed_line_of_wrong_types_is_refused(check, fields):
    """A true sum does not make a true line."""
    line = {"seq": 1, "time": "t", "prev": chain.NO_HASH, **fields}
    bare = json.dumps(line, separators=(",", ":")).encode()[:-1]
    with pytest.raises(AuditError, match=r"line 1 .* was changed"):
        check(bare + b',"sum":"' + hashlib.sha256(bare).hexdigest().encode() + b'"}\n')


@pytest.mark.parametrize("kind", ("missing", "folder", "pipe", "nul"))
def test_what_is_no_file_is_refused_at_once(tmp_path, kind):
    """Never a wait on a pipe, never an OSError."""
    path = str(tmp_path / "audit.jsonl") + ("\0" if kind == "nul" else "")
    if kind == "folder":
        os.mkdir(path)
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(AuditError, match="cannot be read"):
        verify(path)
