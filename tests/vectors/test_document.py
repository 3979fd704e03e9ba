"""docs/reference/format.md says what the code does: its examples, its limits and its table of kinds."""

import math
from pathlib import Path

import pytest

from kmsbridge import message as wire
from kmsbridge.cipher.aad import MAX_AAD
from kmsbridge.context import MAX_BYTES, MAX_PAIRS, RESERVED_PREFIX, EncryptionContext
from kmsbridge.datakeys.datakey import bound_bytes
from kmsbridge.message import compact, xaes
from kmsbridge.message.cobblestone import CHUNK, ENCRYPTED_CHUNK
from kmsbridge.policy import BOUNDS, DataKeyPolicy
from tests.vectors import example
from tests.vectors.frozen import CASES, OUTCOMES

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
    flat = " ".join(PAGE.split())
    shortest, longest = wire.MIN_COMPACT_BODY, wire.MAX_COMPACT_BODY
    for sentence, *values in (
        ("`u8` number of recipients, 1 to {} in kinds 0 and 3", wire.MAX_RECIPIENTS),
        ("length of the key id | 1 to {} ", wire.MAX_KEY_ID),
        ("length of the key version | 0 to {} ", wire.MAX_KEY_VERSION),
        ("length of the wrapped key | 1 to {} ", wire.MAX_WRAPPED),
        ("Kind above {}: unsupported", max(wire.Kind)),
        ("[chunked](#chunked-body), at least {} bytes", wire.MIN_BODY),
        ("[compact](#compact-body), {} to {} bytes", shortest, longest),
        ("at least {} in kinds 0 and 1, and {} to {} in", wire.MIN_BODY, shortest, longest),
        ("{} bytes of a chunked body, and a compact body whole", wire.MIN_BODY),
        ("H a multiple of {},", wire.PAD_TO),
        ("a header, padding included, of more than {} bytes", wire.MAX_HEADER),
        ("**Id of a data key** (kinds 1 and 4): {} bytes", wire.DATA_KEY_ID),
        ("**Commitment** (kind 3): {} bytes", wire.COMMITMENT),
        ("at most {} pairs", MAX_PAIRS),
        ("canonical form is at most {} bytes", MAX_BYTES),
        ("aad) is bytes of any value, at most {} bytes long", MAX_AAD),
        ("no name begins with `{}`", RESERVED_PREFIX),
        ("cut into chunks of {} bytes", CHUNK),
        ("An encrypted full chunk has {} bytes", ENCRYPTED_CHUNK),
        ("a payload of 0 to {} bytes", compact.MAX_PAYLOAD),
        ("a payload in memory of at most {} bytes", compact.MAX_PAYLOAD),
        ("a payload above {} bytes in kinds 3 and 4", compact.MAX_PAYLOAD),
        ("draws N[0:{}] at random", compact.PREFIX),
        ("draws N[{}:{}] at random for each message", compact.PREFIX, compact.NONCE),
        ("again after 2^{} messages", math.log2(compact.PER_PREFIX)),
        ("at most 2^{} messages under one data key", math.log2(BOUNDS["max_messages"].most)),
        ("10^{}, the default of `max_messages`", math.log10(DataKeyPolicy().max_messages)),
        ("A message as text is `{}`", wire.ARMOR_PREFIX),
    ):
        whole = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
        assert sentence.format(*whole) in flat, sentence


@pytest.mark.parametrize("kind", wire.Kind)
def test_the_document_s_table_of_kinds_is_that_of_the_code(kind):
    """Each kind has a row with its number, the place of its data key, and its body."""
    layout = wire.LAYOUTS[kind]
    body = layout.body.value
    name = layout.data_key_in.value + (f", {body}" if body != "none" else "")
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| {int(kind)} | {name} |"))
    assert body in row
    assert ("exactly one" in row) == (layout.most_recipients == 1)


def test_the_library_comes_to_the_values_of_the_compact_example():
    """K, T and the body that the page shows, byte for byte."""
    given = example.case("worked-example-compact")
    c = EncryptionContext.of(given["context"]).canonical()
    key, commitment = compact.derive(bytes(range(32)), c)
    shown = "".join(example.compact_values().split())
    assert f"K{key.hex()}T{commitment.hex()}L" in shown
    nonce = bytes(range(0x64, 0x64 + 24))
    body = nonce + xaes.derive(key, nonce[:12]).encrypt(nonce[12:], b"+1 555 0100", b"users/42/phone")
    assert bytes.fromhex(given["message_hex"]).endswith(commitment + body)


def test_the_document_names_every_member_and_outcome_of_the_cases():
    """A reader in another language finds all that the frozen cases use."""
    section = PAGE[PAGE.index("## The frozen cases") :]
    members = {member for case in CASES.values() for member in case}
    assert {member for member in members if f"`{member}`" not in section} == set()
    assert {
        name for name, cls in OUTCOMES.items() if f"| `{name}` | `{cls.__name__}` |" not in section
    } == set()
