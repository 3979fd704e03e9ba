"""The frozen vectors: every way to read a message gives the outcome that each case names."""

import asyncio
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kmsbridge import Decryptor, KmsBridgeError, MessageError, aio, inspect
from kmsbridge import message as wire
from tests.vectors import casebook, make, reader
from tests.vectors.frozen import CASES, FILES, OUTCOMES, Case, opened


@pytest.fixture(params=sorted(CASES))
def case(request):
    return Case(request.param)


@pytest.fixture
def decryptor(case, tmp_path):
    with opened(Decryptor, case, tmp_path / "keys.json") as decryptor:
        yield decryptor


def decrypt_text(decryptor, case, folder):
    text = case.armored if case.armored is not None else wire.armor(case.message)
    try:
        return decryptor.decrypt_text(text, **case.binding).encode()
    except ValueError:
        # Right for what is no text, if decrypt gives it.
        plaintext = decryptor.decrypt(case.message, **case.binding)
        with pytest.raises(UnicodeDecodeError):
            plaintext.decode()
        return plaintext


def decrypt_stream(decryptor, case, folder):
    plaintext = io.BytesIO()
    decryptor.decrypt_stream(io.BytesIO(case.message), plaintext, **case.binding)
    return plaintext.getvalue()


def decrypt_slow_stream(decryptor, case, folder):
    class Slow(io.BytesIO):
        def readinto(self, buffer):
            return super().readinto(memoryview(buffer)[:997])

    plaintext = io.BytesIO()
    decryptor.decrypt_stream(Slow(case.message), plaintext, **case.binding)
    return plaintext.getvalue()


def decrypt_file(decryptor, case, folder):
    source, target = folder / "message", folder / "plaintext"
    source.write_bytes(case.message)
    try:
        decryptor.decrypt_file(source, target, **case.binding)
    except BaseException:
        assert not target.exists()
        raise
    plaintext = target.read_bytes()
    target.unlink()
    return plaintext


def open_file(decryptor, case, folder):
    source = folder / "message"
    source.write_bytes(case.message)
    with decryptor.open(source, **case.binding) as file:
        return file.read()


def decrypt_many(decryptor, case, folder):
    aads = [case.binding["aad"]] * 2
    first, second = decryptor.decrypt_many([case.message] * 2, context=case.binding["context"], aads=aads)
    assert first == second
    return first


WAYS = {
    "decrypt": lambda decryptor, case, folder: decryptor.decrypt(case.message, **case.binding),
    "decrypt of a memoryview": lambda decryptor, case, folder: decryptor.decrypt(
        memoryview(bytearray(case.message)), **case.binding
    ),
    "decrypt_text": decrypt_text,
    "decrypt_many": decrypt_many,
    "decrypt_stream": decrypt_stream,
    "decrypt_stream in small reads": decrypt_slow_stream,
    "decrypt_file": decrypt_file,
    "open a path": open_file,
    "open a file": lambda decryptor, case, folder: decryptor.open(
        io.BytesIO(case.message), **case.binding
    ).read(),
}


def test_every_way_to_decrypt_gives_the_outcome(case, decryptor, tmp_path):
    """decrypt, decrypt_text, decrypt_many, streams, files and seekable files agree with the case."""
    ways = WAYS if case.message is not None else {"decrypt_text": decrypt_text}
    # Twice, because a second reading may find the data key at hand.
    for name, way in [*ways.items(), ("decrypt_text again", decrypt_text)]:
        try:
            plaintext = way(decryptor, case, tmp_path)
        except tuple(OUTCOMES.values()) as error:
            assert case.outcome != "success", f"{name}: {error!r}"
            assert type(error) is OUTCOMES[case.outcome], name
        else:
            assert case.outcome == "success", f"{name} accepted it"
            case.check(plaintext)


def test_every_way_of_asyncio_gives_the_outcome(tmp_path):
    """The asyncio interface agrees with every case too, whole or as a stream."""
    asyncio.run(_read_all(tmp_path))


async def _read_all(folder):
    for name in CASES:
        case = Case(name)
        async with opened(aio.Decryptor, case, folder / f"{name}.keys") as decryptor:
            try:
                if case.message is None:
                    await decryptor.decrypt_text(case.armored, **case.binding)
                else:
                    plaintext = await decryptor.decrypt(case.message, **case.binding)
                    assert plaintext == await _from_stream(decryptor, case)
                    case.check(plaintext)
                outcome = "success"
            except tuple(OUTCOMES.values()) as error:
                if case.message is not None:
                    with pytest.raises(type(error)):
                        await _from_stream(decryptor, case)
                outcome = next(key for key, cls in OUTCOMES.items() if type(error) is cls)
        assert outcome == case.outcome, name


