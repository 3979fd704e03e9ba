"""Imports run one way. The tables say which; every import counts, also inside a function or for types only."""

import ast
import importlib
import re
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "kmsbridge"
SUITE = ROOT / "plugins" / "testing" / "kmsbridge_testing"

# A part is a module or a folder of kmsbridge/. It may import from its own level and from those above it
# in this table, which know nothing of it.
LEVELS = (
    {
        "atomic",
        "clock",
        "errors",
        "forks",
        "hardening",
        "partial",
        "secret",
        "secretvalue",
        "streams",
        "threads",
    },
    {"context", "drivererrors", "keyuri", "message", "options", "policy", "reports"},
    {"driver", "driverkit", "environment", "journal", "observer"},
    {"audit", "config", "datakeys", "drivers", "inspection", "keys", "registry"},
    {"cipher"},
    {"__init__", "aio", "blindindex", "doctor"},
    {"cli", "integrations", "testing"},
    {"__main__"},
)

# Parts that may import these of kmsbridge and no others: what a driver elsewhere has, and the ciphers;
# and what a driver elsewhere is given, which knows nothing of the library's own policy.
IMPORTS_ONLY = {
    "driverkit": {"clock", "context", "driver", "errors", "forks", "secret", "threads"},
    "drivers": {
        *(
            "atomic",
            "clock",
            "context",
            "driver",
            "errors",
            "forks",
            "keyuri",
            "message",
            "registry",
            "reports",
            "secret",
        ),
    },
}

# Parts that none but these may import. A driver is found by the registry, from a table or an entry point.
IMPORTED_ONLY_BY = {"cli": {"__main__"}, "drivers": {"cli"}, "integrations": set(), "testing": set()}

# The only users of other distributions. What is not here is used by nobody: no provider's SDK is.
DISTRIBUTIONS = {
    "click": {"cli"},
    "cryptography": {"driverkit", "drivers", "message"},
    "kmsbridge_testing": {"testing"},
    "opentelemetry": {"integrations"},
    "phonenumbers": {"blindindex"},
    "pydantic": {"integrations"},
    "pydantic_core": {"integrations"},
    "rich": {"cli"},
    "sqlalchemy": {"integrations"},
    "stevedore": {"registry"},
}

LEVEL_OF = {part: number for number, parts in enumerate(LEVELS) for part in parts}


def part_of(module):
    """kmsbridge.cipher.files -> cipher; kmsbridge -> __init__."""
    return [*module.split("."), "__init__"][1]


def imported(source, module, *, package=False):
    """The absolute names that the source of `module` imports, wherever in it and by whatever means."""
    names = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                names += [alias.name for alias in node.names]
            case ast.ImportFrom():
                names += from_import(node, module, package=package)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                names.append(name)
    return names


def from_import(node, module, *, package):
    base = node.module or ""
    if node.level:
        parts = module.split(".")
        kept = parts[: len(parts) - node.level + package]
        base = ".".join(kept + ([base] if base else []))
    # `from kmsbridge import errors` imports that module; `from kmsbridge import Encryptor` the public names.
    inside = [f"{base}.{alias.name}" for alias in node.names]
    return [name if name in modules() or name in plugins() else base for name in inside]


def broken_lines(source, module, *, package=False):
    """What the source of `module` imports and may not, in words."""
    part = part_of(module)
    return [
        f"{module} imports {name}: {reason}"
        for name in imported(source, module, package=package)
        if (reason := refusal(part, name))
    ]


def refusal(part, name):
    """Why `part` may not import `name`, or nothing."""
    top = name.split(".")[0]
    if top != "kmsbridge":
        allowed = part in DISTRIBUTIONS.get(top, ()) or top in sys.stdlib_module_names
        return None if allowed else f"{part} may not use {top}"
    other = part_of(name)
    if other == part:
        return None
    if other not in LEVEL_OF:
        return f"{other} stands at no level"
    if other in IMPORTED_ONLY_BY and part not in IMPORTED_ONLY_BY[other]:
        return f"{other} is not for {part}"
    if part in IMPORTS_ONLY and other not in IMPORTS_ONLY[part]:
        return f"{part} may not use {other}"
    return f"{other} stands above {part}" if LEVEL_OF[other] > LEVEL_OF[part] else None


