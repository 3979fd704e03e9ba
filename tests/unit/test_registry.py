"""Finding drivers: exactly the one asked for, or an error that says what to do."""

import importlib.metadata
import subprocess
import sys
from importlib.metadata import Distribution

import pytest

from kmsbridge import registry
from kmsbridge.driver import ENTRY_POINT_GROUP
from kmsbridge.errors import ConfigError, ProviderLoadError, ProviderNotFound
from kmsbridge.local import LocalDriver
from kmsbridge.testing.fake import FakeDriver

MODULES = {
    "good": "from kmsbridge.testing.fake import FakeDriver\nclass Driver(FakeDriver):\n    scheme = 'good'\n",
    "misnamed": "from kmsbridge.testing.fake import FakeDriver as Driver\n",
    "none": "class Driver: pass\n",
    "instance": "Driver = 7\n",
    "missing": "import a_module_that_is_not_there\n",
    "empty": "",
    "asserting": "assert False, 'canary'\n",
    "leaving": "import sys\nsys.exit('canary')\n",
    "broken": "raise RuntimeError('canary')\n",
    "syntax": "def :\n",
}


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Makes drivers look installed: (scheme, module of MODULES, distribution)."""
    for name, code in MODULES.items():
        (tmp_path / f"driver_{name}.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)

    def install(*drivers):
        entries = [
            distribution(f"kmsbridge-{package}", scheme, f"driver_{module}:Driver")
            for scheme, module, package in drivers
        ]
        monkeypatch.setattr(importlib.metadata, "distributions", lambda: entries)

    yield install
    for name in MODULES:
        sys.modules.pop(f"driver_{name}", None)


def distribution(package, scheme, target):
    class Installed(Distribution):
        def read_text(self, filename):
            return {
                "METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n",
                "entry_points.txt": f"[console_scripts]\nx = x:x\n[{ENTRY_POINT_GROUP}]\n{scheme} = {target}\n",
            }.get(filename)

        def locate_file(self, path):
            return path

    return Installed()


def test_the_local_driver_is_found_through_its_entry_point():
    """Like any other; what is listed is not imported."""
    assert registry.driver_class("local") is LocalDriver
    [local] = [each for each in registry.providers() if each.scheme == "local"]
    assert (local.target, local.distribution) == ("kmsbridge.local:LocalDriver", "kmsbridge")


def test_one_scheme_is_loaded_and_no_other(installed):
    """A broken neighbour is neither imported nor mentioned."""
    installed(("good", "good", "good"), ("broken", "broken", "broken"))
    assert issubclass(registry.driver_class("good"), FakeDriver)
    assert "driver_broken" not in sys.modules


def test_listing_imports_nothing(installed):
    """`providers` reads what is installed."""
    installed(("good", "good", "a"), ("broken", "broken", "b"))
    assert [(each.scheme, each.distribution, each.version) for each in registry.providers()] == [
        ("broken", "kmsbridge-b", "1.2"),
        ("good", "kmsbridge-a", "1.2"),
    ]
    assert "driver_good" not in sys.modules


@pytest.mark.parametrize(
    ("scheme", "remedy"),
    (
        ("aws-kms", "pip install kmsbridge-aws"),
        ("gcp-kms", "pip install kmsbridge-gcp"),
        ("vault-transit", "pip install kmsbridge-vault"),
        ("vault-transitt", "did you mean 'vault-transit'"),
        ("goood", "did you mean 'good'"),
        ("nothing-like-it", "installed: good"),
    ),
)
def test_a_scheme_without_driver_says_what_to_do(installed, scheme, remedy):
    """The package to install, the nearest name, or what there is."""
    installed(("good", "good", "good"))
    with pytest.raises(ProviderNotFound, match=f"no driver for '{scheme}'.*{remedy}"):
        registry.driver_class(scheme)


def test_where_nothing_is_installed_that_is_said(installed):
    """Not an empty list."""
    installed()
    with pytest.raises(ProviderNotFound, match="installed: none"):
        registry.driver_class("nothing-like-it")


@pytest.mark.parametrize(
    ("module", "words"),
    (
        ("missing", "ModuleNotFoundError: no module 'a_module_that_is_not_there'"),
        ("empty", "AttributeError"),
        ("asserting", "AssertionError"),
        ("leaving", "SystemExit"),
        ("broken", "RuntimeError"),
        ("syntax", "SyntaxError"),
        ("none", "is not a KeyDriver"),
        ("instance", "is not a KeyDriver"),
        ("misnamed", "registered for 'x' and says 'fake'"),
    ),
)
def test_a_driver_that_cannot_be_loaded_is_an_error_and_never_skipped(installed, caplog, module, words):
    """`ProviderLoadError` names what failed, without the text of the plugin's own exception."""
    installed(("x", module, "x"))
    with pytest.raises(ProviderLoadError, match=words) as caught:
        registry.driver_class("x")
    assert caught.value.remedy
    assert "canary" not in str(caught.value) + caplog.text


def test_two_drivers_for_one_scheme_are_an_error(installed):
    """Neither wins; both packages are named."""
    installed(("x", "good", "one"), ("x", "broken", "two"))
    with pytest.raises(ConfigError, match="kmsbridge-one and kmsbridge-two.*uninstall"):
        registry.driver_class("x")
    assert "driver_good" not in sys.modules


def test_one_driver_seen_twice_is_no_conflict(installed):
    """As an editable install can show it."""
    installed(("good", "good", "good"), ("good", "good", "good"))
    assert registry.driver_class("good").scheme == "good"
    assert len(registry.providers()) == 1


def test_of_one_distribution_in_two_versions_the_first_counts(installed):
    """The one that an import would find."""
    installed(("good", "good", "same"), ("good", "broken", "same"))
    assert issubclass(registry.driver_class("good"), FakeDriver)


def test_a_distribution_without_drivers_is_passed_over(monkeypatch):
    """Whatever else it registers, and if it is one that has lost its files."""
    there = importlib.metadata.distributions
    others = [distribution("other", "x", "y:Z"), distribution("lost", "x", "y:Z")]
    others[0].read_text = {"entry_points.txt": "[another.group]\nx = y:Z\n"}.get
    others[1].read_text = {}.get
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: [*others, *there()])
    assert "local" in [each.scheme for each in registry.providers()]
    assert "x" not in [each.scheme for each in registry.providers()]


def test_importing_the_library_does_not_import_stevedore():
    """It costs more than everything else; it comes when a driver is looked for."""
    code = "import sys, kmsbridge, kmsbridge.registry; sys.exit('stevedore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
