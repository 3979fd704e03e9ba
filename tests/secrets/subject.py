"""A program that uses data keys and then rests, for another process to read its memory.

It reads one JSON object, the job, from standard input. It stops itself (SIGSTOP) when all data keys are in use, and
again when they should be gone; between the two it runs on when it is told to (SIGCONT).
"""

import json
import os
import signal
import sys
import threading
import time

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kmsbridge import EnvelopeCipher
from kmsbridge.driver import Capability, ErrorKind, KeyDescription, KeyDriver, KeyState, WrappedKey
from kmsbridge.errors import AuthenticationError
from kmsbridge.policy import DataKeyPolicy

RESTS = 2.0
"""Seconds that a data key has been too old for when the memory is read."""
CHUNKED = 70_000
"""The length in bytes of a payload whose message has a chunked body."""


class KeepsNothing(KeyDriver):
    """Wraps in one call of AES-GCM, on the library's threads, as drivers of key services are called."""

    scheme = "keeps-nothing"
    capabilities = frozenset({Capability.BINDS_CONTEXT})
    max_plaintext = 4096

    def __init__(self, key):
        self._cipher = AESGCM(key)

    @classmethod
    def open(cls, uri, options):
        raise NotImplementedError

    def resolve(self, *, timeout):
        return "keeps-nothing:app"

    def wrap(self, plaintext, context, *, timeout):
        nonce = os.urandom(12)
        sealed = self._cipher.encrypt(nonce, plaintext, context.canonical())
        return WrappedKey("keeps-nothing:app", "", nonce + sealed)

    def unwrap(self, wrapped, context, *, timeout):
        nonce, sealed = wrapped.ciphertext[:12], wrapped.ciphertext[12:]
        try:
            return self._cipher.decrypt(nonce, sealed, context.canonical())
        except InvalidTag:
            raise AuthenticationError from None

    def describe(self, *, timeout):
        return KeyDescription("keeps-nothing:app", KeyState.ENABLED)

    def classify(self, error, operation):
        return ErrorKind.INVALID_REQUEST

    def policy(self, role):
        return ""

    def close(self):
        pass


def open_cipher(job):
    """The cipher that the job names: of one key, by its URI and options, or by the bytes of one in this program."""
    if job["key"]:
        driver = KeepsNothing(bytes.fromhex(job["key"]))
        return EnvelopeCipher(
            encrypt_to=[driver], decrypt_with=[driver], data_keys=DataKeyPolicy(**job["data_keys"])
        )
    return EnvelopeCipher.from_uri(job["uri"], **job["options"], data_keys=job["data_keys"])


def contexts(count):
    """The contexts, each with a data key of its own."""
    return [{"number": str(number)} for number in range(count)]


def payload(number):
    """A message's plaintext: one of four is long enough for a chunked body."""
    return b"x" * (CHUNKED if number % 4 == 0 else 100)


def encrypt(cipher, job):
    """Encrypt a message for each context, and leave them in the job's file."""
    messages = [
        cipher.encrypt(payload(n), context=context) for n, context in enumerate(contexts(job["count"]))
    ]
    with open(job["file"], "w", encoding="ascii") as file:
        file.writelines(message.hex() + "\n" for message in messages)


def decrypt(cipher, job):
    """Decrypt the messages of the job's file."""
    with open(job["file"], encoding="ascii") as file:
        messages = [bytes.fromhex(line) for line in file]
    for message, context in zip(messages, contexts(job["count"]), strict=True):
        cipher.decrypt(message, context=context)


def be_busy(cipher):
    """Go on with contexts of its own."""
    for number in range(10**9):
        context = {"busy": str(number % 50)}
        cipher.decrypt(cipher.encrypt(payload(number), context=context), context=context)
        time.sleep(0.005)


def main():
    """Do the job."""
    job = json.loads(sys.stdin.readline())
    cipher = open_cipher(job)
    if job["uri"].startswith("memory:"):
        from kmsbridge.drivers.memory.driver import _keys

        # The key that wraps, which is not looked for: no other process could find out what the data keys are.
        ((key_id, secret),) = _keys.values()
        print(json.dumps([key_id, secret.reveal().hex()]), flush=True)
    for does in job["does"]:
        {"encrypt": encrypt, "decrypt": decrypt}[does](cipher, job)
    if job["busy"]:
        threading.Thread(target=be_busy, args=(cipher,), daemon=True).start()
    os.kill(os.getpid(), signal.SIGSTOP)
    if job["closes"]:
        cipher.close()
        time.sleep(0.2)
    else:
        time.sleep(job["data_keys"].get("max_age", 0) + RESTS)
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)


if __name__ == "__main__":
    main()
