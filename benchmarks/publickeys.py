"""Public-key recipients: wrapping and unwrapping as ratios to HPKE alone, and messages with a data key each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography.hazmat.primitives import hpke

from benchmarks import keys
from benchmarks.report import Line
from benchmarks.sizes import Sizes
from benchmarks.workers import Values, interleave, middle, ratio
from kmsbridge import EnvelopeCipher
from kmsbridge.context import EncryptionContext
from kmsbridge.driver import KeyURI, Options, WrappedKey
from kmsbridge.drivers.hpke import HpkeDriver, privatefile
from kmsbridge.drivers.hpke.pairs import new_name, new_pair, open_pair
from kmsbridge.drivers.hpke.suites import SUITES, Suite
from kmsbridge.drivers.local import LocalDriver

PART = "HPKE, CPU time, ratio to the bare call of cryptography"
KEMS = {"x25519": hpke.KEM.X25519, "mlkem768-x25519": hpke.KEM.MLKEM768_X25519}
LIMIT = 1.3
"""The largest ratio for wrapping and unwrapping a data key. Encrypting a message with a data key of its own has none."""
PAIRS = {"tenant": "acme", "table": "users", "column": "phone"}
PLAINTEXT = bytes(100)
DATA_KEY = bytes(32)
TIMEOUT = 10.0
SETTLED = 2.1
"""Seconds after which a private file is not read again for each call, as one that was just written is."""


def worker(sizes: Sizes, folder: str) -> Values:
    """Return the CPU seconds of one call of each kind."""
    calls: dict[str, Callable[[], object]] = {}
    for suite in SUITES.values():
        calls |= _calls(suite, folder)
    time.sleep(SETTLED)
    return interleave(calls, sizes.message_rounds, sizes.batch_seconds)


def _calls(suite: Suite, folder: str) -> dict[str, Callable[[], object]]:
    uri = keys.uri(folder)
    local = LocalDriver.open(KeyURI.parse(uri), Options({}))
    now, path = privatefile.now(), os.path.join(folder, f"{suite.name}-{os.getpid()}.toml")
    name = new_name("bench")
    pair = new_pair(
        name,
        suite,
        partial(local.wrap, timeout=TIMEOUT),
        partial(local.unwrap, timeout=TIMEOUT),
        created=now,
        encrypt_from=now,
    )
    privatefile.create(path, pair)
    options: dict[str, Any] = {"private_file": path, "protect_with": {"uri": uri}}
    parsed = KeyURI.parse(f"hpke:{name}")
    driver = HpkeDriver.open(parsed, Options(options))
    encrypting = HpkeDriver.open(parsed, Options({"public_key": pair.public_key.line()}))
    context = EncryptionContext.of(PAIRS)
    wrapped = driver.wrap(DATA_KEY, context, timeout=TIMEOUT)
    bare = hpke.Suite(KEMS[suite.name], hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    public_key = pair.public_key
    info = public_key.info(context)
    private_key = open_pair(pair, partial(local.unwrap, timeout=TIMEOUT))
    cipher = EnvelopeCipher.from_uri(f"hpke:{name}", data_keys={"max_messages": 1}, **options)
    message = cipher.encrypt(PLAINTEXT, context=PAIRS)
    return {
        f"{suite.name}, bare wrap": partial(bare.encrypt, DATA_KEY, public_key.key, info),
        f"{suite.name}, bare unwrap": partial(bare.decrypt, wrapped.ciphertext, private_key, info),
        f"{suite.name}, wrap": partial(_wrap, encrypting, context),
        f"{suite.name}, unwrap": partial(_unwrap, driver, wrapped, context),
        f"{suite.name}, encrypt with a data key each": partial(cipher.encrypt, PLAINTEXT, context=PAIRS),
        f"{suite.name}, decrypt with a data key each": partial(cipher.decrypt, message, context=PAIRS),
    }


def _wrap(driver: HpkeDriver, context: EncryptionContext) -> WrappedKey:
    return driver.wrap(DATA_KEY, context, timeout=TIMEOUT)


def _unwrap(driver: HpkeDriver, wrapped: WrappedKey, context: EncryptionContext) -> bytes:
    return driver.unwrap(wrapped, context, timeout=TIMEOUT)


def lines(runs: list[Values]) -> list[Line]:
    """Return the lines of the table."""
    return [_line(runs, name) for name in runs[0]]


def _line(runs: list[Values], name: str) -> Line:
    suite, _, what = name.partition(", ")
    base = f"{suite}, bare {'unwrap' if 'unwrap' in what or 'decrypt' in what else 'wrap'}"
    return Line(
        PART,
        name,
        middle(runs, name) * 1e6,
        "us",
        ratio=None if name == base else ratio(runs, name, base),
        limit=LIMIT if what in ("wrap", "unwrap") else None,
    )