@cache
def modules():
    """Module name -> file, for all of the library."""
    return named(LIBRARY)


@cache
def plugins():
    """The same for the packages in `plugins/`, of which the contract suite is one."""
    found = {}
    for package in sorted(LIBRARY.parent.glob("plugins/*/kmsbridge_*")):
        found |= named(package)
    return found


def named(folder):
    files = sorted(folder.rglob("*.py"))
    parts = {file: file.relative_to(folder.parent).with_suffix("").parts for file in files}
    return {".".join(parts[file]).removesuffix(".__init__"): file for file in files}


def is_package(module):
    return (modules() | plugins())[module].name == "__init__.py"


def sources():
    """Module name -> text, for all of the library."""
    return {module: file.read_text() for module, file in modules().items()}


def test_every_part_stands_at_one_level():
    """The table names exactly what is in the folder, once."""
    parts = {part_of(module) for module in modules()}
    assert parts == set(LEVEL_OF)
    assert sum(map(len, LEVELS)) == len(LEVEL_OF)


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_what_its_part_may(module):
    source = modules()[module].read_text()
    assert broken_lines(source, module, package=is_package(module)) == []


def test_no_part_imports_itself_through_another():
    """Parts of one level may use each other, but not in a circle."""
    assert circle(part_graph(module_graph(sources()))) is None


def test_no_module_imports_itself_through_others():
    """Not even later, inside a function, or for types only: what two modules need stands below both.

    What a package imports when it is first asked for it counts: it imports that for types too, as below. The
    contract suite imports the library, and the library gives the suite's names.
    """
    found = circle(module_graph(sources() | {module: file.read_text() for module, file in plugins().items()}))
    assert found is None


def test_one_module_alone_imports_the_contract_suite():
    """It may not be installed."""
    importers = {
        module
        for module, text in sources().items()
        if any(
            name.split(".")[0] == SUITE.name for name in imported(text, module, package=is_package(module))
        )
    }
    assert importers == {"kmsbridge.testing"}


@pytest.mark.parametrize("package", [module for module, text in sources().items() if "\n_LATE = " in text])
def test_what_a_package_imports_late_it_imports_for_types_too(package):
    """So the tests of this file see it."""
    late = set(importlib.import_module(package)._LATE.values())
    assert late
    assert late <= module_graph(sources())[package]


def module_graph(texts):
    """Module -> the modules that it imports by name; that a package runs before its modules is no import."""
    ours = modules() | plugins()
    return {
        module: {name for name in imported(text, module, package=is_package(module)) if name in ours}
        for module, text in texts.items()
    }


def part_graph(graph):
    parts = {part: set() for part in LEVEL_OF}
    for module, names in graph.items():
        part = part_of(module)
        parts[part] |= {part_of(name) for name in names if name in modules()} - {part}
    return parts


