"""The portable API: encrypt and decrypt, whichever service holds the keys."""

from kmsbridge.cipher.decryptor import Decryptor
from kmsbridge.cipher.encryptor import Encryptor
from kmsbridge.cipher.envelope import EnvelopeCipher

__all__ = ["Decryptor", "Encryptor", "EnvelopeCipher"]
