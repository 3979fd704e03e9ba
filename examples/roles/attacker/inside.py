"""Code that an attacker runs inside an application's process: it uses the objects that it finds there."""

from __future__ import annotations

import contextlib
import gc
from typing import Any

from examples.roles.customers import Place, Values
from kmsbridge import Decryptor, KmsBridgeError
from kmsbridge.cipher.aad import as_aad
from kmsbridge.context import EncryptionContext
from kmsbridge.datakeys.datakey import DataKey
from kmsbridge.driver import KeyDriver, WrappedKey
from kmsbridge.message import parse_header
from kmsbridge.secret import Secret


def attack(messages: Values) -> dict[str, list[str]]:
    """Return the places whose values the process can decrypt, and the secrets in it, in hex."""
    objects = gc.get_objects()
    opened = [
        f"{place.id}/{place.column}"
        for place, message in messages.items()
        if _is_opened(objects, place, message)
    ]
    secrets = {each.reveal().hex() for each in objects if isinstance(each, Secret)}
    for place, message in messages.items():
        secrets |= _unwrapped([each for each in objects if isinstance(each, KeyDriver)], place, message)
    return {"opened": opened, "secrets": sorted(secrets)}


def _is_opened(objects: list[Any], place: Place, message: bytes) -> bool:
    header = parse_header(message)
    for each in objects:
        with contextlib.suppress(KmsBridgeError):
            if isinstance(each, DataKey) and each.commits_to(header):
                each.decrypt(message, header.length, as_aad(place.aad))
                return True
            if isinstance(each, Decryptor):
                each.decrypt(message, context=place.context, aad=place.aad)
                return True
    return False


def _unwrapped(drivers: list[KeyDriver], place: Place, message: bytes) -> set[str]:
    found = set()
    context = EncryptionContext.of(place.context).with_reserved(kmsbridge="dek")
    for driver in drivers:
        for recipient in parse_header(message).recipients:
            with contextlib.suppress(Exception):  # a driver raises what its client raises
                wrapped = WrappedKey(recipient.key_id, recipient.key_version, recipient.wrapped)
                found.add(driver.unwrap(wrapped, context, timeout=5).hex())
    return found
