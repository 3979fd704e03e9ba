"""`python -m kmsbridge_testing.opener`: opens a key, or a message, in a process of its own, for the suite.

On standard input a JSON object: the key's `uri` and `options`; `driver`, `module:class` where it has no
entry point; the armored `message` (may be empty) and its `context`. On standard output another: the
`sha256` of the plaintext, and `imported`, the names of the modules that opening the key imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import sys
from typing import Any

from kmsbridge import EnvelopeCipher
from kmsbridge.message import dearmor
from kmsbridge.testing.install import installed


def main() -> None:
    """Read, open, decrypt, print."""
    answer: dict[str, Any]
    asked = json.load(sys.stdin)
    with contextlib.ExitStack() as end:
        if asked["driver"]:
            module, _, name = asked["driver"].partition(":")
            end.enter_context(installed(getattr(importlib.import_module(module), name)))
        cipher = end.enter_context(EnvelopeCipher.from_uri(asked["uri"], **asked["options"]))
        answer = {"imported": sorted(sys.modules)}
        if asked["message"]:
            plaintext = cipher.decrypt(dearmor(asked["message"]), context=asked["context"])
            answer["sha256"] = hashlib.sha256(plaintext).hexdigest()
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
