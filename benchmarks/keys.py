"""The local key that everything here is measured with."""

from __future__ import annotations

import os

from kmsbridge.drivers.local.keyfile import KeyFile


def uri(folder: str) -> str:
    """The URI of a key in `folder`, which is made where it is not there yet."""
    path = os.path.join(folder, "keys.json")
    if not os.path.exists(path):
        KeyFile.create(path, "bench")
    return f"local:{path}#bench"
