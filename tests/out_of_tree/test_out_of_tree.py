"""A stranger's driver, built and installed as its users would, is found and keeps the contract."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

STRANGER = Path(__file__).with_name("stranger")
PIP = (sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check")
LEAST_CASES = 100

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "{name}"
version = "2.0"

[project.entry-points."kmsbridge.drivers"]
{scheme} = "{module}:Driver"

[tool.hatch.build.targets.wheel]
only-include = ["{module}.py"]
"""

ASK = """
import json, sys
from kmsbridge import KmsBridgeError, registry

answers = {}
for scheme in sys.argv[1:]:
    try:
        answers[scheme] = ["found", registry.driver_class(scheme).__module__]
    except KmsBridgeError as error:
        answers[scheme] = [type(error).__name__, str(error)]
print(json.dumps([answers, sorted(sys.modules)]))
"""


def run(*command, **options):
    """What a command that must succeed prints; its errors are in the failure."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wheel_of(source, folder):
    """The wheel of the project in `source`, built without a network."""
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=source)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A new environment that has the stranger's driver, and sees what this one has."""
    folder = tmp_path_factory.mktemp("stranger")
    shutil.copytree(STRANGER, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    base = {"base": str(folder / "env"), "platbase": str(folder / "env")}
    # Not a line with the path alone: the .pth file of an editable installation there is wanted too.
    seen = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    Path(sysconfig.get_path("purelib", vars=base), "this.pth").write_text(seen)
    wheel = wheel_of(folder / "source", folder / "dist")
    run(*PIP, "--python", python, "install", "--no-index", "--no-deps", wheel)
    return python


@pytest.fixture
def elsewhere(tmp_path):
    """Builds and installs a one-module distribution into a folder of its own, and gives the folder."""

    def install(name, scheme, source):
        module, folder = name.replace("-", "_"), tmp_path / name
        folder.mkdir()
        (folder / "pyproject.toml").write_text(PROJECT.format(name=name, module=module, scheme=scheme))
        (folder / f"{module}.py").write_text(source)
        target = folder / "installed"
        run(*PIP, "install", "--no-index", "--no-deps", "--target", target, wheel_of(folder, folder / "dist"))
        return target

    return install


def ask(python, *schemes, path=()):
    """What the registry answers for each scheme in a new process, and the modules it imported."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return json.loads(run(python, "-W", "error", "-c", ASK, *schemes, env=environment, cwd=python.parent))


def test_strangers_driver_keeps_the_contract(stranger, tmp_path):
    """Its own test module, twenty lines of harness and five of test class, passes in its own environment."""
    report = tmp_path / "report.xml"
    source = stranger.parents[2] / "source"
    output = run(
        *(stranger, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", f"--junitxml={report}"),
        *("--rootdir", source, "test_contract.py"),
        cwd=source,
    )
    suite = next(ET.parse(report).iter("testsuite"))
    ran = int(suite.attrib["tests"]) - int(suite.attrib["skipped"])
    assert ran >= LEAST_CASES
    assert "SqliteHarness cannot roles: who can read the file can do anything with it" in output


def test_strangers_driver_is_found_by_its_entry_point(stranger):
    """One line in its pyproject.toml."""
    answers, _ = ask(stranger, "sqlite-kms", "local")
    assert answers == {
        "sqlite-kms": ["found", "kms_sqlite"],
        "local": ["found", "kmsbridge.drivers.local.driver"],
    }


@pytest.mark.parametrize(
    ("wanted", "other"),
    (("local", "kms_sqlite"), ("sqlite-kms", "kmsbridge.drivers.local")),
    ids=("ours", "theirs"),
)
def test_finding_one_driver_imports_no_other(stranger, wanted, other):
    """Someone else's SDK costs nothing, and breaks nothing, until its scheme is used."""
    _, modules = ask(stranger, wanted)
    assert other not in modules


def test_driver_that_cannot_be_imported_is_named_and_harms_no_other(stranger, elsewhere):
    """An error that says which module is missing, for its scheme alone."""
    broken = elsewhere("kms-broken", "broken", "import a_module_that_nobody_has\n")
    answers, _ = ask(stranger, "broken", "sqlite-kms", "local", path=[broken])
    kind, text = answers.pop("broken")
    assert kind == "ProviderLoadError"
    assert "kms_broken:Driver" in text
    assert "a_module_that_nobody_has" in text
    assert [answer[0] for answer in answers.values()] == ["found", "found"]


def test_module_without_a_driver_is_named(stranger, elsewhere):
    """What is registered must be a driver."""
    empty = elsewhere("kms-empty", "empty", "class Driver: pass\n")
    answers, _ = ask(stranger, "empty", path=[empty])
    kind, text = answers["empty"]
    assert kind == "ProviderLoadError"
    assert "kms_empty:Driver" in text


def test_two_drivers_for_one_scheme_are_refused(stranger, elsewhere):
    """Neither wins; the error names both, and other schemes work."""
    twin = elsewhere("kms-twin", "sqlite-kms", "from kms_sqlite import SqliteDriver as Driver\n")
    answers, modules = ask(stranger, "sqlite-kms", "local", path=[twin])
    kind, text = answers["sqlite-kms"]
    assert kind == "ConfigError"
    assert "kms_sqlite" in text.replace("-", "_")
    assert "kms_twin" in text.replace("-", "_")
    assert answers["local"][0] == "found"
    assert not {"kms_sqlite", "kms_twin"} & set(modules)


def test_unknown_scheme_names_what_is_near(stranger):
    """A misspelt scheme is corrected."""
    answers, _ = ask(stranger, "sqlite-kmz")
    assert answers["sqlite-kmz"][0] == "ProviderNotFound"
    assert "'sqlite-kms'" in answers["sqlite-kmz"][1]
