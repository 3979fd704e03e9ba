"""A data key's bytes stay with the data key: nobody else reveals them, and nobody else lends them to the cipher."""

import ast
import importlib
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "kmsbridge"

# Where a secret may be turned into bytes: data keys do, drivers do with theirs, and the payload of a direct message,
# and a value that was decrypted, are the caller's own, and so is the field of a model; a blind index is made with its keys.
REVEALS = (
    "blindindex/index.py",
    "datakeys/",
    "drivers/",
    "integrations/pydantic.py",
    "cli/passphrase.py",
    "cipher/direct.py",
    "secret.py",
    "secretvalue.py",
)

# What takes the bytes of a key, and who may call it.
TAKES_A_KEY = {
    "chunked.encrypt",
    "chunked.decrypt",
    "chunked.BodyEncryptor",
    "chunked.BodyDecryptor",
    "chunk_reader.ChunkReader",
    "cobblestone.commits",
    "cobblestone.derive",
    "compact.derive",
    "xaes.derive",
}
LENDS = ("message/", "datakeys/", "drivers/", "testing/")


def calls(source):
    """What the source calls: `name` and `module.name`, also where it imports the name by itself."""
    tree = ast.parse(source)
    whole = {
        alias.asname or alias.name: f"{(node.module or '').rpartition('.')[2]}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {name.rpartition(".")[2] for name in found}
    return (
        names | {".".join(name.split(".")[-2:]) for name in found} | {whole.get(name, name) for name in found}
    )


def modules(exempt):
    names = {str(path.relative_to(LIBRARY)): path for path in sorted(LIBRARY.rglob("*.py"))}
    return {name: path for name, path in names.items() if not name.startswith(exempt)}


@pytest.mark.parametrize("name", modules(REVEALS))
def test_nobody_else_reveals_a_secret(name):
    assert "reveal" not in calls(modules(REVEALS)[name].read_text())


@pytest.mark.parametrize("name", modules(LENDS))
def test_nobody_else_lends_a_key_to_the_cipher(name):
    assert not calls(modules(LENDS)[name].read_text()) & TAKES_A_KEY


@pytest.mark.parametrize("name", sorted(TAKES_A_KEY))
def test_what_takes_a_key_has_this_name(name):
    """Else its callers would go unseen."""
    module, _, function = name.partition(".")
    assert callable(getattr(importlib.import_module(f"kmsbridge.message.{module}"), function))


@pytest.mark.parametrize(
    "source",
    (
        "chunked.encrypt(data_key.secret.reveal(), bound, plaintext)",
        "message.chunked.encrypt(data_key.secret.reveal(), bound, plaintext)",
        "from kmsbridge.message.chunked import encrypt as seal\nseal(data_key.secret.reveal(), bound, plaintext)",
    ),
)
def test_one_who_does_is_caught(source):
    """In either way."""
    assert {"reveal", "chunked.encrypt"} <= calls(source)
