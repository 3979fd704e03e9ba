"""What the packages of `plugins/` may import, and what importing them brings along."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"

OF_THE_LIBRARY = {"atomic", "context", "driver", "driverkit", "errors", "forks", "keyuri"}
SDKS = {
    "kmsbridge_aws": {"boto3", "botocore", "urllib3"},
    "kmsbridge_gcp": {"google", "google_crc32c", "grpc"},
    "kmsbridge_vault": {"hvac", "requests", "urllib3"},
}
# The emulator is a server for tests, and no driver: its keys are real ones. It shares the driver's grammar of names
# and its checksum; of the library it uses nothing.
EMULATOR = "kmsbridge_gcp_emulator"
OF_THE_EMULATOR = {"cryptography", "google", "grpc", "pytest"}
OF_THE_GCP_DRIVER = {"crc32c", "naming"}
# The contract suite uses a driver as the library does. It knows the fakes by their modules: `kmsbridge.testing` itself
# gives the suite's names.
SUITE = "kmsbridge_testing"
OF_THE_SUITE = {"cryptography", "pytest"}
FOR_THE_SUITE = {
    *(
        "Decryptor",
        "Encryptor",
        "EnvelopeCipher",
        "inspect",
        "cipher",
        "config",
        "context",
        "driver",
        "driverkit",
    ),
    *("errors", "keys", "message", "policy", "registry", "testing.calls", "testing.fakes", "testing.install"),
}


def named():
    """Dotted name -> file."""
    found = {}
    for package in sorted(PLUGINS.glob("*/kmsbridge_*")):
        for file in sorted(package.rglob("*.py")):
            parts = file.relative_to(package.parent).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = file
    return found


def broken_lines(module, source):
    """What a module imports and may not."""
    package = module.split(".")[0]
    allowed = SDKS.get(package) or {EMULATOR: OF_THE_EMULATOR, SUITE: OF_THE_SUITE}[package]
    shared = {"kmsbridge": FOR_THE_SUITE if package == SUITE else OF_THE_LIBRARY}
    if package == EMULATOR:
        shared = {"kmsbridge": set(), "kmsbridge_gcp": OF_THE_GCP_DRIVER}
    broken = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(level=0):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            case _:
                continue
        for name in names:
            top, _, rest = name.partition(".")
            if top in shared:
                if not any(f"{rest}.".startswith(f"{each}.") for each in shared[top]):
                    broken.append(name)
            elif top not in allowed | {package} and top not in sys.stdlib_module_names:
                broken.append(name)
    return broken


@pytest.mark.parametrize("module", named())
def test_a_driver_imports_the_interface_and_its_own_sdk(module):
    """Nothing else of the library, and no other provider's. The emulator imports nothing of the library, the suite no SDK."""
    assert broken_lines(module, named()[module].read_text()) == []


@pytest.mark.parametrize(
    "source",
    (
        "from kmsbridge.keys import Key",
        "from kmsbridge import EnvelopeCipher",
        "import hvac",
        "import kmsbridge_vault",
        "from kmsbridge.testing import FakeDriver",
        "from kmsbridge_gcp_emulator import Emulator",
        "from kmsbridge_testing.harness import Harness",
        "def f():\n    from cryptography import x509",
    ),
)
def test_a_line_that_breaks_the_rule_is_caught(source):
    assert broken_lines("kmsbridge_aws.driver", source)


@pytest.mark.parametrize(
    "source",
    ("from kmsbridge import EnvelopeCipher", "from kmsbridge_gcp import GcpKmsDriver", "import boto3"),
)
def test_a_line_of_the_emulator_that_breaks_the_rule_is_caught(source):
    assert broken_lines(f"{EMULATOR}.service", source)


@pytest.mark.parametrize(
    "source",
    (
        "from kmsbridge.testing import FakeDriver",
        "from kmsbridge.drivers.local import LocalDriver",
        "from kmsbridge_aws import AwsKmsDriver",
        "import boto3",
    ),
)
def test_a_line_of_the_suite_that_breaks_the_rule_is_caught(source):
    assert broken_lines(f"{SUITE}.harness", source)


@pytest.mark.parametrize("package", SDKS)
def test_importing_a_driver_imports_no_sdk(package):
    """Its class is there; what it talks with is imported at its first call."""
    code = f"import json, sys, {package}; print([type(getattr({package}, n)) for n in dir({package})] and json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    tops = {name.split(".")[0] for name in json.loads(output.stdout)}
    # The namespace package `google` is made by other distributions at the interpreter's start.
    assert not tops & (SDKS[package] - {"google"}) | tops & {"cryptography", "stevedore", "asyncio"}
