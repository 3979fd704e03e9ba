"""The reference pages name everything that there is, and the explanations point at tests that exist."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import pkgutil
import re
import ssl
import sys
from pathlib import Path

import pytest
from kmsbridge_testing import harness

import kmsbridge
from kmsbridge import (
    aio,
    blindindex,
    cipher,
    config,
    doctor,
    driver,
    driverkit,
    errors,
    partial,
    registry,
    testing,
)
from kmsbridge.audit import AuditEvent, VerifyResult
from kmsbridge.cli import exits
from kmsbridge.config import document
from kmsbridge.config.profile import OWN
from kmsbridge.drivers.local.keyfile import KeyFile
from kmsbridge.inspection import MessageInfo, RecipientInfo
from kmsbridge.policy import BOUNDS
from kmsbridge.testing import FakeKeyPair

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def text(page: str) -> str:
    return (DOCS / page).read_text()


def words(page: str) -> set[str]:
    """Everything that looks like a name in what a page sets as code."""
    source = text(page)
    code = re.findall(r"^```.*?^```$", source, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", source, flags=re.DOTALL | re.MULTILINE))
    return set(re.findall(r"[A-Za-z_]\w*", "\n".join([*code, *inline])))


def public_methods(cls: type) -> set[str]:
    """The methods and properties that a class of ours adds to what Python's own have."""
    ours = [base for base in cls.__mro__ if base.__module__.startswith("kmsbridge")]
    return {name for base in ours for name in vars(base) if not name.startswith("_")}


def field_names(cls: type) -> set[str]:
    return set(getattr(cls, "_fields", ()) or getattr(cls, "__slots__", ())) or {
        field.name for field in dataclasses.fields(cls)
    }


@pytest.mark.parametrize("name", kmsbridge.__all__)
def test_every_public_name_is_in_the_api_reference(name: str) -> None:
    """Whatever `kmsbridge` exports."""
    assert name in words("reference/api.md")


def every_class() -> dict[str, list[type]]:
    """The classes of the library, by their names."""
    found: dict[str, list[type]] = {}
    for module in pkgutil.walk_packages(kmsbridge.__path__, "kmsbridge."):
        if module.name.endswith("__main__"):
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if inspect.isclass(value) and value.__module__ == module.name and not name.startswith("_"):
                found.setdefault(name, []).append(value)
    return found


def dotted(page: str) -> set[str]:
    """The names in full that a page has, such as `kmsbridge.audit.verify`, but that of the configuration file."""
    return set(re.findall(r"\bkmsbridge(?:\.[a-zA-Z_]\w*)+", text(page))) - {
        "kmsbridge.toml",
        "kmsbridge.drivers",
    }


PAGES_OF_NAMES = ["reference/api.md", "reference/drivers.md", "reference/observers.md", "reference/errors.md"]


@pytest.mark.parametrize(
    ("page", "name"), [(page, name) for page in PAGES_OF_NAMES for name in sorted(dotted(page))]
)
def test_every_name_in_full_can_be_imported(page: str, name: str) -> None:
    """A module, or what is in one."""
    assert imported(name) is not None


