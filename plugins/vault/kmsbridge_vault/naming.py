"""The mount and name of a key, and the URL paths made from them."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from kmsbridge.driver import KeyURI, Options
from kmsbridge.errors import ConfigError

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?")
_MAX_SEGMENTS: Final = 4


class KeyName(NamedTuple):
    """The name `key` of a key in the engine at `mount`, a path of one or more segments."""

    mount: str
    key: str

    @classmethod
    def of(cls, uri: KeyURI, options: Options) -> KeyName:
        """Return the name in `vault-transit://MOUNT/KEY` and the option `mount_prefix`. Raises `ConfigError`."""
        uri.parameters()
        mount, _, key = uri.path.partition("/")
        if uri.fragment or not _SEGMENT.fullmatch(mount) or not _SEGMENT.fullmatch(key):
            raise ConfigError(
                "a vault-transit URI is not vault-transit://MOUNT/KEY",
                remedy="write MOUNT and KEY, each of at most 128 letters, digits, '_', '-' and '.'; "
                "for a mount of several parts, set the option mount_prefix to all but the last",
            )
        prefix = options.text("mount_prefix")
        return cls(path(prefix, f"{options.name}.mount_prefix") + f"/{mount}" if prefix else mount, key)

    def path(self, operation: str) -> str:
        """Return `MOUNT/OPERATION/KEY`."""
        return f"{self.mount}/{operation}/{self.key}"


def path(text: str, option: str) -> str:
    """Return a path of one to four segments, without a slash at its end. Raises `ConfigError`, naming `option`."""
    text = text.removesuffix("/")
    segments = text.split("/")
    if len(segments) > _MAX_SEGMENTS or not all(map(_SEGMENT.fullmatch, segments)):
        raise ConfigError(
            f"{option} is not a valid path in Vault",
            remedy="write one to four parts such as team-a/transit, without a slash in front",
        )
    return text
