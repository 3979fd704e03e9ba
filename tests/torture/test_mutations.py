"""A million changed messages with compact bodies, and a million others: none is taken for another, and none does harm.

The oracle is strict: whatever `decrypt` accepts must have the plaintext of the original, our own
recipient, the commitment and the body untouched, so that at most other recipients or padding differ; the format
leaves those free on purpose, and most of the reference messages have neither.
"""

import contextlib
import io
import itertools
import logging
import os
import random
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from kmsbridge import (
    AuthenticationError,
    EnvelopeCipher,
    KmsKeyNotFound,
    MessageError,
    NoMatchingKey,
    UnsupportedMessage,
    inspect,
)
from kmsbridge import message as wire
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.message import Kind
from kmsbridge.message.cobblestone import CHUNK, ENCRYPTED_CHUNK, OVERHEAD
from tests.support import BODIES, encrypt_chunked, encrypt_compact, parts, with_recipients

pytestmark = pytest.mark.torture

EXPECTED = (MessageError, AuthenticationError, NoMatchingKey, KmsKeyNotFound)
SHARDS = 10
MUTATIONS = 1_000_000
SPLICED = 101
"""Each header with each other message's body: 10,100 splices."""
BOUND: dict[str, Any] = {"context": {"tenant": "acme", "purpose": "test"}, "aad": b"users/42/phone"}
NUMBERS = (0, 1, 7, 8, 9, 15, 16, 17, 71, 72, 127, 128, 255, 256, 1024, 1025, 10_000, 16384, 16385, 65535,
           2**24, 2**31 - 1, 2**31, 2**32 - 1)  # fmt: skip
PAIR: dict[str, Any] = {"context": {"kind": "direct"}}
OTHER = wire.Recipient("vault:transit/app", "7", bytes(range(40)))
FIFTEEN = [OTHER._replace(key_id=f"vault:transit/app-{n}") for n in range(15)]
COMMITMENT = 32


@dataclass(frozen=True)
class Reference:
    """A message as it was written; `slow` where it is long."""

    name: str
    message: bytes
    plaintext: bytes
    binding: dict[str, Any]
    slow: bool = False


class References:
    """Eight messages of some kinds, those of all kinds to splice them with, and the cipher that opens them.

    `cold` has never a data key at hand.
    """

    def __init__(self, folder, kinds):
        path = folder / "keys.json"
        self.file = KeyFile.create(path, "app")
        self.uri = f"local:{path}"
        self.rng = random.Random(1)
        with EnvelopeCipher.from_uri(self.uri) as cipher:
            self.old = {name: encrypt(cipher, b"some older text") for name, encrypt in BODIES.items()}
        self.file.rotate("app")
        # Each has a data key and a binding of its own: with the same ones, a splice of two messages can be
        # a whole message again, with another recipient added or in place of another of its kind.
        self.cold = EnvelopeCipher.from_uri(self.uri, data_keys={"max_messages": 1})
        made = {"chunked and direct": self.chunked_and_direct(folder), "compact": self.compact()}
        self.all = made[kinds]
        self.cipher = EnvelopeCipher.from_uri(self.uri)
        self.messages = [each.message for some in made.values() for each in some]

    def chunked_and_direct(self, folder):
        text, long = self.rng.randbytes(100), self.rng.randbytes(CHUNK + 40)
        (folder / "plain").write_bytes(text)
        self.cold.encrypt_file(folder / "plain", folder / "sealed", aad=b"file")
        with EnvelopeCipher.from_uri(self.uri, direct=True) as direct:
            whole = [direct.encrypt(text, **PAIR), direct.encrypt(text, aad=b"direct")]

        def made(plaintext, **binding):
            return encrypt_chunked(self.cold, plaintext, **binding)

        return [
            Reference("empty", made(b"", aad=b"empty"), b"", {"aad": b"empty"}),
            Reference("bound", made(text, **BOUND), text, BOUND),
            Reference("older version", self.old["chunked"], b"some older text", {}),
            Reference("padded file", (folder / "sealed").read_bytes(), text, {"aad": b"file"}),
            Reference("direct", whole[0], text, PAIR),
            Reference("direct, aad", whole[1], text, {"aad": b"direct"}),
            Reference("two recipients", with_others(made(text, aad=b"two"), OTHER), text, {"aad": b"two"}),
            Reference("two chunks", made(long, aad=b"long"), long, {"aad": b"long"}, slow=True),
        ]

    def compact(self):
        text, longest = self.rng.randbytes(100), self.rng.randbytes(65_536)
        pair, long_aad = {"context": {"kind": "compact"}}, {"aad": self.rng.randbytes(5000)}

        def made(plaintext, **binding):
            return encrypt_compact(self.cold, plaintext, **binding)

        return [
            Reference("empty", made(b"", aad=b"compact"), b"", {"aad": b"compact"}),
            Reference("bound", made(text, **BOUND), text, BOUND),
            Reference("older version", self.old["compact"], b"some older text", {}),
            Reference("one byte", made(b"1", **pair), b"1", pair),
            Reference("long aad", made(text, **long_aad), text, long_aad),
            Reference("two recipients", with_others(made(text, aad=b"2"), OTHER), text, {"aad": b"2"}),
            Reference(
                "sixteen recipients", with_others(made(text, aad=b"16"), *FIFTEEN), text, {"aad": b"16"}
            ),
            Reference("longest", made(longest, aad=b"longest"), longest, {"aad": b"longest"}, slow=True),
        ]


