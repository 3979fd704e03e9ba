"""Random payloads, contexts and aads, and the ways in which the library writes and reads them."""

import io
import json

from kmsbridge import EnvelopeCipher
from tests.vectors import casebook

LETTERS = "abcABC 0189:=/\0\n\x7fäßŁЖ目🦊\ufffd"
EDGES = (0, 1, 31, 32, 16383, 16384, 16385, 65535, 65536, 65537)


class Case:
    """What one message holds and is bound to."""

    def __init__(self, rng, contexts):
        length = rng.choice(EDGES) if rng.random() < 0.02 else rng.randrange(200)
        self.is_text = rng.random() < 0.3
        self.payload = word(rng, length // 4).encode() if self.is_text else rng.randbytes(length)
        self.context = rng.choice(contexts)
        self.aad = b"" if rng.random() < 0.3 else rng.randbytes(rng.choice((1, 14, 100)))
        self.binding = {"context": self.context, "aad": self.aad}


def word(rng, length):
    """Text in several scripts."""
    return "".join(rng.choices(LETTERS, k=length))


def some_contexts(rng, count):
    """Different contexts of 0 to 5 pairs."""
    return [
        {word(rng, 9): word(rng, 1 + rng.randrange(30)) for _ in range(rng.randrange(6))}
        for _ in range(count)
    ]


def open_cipher(folder):
    """A cipher that encrypts to our first key, and decrypts with both."""
    path = folder / "keys.json"
    path.write_text(json.dumps(casebook.KEY_FILE))
    path.chmod(0o600)
    return EnvelopeCipher.from_uri(f"local:{path}#app", decrypt_uris=[f"local:{path}#other"])


def written(cipher, case, rng):
    """The message, and whether it should be compact: all are but streams and long payloads."""
    way = rng.randrange(4)
    if way == 0:
        message = io.BytesIO()
        cipher.encrypt_stream(io.BytesIO(case.payload), message, **case.binding)
        return message.getvalue(), False
    compact = len(case.payload) <= casebook.MOST
    if way == 1 and case.is_text:
        return cipher.encrypt_text(case.payload.decode(), **case.binding), compact
    if way == 2:
        (message,) = cipher.encrypt_many([case.payload], context=case.context, aads=[case.aad])
        return message, compact
    return cipher.encrypt(case.payload, **case.binding), compact


def read(cipher, message, case, rng):
    """The plaintext; `message` is text where it is armored."""
    if isinstance(message, str):
        return cipher.decrypt_text(message, **case.binding).encode()
    way = rng.randrange(4)
    if way == 0:
        plaintext = io.BytesIO()
        cipher.decrypt_stream(io.BytesIO(message), plaintext, **case.binding)
        return plaintext.getvalue()
    if way == 1:
        (payload,) = cipher.decrypt_many([message], context=case.context, aads=[case.aad])
        return payload
    if way == 2:
        with cipher.open(io.BytesIO(message), **case.binding) as file:
            return file.read()
    return cipher.decrypt(message, **case.binding)