async def _from_stream(decryptor, case):
    source, sink = asyncio.StreamReader(), Sink()
    source.feed_data(case.message)
    source.feed_eof()
    await decryptor.decrypt_stream(source, sink, **case.binding)
    return bytes(sink.data)


class Sink:
    """A stream that keeps what is written."""

    def __init__(self):
        self.data = bytearray()

    def write(self, data):
        self.data += data

    async def drain(self):
        pass


def test_the_header_is_what_the_case_says(case):
    """A parsed header's fields are the case's, `inspect` shows them, and encoding them gives the bytes back."""
    try:
        header = wire.parse(case.message or b"")
    except MessageError as error:
        # Every refusal of the parser is the case's outcome, whatever the key or the context is.
        assert type(error) is OUTCOMES[case.outcome]
        assert case.header is None
        with pytest.raises(type(error)):
            inspect(case.armored if case.armored is not None else case.message)
        return
    assert header.encode() == case.message[: header.length]
    shown = inspect(case.message)
    assert shown == inspect(case.armored or wire.armor(case.message))
    if case.header is not None:
        assert _fields(header) == case.header
        assert (shown.kind, shown.header_length) == (case.header["kind"], case.header["length"])
        assert (shown.padding, shown.data_key_id) == (case.header["padding"], case.header["data_key_id_hex"])
        assert shown.commitment == case.header.get("commitment_hex", "")
        assert (shown.body == "compact") == (case.header.get("body") == "compact")
        assert [each.key_id for each in shown.recipients] == [e["key_id"] for e in case.header["recipients"]]


def _fields(header):
    return casebook.fields(
        header.layout.data_key_in.value,
        header.length,
        [(each.key_id, each.key_version, len(each.wrapped)) for each in header.recipients],
        header.padding,
        header.data_key_id.hex(),
        header.layout.body.value,
        header.commitment.hex(),
    )


def test_a_reader_written_from_the_document_agrees(case):
    """The reader that knows the document only comes to the same plaintext, outcome and header."""
    try:
        message = reader.dearmor(case.armored) if case.armored is not None else case.message
        if case.header is not None:
            parts = reader.parse(message)
            assert case.header == casebook.fields(
                ["inline", "stored", "direct", "inline", "stored"][parts.kind],
                parts.header_length,
                [(key_id, version, len(wrapped)) for key_id, version, wrapped in parts.recipients],
                parts.padding,
                parts.data_key_id.hex(),
                "compact" if parts.kind in reader.COMPACT else "chunked",
                parts.commitment.hex(),
            )
        plaintext = read(case, message)
    except reader.RefusedError as refusal:
        assert str(refusal) == case.outcome
    else:
        assert case.outcome == "success"
        case.check(plaintext)


def read(case, message, store=None):
    """The plaintext according to the document's reader, which may have a key store."""
    data, (pairs, aad) = case.data, (case.binding["context"], case.binding["aad"])
    known = {"passphrase": data.get("passphrase"), "store": store, "environment": data.get("environment")}
    return reader.decrypt(message, data["key_file"], data["decrypt_with"], pairs, aad, **known)


def test_a_reader_with_a_key_store_comes_to_the_outcome_of_stored_data_keys(case):
    """What a later version with key stores must do with kinds 1 and 4 is frozen already."""
    if "store" not in case.data:
        return
    store = {bytes.fromhex(name): bytes.fromhex(key) for name, key in case.data["store"].items()}
    try:
        plaintext = read(case, case.message, store)
    except reader.RefusedError as refusal:
        assert str(refusal) == case.data["outcome_with_store"]
    else:
        assert case.data["outcome_with_store"] == "success"
        case.check(plaintext)


def test_the_document_s_reader_shares_nothing_with_the_library():
    """The second reader and writer import the standard library and `cryptography`."""
    code = "import sys, tests.vectors.writer; sys.exit(any(m.startswith('kmsbridge') for m in sys.modules))"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_no_vector_was_changed_added_or_removed():
    """The files are those of the list of checksums, byte for byte."""
    found = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  cases/{path.name}" for path in FILES]
    assert found == make.SUMS.read_text().splitlines()


def test_the_generator_still_gives_the_deterministic_vectors():
    """What the generator says of a case and what was frozen are the same bytes."""
    cases = make.deterministic()
    assert {name for name, case in CASES.items() if case["made_by"] == "make.py"} == cases.keys()
    for name, case in cases.items():
        assert (make.CASES / f"{name}.json").read_bytes() == make.render(case), name


