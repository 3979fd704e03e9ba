"""Key URIs: `scheme:path` or `scheme://path`, then `?query` and `#fragment`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NoReturn

from kmsbridge.errors import ConfigError

MAX_LENGTH: Final = 2048
SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_USER_INFO = re.compile(r"\A[^/]*:.*@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class KeyURI:
    """The parsed URI of a key. A URI holds names only: secrets do not belong in it.

    `path` is the part after `scheme:` or `scheme://` and before `?` or `#`, percent-decoded like
    `fragment`. `query` maps each parameter's name to its value. `str()` shows the scheme, path and
    fragment, but only the *names* of the query's parameters, and masks `user:password@`, so that a secret
    pasted there by mistake does not get into a log.
    """

    # No tuple and no dataclass: loggers that write JSON would take the values of the query out of either.
    __slots__ = ("fragment", "path", "query", "scheme", "slashes")

    fragment: str
    path: str
    query: Mapping[str, str]
    scheme: str
    slashes: bool

    def __init__(
        self, scheme: str, path: str, query: Mapping[str, str], fragment: str = "", slashes: bool = False
    ) -> None:
        for name, value in zip(self.__slots__, (fragment, path, query, scheme, slashes), strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a KeyURI cannot be changed: {name}")

    @classmethod
    def parse(cls, text: str) -> KeyURI:
        """Parse a key URI of at most 2048 characters.

        Raises `ConfigError`, which says what is wrong and quotes no value of the query.
        """
        if not isinstance(text, str):
            raise TypeError(f"a key URI must be str, not {type(text).__name__}")
        if len(text) > MAX_LENGTH:
            raise ConfigError(
                f"a key URI has {len(text)} characters, more than {MAX_LENGTH}", remedy="use a shorter one"
            )
        scheme, colon, rest = text.partition(":")
        if not colon or not SCHEME.fullmatch(scheme):
            raise ConfigError(
                "a key URI does not begin with a scheme",
                remedy="write a scheme, a colon and the key's name, as in local:keys.json#app",
            )
        rest, _, fragment = rest.partition("#")
        path, mark, query = rest.partition("?")
        if path.startswith("//") and "@" in path[2:].partition("/")[0]:
            raise ConfigError(
                f"a {scheme} URI has a user or password before an '@'",
                remedy="remove it, because secrets do not belong in a URI; write an '@' in a name as %40",
            )
        return cls(
            scheme=scheme,
            path=_decode(scheme, "path", path.removeprefix("//")),
            query=_parse_query(scheme, query) if mark else MappingProxyType({}),
            fragment=_decode(scheme, "fragment", fragment),
            slashes=path.startswith("//"),
        )

    def parameters(self, *known: str) -> Mapping[str, str]:
        """Return the query. Raises `ConfigError` where it has a parameter that is not in `known`."""
        for name in self.query:
            if name not in known:
                import difflib

                near = difflib.get_close_matches(name, known, n=1)
                raise ConfigError(
                    f"a {self.scheme} URI has the unknown parameter {name[:64]!r}",
                    remedy=f"did you mean {near[0]!r}?"
                    if near
                    else f"valid parameters: {', '.join(known) or 'none'}",
                )
        return self.query

    def __str__(self) -> str:
        query = "&".join(f"{name}=..." for name in self.query)
        path = "//" + _USER_INFO.sub("***@", self.path) if self.slashes else self.path
        return (
            f"{self.scheme}:{path}"
            + (f"?{query}" if query else "")
            + (f"#{self.fragment}" if self.fragment else "")
        )

    def __repr__(self) -> str:
        return str(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KeyURI):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # its query is a mapping


def _decode(scheme: str, part: str, text: str) -> str:
    try:
        if "%" in text:
            from urllib.parse import unquote

            text = unquote(text, errors="strict")
        return _checked(scheme, part, text)
    except UnicodeError:
        raise ConfigError(
            f"the {part} of a {scheme} URI is not valid UTF-8", remedy="check its %XX escapes"
        ) from None


def _checked(scheme: str, part: str, decoded: str) -> str:
    decoded.encode()
    if _CONTROL.search(decoded):
        raise ConfigError(
            f"the {part} of a {scheme} URI has a control character",
            remedy="remove it; no key service has such characters in a key's name",
        )
    return decoded


def _parse_query(scheme: str, query: str) -> Mapping[str, str]:
    from urllib.parse import parse_qsl

    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
        for name, value in pairs:
            _checked(scheme, "query", name + value)
    except ValueError:
        raise ConfigError(
            f"the query of a {scheme} URI is not of the form name=value&name=value",
            remedy="check the part after '?'",
        ) from None
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise ConfigError(f"a parameter of a {scheme} URI is given twice", remedy="keep one of them")
    return MappingProxyType(parameters)
