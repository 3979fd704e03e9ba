"""What users install: the files in the wheel, its metadata, and that it works with nothing else around it."""

import re
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path

import pytest

from kmsbridge.registry import OWN
from tests.packaging.environments import ROOT, build, contents_of, make_environment, metadata_of, once, run

NEEDED = ("cryptography", "stevedore")
pytestmark = pytest.mark.slow

ROUNDTRIP = """
import sys
import kmsbridge
from kmsbridge.drivers.local.keyfile import KeyFile

KeyFile.create("keys.json", "app").close()
with kmsbridge.EnvelopeCipher.from_uri("local:keys.json#app") as cipher:
    assert cipher.decrypt(cipher.encrypt(b"text")) == b"text"
print(kmsbridge.__file__)
"""

RIGHT = """
from typing import assert_type

from kmsbridge import Decryptor, Encryptor, EnvelopeCipher, MessageInfo, aio, inspect, shared

with EnvelopeCipher.from_uri("local:keys.json#app") as cipher:
    message = cipher.encrypt(b"text", context={"tenant": "acme"}, aad=b"row 1")
    assert_type(message, bytes)
    assert_type(cipher.decrypt(message), bytes)
    assert_type(cipher.encrypt_text("text"), str)
    assert_type(cipher.decrypt_many([message]), list[bytes])
    assert_type(cipher.rewrap(message), bytes)
    assert_type(cipher.needs_rewrap(message), bool)
    assert_type(inspect(message), MessageInfo)
    encryptor: Encryptor = cipher.encryptor
    decryptor: Decryptor = cipher.decryptor


def opened_elsewhere(settings: dict[str, object]) -> None:
    assert_type(EnvelopeCipher.from_mapping(settings, profile="web"), EnvelopeCipher)
    assert_type(shared(), EnvelopeCipher)
    assert_type(shared("web", Encryptor), Encryptor)
    assert_type(shared(cls=aio.Decryptor), aio.Decryptor)


with EnvelopeCipher.from_uri("local:keys.json#app") as cipher:
    pass
"""

FILES = """
import asyncio
import csv
import gzip
import io
import json
import shutil
import tarfile
import zipfile
from typing import IO, Any, BinaryIO, Protocol, assert_type

from kmsbridge import EncryptingReader, EnvelopeCipher, MessageReader, MessageWriter, aio
from kmsbridge.drivers.local.keyfile import KeyFile


class SupportsRead(Protocol):
    def read(self, n: int = ..., /) -> bytes: ...


def upload_fileobj(Fileobj: IO[Any], Bucket: str, Key: str) -> bytes:
    return bytes(Fileobj.read(100))


def put(data: SupportsRead | IO[bytes]) -> bytes:
    return data.read(100)


KeyFile.create("files.json", "app").close()
with EnvelopeCipher.from_uri("local:files.json#app") as cipher:
    with cipher.create("text.kmsb") as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
        assert_type(file, MessageWriter)
        csv.writer(text).writerow(["a", 1])
    with cipher.create(io.BytesIO()) as file, io.TextIOWrapper(file) as text:
        json.dump({"a": 1}, text)
    with cipher.create("zip.kmsb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("member", b"text")
    with cipher.create("tar.kmsb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("member"))
    with cipher.create("gzip.kmsb") as file, gzip.open(file, "wt") as packed:
        packed.write("text")
    with cipher.create("buffered.kmsb") as file, io.BufferedWriter(file) as buffered:
        buffered.write(b"text")

    with cipher.open("text.kmsb") as reader, io.TextIOWrapper(reader, "utf-8", newline="") as lines:
        assert_type(reader, MessageReader)
        assert next(csv.reader(lines)) == ["a", "1"]
    with cipher.open("zip.kmsb") as reader, zipfile.ZipFile(reader) as archive:
        assert archive.read("member") == b"text"
    with cipher.open("tar.kmsb") as reader, tarfile.open(fileobj=reader) as tar:
        assert tar.getnames() == ["member"]
    with cipher.open("gzip.kmsb") as reader, gzip.open(reader, "rt") as packed:
        assert packed.read() == "text"
    with cipher.open("buffered.kmsb") as reader, cipher.create("copy.kmsb") as file:
        shutil.copyfileobj(reader, file)
    with cipher.open("copy.kmsb") as reader, io.BufferedReader(reader) as again:
        assert again.read() == b"text"

    with open("text.kmsb", "rb") as plain, gzip.open(io.BytesIO(gzip.compress(b"x"))) as unpacked:
        assert_type(cipher.encrypting(plain), EncryptingReader)
        assert upload_fileobj(cipher.encrypting(plain), "bucket", "key")
        assert put(cipher.encrypting(unpacked))
        shutil.copyfileobj(cipher.encrypting(plain), io.BytesIO())
    files: list[BinaryIO] = [cipher.open("copy.kmsb"), cipher.create(io.BytesIO()), cipher.encrypting(io.BytesIO())]
    for each in files:
        each.close()


async def main() -> None:
    async with aio.EnvelopeCipher.from_uri("local:files.json#app") as cipher:
        async with await cipher.create("async.kmsb") as file:
            assert_type(file, aio.Writer)
            await file.write(b"text")
        with open("async.kmsb", "rb") as plain:
            blocks = [block async for block in await cipher.encrypting(plain)]
        assert_type(blocks, list[bytes])
        stream = asyncio.StreamReader()
        stream.feed_eof()
        assert await cipher.decrypt(await (await cipher.encrypting(stream)).read()) == b""


asyncio.run(main())
"""

