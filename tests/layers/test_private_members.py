"""asyncio stands on what the synchronous classes offer everybody, and so could anything else."""

import ast
from pathlib import Path

import pytest

AIO = Path(__file__).parents[2] / "kmsbridge" / "aio"
OWN = ("self", "cls")


def foreign_private_members(source):
    """The members of other objects whose names begin with one underscore, as `object._name`."""
    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)]
    return [
        ast.unparse(node)
        for node in found
        if node.attr.startswith("_") and not node.attr.startswith("__")
        if not (isinstance(node.value, ast.Name) and node.value.id in OWN)
    ]


@pytest.mark.parametrize("path", sorted(AIO.glob("*.py")), ids=lambda path: path.name)
def test_asyncio_uses_no_private_member_of_another_class(path):
    assert foreign_private_members(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    (
        "self._sync._encrypt(b'x')",
        "def f(cipher):\n    return cipher._session",
        "Encryption(session)._profile",
        "async def f(self):\n    await g(lambda: self.core._load())",
    ),
)
def test_one_that_does_is_caught(source):
    """Wherever it stands."""
    assert len(foreign_private_members(source)) == 1


def test_its_own_are_not_meant():
    """Nor are special methods."""
    assert foreign_private_members("self._core\ncls._uses\nlogging.__name__") == []
