"""Key pairs: made anew, and their seeds wrapped and unwrapped by a key service."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from kmsbridge.context import EMPTY
from kmsbridge.driver import EncryptionContext, Secret, WrappedKey
from kmsbridge.drivers.hpke.document import Pair, seed_context
from kmsbridge.drivers.hpke.publickey import PublicKey, is_name
from kmsbridge.drivers.hpke.suites import SEED_BYTES, Suite
from kmsbridge.errors import AuthenticationError, ConfigError, discreet
from kmsbridge.message import Recipient

Wrap = Callable[[bytes, EncryptionContext], WrappedKey]
"""Wraps a seed by the key service."""
Unwrap = Callable[[WrappedKey, EncryptionContext], bytes]
"""Unwraps a seed by the key service."""

RESTORE: Final = "restore the private file from a backup, or use that of this host's environment"
_PROBE: Final = 32


def new_name(name: str) -> str:
    """Return `NAME@ID` with a random id. Raises `ConfigError` for a name that is not valid."""
    if not is_name(name):
        raise ConfigError(
            "the name is not valid for a key",
            remedy="use 1 to 128 of A-Z a-z 0-9 . _ - beginning with a letter or digit, without '..'",
        )
    return f"{name}@{os.urandom(8).hex()}"


@discreet
def new_pair(
    name: str, suite: Suite, wrap: Wrap, unwrap: Unwrap, *, created: datetime, encrypt_from: datetime
) -> Pair:
    """Return a new pair of the key `NAME@ID`, once its seed was wrapped, unwrapped again and used.

    Raises `ConfigError` where what comes back is not what went there.
    """
    seed = Secret(os.urandom(SEED_BYTES))
    _, data = suite.load_private(seed)
    public_key = PublicKey.of(name, suite, data)
    wrapped = wrap(seed.reveal(), seed_context(public_key))
    pair = Pair(public_key, Recipient(*wrapped), created, encrypt_from)
    private_key, probe = open_pair(pair, unwrap), os.urandom(_PROBE)
    ciphertext = public_key.wrap(probe, EMPTY)
    if suite.decrypt(ciphertext, private_key, public_key.info(EMPTY)) != probe:
        raise _wrong_seed(pair)
    return pair


@discreet
def open_pair(pair: Pair, unwrap: Unwrap) -> Any:
    """Return the private key of `pair`, whose seed `unwrap` returns.

    Raises `ConfigError` where the seed is not that of the pair's public key.
    """
    try:
        seed = Secret(unwrap(WrappedKey(*pair.seed), seed_context(pair.public_key)))
    except AuthenticationError:
        seed = None
    if seed is None or len(seed.reveal()) != SEED_BYTES:
        raise _wrong_seed(pair)
    private_key, data = pair.public_key.suite.load_private(seed)
    if data != pair.public_key.data:
        raise _wrong_seed(pair)
    return private_key


def _wrong_seed(pair: Pair) -> ConfigError:
    return ConfigError(
        f"the seed of version {pair.public_key.version} of {pair.public_key.key_id} is not that of its public key, "
        "or was changed",
        remedy=RESTORE,
    )
