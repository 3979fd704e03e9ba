"""The contract suite fails where it must: each broken driver is caught by the case that names it."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from tests.mutants.drivers import MUTANTS

LEAST = 18

MODULE = """
import pytest

from kmsbridge.testing import DriverContract
from tests.mutants.drivers import MUTANTS


def examined(name, make):
    harness = pytest.fixture(lambda self: make())
    return type(name, (DriverContract,), {"harness": harness, "__module__": __name__})


for mutant in MUTANTS:
    globals()[f"Test{mutant.name}"] = examined(f"Test{mutant.name}", mutant.make_harness)
    sound = f"TestSound{mutant.harness.__name__}"
    globals()[sound] = examined(sound, mutant.harness)
"""


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory):
    """What became of each mutant's case, and of the same case with a sound driver, in one run."""
    folder = tmp_path_factory.mktemp("mutants")
    module, report = folder / "test_generated.py", folder / "report.xml"
    module.write_text(MODULE)
    wanted = {
        f"{module}::Test{which}::{mutant.caught_by}"
        for mutant in MUTANTS
        for which in (mutant.name, f"Sound{mutant.harness.__name__}")
    }
    command = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-W", "error", f"--junitxml={report}", *sorted(wanted)],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return {
        (case.attrib["classname"].rpartition(".")[2], case.attrib["name"]): [child.tag for child in case]
        for case in ET.parse(report).iter("testcase")
    }


def test_there_are_enough_mutants():
    """At least 18, each broken in its own way."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= LEAST


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_caught_by_its_case(outcomes, mutant):
    """The case fails (a failure of its own, no error around it), and passes where the driver is sound."""
    assert outcomes[f"Test{mutant.name}", mutant.caught_by] == ["failure"]
    assert outcomes[f"TestSound{mutant.harness.__name__}", mutant.caught_by] == []
