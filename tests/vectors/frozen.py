"""The frozen cases, as the tests read them."""

import base64
import contextlib
import hashlib
import json

from kmsbridge import (
    AuthenticationError,
    ConfigError,
    KmsBridgeError,
    KmsKeyDisabled,
    KmsKeyNotFound,
    KmsUnauthenticated,
    LimitExceeded,
    MalformedMessage,
    MessageError,
    NoMatchingKey,
    UnsupportedMessage,
)
from kmsbridge import message as wire
from tests.vectors import make

OUTCOMES: dict[str, type[KmsBridgeError]] = {
    "malformed-message": MalformedMessage,
    "unsupported-message": UnsupportedMessage,
    "authentication-error": AuthenticationError,
    "no-matching-key": NoMatchingKey,
    "key-version-not-found": KmsKeyNotFound,
    "key-disabled": KmsKeyDisabled,
    "wrong-passphrase": KmsUnauthenticated,
    "invalid-context": ConfigError,
    "limit-exceeded": LimitExceeded,
}
FILES = sorted(make.CASES.glob("*.json"))
CASES = {path.stem: json.loads(path.read_text()) for path in FILES}


class Case:
    """One case, with its values as bytes."""

    def __init__(self, name):
        self.name, self.data = name, CASES[name]
        self.outcome, self.header = self.data["outcome"], self.data.get("header")
        aad = bytes.fromhex(self.data["aad_hex"]) * self.data.get("aad_repeat", 1)
        self.binding = {"context": self.data["context"], "aad": aad}
        self.armored = self.data.get("armored")

    @property
    def message(self):
        """The bytes; None where the text is not even armor."""
        if self.armored is not None:
            with contextlib.suppress(MessageError):
                return wire.dearmor(self.armored)
            return None
        if "message_hex" in self.data:
            return bytes.fromhex(self.data["message_hex"])
        return base64.b64decode(self.data["message_base64"])

    def check(self, plaintext):
        """Hold a plaintext to what the case says of it."""
        if "plaintext_hex" in self.data:
            assert plaintext.hex() == self.data["plaintext_hex"]
        else:
            assert len(plaintext) == self.data["plaintext_length"]
            assert hashlib.sha256(plaintext).hexdigest() == self.data["plaintext_sha256"]


def opened(cls, case, path):
    """A decryptor of this class with the case's keys, whose file is written to `path`."""
    path.write_text(json.dumps(case.data["key_file"]))
    path.chmod(0o600)
    uris = [f"local:{path}#{name}" for name in case.data["decrypt_with"]]
    options = {"passphrase": case.data["passphrase"]} if "passphrase" in case.data else {}
    if "environment" in case.data:
        options["environment"] = case.data["environment"]
    return cls.from_uri(uris[0], decrypt_uris=uris[1:], **options)
