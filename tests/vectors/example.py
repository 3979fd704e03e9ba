"""The worked examples of docs/reference/format.md, from the vectors `worked-example` and `worked-example-compact`.

`python -m tests.vectors.example` prints its parts; a test holds the page to them.
"""

from __future__ import annotations

import base64
import json
import struct
import textwrap

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.vectors import make, reader

WIDTH = 16


def case(name="worked-example"):
    """The vector."""
    return json.loads((make.CASES / f"{name}.json").read_text())


def rows(data, parts):
    """Lines of offset, bytes and meaning; `parts` are (length, meaning) from front to back."""
    at, lines = 0, []
    for length, meaning in parts:
        for start in range(at, at + length, WIDTH):
            chunk = data[start : min(start + WIDTH, at + length)]
            lines.append(
                f"{start:<6}  {chunk.hex(' '):<{3 * WIDTH}} {meaning if start == at else ''}".rstrip()
            )
        at += length
    assert at == len(data)
    return "\n".join(lines)


def pair_parts(pairs):
    """The canonical context's parts."""
    parts = [(2, f"{len(pairs)} pair{'s' * (len(pairs) != 1)}")]
    for name, value in sorted((name.encode(), value.encode()) for name, value in pairs.items()):
        for text in (name, value):
            parts += [(2, f"{len(text)} bytes follow"), (len(text), text.decode())]
    return parts


def context():
    """The canonical context of two pairs."""
    pairs = {"tenant": "acme", "città": "Łódź"}
    return rows(reader.canonical(pairs), pair_parts(pairs))


def header_parts(parts, kind):
    """The parts of a header with one recipient."""
    key_id, version, wrapped = parts.recipients[0]
    assert (len(parts.recipients), parts.padding) == (1, 0)
    return [
        (4, "KMSB"),
        (1, "version 1"),
        (1, kind),
        (2, f"H = {parts.header_length}"),
        (1, "one recipient"),
        (2, f"its key id has {len(key_id)} bytes"),
        (len(key_id), key_id),
        (1, f"its key version has {len(version)} byte"),
        (len(version), f'"{version}"'),
        (2, f"its wrapped key has {len(wrapped)} bytes"),
    ]


def message():
    """The whole chunked message."""
    data = bytes.fromhex(case()["message_hex"])
    parts = reader.parse(data)
    return rows(
        data,
        [
            *header_parts(parts, "kind 0, inline"),
            (len(parts.recipients[0][2]), "the wrapped key; no padding follows"),
            (24, "the body's salt"),
            (32, "its commitment"),
            (len(parts.body) - 56, "its only chunk: 11 bytes of ciphertext and a tag"),
        ],
    )


def compact_message():
    """The whole compact message."""
    data = bytes.fromhex(case("worked-example-compact")["message_hex"])
    parts = reader.parse(data)
    return rows(
        data,
        [
            *header_parts(parts, "kind 3, inline and compact"),
            (len(parts.recipients[0][2]), "the wrapped key"),
            (32, "the commitment, T"),
            (24, "the body's nonce, N"),
            (len(parts.body) - 40, "11 bytes of ciphertext"),
            (16, "the tag"),
        ],
    )


def values():
    """What comes out on the way from the message to its plaintext."""
    given = case()
    parts = reader.parse(bytes.fromhex(given["message_hex"]))
    aad, pairs = bytes.fromhex(given["aad_hex"]), given["context"]
    material, wrapping_context, data_key = unwrapped(given, parts)
    c = reader.canonical(pairs)
    body_context = b"kmsbridge/v1\0" + struct.pack(">I", len(c)) + c + aad
    key, base_nonce, commitment = reader.derive(data_key, parts.body[:24], body_context)
    assert commitment == parts.body[24:56]
    plaintext = reader.open_body(data_key, body_context, parts.body)
    assert plaintext.hex() == given["plaintext_hex"]
    named = {
        "material of version 2": material,
        "context of the wrapping": wrapping_context,
        "data key": data_key,
        "context of the body": body_context,
        "AES key": key,
        "base nonce, and nonce of chunk 0": base_nonce,
        "commitment": commitment,
        "plaintext": plaintext,
    }
    return listed(named)


def unwrapped(given, parts):
    """The material, the context of the wrapping, and the data key."""
    material = base64.b64decode(given["key_file"]["keys"]["app"]["versions"]["2"]["material"])
    context = b"kmsbridge-local/v1\0" + reader.canonical({**given["context"], "kmsbridge": "dek"})
    return material, context, reader.open_body(material, context, parts.recipients[0][2])


def compact_values():
    """What comes out on the way from the compact message to its plaintext, after its data key."""
    given = case("worked-example-compact")
    parts = reader.parse(bytes.fromhex(given["message_hex"]))
    _, _, data_key = unwrapped(given, parts)
    c = reader.canonical(given["context"])
    key, commitment = reader.derive_compact(data_key, given["context"])
    assert commitment == parts.commitment
    aes = Cipher(algorithms.AES256(key), modes.ECB()).encryptor()
    zeros = aes.update(bytes(16))
    subkey = int.from_bytes(zeros, "big") << 1 & (1 << 128) - 1 ^ 0x87 * (zeros[0] >> 7)
    derived = reader.derive_xaes(key, parts.body[:12])
    plaintext = AESGCM(derived).decrypt(parts.body[12:24], parts.body[24:], bytes.fromhex(given["aad_hex"]))
    assert plaintext.hex() == given["plaintext_hex"]
    return listed(
        {
            "data key": data_key,
            "what HMAC-SHA-512 takes under the data key": b"kmsbridge/v1/compact\0"
            + struct.pack(">I", len(c))
            + c
            + b"\1",
            "K": key,
            "T": commitment,
            "L": zeros,
            "S": subkey.to_bytes(16, "big"),
            "X, the AES key": derived,
            "nonce of AES-256-GCM": parts.body[12:24],
            "additional data, the aad": bytes.fromhex(given["aad_hex"]),
            "plaintext": plaintext,
        }
    )


def listed(named):
    """Values with their names."""
    return "\n".join(
        f"{name}\n" + textwrap.indent("\n".join(textwrap.wrap(value.hex(" "), 3 * 24)), "    ")
        for name, value in named.items()
    )


PARTS = (context, message, values, compact_message, compact_values)

if __name__ == "__main__":
    for part in PARTS:
        print(f"{part.__name__}:\n\n{part()}\n")
