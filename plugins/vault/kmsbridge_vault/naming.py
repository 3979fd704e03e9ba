"""The server, mount and name of a key: the URL paths made from them, and the ids in messages."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from kmsbridge.driver import KeyURI, Options
from kmsbridge.errors import ConfigError

_KEY: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_INSTANCE: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?")
_CLUSTER_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FORBIDDEN_SEGMENTS: Final = ("", ".", "..", "+")
"""A `+` alone is any segment in a policy."""
_FORBIDDEN_TEXTS: Final = ("{{", "}}", "${")
"""What a policy's language replaces."""
_LONGEST_PATH: Final = 900
"""Characters of namespace, mount and key, escaped, that fit into a key's id with an instance."""


class KeyName(NamedTuple):
    """The name `key` of a key in the engine at `mount`, a path of one or more segments."""

    mount: str
    key: str

    @classmethod
    def of(cls, uri: KeyURI, options: Options) -> KeyName:
        """Return the name in `vault-transit://MOUNT/KEY` and the option `mount_prefix`. Raises `ConfigError`."""
        uri.parameters()
        mount, _, key = uri.path.partition("/")
        if uri.fragment or not _is_segment(mount) or not _KEY.fullmatch(key):
            raise ConfigError(
                "a vault-transit URI is not vault-transit://MOUNT/KEY",
                remedy="write MOUNT and KEY, which has letters, digits, '_', '-' and '.'; "
                "for a mount of several parts, set the option mount_prefix to all but the last",
            )
        prefix = options.text("mount_prefix")
        return cls(path(prefix, f"{options.name}.mount_prefix") + f"/{mount}" if prefix else mount, key)

    def path(self, operation: str) -> str:
        """Return `MOUNT/OPERATION/KEY`."""
        return f"{self.mount}/{operation}/{self.key}"


class KeyId(NamedTuple):
    """What messages name a key by: `INSTANCE:NAMESPACE:MOUNT/KEY` after the scheme, with escapes as in URLs.

    `instance` names the server: a name that the configuration gives it, or its cluster id. It is empty in messages
    of earlier versions, which have `NAMESPACE/MOUNT/KEY`, and do not tell a namespace from a part of a mount.
    """

    instance: str
    namespace: str
    name: str
    """The mount and the key, `MOUNT/KEY`."""

    @classmethod
    def parse(cls, text: str) -> KeyId:
        """Return the id that is `text`, in either form; of any other text, an id that is no key's."""
        parts = text.split(":")
        return cls(*map(unquote, parts)) if len(parts) == len(cls._fields) else cls("", "", text)

    def is_former_id_of(self, other: KeyId) -> bool:
        """Return whether a message that names this id may be of the key `other`.

        The path is the same, and the server may be: its instance is missing or equal, or a cluster id. Those change
        where a cluster is replaced by its replica, or an `instance` is configured. If it is another server after
        all, it refuses the message.
        """
        same_path = "/".join(filter(None, self[1:])) == "/".join(filter(None, other[1:]))
        return same_path and (self.instance in ("", other.instance) or is_cluster_id(self.instance))

    def __str__(self) -> str:
        return ":".join(map(quote, self))


def is_cluster_id(text: str) -> bool:
    """Return whether a server may have made up `text` as the id of its cluster."""
    return bool(_CLUSTER_ID.fullmatch(text))


def instance(options: Options) -> str:
    """Return the option `instance`, or "". Raises `ConfigError`."""
    text = options.text("instance", "")
    if text and not _INSTANCE.fullmatch(text):
        raise ConfigError(
            f"{options.name}.instance is not a name",
            remedy="write at most 64 letters, digits, '_', '-' and '.', such as vault-eu",
        )
    return text


def path(text: str, option: str) -> str:
    """Return a path of one or more segments, without a slash at its end. Raises `ConfigError`, naming `option`."""
    text = text.removesuffix("/")
    if not all(map(_is_segment, text.split("/"))):
        raise ConfigError(
            f"{option} is not a valid path in Vault",
            remedy="write one or more parts such as team-a/transit, without a slash in front",
        )
    return text


def check_length(key_id: KeyId) -> None:
    """Raise `ConfigError` where namespace, mount and key are too long for an id in a message."""
    if len(str(key_id._replace(instance=""))) > _LONGEST_PATH:
        raise ConfigError(
            f"the namespace, mount and name of a key have more than {_LONGEST_PATH} characters together",
            remedy="use shorter ones: messages name the key by them",
        )


def _is_segment(segment: str) -> bool:
    return (
        segment not in _FORBIDDEN_SEGMENTS
        and "/" not in segment
        and segment.isprintable()
        and segment == segment.strip()
        and not any(text in segment for text in _FORBIDDEN_TEXTS)
    )
