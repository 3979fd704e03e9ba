"""Index keys: 32 random bytes each, kept in the configuration as messages of a profile of their own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any, Final

from kmsbridge import config
from kmsbridge.atomic import PathLike
from kmsbridge.cipher import Decryptor, Encryptor, EnvelopeCipher
from kmsbridge.cipher.base import from_profile
from kmsbridge.errors import ConfigError, discreet, quoted
from kmsbridge.message import armor
from kmsbridge.secretvalue import SecretValue

LENGTH: Final = 32
"""Bytes of an index key."""
AAD: Final = b"kmsbridge/v1/index-key"
"""The aad of the message of an index key, beside the context `index` = its name in the configuration."""


@discreet
def new_index_key(cipher: Encryptor | EnvelopeCipher, name: str) -> str:
    """Return a new index key as an armored message, for `keys` in the configuration's table `[indexes.NAME]`.

    `kmsbridge index new` does the same. Raises what `cipher.encrypt` raises.
    """
    return armor(cipher.encrypt(os.urandom(LENGTH), context={"index": name}, aad=AAD))


@discreet
def index_keys(
    name: str,
    configuration: PathLike | Mapping[str, Any] | None = None,
    *,
    env: Mapping[str, str] | None = None,
) -> list[SecretValue]:
    """Return the keys of the index `name` of a configuration, in its order.

    `configuration` is a file, or a mapping that holds what a file would; None is the file that
    `Decryptor.from_config()` would read. The keys are decrypted by the profile that the index names: calls to its
    key services. Raises `ConfigError`, `RoleError` where that profile does not decrypt, `AuthenticationError` where
    a message is not a key of this index, and `KmsError`.
    """
    found = config.load_index(name, configuration, env=env)
    with from_profile(Decryptor, found.profile) as decryptor, contextlib.ExitStack() as undo:
        keys = []
        for message in found.keys:
            key = decryptor.decrypt_secret(message, context={"index": name}, aad=AAD)
            undo.callback(key.close)
            keys.append(key)
        if any(key.use(len) != LENGTH for key in keys):
            raise ConfigError(
                f"a key of the index {quoted(name)} does not have {LENGTH} bytes",
                remedy="use what 'kmsbridge index new' prints",
            )
        undo.pop_all()
    return keys