def test_the_generator_never_overwrites_a_case(tmp_path, monkeypatch, capsys):
    """A case that is there and differs stays as it is, and nothing else is written."""
    cases = tmp_path / "cases"
    cases.mkdir()
    changed = cases / "empty.json"
    changed.write_text("{}")
    monkeypatch.setattr(make, "CASES", cases)
    monkeypatch.setattr(make, "SUMS", tmp_path / "SHA256SUMS")
    assert "empty" in make.main()
    assert [path.name for path in tmp_path.rglob("*")] == ["cases", "empty.json"]
    assert changed.read_text() == "{}"


def test_the_vectors_cover_every_outcome():
    """At least 560 cases, 250 of them of compact messages, and for each outcome more than one."""
    outcomes = [case["outcome"] for case in CASES.values()]
    assert len(outcomes) >= 560
    assert sum("compact" in name for name in CASES) >= 250
    assert {outcome for outcome in outcomes if outcomes.count(outcome) > 1} == {"success", *OUTCOMES}


# --- cold and warm ------------------------------------------------------------------------------------


def groups():
    """The cases that are messages, in lists that one decryptor can read."""
    found = {}
    for name in sorted(CASES):
        case, data = Case(name), CASES[name]
        if case.message is not None:
            keys = [data["key_file"], data["decrypt_with"], data.get("passphrase"), data.get("environment")]
            found.setdefault(json.dumps(keys, sort_keys=True), []).append(case)
    return list(found.values())


def check_outcome(case, outcome):
    """Hold a plaintext or an error to the case."""
    if case.outcome == "success":
        assert isinstance(outcome, bytes), f"{case.name}: {outcome!r}"
        case.check(outcome)
    else:
        assert type(outcome) is OUTCOMES[case.outcome], f"{case.name}: {outcome!r}"


def outcome_of(way, decryptor, case, folder):
    try:
        return way(decryptor, case, folder)
    except KmsBridgeError as error:
        return error


@pytest.mark.parametrize("turn", range(4))
def test_what_was_read_before_changes_no_outcome(tmp_path, torture, turn):
    """One decryptor reads all cases of its keys three times, in an order and by ways that the seed decides.

    The third time it has read every message of theirs that can be read.
    """
    rng, count = torture.rng(f"cold and warm {turn}"), 0
    for number, cases in enumerate(groups()):
        with opened(Decryptor, cases[0], tmp_path / f"{number}.keys") as decryptor:
            again = rng.sample(cases, len(cases))
            order = cases * 2
            rng.shuffle(order)
            for case in [*order, *again]:
                way = WAYS["decrypt"] if rng.random() < 0.7 else rng.choice(list(WAYS.values()))
                check_outcome(case, outcome_of(way, decryptor, case, tmp_path))
                count += 1
    assert count > 1500


def test_a_message_changes_no_outcome_of_those_in_its_batch(tmp_path, torture):
    """decrypt_many of all cases of the same keys and context, cold, warm, and in another order."""
    rng, count = torture.rng("batches"), 0
    for number, cases in enumerate(groups()):
        with opened(Decryptor, cases[0], tmp_path / f"{number}.keys") as decryptor:
            batches = {}
            for case in cases:
                batches.setdefault(json.dumps(case.data["context"], sort_keys=True), []).append(case)
            for batch in [*batches.values(), *batches.values()]:
                rng.shuffle(batch)
                count += check_batch(decryptor, batch)
    assert count > 800


def check_batch(decryptor, cases):
    # An aad beyond its limit, and a refused context, are errors of the whole call.
    cases = [case for case in cases if case.outcome not in ("limit-exceeded", "invalid-context")]
    results = decryptor.decrypt_many(
        [case.message for case in cases],
        context=cases[0].binding["context"] if cases else None,
        aads=[case.binding["aad"] for case in cases],
        errors="return",
    )
    for case, result in zip(cases, results, strict=True):
        check_outcome(case, result)
    return len(cases)


def test_tasks_that_share_a_decryptor_change_no_outcome(tmp_path, torture):
    """All cases of the same keys at once, twice over, in tasks of one asyncio decryptor."""
    rng = torture.rng("tasks")

    async def read_all():
        for number, cases in enumerate(groups()):
            async with opened(aio.Decryptor, cases[0], tmp_path / f"{number}.keys") as decryptor:

                async def outcome(case, decryptor=decryptor):
                    try:
                        check_outcome(case, await decryptor.decrypt(case.message, **case.binding))
                    except KmsBridgeError as error:
                        check_outcome(case, error)

                order = cases * 2
                rng.shuffle(order)
                await asyncio.gather(*map(outcome, order))

    asyncio.run(read_all())
