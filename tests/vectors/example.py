"""The worked example of docs/reference/format.md, from the vector `worked-example`.

`python -m tests.vectors.example` prints its parts; a test holds the page to them.
"""

from __future__ import annotations

import base64
import json
import struct
import textwrap

from tests.vectors import make, reader

WIDTH = 16


def case():
    """The vector."""
    return json.loads((make.CASES / "worked-example.json").read_text())


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


def message():
    """The whole message."""
    data = bytes.fromhex(case()["message_hex"])
    parts = reader.parse(data)
    key_id, version, wrapped = parts.recipients[0]
    assert (parts.kind, len(parts.recipients), parts.padding) == (0, 1, 0)
    return rows(
        data,
        [
            (4, "KMSB"),
            (1, "version 1"),
            (1, "kind 0, inline"),
            (2, f"H = {parts.header_length}"),
            (1, "one recipient"),
            (2, f"its key id has {len(key_id)} bytes"),
            (len(key_id), key_id),
            (1, f"its key version has {len(version)} byte"),
            (len(version), f'"{version}"'),
            (2, f"its wrapped key has {len(wrapped)} bytes"),
            (len(wrapped), "the wrapped key; no padding follows"),
            (24, "the body's salt"),
            (32, "its commitment"),
            (len(parts.body) - 56, "its only chunk: 11 bytes of ciphertext and a tag"),
        ],
    )


def values():
    """What comes out on the way from the message to its plaintext."""
    given = case()
    parts = reader.parse(bytes.fromhex(given["message_hex"]))
    aad, pairs = bytes.fromhex(given["aad_hex"]), given["context"]
    material = base64.b64decode(given["key_file"]["keys"]["app"]["versions"]["2"]["material"])
    wrapping_context = b"kmsbridge-local/v1\0" + reader.canonical({**pairs, "kmsbridge": "dek"})
    data_key = reader.open_body(material, wrapping_context, parts.recipients[0][2])
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
    return "\n".join(
        f"{name}\n" + textwrap.indent("\n".join(textwrap.wrap(value.hex(" "), 3 * 24)), "    ")
        for name, value in named.items()
    )


PARTS = (context, message, values)

if __name__ == "__main__":
    for part in PARTS:
        print(f"{part.__name__}:\n\n{part()}\n")
