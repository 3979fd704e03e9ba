"""`python -m kmsbridge.testing.opener`: opens one message in a process of its own, for the contract suite.

On standard input a JSON object: the key's `uri` and `options`, the armored `message`, its `context`, and
`driver`, `module:class` where it has no entry point. On standard output the SHA-256 of the plaintext.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import sys

from kmsbridge import EnvelopeCipher
from kmsbridge.message import dearmor
from kmsbridge.testing.install import installed


def main() -> None:
    """Read, decrypt, print."""
    asked = json.load(sys.stdin)
    with contextlib.ExitStack() as end:
        if asked["driver"]:
            module, _, name = asked["driver"].partition(":")
            end.enter_context(installed(getattr(importlib.import_module(module), name)))
        cipher = end.enter_context(EnvelopeCipher.from_uri(asked["uri"], **asked["options"]))
        plaintext = cipher.decrypt(dearmor(asked["message"]), context=asked["context"])
    print(hashlib.sha256(plaintext).hexdigest())  # noqa: T201 - that is what it is for


if __name__ == "__main__":
    main()
