"""What an import brings with it, seen in `sys.modules` of a fresh interpreter."""

import json
import subprocess
import sys

import pytest

from kmsbridge.drivers.local.keyfile import KeyFile

SDKS = {"boto3", "botocore", "google", "grpc", "hvac", "requests", "urllib3"}
CLI = {"click", "rich", "kmsbridge.cli"}
SLOW = {"asyncio", "importlib.metadata", "logging.handlers", "pytest", "stevedore"}
OURS = {
    "kmsbridge.drivers.local",
    "kmsbridge.testing",
    "kmsbridge.aio",
    "kmsbridge.blindindex",
    "kmsbridge.integrations",
    "opentelemetry",
    "phonenumbers",
    "pydantic",
    "pydantic_core",
    "sqlalchemy",
}
VAULT = "vault-transit://transit/app"
DECRYPTING = {
    "kmsbridge.drivers.local.passphrase",
    "kmsbridge.message.chunk_reader",
    "kmsbridge.cipher.decryptor",
    "kmsbridge.cipher.decryption",
    "kmsbridge.cipher.envelope",
    "kmsbridge.cipher.reading",
    "kmsbridge.cipher.rewrapping",
    "kmsbridge.datakeys.decryption",
    "kmsbridge.datakeys.rewrapping",
    "kmsbridge.datakeys.unwrapping",
    "kmsbridge.journal",
}
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


def test_encrypting_imports_nothing_that_decrypts():
    """A program that encrypts one message ends soon."""
    modules = modules_after("from kmsbridge import Encryptor")
    assert "kmsbridge.cipher.encryptor" in modules
    assert among(modules, DECRYPTING | {"concurrent.futures"}) == []


def test_decrypting_imports_what_it_needs():
    """The names above are those of modules."""
    modules = modules_after(
        "from kmsbridge import EnvelopeCipher; import kmsbridge.message.chunk_reader, kmsbridge.drivers.local.passphrase"
    )
    assert among(DECRYPTING, modules) == sorted(DECRYPTING)


def test_opening_a_vault_key_imports_only_what_its_login_needs():
    """With a token no one-time secret is looked for; the SDK comes with the first call."""
    options = "address='http://127.0.0.1:1', auth={'method': 'token', 'token': 'none'}"
    modules = modules_after(f"from kmsbridge import Encryptor; Encryptor.from_uri('{VAULT}', {options})")
    assert "kmsbridge_vault.driver" in modules
    assert among(modules, SDKS | {"kmsbridge_vault.bootstrap", "concurrent.futures"}) == []


def test_a_local_key_looks_for_nothing_that_is_installed(tmp_path):
    """The library's own driver costs neither stevedore nor the metadata of packages."""
    KeyFile.create(tmp_path / "keys.json", "app").close()
    uri = f"local:{tmp_path}/keys.json"
    modules = modules_after(f"from kmsbridge import Encryptor; Encryptor.from_uri({uri!r}).encrypt(b'x')")
    assert "kmsbridge.drivers.local.driver" in modules
    assert among(modules, SDKS | CLI | SLOW) == []


def test_asyncio_is_imported_by_those_who_ask_for_it():
    modules = modules_after("import kmsbridge.aio")
    assert "asyncio" in modules
    assert among(modules, SDKS | CLI) == []


@pytest.mark.parametrize("module", ("stevedore", "click", "asyncio", "logging.handlers"))
def test_a_heavy_import_is_seen(module):
    """The check can fail: what is imported shows."""
    assert among(modules_after(f"import {module}"), {module}) != []
