"""Finds drivers through their entry points. The only importer of stevedore.

stevedore, left to its defaults, loads every plugin to find one, logs and skips those that fail to
import, and lets one of two plugins of the same name win. None of that may happen to the code that
holds keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kmsbridge.driver import ENTRY_POINT_GROUP, KeyDriver
from kmsbridge.errors import ConfigError, ProviderFailure, ProviderLoadError, ProviderNotFound

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

PACKAGES: Final = {
    "aws-kms": "kmsbridge-aws",
    "gcp-kms": "kmsbridge-gcp",
    "vault-transit": "kmsbridge-vault",
}
"""The distributions that bring the schemes this project knows of, to name in an error."""


class Provider(NamedTuple):
    """An installed driver, not imported: its scheme, `module:class`, and the distribution it is from."""

    scheme: str
    target: str
    distribution: str
    version: str


def providers() -> list[Provider]:
    """Every installed driver, by scheme, none of them imported."""
    installed = (_provider(entry) for entries in _by_scheme().values() for entry in entries)
    return sorted(installed, key=lambda provider: (provider.scheme, provider.target))


def driver_class(scheme: str) -> type[KeyDriver]:
    """Import and return the driver for `scheme`, and no other.

    Raises `ProviderNotFound` where none is installed, `ProviderLoadError` where it cannot be imported
    or is no driver, `ConfigError` where two distributions claim the scheme.
    """
    entries = _by_scheme()
    if scheme not in entries:
        raise _not_found(scheme, sorted(entries))
    if len(entries[scheme]) > 1:
        names = " and ".join(_provider(entry).distribution or entry.value for entry in entries[scheme])
        raise ConfigError(f"two drivers for {scheme!r}: {names}", remedy="uninstall one of them")
    return _checked(scheme, _load(entries[scheme][0]), entries[scheme][0])


def _by_scheme() -> dict[str, list[EntryPoint]]:
    schemes: dict[str, list[EntryPoint]] = {}
    for entry in _entries():
        same = schemes.setdefault(entry.name, [])
        # A distribution can be there twice, editable or in an older version: the first one counts.
        if all(entry.value != other.value and _source(entry) != _source(other) for other in same):
            same.append(entry)
    return schemes


def _entries() -> Iterator[EntryPoint]:
    """What `importlib.metadata.entry_points` gives, which takes twice as long: it parses every distribution's."""
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
        """Knows the one entry point that was chosen.

        Left to itself it would read a cache in the user's home, which can miss what was installed
        since and forgets which distribution an entry point is of.
        """

        def list_entry_points(self) -> list[EntryPoint]:
            return [entry]

    def failed(_manager: Any, entry: EntryPoint, error: BaseException) -> None:
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


def _load_error(target: str, error: BaseException) -> ProviderLoadError:
    missing = f": no module {error.name!r}" if isinstance(error, ModuleNotFoundError) else ""
    return ProviderLoadError(
        f"importing the driver {target} failed with {type(error).__name__}{missing}",
        remedy="reinstall its package with what it needs",
    )


def _checked(scheme: str, loaded: Any, entry: EntryPoint) -> type[KeyDriver]:
    if not (isinstance(loaded, type) and issubclass(loaded, KeyDriver)):
        raise ProviderLoadError(
            f"{entry.value} is not a KeyDriver", remedy="report it to the driver's author"
        )
    if loaded.scheme != scheme:
        raise ProviderLoadError(
            f"{entry.value} is registered for {scheme!r} and says {loaded.scheme!r}",
            remedy="report it to the driver's author",
        )
    return loaded


def _not_found(scheme: str, installed: list[str]) -> ProviderNotFound:
    import difflib

    if scheme in PACKAGES:
        remedy = f"pip install {PACKAGES[scheme]}"
    elif near := difflib.get_close_matches(scheme, [*installed, *PACKAGES], n=1):
        remedy = f"did you mean {near[0]!r}?"
    else:
        remedy = f"installed: {', '.join(installed) or 'none'}"
    return ProviderNotFound(f"no driver for {scheme!r}", remedy=remedy)


def _provider(entry: EntryPoint) -> Provider:
    distribution = entry.dist
    return Provider(
        scheme=entry.name,
        target=entry.value,
        distribution=distribution.name if distribution else "",
        version=distribution.version if distribution else "",
    )
