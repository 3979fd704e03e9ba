"""The Cloud KMS emulator, from plugins/gcp-emulator."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Final

import kmsbridge_gcp_emulator

_KEY: Final = "projects/demo/locations/global/keyRings/demo/cryptoKeys/app"


class Emulator:
    """One emulator, with a key for trying things out."""

    name: ClassVar[str] = "gcp"

    def __init__(self, folder: Path) -> None:
        self._running: kmsbridge_gcp_emulator.Emulator | None = None

    def start(self) -> dict[str, str]:
        """Start it, and return its `endpoint` and the `configuration` of a key in it."""
        self._running = kmsbridge_gcp_emulator.Emulator.start(_KEY)
        endpoint = self._running.endpoint
        lines = [
            "[keys.gcp]",
            f'uri = "gcp-kms://{_KEY}"',
            f'endpoint = "{endpoint}"',
            "insecure = true",
            "",
            "[profiles.gcp]",
            'encrypt_to = ["gcp"]',
            'decrypt_with = ["gcp"]',
        ]
        return {"endpoint": endpoint, "key": _KEY, "configuration": "\n".join(lines) + "\n"}

    def close(self) -> None:
        """End it. May be called twice."""
        if self._running is not None:
            self._running.close()
            self._running = None
