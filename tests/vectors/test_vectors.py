"""The frozen vectors: every way to read a message gives the outcome that each case names."""

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from kmsbridge import (
    AuthenticationError,
    ConfigError,
    Decryptor,
    KmsBridgeError,
    KmsKeyDisabled,
    KmsKeyNotFound,
    LimitExceeded,
    MalformedMessage,
    MessageError,
    NoMatchingKey,
    UnsupportedMessage,
    aio,
    inspect,
)
from kmsbridge import message as wire
from kmsbridge.cipher.aad import MAX_AAD
from kmsbridge.context import MAX_BYTES, MAX_PAIRS, RESERVED_PREFIX, EncryptionContext
from kmsbridge.datakeys.datakey import bound_bytes
from kmsbridge.message.cobblestone import CHUNK, ENCRYPTED_CHUNK
from tests.vectors import example, make, reader

OUTCOMES: dict[str, type[KmsBridgeError]] = {
    "malformed-message": MalformedMessage,
    "unsupported-message": UnsupportedMessage,
    "authentication-error": AuthenticationError,
    "no-matching-key": NoMatchingKey,
    "key-version-not-found": KmsKeyNotFound,
    "key-disabled": KmsKeyDisabled,
    "invalid-context": ConfigError,
    "limit-exceeded": LimitExceeded,
}
FILES = sorted(make.CASES.glob("*.json"))
CASES = {path.stem: json.loads(path.read_text()) for path in FILES}


class Case:
    """One case, with its values as bytes."""

    def __init__(self, name):
        self.name, self.data = name, CASES[name]
        self.outcome, self.header = self.data["outcome"], self.data.get("header")
        aad = bytes.fromhex(self.data["aad_hex"]) * self.data.get("aad_repeat", 1)
        self.binding = {"context": self.data["context"], "aad": aad}
        self.armored = self.data.get("armored")

    @property
    def message(self):
        """The bytes; None where the text is not even armor."""
        if self.armored is not None:
            with contextlib.suppress(MessageError):
                return wire.dearmor(self.armored)
            return None
        if "message_hex" in self.data:
            return bytes.fromhex(self.data["message_hex"])
        return base64.b64decode(self.data["message_base64"])

    def check(self, plaintext):
        """Hold a plaintext to what the case says of it."""
        if "plaintext_hex" in self.data:
            assert plaintext.hex() == self.data["plaintext_hex"]
        else:
            assert len(plaintext) == self.data["plaintext_length"]
            assert hashlib.sha256(plaintext).hexdigest() == self.data["plaintext_sha256"]


@pytest.fixture(params=sorted(CASES))
def case(request):
    return Case(request.param)


@pytest.fixture
def decryptor(case, tmp_path):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(case.data["key_file"]))
    path.chmod(0o600)
    uris = [f"local:{path}#{name}" for name in case.data["decrypt_with"]]
    with Decryptor.from_uri(uris[0], decrypt_uris=uris[1:]) as opened:
        yield opened


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
    return target.read_bytes()


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
        case, path = Case(name), folder / f"{name}.keys"
        path.write_text(json.dumps(case.data["key_file"]))
        path.chmod(0o600)
        uris = [f"local:{path}#{key}" for key in case.data["decrypt_with"]]
        async with aio.Decryptor.from_uri(uris[0], decrypt_uris=uris[1:]) as decryptor:
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
        assert [each.key_id for each in shown.recipients] == [e["key_id"] for e in case.header["recipients"]]


def _fields(header):
    return make.fields(
        header.kind.name.lower(),
        header.length,
        [(each.key_id, each.key_version, len(each.wrapped)) for each in header.recipients],
        header.padding,
        header.data_key_id.hex(),
    )


def test_a_reader_written_from_the_document_agrees(case):
    """The reader that knows the document only comes to the same plaintext, outcome and header."""
    data = case.data
    try:
        message = reader.dearmor(case.armored) if case.armored is not None else case.message
        if case.header is not None:
            parts = reader.parse(message)
            recipients = [(key_id, version, len(wrapped)) for key_id, version, wrapped in parts.recipients]
            kind = ["inline", "stored", "direct"][parts.kind]
            assert case.header == make.fields(
                kind, parts.header_length, recipients, parts.padding, parts.data_key_id.hex()
            )
        plaintext = reader.decrypt(message, data["key_file"], data["decrypt_with"], **_positional(case))
    except reader.RefusedError as refusal:
        assert str(refusal) == case.outcome
    else:
        assert case.outcome == "success"
        case.check(plaintext)


