"""Finding drivers: exactly the one asked for, or an error that says what to do."""

import importlib.metadata
import json
import signal
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import Distribution
from pathlib import Path

import cryptography
import pytest

from kmsbridge import registry
from kmsbridge.driver import ENTRY_POINT_GROUP, INTERFACE
from kmsbridge.drivers.local import LocalDriver
from kmsbridge.errors import ConfigError, ProviderLoadError, ProviderNotFound
from kmsbridge.testing import installed as replacing
from kmsbridge.testing.fakes.fake import FakeDriver, UnboundFakeDriver

ROOT = Path(__file__).parents[2]

MODULES = {
    "good": "from kmsbridge.testing.fakes.fake import FakeDriver\nclass Driver(FakeDriver):\n    scheme = 'good'\n",
    "misnamed": "from kmsbridge.testing.fakes.fake import FakeDriver as Driver\n",
    "none": "class Driver: pass\n",
    "instance": "Driver = 7\n",
    "nameless": "from kmsbridge.driver import KeyDriver as Driver\n",
    "missing": "import a_module_that_is_not_there\n",
    "empty": "",
    "asserting": "assert False, 'canary'\n",
    "leaving": "import sys\nsys.exit('canary')\n",
    "slow": "import signal\nsignal.raise_signal(signal.SIGUSR1)\n",
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


@pytest.fixture
def registering(monkeypatch):
    """What the test registers is forgotten after it."""
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_unambiguous", set())


def no_scan():
    raise AssertionError("the installed packages are looked through")


def listed():
    """What `providers` gives besides the library's own drivers."""
    return [each for each in registry.providers() if each.scheme not in registry.OWN]


# --- the library's own driver ---------------------------------------------------------------------------


def test_the_local_driver_is_found_without_looking_at_what_is_installed(monkeypatch):
    """No metadata is read for it."""
    monkeypatch.setattr(importlib.metadata, "distributions", no_scan)
    assert registry.driver_class("local") is LocalDriver


def test_the_local_driver_is_listed_once():
    """With the distribution that it came from."""
    [local] = [each for each in registry.providers() if each.scheme == "local"]
    assert local == ("local", "kmsbridge.drivers.local:LocalDriver", "kmsbridge", local.version)
    assert local.version


def test_the_table_of_own_drivers_is_what_the_distribution_names():
    """And that of packages what the drivers' own name."""
    assert entry_points_of(ROOT) == registry.OWN
    for scheme, package in registry.PACKAGES.items():
        (folder,) = (
            each for each in (ROOT / "plugins").iterdir() if f"kmsbridge-{each.name}" == package.distribution
        )
        assert entry_points_of(folder) == {scheme: package.target}


def entry_points_of(folder):
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project["entry-points"][ENTRY_POINT_GROUP]


def test_nobody_takes_the_place_of_the_local_driver(installed):
    """An installed package that claims its scheme is neither found nor listed."""
    installed(("local", "good", "other"))
    assert registry.driver_class("local") is LocalDriver
    assert [each.target for each in registry.providers()] == [
        target for _, target in sorted(registry.OWN.items())
    ]


def test_an_own_driver_that_cannot_be_imported_is_named(monkeypatch):
    """As where `cryptography` is broken."""
    monkeypatch.setitem(sys.modules, "kmsbridge.drivers.local", None)
    with pytest.raises(
        ProviderLoadError, match="kmsbridge.drivers.local:LocalDriver failed with ModuleNotFoundError"
    ):
        registry.driver_class("local")


# --- what is installed ----------------------------------------------------------------------------------


def test_one_scheme_is_loaded_and_no_other(installed):
    """A broken neighbour is neither imported nor mentioned."""
    installed(("good", "good", "good"), ("broken", "broken", "broken"))
    assert issubclass(registry.driver_class("good"), FakeDriver)
    assert "driver_broken" not in sys.modules


def test_listing_imports_nothing(installed):
    """`providers` reads what is installed."""
    installed(("good", "good", "a"), ("broken", "broken", "b"))
    assert [(each.scheme, each.distribution, each.version) for each in listed()] == [
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
        ("nothing-like-it", "there are drivers for good, hpke, local"),
    ),
)
def test_a_scheme_without_driver_says_what_to_do(installed, scheme, remedy):
    """The package to install, the nearest name, or what there is."""
    installed(("good", "good", "good"))
    with pytest.raises(ProviderNotFound, match=f"no driver for '{scheme}'.*{remedy}"):
        registry.driver_class(scheme)


