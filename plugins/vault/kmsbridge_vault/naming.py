"""Where a key is: its mount and its name, which go into paths of URLs."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from kmsbridge.driver import KeyURI, Options
from kmsbridge.errors import ConfigError

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,126}[A-Za-z0-9_])?")
_MAX_SEGMENTS: Final = 4


class KeyName(NamedTuple):
    """`key` of the engine at `mount`; `mount` is one segment or several."""

    mount: str
    key: str

    @classmethod
    def of(cls, uri: KeyURI, options: Options) -> KeyName:
        """From `vault-transit://MOUNT/KEY`, and the option `mount_prefix`; raises `ConfigError`."""
        uri.parameters()
        mount, _, key = uri.path.partition("/")
        if uri.fragment or not _SEGMENT.fullmatch(mount) or not _SEGMENT.fullmatch(key):
            raise ConfigError(
                "a vault-transit URI is not vault-transit://MOUNT/KEY",
                remedy="write both of at most 128 letters, digits, '_', '-' and '.', as Vault does; "
                "what stands before the last part of a longer mount is the option mount_prefix",
            )
        prefix = options.text("mount_prefix")
        return cls(path(prefix, f"{options.name}.mount_prefix") + f"/{mount}" if prefix else mount, key)

    def path(self, operation: str) -> str:
        """`MOUNT/OPERATION/KEY`."""
        return f"{self.mount}/{operation}/{self.key}"


def path(text: str, option: str) -> str:
    """A path of one to four segments, without slashes at its ends; raises `ConfigError` for what is none."""
    text = text.removesuffix("/")
    segments = text.split("/")
    if len(segments) > _MAX_SEGMENTS or not all(map(_SEGMENT.fullmatch, segments)):
        raise ConfigError(
            f"{option} is no path of Vault", remedy="write it as in team-a/transit, without a slash in front"
        )
    return text
