"""The grammar of Cloud KMS's resource names, which the driver and the emulator hold names to."""

from __future__ import annotations

import re
from typing import Final

_PROJECT: Final = r"projects/(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9.:_-]{0,99}"
LOCATION: Final = re.compile(_PROJECT + r"/locations/[a-zA-Z0-9-]{1,63}", re.ASCII)
KEY_RING: Final = re.compile(LOCATION.pattern + r"/keyRings/[\w-]{1,63}", re.ASCII)
KEY: Final = re.compile(KEY_RING.pattern + r"/cryptoKeys/[\w-]{1,63}", re.ASCII)
VERSION: Final = re.compile(KEY.pattern + r"/cryptoKeyVersions/[1-9]\d{0,17}", re.ASCII)
ID: Final = re.compile(r"[\w-]{1,63}", re.ASCII)

VERSIONS: Final = "/cryptoKeyVersions/"


def key_of(name: str) -> str:
    """The key's name, of a key's or of one of its versions'."""
    return name.partition(VERSIONS)[0]