def with_others(message, *others):
    """The same message, with recipients of another provider before ours."""
    return with_recipients(message, *others, *wire.parse(message).recipients)


@pytest.fixture(scope="module", params=("chunked and direct", "compact"))
def references(request, tmp_path_factory):
    made = References(tmp_path_factory.mktemp("mutations"), request.param)
    with made.cipher, made.cold:
        yield made


@pytest.fixture(autouse=True)
def _no_log(monkeypatch):
    """A million refusals would fill the memory of whoever captures the log."""
    monkeypatch.setattr(logging.getLogger("kmsbridge.audit"), "disabled", True)


def attempt(cipher, reference, mutated):
    """Decrypt what became of a message: it must be refused, or be harmless. Gives the error's class or the plaintext."""
    try:
        plaintext = cipher.decrypt(mutated, **reference.binding)
    except EXPECTED as error:
        return type(error)
    except BaseException as error:
        error.add_note(f"{reference.name}: {mutated[:2000].hex()}")
        raise
    if not is_harmless(reference, mutated, plaintext):
        pytest.fail(f"{reference.name}: accepted {mutated[:2000].hex()}")
    return plaintext


def is_harmless(reference, mutated, plaintext):
    """Whether nothing differs but other providers' recipients, and padding."""
    before, after = wire.parse(reference.message), wire.parse(mutated)
    return (
        plaintext == reference.plaintext
        and (before.kind, before.commitment) == (after.kind, after.commitment)
        and after.encode() == mutated[: after.length]
        and ours(before) == ours(after)
        and (len(before.recipients) > 1 or before.recipients == after.recipients)
        and reference.message[before.length :] == mutated[after.length :]
    )


def ours(header):
    """The recipient of our own key."""
    return [each for each in header.recipients if each.key_id.startswith("local:")]


# --- mutations ----------------------------------------------------------------------------------------


def flip_bits(rng, data, _others):
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_byte(rng, data, _others):
    changed = bytearray(data)
    changed[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


def set_start_byte(rng, data, _others):
    changed = bytearray(data)
    changed[rng.randrange(min(len(data), 48))] = rng.randrange(256)
    return bytes(changed)


def cut(rng, data, _others):
    return data[: rng.randrange(len(data))]


def cut_start(rng, data, _others):
    return data[rng.randrange(1, len(data)) :]


def append(rng, data, _others):
    return data + rng.choice(
        (bytes(rng.randrange(1, 40)), rng.randbytes(rng.randrange(1, 40)), data[-16:], data)
    )


def insert(rng, data, _others):
    at = rng.randrange(len(data))
    return data[:at] + rng.choice((b"\0", rng.randbytes(rng.randrange(1, 20)))) + data[at:]


def remove(rng, data, _others):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randrange(1, 40) :]


