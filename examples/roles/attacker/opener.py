"""Tries keys on messages. It is written from the description of the format, without the library's ciphers.

A message commits to its data key, so that one HMAC tells whether 32 bytes are that key. What is derived from a data key
opens messages as well: the key of XAES, and the AES key that it gives for one prefix of nonces.
"""

from __future__ import annotations

import hmac
import operator
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from examples.roles.attacker.search import KEY
from examples.roles.customers import Place, Values
from kmsbridge.cipher.aad import as_aad
from kmsbridge.context import EncryptionContext
from kmsbridge.message import parse_header

STARTS: Final = (b"+1 555", b"sk_live")
"""The first bytes of phone numbers and of API keys, which an attacker knows."""

_PREFIX: Final = 12
_NONCE: Final = 24
_BLOCK: Final = 16
_ZEROS: Final = bytes(max(map(len, STARTS)))
"""A plaintext whose encryption is the key stream."""
_FIRST: Final = 0x00015800 << 96
_SECOND: Final = 0x00025800 << 96
"""The first four bytes of the two blocks from which XAES derives an AES key."""


class _Message(NamedTuple):
    """A message that is attacked: where it stands, and its parts."""

    name: str
    info: bytes
    commitment: bytes
    prefix: int
    nonce: bytes
    encrypted: bytes
    aad: bytes
    streams: tuple[bytes, ...]
    """The beginning of the key stream if the value is a phone number, and if it is an API key."""

    @classmethod
    def of(cls, place: Place, message: bytes) -> _Message:
        """Take a compact message apart."""
        header = parse_header(message)
        canonical = EncryptionContext.of(place.context).canonical()
        info = b"kmsbridge/v1/compact\0" + len(canonical).to_bytes(4) + canonical + b"\1"
        start = header.length
        prefix, nonce = message[start : start + _PREFIX], message[start + _PREFIX : start + _NONCE]
        encrypted = message[start + _NONCE :]
        streams = tuple(bytes(map(operator.xor, each, encrypted)) for each in STARTS)
        name, aad = f"{place.id}/{place.column}", as_aad(place.aad)
        return cls(name, info, header.commitment, int.from_bytes(prefix), nonce, encrypted, aad, streams)

    def is_opened_by(self, aes_key: bytes) -> bool:
        """Return whether the key decrypts the body."""
        try:
            AESGCM(aes_key).decrypt(self.nonce, self.encrypted, self.aad)
        except InvalidTag:
            return False
        return True


class Opener:
    """Tries keys on the messages of a database, each key once."""

    def __init__(self, messages: Values) -> None:
        self._messages = [_Message.of(place, message) for place, message in messages.items()]
        self._counters = b"".join(each.nonce + b"\0\0\0\2" for each in self._messages)
        self._opened: dict[bytes, set[str]] = {}

    def open(self, keys: Iterable[bytes]) -> set[str]:
        """Return the names of the messages that any of these 32 bytes open, as whichever kind of key."""
        found: set[str] = set()
        for key in keys:
            if len(key) == KEY:
                if key not in self._opened:
                    self._opened[key] = self._as_data_key(key) | self._as_derived(key)
                found |= self._opened[key]
        return found

    def _as_data_key(self, key: bytes) -> set[str]:
        derived = {info: hmac.digest(key, info, "sha512") for info in {each.info for each in self._messages}}
        return {
            each.name
            for each in self._messages
            if derived[each.info][KEY:] == each.commitment
            and each.is_opened_by(_aes_keys(_block_cipher(derived[each.info][:KEY]), [each.prefix])[0])
        }

    def _as_derived(self, key: bytes) -> set[str]:
        """Try it as the AES key of one prefix, and as the XAES key that such keys are derived from."""
        encrypt = _block_cipher(key)
        streams = encrypt(self._counters)
        found = {
            each.name
            for number, each in enumerate(self._messages)
            if streams[_BLOCK * number : _BLOCK * (number + 1)].startswith(each.streams)
            and each.is_opened_by(key)
        }
        aes_keys = _aes_keys(encrypt, [each.prefix for each in self._messages])
        for each, aes_key in zip(self._messages, aes_keys, strict=True):
            stream = AESGCM(aes_key).encrypt(each.nonce, _ZEROS, None)
            if stream.startswith(each.streams) and each.is_opened_by(aes_key):
                found.add(each.name)
        return found


def _block_cipher(key: bytes) -> Callable[[bytes], bytes]:
    return Cipher(algorithms.AES256(key), modes.ECB()).encryptor().update


def _aes_keys(encrypt: Callable[[bytes], bytes], prefixes: list[int]) -> list[bytes]:
    """Return the AES keys that XAES derives for these prefixes of nonces; `encrypt` encrypts blocks with its key."""
    doubled = int.from_bytes(encrypt(bytes(_BLOCK))) << 1
    mask = (doubled & (1 << 128) - 1) ^ (0x87 if doubled >> 128 else 0)
    blocks = [(start | prefix) ^ mask for prefix in prefixes for start in (_FIRST, _SECOND)]
    keys = encrypt(b"".join([block.to_bytes(_BLOCK) for block in blocks]))
    return [keys[start : start + KEY] for start in range(0, len(keys), KEY)]