def test_where_nothing_is_installed_that_is_said(installed):
    """What is always there, and what to do."""
    installed()
    with pytest.raises(
        ProviderNotFound,
        match="install the driver.s package or register its class; there are drivers for hpke, local",
    ):
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
        ("nameless", "has no valid scheme"),
        ("misnamed", "installed for the scheme 'x', but its class has 'fake'"),
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
    assert len(listed()) == 1


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
    """It costs more than everything else; it comes when an installed driver is looked for."""
    code = "import sys, kmsbridge, kmsbridge.registry; sys.exit('stevedore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what the application registers ---------------------------------------------------------------------


def test_a_registered_driver_is_found_and_listed(registering):
    """Without an entry point; its package is unknown. Doing it again changes nothing."""
    registry.register(FakeDriver)
    registry.register(FakeDriver)
    assert registry.driver_class("fake") is FakeDriver
    assert [each for each in registry.providers() if each.scheme == "fake"] == [
        ("fake", "kmsbridge.testing.fakes.fake:FakeDriver", "", "")
    ]


def test_registering_looks_at_nothing_that_is_installed(registering, monkeypatch):
    """The first use does, once."""
    there, scans = importlib.metadata.distributions, []

    def scanned():
        scans.append(1)
        return there()

    monkeypatch.setattr(importlib.metadata, "distributions", scanned)
    registry.register(FakeDriver)
    assert scans == []
    registry.driver_class("fake")
    registry.driver_class("fake")
    assert scans == [1]