def _positional(case):
    return {"pairs": case.binding["context"], "aad": case.binding["aad"]}


def test_the_document_s_reader_shares_nothing_with_the_library():
    """The second reader imports the standard library and AES-GCM."""
    code = "import sys, tests.vectors.reader; sys.exit(any(m.startswith('kmsbridge') for m in sys.modules))"
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
    """At least 170 cases, and for each outcome more than one."""
    outcomes = [case["outcome"] for case in CASES.values()]
    assert len(outcomes) >= 170
    assert {outcome for outcome in outcomes if outcomes.count(outcome) > 1} == {"success", *OUTCOMES}


# --- the document -------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs/reference/format.md").read_text()


@pytest.mark.parametrize("part", example.PARTS, ids=lambda part: part.__name__)
def test_the_worked_example_of_the_document_is_what_the_code_gives(part):
    """Each block of bytes on the page is made of the vector, letter by letter."""
    assert f"```text\n{part()}\n```" in PAGE


def test_the_library_comes_to_the_values_of_the_worked_example():
    """The library's own canonical context and body context are those that the page shows."""
    pairs = {"tenant": "acme", "città": "Łódź"}
    assert (
        example.rows(EncryptionContext.of(pairs).canonical(), example.pair_parts(pairs)) == example.context()
    )
    given = example.case()
    shown = "".join(example.values().split()).replace(" ", "")
    bound = bound_bytes(EncryptionContext.of(given["context"])) + bytes.fromhex(given["aad_hex"])
    assert f"contextofthebody{bound.hex()}AESkey" in shown


def test_the_limits_of_the_document_are_those_of_the_code():
    """The page's numbers are the library's constants."""
    for sentence, value in (
        ("`u8` number of recipients, 1 to {} in kind 0", wire.MAX_RECIPIENTS),
        ("length of the key id | 1 to {} ", wire.MAX_KEY_ID),
        ("length of the key version | 0 to {} ", wire.MAX_KEY_VERSION),
        ("length of the wrapped key | 1 to {} ", wire.MAX_WRAPPED),
        ("at least {} bytes; kind 2", wire.MIN_BODY),
        ("H a multiple of {},", wire.PAD_TO),
        ("Content of kind 1: {} bytes", wire.DATA_KEY_ID),
        ("at most {} pairs", MAX_PAIRS),
        ("canonical form is at most {} bytes", MAX_BYTES),
        ("aad is at most {} bytes long", MAX_AAD),
        ("no name begins with `{}`", RESERVED_PREFIX),
        ("cut into chunks of {} bytes", CHUNK),
        ("An encrypted full chunk has {} bytes", ENCRYPTED_CHUNK),
        ("A message as text is `{}`", wire.ARMOR_PREFIX),
    ):
        assert sentence.format(value) in PAGE


def decryptor_key(case):
    """What cases must have in common to be read by one decryptor."""
    return json.dumps([case.data["key_file"], case.data["decrypt_with"]], sort_keys=True)


def outcome_of(decryptor, case):
    try:
        return decryptor.decrypt(case.message, **case.binding)
    except (KmsBridgeError, TypeError) as error:
        return type(error)


@pytest.mark.parametrize("turn", range(4))
def test_what_was_read_before_changes_no_outcome(tmp_path, torture, turn):
    """One decryptor reads all cases of its keys, twice over, in an order that the seed decides."""
    groups = {}
    for name in sorted(CASES):
        case = Case(name)
        if case.message is not None:
            groups.setdefault(decryptor_key(case), []).append(case)
    rng, count = torture.rng(f"cold and warm {turn}"), 0
    for number, cases in enumerate(groups.values()):
        folder = tmp_path / str(number)
        folder.mkdir(mode=0o700)
        path = folder / "keys.json"
        path.write_text(json.dumps(cases[0].data["key_file"]))
        path.chmod(0o600)
        uris = [f"local:{path}#{name}" for name in cases[0].data["decrypt_with"]]
        with Decryptor.from_uri(uris[0], decrypt_uris=uris[1:]) as decryptor:
            order = cases * 2
            rng.shuffle(order)
            for case in order:
                outcome = outcome_of(decryptor, case)
                if case.outcome == "success":
                    case.check(outcome)
                else:
                    assert outcome is OUTCOMES[case.outcome], case.name
                count += 1
    assert count > 500