FAKE = """
from kmsbridge import EnvelopeCipher
from kmsbridge.testing import CallLog, FakeDriver, FakeError, FakeKey, FakeService, UnboundFakeDriver, counted, installed

FakeDriver.service.create("app")
with installed(FakeDriver), counted(FakeDriver) as calls, EnvelopeCipher.from_uri("fake:app") as cipher:
    assert cipher.decrypt(cipher.encrypt(b"text")) == b"text"
print(dict(calls))
"""

WRONG = {
    "text for bytes": ('cipher.encrypt("text")', "arg-type"),
    "an encryptor that decrypts": ("Encryptor.from_config().decrypt(b'')", "attr-defined"),
    "a decryptor that rewraps": ("Decryptor.from_config().rewrap(b'')", "attr-defined"),
    "a context of numbers": ('cipher.encrypt(b"", context={"tenant": 7})', "dict-item"),
    "text from bytes": ('text: str = cipher.decrypt(b"")', "assignment"),
    "text to a file of bytes": ('cipher.create("x").write("text")', "arg-type"),
    "text read from a file of bytes": ('line: str = cipher.open("x").readline()', "assignment"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the source distribution and with the wheel that was built from it."""
    return once(tmp_path_factory, "dist-kmsbridge", partial(build, ROOT))


@pytest.fixture(scope="module")
def wheel(built):
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def contents(wheel):
    """Name -> bytes."""
    return contents_of(wheel)


@pytest.fixture(scope="module")
def metadata(contents):
    return metadata_of(contents)


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The Python of an environment that has the wheel, and what the core needs, and nothing else."""
    made = once(tmp_path_factory, "environment-core", partial(make_environment, [wheel], []))
    return made / "bin" / "python"


def test_the_wheel_holds_the_library_and_nothing_else(contents):
    """Each module that git knows, the mark that says it is typed, the licence; no tests, no tools."""
    modules = {str(file.relative_to(ROOT)) for file in (ROOT / "kmsbridge").rglob("*.py")}
    packed = {name for name in contents if ".dist-info/" not in name}
    assert packed == modules | {"kmsbridge/py.typed"}


def test_the_wheel_holds_what_applications_test_with_and_nothing_for_drivers_authors(contents):
    """The contract suite is in a wheel of its own."""
    for_tests = {name.removeprefix("kmsbridge/testing/") for name in contents if "/testing/" in name}
    assert for_tests == {
        *("__init__.py", "calls.py", "install.py"),
        *("fakes/__init__.py", "fakes/fake.py", "fakes/service.py"),
    }


def test_the_wheel_holds_no_mutants(contents):
    """Drivers that are broken on purpose stay with the tests: no module of the wheel is one, or names them."""
    modules = {name: text for name, text in contents.items() if name.endswith(".py")}
    assert "kmsbridge/testing/fakes/fake.py" in modules
    assert [name for name, text in modules.items() if "mutant" in name or b"mutant" in text.lower()] == []


def test_the_wheel_carries_the_licence(contents):
    (name,) = (name for name in contents if name.endswith(".dist-info/licenses/LICENSE"))
    assert contents[name] == (ROOT / "LICENSE").read_bytes()
    assert b"Apache License" in contents[name]


def test_the_source_distribution_can_be_built_from_and_holds_no_tests(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "kmsbridge/py.typed"} <= names
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {"kmsbridge"}


def test_the_core_requires_two_distributions(metadata):
    core = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(re.match(r"[\w-]+", line)[0] for line in core) == sorted(NEEDED)


def test_the_extras_are_the_drivers_the_command_line_the_integrations_and_the_contract_suite(metadata):
    assert sorted(metadata.get_all("Provides-Extra")) == [
        "all",
        "aws",
        "cli",
        "gcp",
        "opentelemetry",
        "phone",
        "pydantic",
        "sqlalchemy",
        "testing",
        "vault",
    ]


def test_the_metadata_says_what_an_index_shows(metadata):
    assert metadata["Name"] == "kmsbridge"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_library_s_own_drivers_are_listed_like_any_other(contents):
    """In the wheel's metadata, and all of them."""
    (name,) = (name for name in contents if name.endswith("entry_points.txt"))
    text = contents[name].decode()
    listed = "".join(f"{scheme} = {target}\n" for scheme, target in sorted(OWN.items()))
    assert f"[kmsbridge.drivers]\n{listed}" in text
    assert "[console_scripts]\nkmsbridge = kmsbridge.cli:main" in text


def test_the_wheel_works_with_only_what_it_requires(installed, tmp_path):
    """Key file, encrypt, decrypt, in an environment without click, rich or anything of ours."""
    output = run(installed, "-I", "-W", "error", "-c", ROUNDTRIP, cwd=tmp_path)
    assert Path(output.strip()).is_relative_to(installed.parents[1])


def test_an_application_is_tested_with_the_library_alone(installed, tmp_path):
    """The fake driver needs neither the contract suite nor pytest."""
    output = run(installed, "-I", "-W", "error", "-c", FAKE, cwd=tmp_path)
    assert output == "{'wrap': 1, 'unwrap': 1}\n"


@pytest.mark.parametrize("name", ["DriverContract", "Harness", "FakeHttpDriver", "FaultProxy"])
def test_the_suite_without_its_extra_says_what_to_install(installed, name):
    """The error of the import itself, as its user sees it."""
    command = [installed, "-I", "-c", f"from kmsbridge.testing import {name}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    *_, last = done.stderr.splitlines()
    assert last.startswith(f"ImportError: kmsbridge.testing.{name} is in the package kmsbridge-testing")
    assert last.endswith("pip install 'kmsbridge[testing]'")


def test_the_command_without_its_extra_says_what_to_install(installed):
    """One line, no traceback."""
    done = subprocess.run([installed.with_name("kmsbridge"), "--help"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "kmsbridge[cli]" in done.stderr
    assert done.stderr.count("\n") == 1


def check_types(python, source, folder):
    """What mypy says of a user's module, seeing the installed wheel and not this checkout."""
    (folder / "consumer.py").write_text(source)
    command = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", python)
    return subprocess.run([*map(str, command), "consumer.py"], cwd=folder, capture_output=True, text=True)


def test_a_users_right_code_passes_mypy(installed, tmp_path):
    done = check_types(installed, RIGHT, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_are_files_to_mypy_and_to_python(installed, tmp_path):
    """What Python and clients take files with takes those of `open`, `create` and `encrypting`."""
    done = check_types(installed, FILES, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    run(installed, "-I", "-W", "error", "consumer.py", cwd=tmp_path)


def test_a_users_tests_pass_mypy_without_the_suite(installed, tmp_path):
    """The fakes have their types where the contract suite is not installed."""
    source = "from kmsbridge.testing import FakeDriver, FakeKey\n\nkey: FakeKey = FakeDriver.service.create('app')\n"
    done = check_types(installed, source + "key.rotate(1)\n", tmp_path)
    assert re.findall(r"error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE) == ["call-arg"], done.stdout


def test_a_users_mistakes_are_found_by_mypy(installed, tmp_path):
    """Each line, and with the error that it deserves."""
    source = RIGHT + "".join(f"    {line}\n" for line, _ in WRONG.values())
    done = check_types(installed, source, tmp_path)
    assert re.findall(r"error: .*\[([\w-]+)\]$", done.stdout, re.MULTILINE) == [
        code for _, code in WRONG.values()
    ]
