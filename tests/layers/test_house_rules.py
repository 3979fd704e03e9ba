"""Rules that a reviewer would otherwise have to remember."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = sorted([*(ROOT / "kmsbridge").rglob("*.py"), *(ROOT / "plugins").glob("*/kmsbridge_*/**/*.py")])
MODULE_LINES, FUNCTION_LINES = 400, 60

# Written so that no pattern matches its own source.
NOWHERE = {
    "a registry's host": r"pypi\.org|pythonhosted\.org|npmjs\.(?:org|com)|debian\.org|ubuntu\.com|conda\.io",
    "a path of one machine": r"(?<![\w.~-])/(?:root|work|home|Users)/",
    "how it was made": r"\b[i]ssue \d|\b[s]hared/design|\b[t]he brief\b|\b[s]ub-?agent|\b[l]anguage model",
}

# What draws from a generator in the process, which is copied with its memory. TLS and RSA's padding have theirs
# from libraries; what is for tests alone makes its keys as it likes.
GENERATORS = {
    "Cobblestone128Encryptor",
    "Cobblestone256Encryptor",
    "generate_key",
    "generate_private_key",
    "getrandbits",
    "randbytes",
    "randint",
    "randrange",
    "shuffle",
    "SystemRandom",
}
FOR_TESTS = (ROOT / "plugins" / "gcp-emulator", ROOT / "plugins" / "testing")


def repository_files():
    """Every file that is in the repository or is about to be."""
    # safe.directory: the checkout may belong to another user than the one who tests it.
    command = [
        "git",
        "-c",
        "safe.directory=*",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split("\0")
    files = [ROOT / name for name in names if name]
    return [file for file in files if file.is_file()]


def mentions(text):
    return sorted(what for what, pattern in NOWHERE.items() if re.search(pattern, text, re.IGNORECASE))


def functions(source):
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]


def long_functions(source):
    lengths = {node.name: node.end_lineno - node.lineno + 1 for node in functions(source)}
    return {name: length for name, length in lengths.items() if length > FUNCTION_LINES}


def generators(source):
    """The generators that are named, however they were imported; `random` is for jitter alone."""
    tree = ast.walk(ast.parse(source))
    names = {getattr(node, "attr", getattr(node, "id", getattr(node, "name", None))) for node in tree}
    return sorted(names & GENERATORS)


def prints(source):
    """The lines that call `print`, in what is not a program."""
    if '\nif __name__ == "__main__":' in source:
        return []
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def described(source):
    return ast.get_docstring(ast.parse(source)) is not None


def names(files):
    return [str(file.relative_to(ROOT)) for file in files]


def test_no_file_names_what_does_not_belong_into_a_repository():
    """Registry hosts, one machine's paths, the way the project is made."""
    found = {
        file.relative_to(ROOT): mentions(file.read_bytes().decode("latin-1")) for file in repository_files()
    }
    assert {file: what for file, what in found.items() if what} == {}


@pytest.mark.parametrize(
    "text, what",
    (
        ("--index-url https://" + "pypi" + ".org/simple", "a registry's host"),
        ("deb http://deb." + "debian" + ".org/debian stable main", "a registry's host"),
        ("#!" + "/" + "root/bin/python", "a path of one machine"),
        ("see " + "/" + "home/ada/keys.json", "a path of one machine"),
        ("as " + "issue" + " 12 asks", "how it was made"),
    ),
)
def test_what_does_not_belong_is_seen(text, what):
    assert mentions(text) == [what]


@pytest.mark.parametrize(
    "text", ("docs/home/index.md", "a network/work/flow", "install it from PyPI", "tissue 3")
)
def test_what_only_looks_like_it_is_left_alone(text):
    assert mentions(text) == []


@pytest.mark.parametrize("file", LIBRARY, ids=names(LIBRARY))
def test_a_module_is_described_short_and_silent(file):
    source = file.read_text()
    assert described(source)
    assert source.count("\n") <= MODULE_LINES
    assert long_functions(source) == {}
    if "cli" not in file.relative_to(ROOT).parts:
        assert prints(source) == []


def test_a_long_function_is_seen():
    body = "    pass\n" * FUNCTION_LINES
    assert long_functions(f"async def endless():\n{body}") == {"endless": FUNCTION_LINES + 1}
    assert long_functions("def short():\n" + body.removesuffix("    pass\n")) == {}


def test_a_print_is_seen():
    assert prints("def f():\n    print('here')\n") == [2]
    assert prints("console.print('here')") == []


def test_a_missing_docstring_is_seen():
    assert not described("import os\n")
    assert described('"""What it is for."""\n')


@pytest.mark.parametrize(
    "path",
    [path for path in LIBRARY if not any(path.is_relative_to(folder) for folder in FOR_TESTS)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_nothing_is_drawn_from_a_generator_in_the_process(path):
    """Keys, salts and nonces come from the operating system, each anew."""
    assert generators(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    (
        "from cryptography.cobblestone import Cobblestone256Encryptor",
        "key = AESGCM.generate_key(256)",
        "import random; random.randbytes(32)",
    ),
)
def test_a_generator_in_the_process_is_seen(source):
    """The check can fail."""
    assert generators(source) != []
