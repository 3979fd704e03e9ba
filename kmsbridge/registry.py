"""Finds the driver of a scheme: one that the application registered, the library's own, or an installed one.

An installed driver is found through its entry point and loaded by stevedore, which only this module imports. By
default stevedore loads every plugin to find one, logs and skips those that fail to import, and picks one of two
plugins of the same name. None of that is acceptable for code that holds keys, so this module selects the one entry
point and hands it to stevedore.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kmsbridge import keyuri
from kmsbridge.driver import ENTRY_POINT_GROUP, INTERFACE, KeyDriver
from kmsbridge.errors import (
    ConfigError,
    ProviderFailure,
    ProviderLoadError,
    ProviderNotFound,
    is_from_signal_handler,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

OWN: Final = {
    "hpke": "kmsbridge.drivers.hpke:HpkeDriver",
    "local": "kmsbridge.drivers.local:LocalDriver",
    "memory": "kmsbridge.drivers.memory:MemoryDriver",
}
"""The drivers that come with the library, as `module:class`. They are found without any package's metadata."""

SEPARATE_DATA_KEYS: Final = frozenset({"hpke"})
"""The schemes that wrap and unwrap without a call. A profile that encrypts to such keys only gives each message a data
key of its own, unless its `max_messages` says otherwise.
"""


class Package(NamedTuple):
    """A distribution that contains a driver, and the driver's `module:class`."""

    distribution: str
    target: str


PACKAGES: Final = {
    "aws-kms": Package("kmsbridge-aws", "kmsbridge_aws:AwsKmsDriver"),
    "gcp-kms": Package("kmsbridge-gcp", "kmsbridge_gcp:GcpKmsDriver"),
    "vault-transit": Package("kmsbridge-vault", "kmsbridge_vault:VaultTransitDriver"),
}
"""The packages that contain the project's other drivers, by scheme, so that an error can name them."""

_registered: dict[str, type[KeyDriver]] = {}
_unambiguous: set[str] = set()  # the registered schemes that no other installed driver serves
_replacements: dict[str, type[KeyDriver]] = {}


class Provider(NamedTuple):
    """A driver that can be found. `target` is its `module:class`; it need not be imported.

    `distribution` and `version` are empty where they are unknown, as for a registered class.
    """

    scheme: str
    target: str
    distribution: str
    version: str


def register(driver: type[KeyDriver]) -> None:
    """Make this process use a driver class for its scheme, without an entry point.

    For an application's own driver, and for programs without package metadata, such as zip
    applications. Registering a class again changes nothing. Raises `TypeError` for anything but a class,
    `ProviderLoadError` for a class that is not a driver or has no valid scheme, and `ConfigError` where
    another class is registered for the scheme or comes with the library. Where another class is
    installed for the scheme, `ConfigError` is raised when the scheme is first used.
    """
    scheme = _scheme_of(driver)
    if scheme in OWN and not _names_class(OWN[scheme], driver):
        remedy = "give the driver a scheme of its own"
        raise _two_drivers(scheme, OWN[scheme], _target(driver), remedy=remedy)
    other = _registered.setdefault(scheme, driver)
    if other is not driver:
        raise _two_drivers(scheme, _target(other), _target(driver), remedy="register one of them")


@contextlib.contextmanager
def replaced(*drivers: type[KeyDriver]) -> Iterator[None]:
    """Use these classes for their schemes within the block, instead of any other driver. For tests.

    Blocks must be nested, and not overlap.
    """
    before = dict(_replacements)
    _replacements.update({_scheme_of(driver): driver for driver in drivers})
    try:
        yield
    finally:
        for scheme in _replacements.keys() - before.keys():
            del _replacements[scheme]
        _replacements.update(before)