def test_registering_needs_no_stevedore():
    """Nor does finding what is registered."""
    code = (
        "import sys; from kmsbridge import registry; from kmsbridge.testing import FakeDriver;"
        "registry.register(FakeDriver); late = 'importlib.metadata' in sys.modules;"
        "registry.driver_class('fake'); sys.exit(late or 'stevedore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_registered_drivers_for_one_scheme_are_refused(registering):
    """At once; the first stays."""

    class Other(FakeDriver):
        pass

    registry.register(FakeDriver)
    with pytest.raises(ConfigError, match=r"fake:FakeDriver and .*Other; register one of them"):
        registry.register(Other)
    assert registry.driver_class("fake") is FakeDriver


def test_the_scheme_of_the_local_driver_cannot_be_registered(registering):
    """At once; but the class itself may be."""
    with pytest.raises(ConfigError, match=r"LocalDriver and .*:Mine; give the driver a scheme of its own"):
        registry.register(type("Mine", (FakeDriver,), {"scheme": "local"}))
    registry.register(LocalDriver)
    assert registry.driver_class("local") is LocalDriver
    assert len([each for each in registry.providers() if each.scheme == "local"]) == 1


def test_a_driver_that_is_registered_and_another_installed_is_refused(registering, installed):
    """When the scheme is used, each time; nothing is imported to find out."""
    installed(("good", "good", "good"))
    registry.register(type("Mine", (FakeDriver,), {"scheme": "good"}))
    for _ in range(2):
        with pytest.raises(
            ConfigError, match=r"kmsbridge-good and .*:Mine; uninstall kmsbridge-good, or do not"
        ):
            registry.driver_class("good")
    assert len(listed()) == 2
    assert "driver_good" not in sys.modules


def test_a_driver_that_is_registered_and_itself_installed_is_one_driver(registering, installed):
    """Found, and listed with its package."""
    installed(("good", "good", "good"))
    driver = registry.driver_class("good")
    registry.register(driver)
    assert registry.driver_class("good") is driver
    assert [each.distribution for each in listed()] == ["kmsbridge-good"]


@pytest.mark.parametrize("scheme", (None, "", "Upper", "1st", "with space", "a_b", "a:b", b"bytes"))
def test_a_class_without_a_valid_scheme_is_refused(registering, scheme):
    """No key URI could name it."""
    with pytest.raises(ProviderLoadError, match=":Odd has no valid scheme for key URIs"):
        registry.register(type("Odd", (FakeDriver,), {"scheme": scheme}))
    assert not registry._registered


@pytest.mark.parametrize("interface", (INTERFACE + 1, "1"))
def test_a_driver_for_a_later_interface_is_refused(registering, interface):
    """With what to do; one for an interface that this library knows is taken."""
    with pytest.raises(ProviderLoadError, match="driver interface.*upgrade kmsbridge"):
        registry.register(type("Later", (FakeDriver,), {"scheme": "later", "interface": interface}))
    assert not registry._registered


def test_what_is_no_driver_class_is_refused(registering):
    """Another class, or an object, whose own text is not told."""
    with pytest.raises(ProviderLoadError, match="builtins:dict is not a KeyDriver"):
        registry.register(dict)
    with pytest.raises(TypeError, match="not an object of type str"):
        registry.register("canary")
    assert not registry._registered


def test_a_near_name_is_told_of_what_is_registered(registering):
    """As of what is installed."""
    registry.register(UnboundFakeDriver)
    with pytest.raises(ProviderNotFound, match="did you mean 'fake-unbound'"):
        registry.driver_class("fake-unbond")


def test_a_replaced_driver_is_back_after_the_block(registering, installed):
    """For tests, what is registered, installed or the library's own gives way for a while."""
    installed(("good", "good", "good"))
    registry.register(FakeDriver)
    schemes = ("good", "fake", "local")
    stand_ins = [type("StandIn", (FakeDriver,), {"scheme": scheme}) for scheme in schemes]
    before = [registry.driver_class(scheme) for scheme in schemes]
    with replacing(*stand_ins):
        with replacing(FakeDriver):
            assert registry.driver_class("fake") is FakeDriver
        assert [registry.driver_class(scheme) for scheme in schemes] == stand_ins
    assert [registry.driver_class(scheme) for scheme in schemes] == before


# --- where packages have no metadata --------------------------------------------------------------------

PROGRAM = """
import json, sys
from kmsbridge import EnvelopeCipher, KmsBridgeError, registry
from kmsbridge.drivers.local.keyfile import KeyFile

def found(scheme):
    try:
        return registry.driver_class(scheme).__module__
    except KmsBridgeError as error:
        return f"{type(error).__name__}: {error}"

KeyFile.create(sys.argv[1], "app").close()
with EnvelopeCipher.from_uri(f"local:{sys.argv[1]}") as cipher:
    opened = cipher.decrypt(cipher.encrypt(b"x")).decode()
answers = [opened, found("vault-transit"), "kmsbridge_vault" in sys.modules, found("aws-kms")]
from kmsbridge_vault import VaultTransitDriver
registry.register(VaultTransitDriver)
answers += [found("vault-transit"), [each[:2] for each in registry.providers()], "stevedore" in sys.modules]
json.dump(answers, sys.stdout)
"""


def test_a_zip_application_finds_the_local_driver_and_what_it_registers(tmp_path):
    """No package there has metadata, and stevedore is not there at all."""
    archive, beside = tmp_path / "app.zip", tmp_path / "beside"
    with zipfile.ZipFile(archive, "w") as file:
        for top in (ROOT / "kmsbridge", ROOT / "plugins" / "vault" / "kmsbridge_vault"):
            for each in top.rglob("*.py"):
                file.write(each, each.relative_to(top.parent))
        file.writestr("__main__.py", f"import sys; sys.path.append({str(beside)!r})\n{PROGRAM}")
    beside.mkdir()
    site = Path(cryptography.__file__).parents[1]  # what is compiled cannot be in the archive
    for each in (site / "cryptography", *site.glob("_cffi_backend*")):
        (beside / each.name).symlink_to(each)
    command = [sys.executable, "-I", "-S", "-W", "error", archive, tmp_path / "keys.json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    opened, vault, imported, aws, registered, providers, stevedore = json.loads(done.stdout)
    assert opened == "x"
    assert vault == (
        "ProviderNotFound: there is no driver for 'vault-transit': the module kmsbridge_vault can be imported, "
        "but kmsbridge-vault has no package metadata; call kmsbridge.registry.register(kmsbridge_vault.VaultTransitDriver), "
        "or pip install kmsbridge-vault"
    )
    assert aws == "ProviderNotFound: there is no driver for 'aws-kms'; pip install kmsbridge-aws"
    assert registered == "kmsbridge_vault.driver"
    assert providers == [
        *(list(each) for each in sorted(registry.OWN.items())),
        ["vault-transit", "kmsbridge_vault.driver:VaultTransitDriver"],
    ]
    assert not imported
    assert not stevedore


def test_what_a_signal_handler_raises_while_a_driver_is_imported_comes_out_unchanged(installed):
    """A soft time limit in the middle of a slow import is no fault of the driver's."""

    class SoftLimit(Exception):
        pass

    def on_signal(number, frame):
        raise SoftLimit

    installed(("slow", "slow", "kmsbridge-slow"))
    before = signal.signal(signal.SIGUSR1, on_signal)
    try:
        with pytest.raises(SoftLimit):
            registry.driver_class("slow")
    finally:
        signal.signal(signal.SIGUSR1, before)
