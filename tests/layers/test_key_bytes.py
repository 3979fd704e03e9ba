"""A data key's bytes stay with the data key: nobody else reveals them, and nobody else lends them to the cipher."""

import ast
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "kmsbridge"

# Where a secret may be turned into bytes: data keys do, drivers do with theirs, and the payload of a direct message
# is the caller's own.
REVEALS = ("datakeys/", "local/", "testing/", "cli/passphrase.py", "cipher/direct.py", "secret.py")

# What takes the bytes of a key, and who may call it.
TAKES_A_KEY = {"seal", "open_sealed", "commits", "Sealer", "Opener", "ChunkReader"}
LENDS = ("body/", "datakeys/", "local/", "testing/")


def calls(source):
    """The names of what the source calls, without what they are looked up in."""
    found = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return {getattr(each, "attr", getattr(each, "id", "")) for each in found}


def modules(exempt):
    names = {str(path.relative_to(LIBRARY)): path for path in sorted(LIBRARY.rglob("*.py"))}
    return {name: path for name, path in names.items() if not name.startswith(exempt)}


@pytest.mark.parametrize("name", modules(REVEALS))
def test_nobody_else_reveals_a_secret(name):
    assert "reveal" not in calls(modules(REVEALS)[name].read_text())


@pytest.mark.parametrize("name", modules(LENDS))
def test_nobody_else_lends_a_key_to_the_cipher(name):
    # A stream's `sealer.seal(step, count)` takes no key: the sealer has it.
    allowed = {"seal"} if name == "cipher/files.py" else set()
    assert not (calls(modules(LENDS)[name].read_text()) & TAKES_A_KEY) - allowed


def test_one_who_does_is_caught():
    """In either way."""
    source = "body.seal(data_key.secret.reveal(), bound, plaintext)"
    assert {"reveal", "seal"} <= calls(source)