def providers() -> list[Provider]:
    """Return every driver that can be found, sorted by scheme, without importing any."""
    entries = _by_scheme()
    found = [_provider(entry) for same_scheme in entries.values() for entry in same_scheme]
    for scheme, target in OWN.items():
        if scheme not in entries:
            found.append(Provider(scheme, target, "kmsbridge", ""))
    for scheme, driver in _registered.items():
        if not any(_names_class(provider.target, driver) for provider in found):
            found.append(Provider(scheme, _target(driver), "", ""))
    return sorted(found, key=lambda provider: (provider.scheme, provider.target))


def driver_class(scheme: str) -> type[KeyDriver]:
    """Import and return the driver for `scheme`. No other driver is imported.

    Raises `ProviderNotFound` where there is none, `ProviderLoadError` where it cannot be imported or is
    not a driver, and `ConfigError` where two drivers claim the scheme.
    """
    if scheme in _replacements:
        return _replacements[scheme]
    if scheme in _registered:
        _check_unambiguous(scheme, _registered[scheme])
        return _registered[scheme]
    if scheme in OWN:
        return _checked(scheme, _load_own(OWN[scheme]), OWN[scheme])
    entries = _by_scheme()
    if scheme not in entries:
        raise _not_found(scheme, sorted({*entries, *OWN, *_registered}))
    if len(entries[scheme]) > 1:
        names = (_provider(entry).distribution or entry.value for entry in entries[scheme])
        raise _two_drivers(scheme, *names, remedy="uninstall one of them")
    return _checked(scheme, _load(entries[scheme][0]), entries[scheme][0].value)


def _check_unambiguous(scheme: str, driver: type[KeyDriver]) -> None:
    if scheme in _unambiguous:
        return
    for entry in _by_scheme().get(scheme, ()):
        if not _names_class(entry.value, driver):
            name = _provider(entry).distribution or entry.value
            remedy = f"uninstall {name}, or do not register {_target(driver)}"
            raise _two_drivers(scheme, name, _target(driver), remedy=remedy)
    _unambiguous.add(scheme)


def _names_class(target: str, driver: type[KeyDriver]) -> bool:
    """Return whether `module:class` names this class, without importing the module."""
    module, _, name = target.partition(":")
    return getattr(sys.modules.get(module), name, None) is driver


def _target(driver: type[KeyDriver]) -> str:
    return f"{driver.__module__}:{driver.__qualname__}"


def _two_drivers(scheme: str, *names: str, remedy: str) -> ConfigError:
    return ConfigError(f"there are two drivers for {scheme!r}: {' and '.join(names)}", remedy=remedy)


def _by_scheme() -> dict[str, list[EntryPoint]]:
    schemes: dict[str, list[EntryPoint]] = {}
    for entry in _entries():
        if entry.value != OWN.get(entry.name, entry.value):
            continue  # the library's own driver is always used for its scheme
        same_scheme = schemes.setdefault(entry.name, [])
        # A distribution can be installed twice, editable or in an older version: the first one counts.
        if all(entry.value != other.value and _source(entry) != _source(other) for other in same_scheme):
            same_scheme.append(entry)
    return schemes


def _entries() -> Iterator[EntryPoint]:
    """Yield the entry points of drivers.

    `importlib.metadata.entry_points` takes twice as long, because it parses those of every distribution.
    """
    from importlib.metadata import distributions

    for distribution in distributions():
        if ENTRY_POINT_GROUP in (distribution.read_text("entry_points.txt") or ""):
            yield from distribution.entry_points.select(group=ENTRY_POINT_GROUP)


