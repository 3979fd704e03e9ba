"""The distributions together: what is in the wheels of `plugins/`, and that they work from an environment of their own."""

import configparser
import contextlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from functools import partial

import pytest

from kmsbridge import registry
from tests.backends.every import configuration, harness
from tests.packaging.environments import ROOT, build, contents_of, make_environment, metadata_of, once, run

SOURCES = {"kmsbridge": ROOT, **{f"kmsbridge-{each.name}": each for each in (ROOT / "plugins").iterdir()}}
PLUGINS = {"kmsbridge-aws": "aws-kms", "kmsbridge-gcp": "gcp-kms", "kmsbridge-vault": "vault-transit"}
DRIVERS = {
    "aws-kms": "kmsbridge_aws:AwsKmsDriver",
    "gcp-kms": "kmsbridge_gcp:GcpKmsDriver",
    "vault-transit": "kmsbridge_vault:VaultTransitDriver",
}
EMULATOR = "kmsbridge-gcp-emulator"
SUITE = "kmsbridge-testing"
FOR_TESTS = (EMULATOR, SUITE)
"""No production install has them."""
IN_PLUGINS = (*PLUGINS, *FOR_TESTS)
URIS = {
    "aws-kms": "aws-kms://alias/app?region=eu-west-1",
    "gcp-kms": "gcp-kms://projects/p/locations/global/keyRings/r/cryptoKeys/k",
    "vault-transit": "vault-transit://transit/app",
}
PROGRAM = ROOT / "examples" / "protect.py"
NOT_IN_PRODUCTION = ("kmsbridge.testing.", "kmsbridge_testing.", "kmsbridge_gcp_emulator.", "pytest.")
STRANGER = ROOT / "tests" / "out_of_tree" / "stranger"
NAMING_WHAT_IT_IMPORTS = """
import json, runpy, sys

runpy.run_path(sys.argv[1], run_name="__main__")
print(json.dumps(sorted(sys.modules)))
"""
pytestmark = pytest.mark.slow


