"""The life of data keys: made, wrapped, shared by many messages of one context, dropped.

What serves decrypting is imported from its own module: a host that encrypts needs none of it.
"""

from kmsbridge.datakeys.cache import KeyCache, Pairs, context_key
from kmsbridge.datakeys.datakey import DataKey, data_key_context
from kmsbridge.datakeys.encryption import EncryptionKeys
from kmsbridge.datakeys.flight import Flight, SingleFlight
from kmsbridge.datakeys.usage import usage_reporter

__all__ = [
    "DataKey",
    "EncryptionKeys",
    "Flight",
    "KeyCache",
    "Pairs",
    "SingleFlight",
    "context_key",
    "data_key_context",
    "usage_reporter",
]