def repeat(rng, data, _others):
    at, end = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return data[:end] + data[at:]


def swap(rng, data, _others):
    """Two neighbouring stretches change places; of long messages whole chunks."""
    start = int.from_bytes(data[6:8], "big") + OVERHEAD
    if len(data) > start + ENCRYPTED_CHUNK and rng.randrange(2):
        return data[:start] + data[start + ENCRYPTED_CHUNK :] + data[start : start + ENCRYPTED_CHUNK]
    a, b, c = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def claim(rng, data, _others):
    """A length of up to 4 GiB, or as many recipients, somewhere in the header."""
    layout = rng.choice((">B", ">H", ">I", "<H", "<I"))
    number = rng.choice(NUMBERS) & (1 << 8 * struct.calcsize(layout)) - 1
    at = rng.choice((5, 6, 8, 9, 10, rng.randrange(len(data) - 4), rng.randrange(200)))
    at = min(at, len(data) - 4)
    packed = struct.pack(layout, number)
    return data[:at] + packed + data[at + len(packed) :]


def splice(rng, data, others):
    """The header of one, the body of another; or one's start and the other's rest."""
    other = rng.choice(others)
    if rng.randrange(2):
        return data[: int.from_bytes(data[6:8], "big")] + other[int.from_bytes(other[6:8], "big") :]
    return data[: rng.randrange(len(data))] + other[rng.randrange(len(other)) :]


def zeros(rng, data, _others):
    at = rng.randrange(len(data))
    length = rng.randrange(1, 80)
    return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]


def header_length(rng, data, _others):
    """H is another number, and the header may be cut or filled to fit it."""
    old = int.from_bytes(data[6:8], "big")
    new = rng.choice((rng.randrange(old + 80), old - 1, old + 1, old + 72))
    header = (
        data[8:old]
        if rng.randrange(2)
        else data[8:old].ljust(new, rng.choice((b"\0", b"x")))[: max(0, new - 8)]
    )
    return data[:6] + (new & 0xFFFF).to_bytes(2, "big") + header + data[old:]


def kind(rng, data, _others):
    """Another kind, and sometimes the header that goes with it: with a commitment or without one."""
    new = rng.choice([each for each in Kind if each != data[5]])
    header, body = bytearray(parts(data)[0]), parts(data)[1]
    if rng.randrange(4):
        if data[5] == Kind.INLINE_COMPACT:
            del header[-COMMITMENT:]
        elif new == Kind.INLINE_COMPACT:
            header += rng.choice((bytes(COMMITMENT), rng.randbytes(COMMITMENT), body[:COMMITMENT]))
    header[5:8] = bytes((new,)) + (len(header) & 0xFFFF).to_bytes(2, "big")
    return bytes(header) + body


def commitment(rng, data, others):
    """The end of the header is that of another message, or changed."""
    header, body = parts(data)
    other = parts(rng.choice(others))[0][-COMMITMENT:]
    own = header[-COMMITMENT:]
    changed = rng.choice((other, bytes(COMMITMENT), own[::-1], own[16:] + own[:16], other[:16] + own[16:]))
    return header[:-COMMITMENT] + changed + body