def imported(name: str) -> object:
    """What a dotted name stands for."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, last = name.rpartition(".")
        return getattr(imported(module), last)


def test_every_class_in_the_api_reference_can_be_imported_from_where_it_says() -> None:
    """From `kmsbridge`, from `kmsbridge.aio`, or from a module that the page names in full."""
    modules = [imported(name) for name in dotted("reference/api.md")]
    places = [kmsbridge, *(module for module in modules if inspect.ismodule(module))]
    places += [sys.modules[each.__module__] for each in modules if hasattr(each, "__module__")]
    named = {name: found for name, found in every_class().items() if name in words("reference/api.md")}
    assert {"MessageWriter", "VerifyResult", "Cost", "RecipientInfo"} <= set(named)
    missing = {
        name
        for name, found in named.items()
        if not any(getattr(place, name, None) in found for place in places)
    }
    assert missing == set()


@pytest.mark.parametrize(
    "cls",
    [
        *(cipher.Encryptor, cipher.Decryptor, cipher.EnvelopeCipher),
        *(kmsbridge.MessageReader, kmsbridge.MessageWriter, kmsbridge.EncryptingReader),
        *(kmsbridge.SecretValue,),
        *(blindindex.BlindIndex, blindindex.Row, blindindex.Change, blindindex.Normalizer, partial.Partial),
        *(aio.Encryptor, aio.Decryptor, aio.EnvelopeCipher, aio.Reader, aio.Writer, aio.EncryptingReader),
    ],
    ids=lambda cls: f"{cls.__module__}.{cls.__name__}",
)
def test_every_public_method_is_in_the_api_reference(cls: type) -> None:
    """Of the three classes, the same for asyncio, and the files that they give."""
    assert public_methods(cls) <= words("reference/api.md")


@pytest.mark.parametrize("cls", [cipher.Encryptor, cipher.Decryptor, cipher.EnvelopeCipher])
def test_signatures_are_those_of_the_code(cls: type) -> None:
    """The class and each method of it stand in the reference with their parameters and defaults."""
    shown = text("reference/api.md")
    for name in [cls.__name__, *public_methods(cls)]:
        function = cls if name == cls.__name__ else getattr(cls, name)
        if isinstance(function, property):
            continue
        parameters = list(inspect.signature(function).parameters.values())
        bare = [
            each.replace(annotation=inspect.Parameter.empty) for each in parameters if each.name != "self"
        ]
        signature = str(inspect.Signature(bare)).replace("'", '"')
        assert f"\n{name}{signature}" in shown, f"{name}{signature}"


@pytest.mark.parametrize("name", blindindex.__all__)
def test_every_name_of_blind_indexes_is_in_the_api_reference(name: str) -> None:
    """Whatever `kmsbridge.blindindex` exports."""
    assert name in words("reference/api.md")


@pytest.mark.parametrize(
    "function", [blindindex.index_keys, blindindex.new_index_key, blindindex.backfill, blindindex.e164]
)
def test_the_signatures_of_functions_of_blind_indexes_are_those_of_the_code(function) -> None:
    """With their parameters and defaults."""
    parameters = inspect.signature(function).parameters.values()
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in parameters]
    assert f"\n{function.__name__}{inspect.Signature(bare)}" in text("reference/api.md")


def test_every_change_to_a_key_file_is_in_the_api_reference() -> None:
    """Of what the guides use for tests; what the driver alone uses is left out."""
    for_the_driver = {"document", "material"}
    assert public_methods(KeyFile) - for_the_driver <= words("reference/api.md")
    assert field_names(VerifyResult) <= words("reference/api.md")


@pytest.mark.parametrize("cls", [kmsbridge.Health, kmsbridge.KeyHealth, kmsbridge.CacheHealth, doctor.Trial])
def test_every_field_of_what_check_returns_is_in_the_api_reference(cls: type) -> None:
    """In its table, which has no others."""
    shown = {name for cell in rows("reference/api.md", cls.__name__) for name in re.findall(r"\w+", cell)}
    assert shown == field_names(cls)


def test_every_field_of_message_info_is_in_the_api_reference() -> None:
    """And of its recipients."""
    assert field_names(MessageInfo) | field_names(RecipientInfo) <= words("reference/api.md")


@pytest.mark.parametrize("name", driver.__all__)
def test_every_name_of_the_driver_interface_is_in_its_reference(name: str) -> None:
    """Whatever `kmsbridge.driver` exports."""
    assert name in words("reference/drivers.md")


@pytest.mark.parametrize("module", [each.name for each in pkgutil.iter_modules(driverkit.__path__)])
def test_everything_in_driverkit_is_in_the_drivers_reference(module: str) -> None:
    """Each module, its public names, and the members of its classes."""
    found = importlib.import_module(f"kmsbridge.driverkit.{module}")
    own = [value for value in vars(found).values() if getattr(value, "__module__", "") == found.__name__]
    classes = [value for value in own if isinstance(value, type)]
    functions = {value.__name__ for value in own if inspect.isfunction(value)}
    members = {name for cls in classes for name in vars(cls)} - {"after_fork", *dir(ssl.SSLSocket)}
    names = {*(cls.__name__ for cls in classes), *functions, *members, *inspect.get_annotations(found)}
    assert {module} | {name for name in names if not name.startswith("_")} <= words("reference/drivers.md")
    assert functions or classes


@pytest.mark.parametrize(
    "cls", [driver.KeyDriver, driver.Options, driver.Secret, driver.KeyURI, driver.WrappedKey]
)
def test_every_member_of_the_driver_interface_is_in_its_reference(cls: type) -> None:
    """Methods, properties, attributes and fields."""
    annotated = {name for name in cls.__annotations__ if not name.startswith("_")}
    assert public_methods(cls) | annotated <= words("reference/drivers.md")


@pytest.mark.parametrize("cls", [driver.Capability, driver.ErrorKind, driver.KeyState])
def test_every_enumerated_value_is_in_the_drivers_reference(cls: type[enum.Enum]) -> None:
    """By its name."""
    assert set(cls.__members__) <= words("reference/drivers.md")


@pytest.mark.parametrize("name", testing.__all__)
def test_every_name_of_testing_is_in_the_suites_reference(name: str) -> None:
    """Whatever `kmsbridge.testing` exports."""
    assert name in words("reference/contract-suite.md")


def test_the_suites_reference_says_what_comes_with_the_library() -> None:
    """All other names are those of kmsbridge-testing."""
    said = re.search(
        r"^(`FakeDriver`[^.]*) come with\s+the\s+library\.", text("reference/contract-suite.md"), re.MULTILINE
    )
    assert said
    own = {name for name, module in testing._LATE.items() if module.startswith("kmsbridge.testing.")}
    assert set(re.findall(r"`(\w+)`", said[1])) == own


def test_every_ability_of_a_harness_is_in_the_suites_reference() -> None:
    """Its members, what it may declare, and the groups of cases."""
    shown = text("reference/contract-suite.md")
    groups = {base.__name__ for base in testing.DriverContract.__bases__}
    names = {*harness.ABILITIES, *public_methods(harness.Harness), *groups}
    assert not {name for name in names if name not in shown}


def rows(page: str, heading: str) -> dict[str, list[str]]:
    """The cells of the first table under a heading, by the name in its first column."""
    section = re.split(rf"^#+ `?{re.escape(heading)}`?$", text(page), maxsplit=1, flags=re.MULTILINE)[1]
    found: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line.startswith("|---"):
            found.clear()  # what stood above it were the columns' titles
        elif line.startswith("|"):
            first, *rest = (cell.strip().strip("`") for cell in line.strip("|").split(" | "))
            found[first.strip()] = rest
        elif found:
            break
    return found


@pytest.mark.parametrize("name", document.POLICIES)
def test_every_setting_is_in_the_configuration_reference(name: str) -> None:
    """With its default and its bounds, as the code has them."""
    table = rows("reference/configuration.md", name)
    for word, setting in config.values.tunables(document.POLICIES[name]).items():
        _type, default, *bounds, _meaning = table[word]
        assert config.values.convert(_value(default), setting, name) == setting.default
        if word in BOUNDS:
            least, most = (config.values.convert(_value(each), setting, name) for each in bounds)
            assert (least, most) == BOUNDS[word][1:]


def _value(shown: str) -> object:
    """What a cell of the reference would be in TOML."""
    plain = {"true": True, "false": False, '""': ""}
    return plain[shown] if shown in plain else int(shown) if shown.isdigit() else shown


def test_every_table_and_word_is_in_the_configuration_reference() -> None:
    """Of the file, of a key, of a profile and of an index."""
    profile = rows("reference/configuration.md", "[profiles.NAME]")
    assert {*document.LISTS, *document.POLICIES, *document.FLAGS, *document.ENVIRONMENT} == {*profile}
    assert {*OWN} == {*rows("reference/configuration.md", "[keys.NAME]")}
    assert {*document.INDEX} == {*rows("reference/configuration.md", "[indexes.NAME]")}


PUBLIC_KEY = FakeKeyPair("any").public_pem
RSA: dict[str, object] = {"algorithm": "RSA-OAEP-SHA-256", "public_key": PUBLIC_KEY}
ARN = "aws-kms://arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
CRYPTO_KEY = "gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k"
VAULT: dict[str, object] = {
    "address": "https://vault.internal:8200",
    "auth": {"method": "token", "token": "none"},
}
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "AWS": (ARN, {}),
    "AWS RSA": (ARN, RSA),
    "GCP": (CRYPTO_KEY, {}),
    "GCP RSA": (CRYPTO_KEY, {**RSA, "version": "1"}),
    "Vault": ("vault-transit://transit/k", VAULT),
    "Vault derived": ("vault-transit://transit/k", {**VAULT, "derived": True}),
}
GUIDES = {"aws-kms": "use-aws-kms.md", "gcp-kms": "use-google-cloud-kms.md", "vault-transit": "use-vault.md"}


def opened(kind: str) -> tuple[driver.KeyDriver, driver.Options]:
    """A key of one of the kinds in the table of providers, and what its driver was given."""
    uri, options = KINDS[kind]
    given = driver.Options(options)
    parsed = driver.KeyURI.parse(uri)
    return registry.driver_class(parsed.scheme).open(parsed, given), given


def cells_of(heading: str, kind: str) -> list[str]:
    """Of the row that is for this kind of key, in a table whose rows may be for several."""
    table = rows("reference/providers.md", heading)
    (cells,) = (cells for kinds, cells in table.items() if kind in kinds.split(", "))
    return cells


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_of_providers_says_what_their_drivers_say(kind: str) -> None:
    """Who reports versions, rotates, rewraps in the service, binds the context, and takes how much."""
    key, _ = opened(kind)
    version, rotates, _, rewraps = rows("reference/providers.md", "Versions, rotation, rewrapping")[kind]
    bound = cells_of("How the context is bound", kind)
    said = {
        driver.Capability.REPORTS_VERSION: version.startswith("yes"),
        driver.Capability.ROTATE: rotates.startswith("yes"),
        driver.Capability.SERVER_REWRAP: rewraps.startswith("by the service"),
        driver.Capability.BINDS_CONTEXT: not bound[0].startswith("not at all"),
    }
    assert {each for each, has in said.items() if has} == key.capabilities & set(said)
    most = key.max_plaintext - (0 if said[driver.Capability.BINDS_CONTEXT] else 32)
    assert str(most) in re.findall(r"\d+", cells_of("Limits", kind)[0].replace(",", ""))


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_a_driver_is_in_its_guide(kind: str) -> None:
    """And in the configuration's reference."""
    key, given = opened(kind)
    assert set(given.known()) <= words("reference/configuration.md")
    assert set(given.known()) <= words(f"how-to/{GUIDES[key.scheme]}")


