"""The portable API for asyncio: the same three classes, with `await`.

An operation whose data key is at hand is done where it is called, without a thread: it takes
microseconds. Calls to key services, files, and payloads of more than 1 MiB go to a thread.
"""

from __future__ import annotations

from kmsbridge.aio.decryptor import Decryptor
from kmsbridge.aio.encryptor import Encryptor
from kmsbridge.aio.envelope import EnvelopeCipher
from kmsbridge.aio.pulling import EncryptingReader
from kmsbridge.aio.reader import Reader
from kmsbridge.aio.writer import Writer

__all__ = ["Decryptor", "EncryptingReader", "Encryptor", "EnvelopeCipher", "Reader", "Writer"]
