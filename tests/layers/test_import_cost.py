"""What an import brings with it, seen in `sys.modules` of a fresh interpreter."""

import json
import subprocess
import sys

import pytest

SDKS = {"boto3", "botocore", "google", "grpc", "hvac", "requests", "urllib3"}
CLI = {"click", "rich", "kmsbridge.cli"}
SLOW = {"asyncio", "importlib.metadata", "logging.handlers", "pytest", "stevedore"}
OURS = {"kmsbridge.local", "kmsbridge.testing", "kmsbridge.aio"}
LISTING = "import json, sys; print(json.dumps(sorted(sys.modules)))"


def modules_after(statement):
    """The modules that `statement` brings into an interpreter that had none but its own."""
    before, after = (run(LISTING), run(f"{statement}; {LISTING}"))
    return after - before


def run(code):
    output = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(output.stdout))


def among(modules, unwanted):
    return sorted(name for name in modules if any(f"{name}.".startswith(f"{top}.") for top in unwanted))


def test_importing_the_library_imports_nothing_heavy():
    modules = modules_after("import kmsbridge")
    assert "kmsbridge.errors" in modules
    assert among(modules, SDKS | CLI | SLOW | OURS | {"cryptography", "kmsbridge.cipher"}) == []


def test_the_api_imports_no_provider_and_no_command_line():
    modules = modules_after("from kmsbridge import EnvelopeCipher, Encryptor, Decryptor, inspect")
    assert "kmsbridge.cipher" in modules
    assert among(modules, SDKS | CLI | SLOW | OURS) == []


def test_asyncio_is_imported_by_those_who_ask_for_it():
    modules = modules_after("import kmsbridge.aio")
    assert "asyncio" in modules
    assert among(modules, SDKS | CLI) == []


@pytest.mark.parametrize("module", ("stevedore", "click", "asyncio", "logging.handlers"))
def test_a_heavy_import_is_seen(module):
    """The check can fail: what is imported shows."""
    assert among(modules_after(f"import {module}"), {module}) != []