def error_classes() -> list[type[errors.KmsBridgeError]]:
    return [
        cls
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.KmsBridgeError)
    ]


def test_every_error_is_in_its_reference_with_its_exit_code() -> None:
    """The table has each class of the tree once, and the code that the command line exits with."""
    table = rows("reference/errors.md", "Errors")
    codes = {cls.__name__: str(exits.code_of(cls("x"))) for cls in error_classes()}
    assert codes == {name: cells[-1] for name, cells in table.items() if name in codes}


def test_the_tree_of_errors_is_the_codes() -> None:
    """Each class is drawn below its base."""
    tree = re.search(r"```text\n(.*?)```", text("reference/errors.md"), re.DOTALL)
    assert tree
    parents: list[str] = []
    for line in tree[1].splitlines():
        name = re.findall(r"\w+", line)[0]
        parents[line.index(name) // 4 :] = [name]
        if len(parents) > 1:
            assert getattr(errors, name).__bases__ == (getattr(errors, parents[-2]),)
    assert len(tree[1].splitlines()) == len(error_classes())


def test_every_field_of_an_event_is_in_the_audit_reference() -> None:
    """As a row of the table of fields."""
    assert set(AuditEvent("wrap").as_dict()) == set(rows("reference/audit-log.md", "Fields"))


def test_every_module_is_in_the_map_of_the_code() -> None:
    """A new part of the library has a place among the others."""
    parts = {
        path.stem
        for path in (ROOT / "kmsbridge").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and not path.stem.startswith("_")
    }
    assert parts <= words("explanation/how-it-fits-together.md")


def promises() -> list[tuple[str, str]]:
    """(promise or attacker, path of a test) from the threat model."""
    page = "explanation/threat-model.md"
    table = rows(page, "Promises and the tests that hold them") | rows(page, "Attackers at a glance")
    return [
        (promise, path)
        for promise, cells in table.items()
        for path in re.findall(r"tests/[\w/.]+", cells[-1])
    ]


def test_every_attacker_has_a_test_or_says_that_there_is_none() -> None:
    """What nothing shows is said to be so."""
    table = rows("explanation/threat-model.md", "Attackers at a glance")
    assert len(table) > 15
    assert not [
        who
        for who, (_, _, shown) in table.items()
        if "tests/" not in shown and shown not in ("not tested", "not prevented")
    ]


@pytest.mark.parametrize(("promise", "path"), promises())
def test_every_promise_names_a_test_that_exists(promise: str, path: str) -> None:
    """A file of tests, or a folder with some."""
    place = ROOT / path
    files = [place] if place.is_file() else sorted(place.glob("test_*.py"))
    assert any(re.search(r"def test_|\(DriverContract\)", each.read_text()) for each in files), promise


def test_the_threat_model_makes_promises() -> None:
    """A table that could not be read would hold nothing."""
    assert len(promises()) > 10
    assert all(path for _, path in promises())


def test_the_map_leads_to_every_page() -> None:
    """No page is left out of the index."""
    linked = set(re.findall(r"\]\(([^)#]+\.md)\)", text("index.md")))
    pages = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"index.md"}
    assert pages <= linked
