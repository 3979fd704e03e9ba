"""`python -m kmsbridge_testing.opener`: opens a key, and decrypts a message, in a new process for the suite.

It reads a JSON object from standard input: the key's `uri` and `options`; `driver`, which is `module:class`, or
empty if the driver has an entry point; the armored `message`, which may be empty, and its `context`. It writes a
JSON object to standard output: `imported`, the names of the modules that opening the key imported, and, if there is
a message, the `sha256` of its plaintext in hex.
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
    """Run the command."""
    answer: dict[str, Any]
    request = json.load(sys.stdin)
    with contextlib.ExitStack() as end:
        if request["driver"]:
            module, _, name = request["driver"].partition(":")
            end.enter_context(installed(getattr(importlib.import_module(module), name)))
        cipher = end.enter_context(EnvelopeCipher.from_uri(request["uri"], **request["options"]))
        answer = {"imported": sorted(sys.modules)}
        if request["message"]:
            plaintext = cipher.decrypt(dearmor(request["message"]), context=request["context"])
            answer["sha256"] = hashlib.sha256(plaintext).hexdigest()
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