def project(name):
    """The [project] table of its pyproject.toml."""
    return tomllib.loads((SOURCES[name] / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """The wheel of each distribution, built from its source distribution."""
    found = {}
    for name, source in SOURCES.items():
        folder = once(tmp_path_factory, f"dist-{name}", partial(build, source))
        (found[name],) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory):
    """The Python of an environment made as by `pip install 'kmsbridge[all]'`."""
    make = partial(make_environment, [wheels[name] for name in ("kmsbridge", *PLUGINS)], ["cli"])
    return once(tmp_path_factory, "environment-all", make) / "bin" / "python"


@pytest.fixture(scope="module")
def for_tests(wheels, tmp_path_factory):
    """One made as by `pip install 'kmsbridge[all,testing]' kmsbridge-gcp-emulator`."""
    make = partial(make_environment, wheels.values(), ["cli", "testing"])
    return once(tmp_path_factory, "environment-tests", make) / "bin" / "python"


@pytest.fixture(scope="module")
def for_authors(wheels, tmp_path_factory):
    """One that has somebody's driver, made as by `pip install kms-sqlite 'kmsbridge[testing]'`."""
    (driver,) = once(tmp_path_factory, "dist-kms-sqlite", partial(build, STRANGER)).glob("*.whl")
    make = partial(make_environment, [wheels["kmsbridge"], wheels[SUITE], driver], ["testing"])
    return once(tmp_path_factory, "environment-authors", make) / "bin" / "python"


@pytest.fixture(scope="module")
def bare(wheels, tmp_path_factory):
    """One made as by `pip install 'kmsbridge[cli]'`."""
    make = partial(make_environment, [wheels["kmsbridge"]], ["cli"])
    return once(tmp_path_factory, "environment-cli", make) / "bin" / "python"


def command(python, *args, **env):
    """How `kmsbridge` of this environment ends."""
    program = python.with_name("kmsbridge")
    return subprocess.run(
        [program, *args], env={**os.environ, **env}, capture_output=True, text=True, input=""
    )


def entry_points(contents):
    (name,) = (name for name in contents if name.endswith("entry_points.txt"))
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read_string(contents[name].decode())
    return {section: dict(parser[section]) for section in parser.sections()}


def test_there_is_a_plugin_for_each_provider():
    assert set(SOURCES) == {"kmsbridge", *IN_PLUGINS}


@pytest.mark.parametrize("name", IN_PLUGINS)
def test_a_plugins_wheel_holds_its_package_and_nothing_else(wheels, name):
    """Each module, the mark that says it is typed, the licence; no tests, no tools."""
    contents, package = contents_of(wheels[name]), name.replace("-", "_")
    modules = {str(file.relative_to(SOURCES[name])) for file in (SOURCES[name] / package).rglob("*.py")}
    packed = {each for each in contents if ".dist-info/" not in each}
    assert packed == modules | {f"{package}/py.typed"}
    (licence,) = (each for each in contents if each.endswith(".dist-info/licenses/LICENSE"))
    assert contents[licence] == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_names_its_driver_and_no_program(wheels, name):
    """Under its scheme, in the group that the library looks into."""
    driver = {PLUGINS[name]: DRIVERS[PLUGINS[name]]}
    assert entry_points(contents_of(wheels[name])) == {"kmsbridge.drivers": driver}


def test_the_emulators_wheel_names_its_command_and_no_driver(wheels):
    script = {"kmsbridge-gcp-emulator": "kmsbridge_gcp_emulator.__main__:main"}
    assert entry_points(contents_of(wheels[EMULATOR])) == {"console_scripts": script}


def test_the_suites_wheel_names_its_pytest_plugin_and_no_driver(wheels):
    plugin = {"kmsbridge": "kmsbridge_testing.plugin"}
    assert entry_points(contents_of(wheels[SUITE])) == {"pytest11": plugin}


@pytest.mark.parametrize("name", ["kmsbridge", *PLUGINS])
def test_no_other_wheel_holds_the_emulator_or_asks_for_it(wheels, name):
    """No module of it, no command, no import, and no extra that installs it."""
    contents = contents_of(wheels[name])
    modules = {each: text for each, text in contents.items() if each.endswith(".py")}
    assert modules
    assert [each for each in contents if "emulator" in each] == []
    assert [each for each, text in modules.items() if b"kmsbridge_gcp_emulator" in text] == []
    required = metadata_of(contents).get_all("Requires-Dist")
    assert required
    assert [line for line in required if EMULATOR in line] == []


@pytest.mark.parametrize("name", ["kmsbridge", *PLUGINS, EMULATOR])
def test_no_other_wheel_holds_the_suite_or_asks_for_it(wheels, name):
    """But for the extra `testing`, and the package that gives the suite's names."""
    contents = contents_of(wheels[name])
    assert [each for each in contents if "kmsbridge_testing" in each or "contract" in each] == []
    namers = [
        each for each, text in contents.items() if each.endswith(".py") and b"kmsbridge_testing" in text
    ]
    asked = [
        line for line in metadata_of(contents).get_all("Requires-Dist") if SUITE in line or "pytest" in line
    ]
    if name == "kmsbridge":
        assert namers == ["kmsbridge/testing/__init__.py"]
        assert [line.partition(";")[2].strip() for line in asked] == ["extra == 'testing'"]
    else:
        assert (namers, asked) == ([], [])


@pytest.mark.parametrize("name", IN_PLUGINS)
def test_a_plugins_source_distribution_holds_no_tests(wheels, name):
    (archive,) = wheels[name].parent.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        names = {each.partition("/")[2] for each in tar.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE"} <= names
    assert {each.split("/")[0] for each in names if "/" in each} == {name.replace("-", "_")}


@pytest.mark.parametrize("name", IN_PLUGINS)
def test_a_plugins_metadata_says_what_an_index_shows(wheels, name):
    metadata = metadata_of(contents_of(wheels[name]))
    assert metadata["Name"] == name
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "Typing :: Typed" in metadata.get_all("Classifier")


def test_all_have_one_version_and_require_it_of_each_other():
    """A driver and the suite work with the library of their own version, the emulator with the driver's; the extras bring the others."""
    version = project("kmsbridge")["version"]
    extras = project("kmsbridge")["optional-dependencies"]
    for name in PLUGINS:
        assert project(name)["version"] == version
        assert f"kmsbridge=={version}" in project(name)["dependencies"]
        assert extras[name.removeprefix("kmsbridge-")] == [f"{name}=={version}"]
    assert project(EMULATOR)["version"] == version
    assert f"kmsbridge-gcp=={version}" in project(EMULATOR)["dependencies"]
    assert project(SUITE)["version"] == version
    assert f"kmsbridge=={version}" in project(SUITE)["dependencies"]
    assert extras["testing"] == [f"{SUITE}=={version}"]
    (everything,) = extras["all"]
    assert everything == "kmsbridge[aws,gcp,vault,cli]"


def test_all_drivers_are_found(installed):
    """Each with the package that it came with, and its version."""
    rows = [line.split() for line in run(installed.with_name("kmsbridge"), "providers").splitlines()]
    version = project("kmsbridge")["version"]
    expected = [[scheme, name, version, DRIVERS[scheme]] for name, scheme in PLUGINS.items()]
    assert sorted(rows[1:]) == sorted(
        [*expected, *([scheme, "kmsbridge", version, target] for scheme, target in registry.OWN.items())]
    )


@pytest.mark.parametrize("backend", ["aws", "gcp", "vault"])
def test_what_the_wheels_require_is_enough(installed, backend, tmp_path):
    """The example program runs against the real server, from the environment alone."""
    path = tmp_path / "kmsbridge.toml"
    env = {**os.environ, "KMSBRIDGE_CONFIG": str(path), "KMSBRIDGE_PROFILE": "default"}
    with contextlib.closing(harness(backend)) as service:
        profile = {"encrypt_to": ["app"], "decrypt_with": ["app"]}
        path.write_text(configuration({"app": service.address("first")}, {"default": profile}))
        output = run(installed, "-I", PROGRAM, env=env, input="+1 555 0100", cwd=tmp_path)
    assert output.startswith("kmsb1_")


def test_everything_for_production_is_without_what_is_for_tests(installed):
    """`kmsbridge[all]` installs neither the emulator's module nor its command, nor the contract suite and pytest."""
    names = ("kmsbridge_gcp_emulator", "kmsbridge_testing", "pytest", "kmsbridge_vault")
    code = f"from importlib.util import find_spec; print([each for each in {names} if find_spec(each)])"
    assert run(installed, "-I", "-c", code) == "['kmsbridge_vault']\n"
    assert not installed.with_name("kmsbridge-gcp-emulator").exists()


def test_the_emulator_runs_from_its_wheel(for_tests):
    """As a command, as a module and from Python, with what its wheel requires and no more."""
    assert "--listen" in run(for_tests.with_name("kmsbridge-gcp-emulator"), "--help")
    assert "--listen" in run(for_tests, "-I", "-m", "kmsbridge_gcp_emulator", "--help")
    code = "from kmsbridge_gcp_emulator import Emulator\nwith Emulator.start() as it: print(it.create_key(), it.requests())"
    assert run(for_tests, "-I", "-c", code).startswith(
        "projects/test/locations/global/keyRings/test/cryptoKeys/"
    )


def test_a_drivers_tests_run_from_the_suites_wheel(for_authors, tmp_path):
    """With what the wheels require and no more; the run ends with what was left out."""
    shutil.copy(STRANGER / "test_contract.py", tmp_path)
    options = (
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-k",
        "length or fresh or wrong or rotation or hostile",
    )
    output = run(for_authors, "-I", "-m", "pytest", *options, "test_contract.py", cwd=tmp_path)
    assert int(re.search(r"(\d+) passed", output)[1]) >= 50
    assert "SqliteHarness cannot " in output


@pytest.mark.parametrize("backend", ["local", "aws", "gcp", "vault"])
def test_a_program_imports_nothing_that_is_for_tests(for_tests, backend, tmp_path):
    """Neither the contract suite and the fakes nor the emulator, even where they are installed."""
    path = tmp_path / "kmsbridge.toml"
    env = {**os.environ, "KMSBRIDGE_CONFIG": str(path), "KMSBRIDGE_PROFILE": "default"}
    with contextlib.closing(harness(backend)) as service:
        profile = {"encrypt_to": ["app"], "decrypt_with": ["app"]}
        path.write_text(configuration({"app": service.address("first")}, {"default": profile}))
        command = (for_tests, "-I", "-c", NAMING_WHAT_IT_IMPORTS, PROGRAM)
        output = run(*command, env=env, input="+1 555 0100", cwd=tmp_path)
    message, _, imported = output.partition("\n")
    assert message.startswith("kmsb1_")
    modules = json.loads(imported)
    assert {"local": "kmsbridge.drivers.local"}.get(backend, f"kmsbridge_{backend}") in modules
    assert [each for each in modules if f"{each}.".startswith(NOT_IN_PRODUCTION)] == []


@pytest.mark.parametrize(("name", "scheme"), PLUGINS.items(), ids=PLUGINS)
def test_a_missing_plugin_is_named(bare, name, scheme):
    """One line, which says what to install."""
    done = command(bare, "encrypt", KMSBRIDGE_KEY=URIS[scheme])
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert f"there is no driver for '{scheme}'; pip install {name}\n" in done.stderr