def body_of_another_length(rng, data, others):
    """Whole blocks are taken away or put in between, as of counters; the tag stays at the end."""
    header, body = parts(data)
    at = 24 + 16 * rng.randrange(len(body) // 16 + 1)
    piece = rng.choice((bytes(16), body[at : at + 16], parts(rng.choice(others))[1][24:40]))
    return header + rng.choice((body[:at] + body[at + 16 :], body[:at] + piece + body[at:]))


MUTATORS = (
    flip_bits, set_byte, set_start_byte, cut, cut_start, append, insert, remove, repeat, swap, claim, splice,
    zeros, header_length, kind, commitment, body_of_another_length,
)  # fmt: skip


@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_mutation_is_accepted(shard, references, torture):
    """A seeded change of a valid message is refused with an error of the tree, or changes nothing that matters.

    Of one in sixteen it is looked whether the outcome is the same where no data key is at hand.
    """
    rng = torture.rng(f"mutations {shard}")
    weights = [1 if each.slow else 6 for each in references.all]
    left = torture.times(MUTATIONS // SHARDS)
    while left:
        reference = rng.choices(references.all, weights)[0]
        mutated = rng.choice(MUTATORS)(rng, reference.message, references.messages)
        if rng.randrange(8) == 0 and len(mutated) > 8:
            mutated = rng.choice(MUTATORS)(rng, mutated, references.messages)
        if mutated not in references.messages:
            outcome = attempt(references.cipher, reference, mutated)
            if left % 16 == 0:
                assert attempt(references.cold, reference, mutated) == outcome, mutated[:2000].hex()
            left -= 1


# --- every bit, every length --------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("number", range(8))
def test_every_bit_counts(number, part, references, torture):
    """Each single bit of each reference message; in a tenth of the size, a tenth of the long one's bits."""
    reference = references.all[number]
    bits = [*range(part, 8 * len(reference.message), 4)]
    if reference.slow and torture.scale < 1:
        bits = torture.rng(f"bits {part}").sample(bits, torture.times(len(bits)))
    changed = bytearray(reference.message)
    for bit in bits:
        changed[bit // 8] ^= 1 << bit % 8
        attempt(references.cipher, reference, bytes(changed))
        changed[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("number", range(8))
def test_every_length_counts(number, references, torture):
    """Each truncation of each reference message is refused; in a tenth of the size, a tenth of the long one's."""
    reference = references.all[number]
    lengths = [*range(len(reference.message))]
    if reference.slow and torture.scale < 1:
        near = [n for n in lengths if min(n, len(reference.message) - n) < 600]
        lengths = sorted({*near, *torture.rng("lengths").sample(lengths, torture.times(len(lengths)))})
    for length in lengths:
        with pytest.raises(EXPECTED):
            references.cipher.decrypt(reference.message[:length], **reference.binding)


@pytest.mark.parametrize("number", range(8))
def test_every_bit_counts_when_read_as_a_file(number, references, torture):
    """The seekable reader, which is code of its own, refuses a flip of any bit of what it reads."""
    reference = references.all[number]
    bits = range(8 * len(reference.message))
    for bit in torture.rng(f"file {number}").sample(bits, min(torture.times(2000), len(bits))):
        changed = bytearray(reference.message)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            with references.cipher.open(io.BytesIO(changed), **reference.binding) as file:
                plaintext = file.read()
        except EXPECTED:
            continue
        assert is_harmless(reference, bytes(changed), plaintext)


def test_the_oracle_can_fail(references):
    """What is accepted and not the original is noticed: the tests above do not hold because of the oracle."""
    reference = references.all[1]
    with pytest.raises(pytest.fail.Exception, match="accepted"):
        attempt(references.cipher, replace(reference, plaintext=b"another"), reference.message)
    for each in references.all:
        assert references.cipher.decrypt(each.message, **each.binding) == each.plaintext
        assert is_harmless(each, each.message, each.plaintext)
        assert not is_harmless(each, each.message, each.plaintext + b"\0")
    assert any(each.slow and len(each.plaintext) > CHUNK for each in references.all)
    assert len(references.all) == 8


# --- splices ------------------------------------------------------------------------------------------


def splices(messages):
    """Header and number of A, body of B, for all A and B that differ."""
    halves = [(each[: wire.parse(each).length], each[wire.parse(each).length :]) for each in messages]
    for (a, (header, _)), (b, (_, sealed)) in itertools.product(enumerate(halves), repeat=2):
        if a != b:
            yield a, header + sealed


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A key of its own for the splices."""
    path = tmp_path_factory.mktemp("splices") / "keys.json"
    KeyFile.create(path, "app")
    return f"local:{path}"


FORMATS = {name: (encrypt,) for name, encrypt in BODIES.items()} | {"both": tuple(BODIES.values())}


@pytest.mark.parametrize("formats", FORMATS.values(), ids=FORMATS)
def test_no_header_goes_with_the_body_of_another_data_key(uri, formats):
    """10,100 splices of header A and body B, all of one context and aad, each of a data key of its own.

    With both formats of body, half of them are of a header before a body of the other format.
    """
    with EnvelopeCipher.from_uri(uri, data_keys={"max_messages": 1}) as cipher:
        messages = [
            encrypt(cipher, b"%040d" % n, **BOUND)
            for n, encrypt in zip(range(SPLICED), itertools.cycle(formats), strict=False)
        ]
    count = 0
    with EnvelopeCipher.from_uri(uri) as cipher:
        for _, spliced in splices(messages):
            with pytest.raises(AuthenticationError):
                cipher.decrypt(spliced, **BOUND)
            count += 1
        assert [cipher.decrypt(each, **BOUND) for each in messages] == [b"%040d" % n for n in range(SPLICED)]
    assert count >= 10_000


def test_no_header_goes_with_a_body_of_the_other_format_of_the_same_data_key(uri):
    """Nor with the commitment moved along; all of one context and aad."""
    with EnvelopeCipher.from_uri(uri) as cipher:
        chunked, compact = (
            [encrypt(cipher, b"%040d" % n, **BOUND) for n in range(30)] for encrypt in BODIES.values()
        )
        assert wire.parse(chunked[0]).recipients == wire.parse(compact[0]).recipients
        for one, other in itertools.product(chunked, compact):
            for header, body in ((one, other), (other, one)):
                with pytest.raises(AuthenticationError):
                    cipher.decrypt(parts(header)[0] + parts(body)[1], **BOUND)
        for message in (*chunked, *compact):
            assert cipher.decrypt(message, **BOUND)


def test_no_commitment_of_another_data_key_or_context_is_taken(uri):
    """10,100 messages with the commitment of another one, each of a data key of its own."""
    with EnvelopeCipher.from_uri(uri, data_keys={"max_messages": 1}) as cipher:
        messages = [encrypt_compact(cipher, b"%d" % n, **BOUND) for n in range(SPLICED)]
    headers = [wire.parse(message) for message in messages]
    with EnvelopeCipher.from_uri(uri) as cipher:
        for (n, header), other in itertools.product(enumerate(headers), headers):
            if header is other:
                continue
            changed = header._replace(commitment=other.commitment).encode() + parts(messages[n])[1]
            with pytest.raises(AuthenticationError):
                cipher.decrypt(changed, **BOUND)


@pytest.mark.parametrize("encrypt", BODIES.values(), ids=BODIES)
def test_no_body_is_moved_to_another_aad_or_context(uri, encrypt):
    """Where the data key is the same, the aad tells bodies apart; where the aad is, the context does."""
    with EnvelopeCipher.from_uri(uri) as cipher:
        assert_no_body_is_moved(cipher, encrypt)


def assert_no_body_is_moved(cipher, encrypt):
    rows = range(40)
    by_aad = [encrypt(cipher, b"%d" % row, aad=b"%d" % row) for row in rows]
    by_context = [encrypt(cipher, b"%d" % row, context={"row": str(row)}) for row in rows]
    for row, spliced in splices(by_aad):
        with pytest.raises(AuthenticationError):
            cipher.decrypt(spliced, aad=b"%d" % row)
    for row, spliced in splices(by_context):
        with pytest.raises(AuthenticationError):
            cipher.decrypt(spliced, context={"row": str(row)})


# --- memory -------------------------------------------------------------------------------------------


def claims(message):
    """Messages that promise what they do not hold."""
    for number in NUMBERS:
        for at in (5, 6, 8, 9, 10, 37, 39):
            for layout in (">B", ">H", ">I"):
                packed = struct.pack(layout, number & (1 << 8 * struct.calcsize(layout)) - 1)
                yield message[:at] + packed + message[at + len(packed) :]
    one = struct.pack(">H", 3) + b"x:k" + b"\0" + struct.pack(">H", 1) + b"w"
    recipients = b"\xff" + one * 7000
    ten_thousand = struct.pack(">H", 10_000) + one * 10_000
    for each in Kind:
        yield struct.pack(">4sBBH", b"KMSB", 1, each, 8 + len(recipients)) + recipients
        yield struct.pack(">4sBBH", b"KMSB", 1, each, 65535) + ten_thousand


def read_every_way(cipher, message, binding):
    """Each entry that takes a message refuses it, and leaves no other exception out."""
    ways: tuple[Callable[[], object], ...] = (
        lambda: cipher.decrypt(message, **binding),
        lambda: cipher.decrypt_text(wire.armor(message), **binding),
        lambda: cipher.open(io.BytesIO(message), **binding).read(),
        lambda: cipher.decrypt_many(
            [message], context=binding.get("context"), aads=[binding.get("aad", b"")]
        ),
        lambda: cipher.rewrap(message, **binding),
        lambda: inspect(message),
        lambda: cipher.needs_rewrap(message),
    )
    for way in ways:
        try:
            way()
        except EXPECTED:
            continue
        except ValueError as error:
            assert "not text" in str(error)


def test_claims_allocate_nothing_beyond_the_input(references):
    """Lengths up to 4 GiB and thousands of recipients claimed cost no more memory than the message is long."""
    reference = references.all[1]
    for message in claims(reference.message):
        read_every_way(references.cipher, message, reference.binding)  # whatever is made once
    tracemalloc.start()
    try:
        for message in claims(reference.message):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            with contextlib.suppress(*EXPECTED):
                references.cipher.decrypt(message, **reference.binding)
            _, peak = tracemalloc.get_traced_memory()
            assert peak - before < 2 * len(message) + 65536, message[:60].hex()
    finally:
        tracemalloc.stop()


IN_LITTLE_MEMORY = """
import io, logging, os, pathlib, resource, sys
from tests.torture.test_mutations import BOUND, EXPECTED, claims, read_every_way
from kmsbridge import EnvelopeCipher, MalformedMessage

logging.disable()
folder, uri = pathlib.Path(sys.argv[1]), sys.argv[2]
message = (folder / "reference").read_bytes()
with EnvelopeCipher.from_uri(uri) as cipher:
    read_every_way(cipher, message, BOUND)
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + (16 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        bytearray(64 << 20)
    except MemoryError:
        print("limited")
    for claimed in claims(message):
        read_every_way(cipher, claimed, BOUND)
        try:
            cipher.decrypt_stream(io.BytesIO(claimed), io.BytesIO(), **BOUND)
        except EXPECTED:
            pass
    os.truncate(folder / "reference", 1 << 32)
    for way in (
        lambda: cipher.open(folder / "reference", **BOUND),
        lambda: cipher.decrypt_file(folder / "reference", folder / "target", **BOUND),
        lambda: cipher.decrypt_stream((folder / "reference").open("rb"), io.BytesIO(), **BOUND),
    ):
        try:
            way()
            print("accepted")
        except EXPECTED:
            print("refused")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc to know its own size")
def test_claims_are_refused_in_little_memory(references, tmp_path):
    """A process with 16 MiB to spare reads them all, and a file that was made 4 GiB long as well."""
    (tmp_path / "reference").write_bytes(references.all[1].message)
    done = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY, str(tmp_path), references.uri],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stderr, done.stdout.split()) == ("", ["limited", *["refused"] * 3])
    assert not (tmp_path / "target").exists()


def test_a_message_of_a_later_version_is_never_looked_into(references, torture):
    """Version and kind are judged before anything else is, so that later formats are free to differ."""
    rng = torture.rng("later")
    for _ in range(torture.times(20_000)):
        start = b"KMSB" + rng.choice(
            (bytes((rng.randrange(2, 256), rng.randrange(256))), bytes((1, rng.randrange(len(Kind), 256))))
        )
        with pytest.raises(UnsupportedMessage):
            references.cipher.decrypt(start + rng.randbytes(rng.randrange(2, 100)))
