"""The grammar of Cloud KMS's resource names, for the driver and the emulator."""

from __future__ import annotations

import re
from typing import Final

from kmsbridge.driver import KeyURI
from kmsbridge.errors import ConfigError

_PROJECT: Final = r"projects/(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9.:_-]{0,99}"
LOCATION: Final = re.compile(_PROJECT + r"/locations/[a-zA-Z0-9-]{1,63}", re.ASCII)
KEY_RING: Final = re.compile(LOCATION.pattern + r"/keyRings/[\w-]{1,63}", re.ASCII)
KEY: Final = re.compile(KEY_RING.pattern + r"/cryptoKeys/[\w-]{1,63}", re.ASCII)
NUMBER: Final = re.compile(r"[1-9]\d{0,17}", re.ASCII)
VERSION: Final = re.compile(KEY.pattern + r"/cryptoKeyVersions/" + NUMBER.pattern, re.ASCII)
ID: Final = re.compile(r"[\w-]{1,63}", re.ASCII)

VERSIONS: Final = "/cryptoKeyVersions/"


def key_of(name: str) -> str:
    """Return the key's name in the name of a key or of a version."""
    return name.partition(VERSIONS)[0]


def key_name(uri: KeyURI) -> tuple[str, str]:
    """Return the key's name and the version's number in `uri`; "" if it names no version. Raises `ConfigError`."""
    uri.parameters()
    if uri.fragment:
        raise ConfigError(
            "a gcp-kms URI has a part after '#'",
            remedy="write gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K",
        )
    if not (KEY.fullmatch(uri.path) or VERSION.fullmatch(uri.path)):
        raise ConfigError(
            "a gcp-kms URI does not name a key of Cloud KMS",
            remedy="write gcp-kms://projects/P/locations/L/keyRings/R/cryptoKeys/K; "
            "R and K are 1 to 63 of A-Z a-z 0-9 _ -",
        )
    return key_of(uri.path), uri.path.partition(VERSIONS)[2]
