"""The library knows no key service: what is said of one stands in its driver."""

import ast
import re
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "kmsbridge"
WORDS = re.compile(
    r"(?<![a-z])(aws|amazon|boto3?|botocore|arn:|gcp|google|cloud kms|cryptokey|azure|vault|openbao|hashicorp|hvac|"
    r"transit(?![a-z])|pkcs|softhsm|localstack)",
    re.IGNORECASE,
)
# The command line shows examples of keys; one table names packages to install.
NOT_EXAMINED = ("cli",)
TABLE = ("registry.py", "PACKAGES")


def files():
    paths = sorted(LIBRARY.rglob("*.py"))
    return [path for path in paths if path.relative_to(LIBRARY).parts[0] not in NOT_EXAMINED]


def provider_words(source, table=""):
    """The string literals that name a provider, but for docstrings and what is assigned to `table`."""
    tree = ast.parse(source)
    skipped = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                skipped.add(statement.value)
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if table and any(isinstance(target, ast.Name) and target.id == table for target in targets):
            skipped |= {*ast.walk(node)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and node not in skipped]
    texts = [
        node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        for node in constants
        if isinstance(node.value, (str, bytes))
    ]
    return [text for text in texts if WORDS.search(text)]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(LIBRARY)))
def test_a_module_names_no_provider(path):
    """In no text that it compares, sends or shows."""
    table = TABLE[1] if path.name == TABLE[0] else ""
    assert provider_words(path.read_text(), table) == []


@pytest.mark.parametrize(
    "source",
    (
        'x = f"vault:v{version}:"',
        'def f():\n    """What Vault does."""\n    return b"arn:aws:kms"',
        'OTHERS = {"gcp-kms": 1}',
        'if "Cloud KMS" in text:\n    pass',
    ),
)
def test_a_provider_that_is_named_is_seen(source):
    assert provider_words(source, "PACKAGES") != []


@pytest.mark.parametrize(
    "source",
    (
        'PACKAGES = {"gcp-kms": ("kmsbridge-gcp", "kmsbridge_gcp:GcpKmsDriver")}',
        'PACKAGES: Final = {"aws-kms": 1}',
        '"""As AWS KMS does."""',
        'x = 1\n"""What Vault calls it."""',
        'x = "laws of transition"',
    ),
)
def test_what_may_be_said_is_left_alone(source):
    assert provider_words(source, "PACKAGES") == []
