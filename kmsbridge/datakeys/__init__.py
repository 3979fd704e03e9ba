"""The life of data keys: made, wrapped, shared by many messages of one context, dropped."""

from kmsbridge.datakeys.cache import CachedKey, KeyCache, Pairs, data_key_context, name_of
from kmsbridge.datakeys.decryption import DecryptionKeys, Outcomes, without_padding
from kmsbridge.datakeys.encryption import EncryptionKeys
from kmsbridge.datakeys.flight import Flight, SingleFlight
from kmsbridge.datakeys.rewrapping import rewrapped_by_service
from kmsbridge.datakeys.trail import told_call, told_of_messages

__all__ = [
    "CachedKey",
    "DecryptionKeys",
    "EncryptionKeys",
    "Flight",
    "KeyCache",
    "Outcomes",
    "Pairs",
    "SingleFlight",
    "data_key_context",
    "name_of",
    "rewrapped_by_service",
    "told_call",
    "told_of_messages",
    "without_padding",
]