def circle(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


@pytest.mark.parametrize(
    "module, source, reason",
    (
        ("kmsbridge.errors", "import kmsbridge.context", "context stands above errors"),
        ("kmsbridge.message", "from kmsbridge.driver import Options", "driver stands above message"),
        ("kmsbridge.driver", "from kmsbridge import registry", "registry stands above driver"),
        ("kmsbridge.keys", "from kmsbridge import Encryptor", "__init__ stands above keys"),
        ("kmsbridge.datakeys.cache", "from ..cipher import files", "cipher stands above datakeys"),
        ("kmsbridge.cipher", "def f():\n    import kmsbridge.aio", "aio stands above cipher"),
        (
            "kmsbridge.message",
            "if TYPE_CHECKING:\n    from kmsbridge.keys import ManagedKey",
            "keys stands above message",
        ),
        (
            "kmsbridge.config",
            "import importlib\nimportlib.import_module('kmsbridge.cipher')",
            "cipher stands above config",
        ),
        ("kmsbridge.aio", "from kmsbridge.cli import main", "cli is not for aio"),
        ("kmsbridge.cli.app", "from kmsbridge.testing import fake", "testing is not for cli"),
        (
            "kmsbridge.registry",
            "from kmsbridge.drivers.local import LocalDriver",
            "drivers is not for registry",
        ),
        (
            "kmsbridge.drivers.local.driver",
            "from kmsbridge.keys import ManagedKey",
            "drivers may not use keys",
        ),
        (
            "kmsbridge.drivers.local.driver",
            "from kmsbridge.config import load",
            "drivers may not use config",
        ),
        (
            "kmsbridge.driverkit.http",
            "from kmsbridge.message import parse",
            "driverkit may not use message",
        ),
        ("kmsbridge.driverkit.http", "import urllib3", "driverkit may not use urllib3"),
        ("kmsbridge.cipher.files", "from cryptography import x509", "cipher may not use cryptography"),
        ("kmsbridge.keys", "from cryptography.hazmat import primitives", "keys may not use cryptography"),
        ("kmsbridge.config", "import stevedore.driver", "config may not use stevedore"),
        ("kmsbridge.keys", "def f():\n    import boto3", "keys may not use boto3"),
        ("kmsbridge.registry", "__import__('hvac')", "registry may not use hvac"),
        ("kmsbridge.aio", "import google.cloud.kms", "aio may not use google"),
        ("kmsbridge.cipher", "import click", "cipher may not use click"),
        ("kmsbridge.cli.app", "import pytest", "cli may not use pytest"),
        (
            "kmsbridge.secretvalue",
            "def f():\n    import pydantic_core",
            "secretvalue may not use pydantic_core",
        ),
        (
            "kmsbridge.cli.app",
            "from kmsbridge.integrations.pydantic_settings import Encrypted",
            "integrations is not for cli",
        ),
        ("kmsbridge.testing.install", "import pytest", "testing may not use pytest"),
        (
            "kmsbridge.cli.app",
            "from kmsbridge_testing.faults import proxy",
            "cli may not use kmsbridge_testing",
        ),
        ("kmsbridge.cli.app", "import kmsbridge.novelty", "novelty stands at no level"),
    ),
)
def test_a_module_that_breaks_a_line_is_caught(module, source, reason):
    (line,) = broken_lines(source, module)
    assert line.endswith(reason)


def test_a_circle_is_caught():
    assert circle({"keys": {"datakeys"}, "datakeys": {"audit"}, "audit": {"keys"}}) is not None


@pytest.mark.parametrize(
    "lower",
    (
        "from kmsbridge.cli.app import app",
        "from kmsbridge.cli import app",
        "from . import app",
        "import kmsbridge.cli.app",
        "def late():\n    from .app import app",
        "if TYPE_CHECKING:\n    from kmsbridge.cli.app import App",
        "import importlib\nimportlib.import_module('kmsbridge.cli.app')",
        "from kmsbridge.cli import main",
    ),
)
def test_a_circle_of_modules_is_caught(lower):
    """However the lower one imports the upper one, or the package that does."""
    upper = {
        "kmsbridge.cli": "def main():\n    from kmsbridge.cli.app import app",
        "kmsbridge.cli.app": "from kmsbridge.cli.runner import run",
    }
    assert circle(module_graph({**upper, "kmsbridge.cli.runner": ""})) is None
    assert circle(module_graph({**upper, "kmsbridge.cli.runner": lower})) is not None


def test_only_the_table_of_kinds_tells_one_kind_of_message_from_another():
    """What a message holds is asked of `LAYOUTS`; a kind is named elsewhere only to write one."""
    compared = re.compile(r"\bkind (?:is|is not|==|!=|in|>|<) \(?(?:wire\.|message\.)?Kind\b")
    assert not [module for module, file in modules().items() if compared.search(file.read_text())]