def _source(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else ""


def _load(entry: EntryPoint) -> Any:
    from stevedore.driver import DriverManager
    from stevedore.extension import error_on_conflict

    class OneDriver(DriverManager[Any]):
        """A manager that sees only the entry point that was chosen.

        stevedore's own look-up reads a cache in the user's home, which can miss newly installed packages
        and does not say which distribution an entry point belongs to.
        """

        def list_entry_points(self) -> list[EntryPoint]:
            return [entry]

    def failed(_manager: Any, entry: EntryPoint, error: BaseException) -> None:
        if is_from_signal_handler(error):
            raise error
        raise _load_error(entry.value, error) from ProviderFailure.of(error)

    try:
        return OneDriver(
            ENTRY_POINT_GROUP,
            entry.name,
            on_load_failure_callback=failed,
            conflict_resolver=error_on_conflict,
        ).driver
    except (AssertionError, SystemExit) as error:  # what stevedore does not hand to the callback
        raise _load_error(entry.value, error) from ProviderFailure.of(error)


def _load_own(target: str) -> Any:
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # an import can raise anything
        if is_from_signal_handler(error):
            raise
        raise _load_error(target, error) from ProviderFailure.of(error)


def _load_error(target: str, error: BaseException) -> ProviderLoadError:
    missing = f": no module {error.name!r}" if isinstance(error, ModuleNotFoundError) else ""
    return ProviderLoadError(
        f"importing the driver {target} failed with {type(error).__name__}{missing}",
        remedy="reinstall the driver's package with its dependencies",
    )


def _checked(scheme: str, loaded: Any, target: str) -> type[KeyDriver]:
    found = _scheme_in(loaded, target)
    if found != scheme:
        raise ProviderLoadError(
            f"{target} is installed for the scheme {scheme!r}, but its class has {found!r}",
            remedy="report it to the driver's author",
        )
    return loaded  # type: ignore[no-any-return]


def _scheme_of(driver: type[KeyDriver]) -> str:
    if not isinstance(driver, type):
        raise TypeError(f"register takes a driver's class, not an object of type {type(driver).__name__}")
    return _scheme_in(driver, _target(driver))


def _scheme_in(loaded: Any, target: str) -> str:
    if not (isinstance(loaded, type) and issubclass(loaded, KeyDriver)):
        raise ProviderLoadError(f"{target} is not a KeyDriver", remedy="report it to the driver's author")
    interface: Any = loaded.interface
    if not isinstance(interface, int) or interface > INTERFACE:
        raise ProviderLoadError(
            f"{target} needs version {interface} of the driver interface, and this kmsbridge has {INTERFACE}",
            remedy="upgrade kmsbridge, or install an older version of the driver's package",
        )
    scheme = getattr(loaded, "scheme", None)
    if not isinstance(scheme, str) or not keyuri.SCHEME.fullmatch(scheme):
        raise ProviderLoadError(
            f"{target} has no valid scheme for key URIs",
            remedy="set its scheme to lower-case letters, digits and '-', beginning with a letter",
        )
    missing = sorted(getattr(loaded, "__abstractmethods__", ()))
    if missing or hasattr(loaded, "development_only"):
        what = f"lacks {', '.join(missing)}" if missing else "sets development_only"
        raise ProviderLoadError(
            f"{target} is made for another version of kmsbridge: it {what}",
            remedy="install compatible versions of kmsbridge and of the driver's package",
        )
    return scheme


def _not_found(scheme: str, found: list[str]) -> ProviderNotFound:
    import difflib

    why = ""
    if scheme in PACKAGES:
        why, remedy = _not_installed(PACKAGES[scheme])
    elif near := difflib.get_close_matches(scheme, [*found, *PACKAGES], n=1):
        remedy = f"did you mean {near[0]!r}?"
    else:
        remedy = (
            f"install the driver's package or register its class; there are drivers for {', '.join(found)}"
        )
    return ProviderNotFound(f"there is no driver for {scheme!r}{why}", remedy=remedy)


def _not_installed(package: Package) -> tuple[str, str]:
    from importlib.util import find_spec

    module, _, name = package.target.partition(":")
    spec = find_spec(module)
    if spec is None or spec.origin is None:  # a folder of that name without code has no origin
        return "", f"pip install {package.distribution}"
    return (
        f": the module {module} can be imported, but {package.distribution} has no package metadata",
        f"call kmsbridge.registry.register({module}.{name}), or pip install {package.distribution}",
    )


def _provider(entry: EntryPoint) -> Provider:
    distribution = entry.dist
    return Provider(
        scheme=entry.name,
        target=entry.value,
        distribution=distribution.name if distribution else "",
        version=distribution.version if distribution else "",
    )
