"""Key URIs: `scheme:path` or `scheme://path`, then `?query` and `#fragment`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from kmsbridge.errors import ConfigError

MAX_LENGTH: Final = 2048
SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_USER_INFO = re.compile(r"\A[^/]*:.*@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class KeyURI(NamedTuple):
    """Where a key lives. Holds names only: a secret never belongs into a URI.

    `path` is what follows `scheme:` or `scheme://` up to `?` or `#`, percent-decoded, as is
    `fragment`; `query` maps each parameter to its one value. `str()` gives the scheme and path, the
    fragment, and the *names* of the query's parameters, so that a value pasted there by mistake
    does not travel into a log; nor does what looks like `user:password@`.
    """

    scheme: str
    path: str
    query: Mapping[str, str]
    fragment: str = ""
    slashes: bool = False

    @classmethod
    def parse(cls, text: str) -> KeyURI:
        """Parse; raises `ConfigError` that says what is wrong, without quoting a query's values."""
        if not isinstance(text, str):
            raise TypeError(f"a key URI must be str, not {type(text).__name__}")
        if len(text) > MAX_LENGTH:
            raise ConfigError(f"a key URI of {len(text)} characters", remedy=f"use at most {MAX_LENGTH}")
        scheme, colon, rest = text.partition(":")
        if not colon or not SCHEME.fullmatch(scheme):
            raise ConfigError(
                "a key URI does not begin with a scheme",
                remedy="write a scheme and what names the key there, as in local:keys.json#app",
            )
        rest, _, fragment = rest.partition("#")
        path, mark, query = rest.partition("?")
        if path.startswith("//") and "@" in path[2:].partition("/")[0]:
            raise ConfigError(
                f"a {scheme} URI has a user or password in front of an '@'",
                remedy="remove it: a secret never belongs into a URI; write an '@' in a name as %40",
            )
        return cls(
            scheme=scheme,
            path=_decode(scheme, "path", path.removeprefix("//")),
            query=_parse_query(scheme, query) if mark else MappingProxyType({}),
            fragment=_decode(scheme, "fragment", fragment),
            slashes=path.startswith("//"),
        )

    def parameters(self, *known: str) -> Mapping[str, str]:
        """The query, in which nothing but `known` may stand; raises `ConfigError` for what else does."""
        for name in self.query:
            if name not in known:
                import difflib

                near = difflib.get_close_matches(name, known, n=1)
                raise ConfigError(
                    f"a {self.scheme} URI has the unknown parameter {name[:64]!r}",
                    remedy=f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known) or 'none'}",
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


def _decode(scheme: str, part: str, text: str) -> str:
    try:
        if "%" in text:
            from urllib.parse import unquote

            text = unquote(text, errors="strict")
        return _checked(scheme, part, text)
    except UnicodeError:
        raise ConfigError(
            f"the {part} of a {scheme} URI is not UTF-8", remedy="check its %XX escapes"
        ) from None


def _checked(scheme: str, part: str, decoded: str) -> str:
    decoded.encode()
    if _CONTROL.search(decoded):
        raise ConfigError(
            f"the {part} of a {scheme} URI has a control character",
            remedy="remove it; no key service uses one in a key's name",
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
            f"the query of a {scheme} URI is not name=value&name=value", remedy="check the part after '?'"
        ) from None
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise ConfigError(f"a parameter of a {scheme} URI is given twice", remedy="keep one of them")
    return MappingProxyType(parameters)
