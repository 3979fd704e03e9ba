"""Messages of 100 bytes with the data key cached, as ratios to the cipher alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from benchmarks import bare, keys
from benchmarks.report import Line
from benchmarks.sizes import Sizes
from benchmarks.workers import Values, interleave, middle, ratio
from kmsbridge import EnvelopeCipher, aio

TEXT = "0123456789" * 10
PLAINTEXT = TEXT.encode()
PAIRS = {"tenant": "acme", "table": "users", "column": "phone"}

PAYLOADS = (2**10, 2**14, 2**16, 2**20)
"""Bytes of larger payloads; beyond 64 KiB they are chunked, and held against Cobblestone."""

PART = "100-byte message, data key at hand, CPU time, ratio to one AESGCM call"
AIO = "asyncio, CPU time, ratio to the synchronous call"
LIMITS = {
    "encrypt": 2.6,
    "decrypt": 4.2,
    "encrypt_text": 4.0,
    "decrypt_text": 8.5,
    "encrypt_many with an aad each, each": 1.9,
    "decrypt_many with an aad each, each": 3.5,
    "aio encrypt": 1.3,
    "aio decrypt": 1.3,
    "aio encrypt_text": 1.3,
    "aio decrypt_text": 1.3,
}


def worker(sizes: Sizes, folder: str) -> Values:
    """CPU seconds a call."""
    uri = keys.uri(folder)
    loop = asyncio.new_event_loop()
    with EnvelopeCipher.from_uri(uri) as cipher:
        tasks = aio.EnvelopeCipher.from_uri(uri)
        try:
            return interleave(_calls(cipher, tasks, loop), sizes.message_rounds, sizes.batch_seconds)
        finally:
            loop.run_until_complete(tasks.close())
            loop.close()


def _calls(
    cipher: EnvelopeCipher, tasks: aio.EnvelopeCipher, loop: asyncio.AbstractEventLoop
) -> dict[str, Callable[[], object]]:
    nonce = bytes(12)
    sealed, message, text = (
        bare.AEAD.encrypt(nonce, PLAINTEXT, None),
        cipher.encrypt(PLAINTEXT),
        cipher.encrypt_text(TEXT),
    )
    bound, many = cipher.encrypt(PLAINTEXT, context=PAIRS), [PLAINTEXT] * BATCH
    aads = [b"users/%d/phone" % number for number in range(BATCH)]
    messages = cipher.encrypt_many(many, aads=aads)
    return {
        "AESGCM.encrypt with os.urandom(12)": partial(bare.seal, PLAINTEXT),
        "AESGCM.decrypt": partial(bare.unseal, nonce, sealed),
        "encrypt": partial(cipher.encrypt, PLAINTEXT),
        "decrypt": partial(cipher.decrypt, message),
        "encrypt_text": partial(cipher.encrypt_text, TEXT),
        "decrypt_text": partial(cipher.decrypt_text, text),
        "encrypt, context of three pairs": partial(cipher.encrypt, PLAINTEXT, context=PAIRS),
        "decrypt, context of three pairs": partial(cipher.decrypt, bound, context=PAIRS),
        "encrypt_many with an aad each, each": partial(cipher.encrypt_many, many, aads=aads),
        "decrypt_many with an aad each, each": partial(cipher.decrypt_many, messages, aads=aads),
        "aio encrypt": _on(loop, partial(tasks.encrypt, PLAINTEXT)),
        "aio decrypt": _on(loop, partial(tasks.decrypt, message)),
        "aio encrypt_text": _on(loop, partial(tasks.encrypt_text, TEXT)),
        "aio decrypt_text": _on(loop, partial(tasks.decrypt_text, text)),
        **_payloads(cipher),
    }


def _payloads(cipher: EnvelopeCipher) -> dict[str, Callable[[], object]]:
    calls: dict[str, Callable[[], object]] = {}
    for size in PAYLOADS:
        payload = bytes(size)
        alone = bare.seal if size <= 2**16 else bare.encrypt
        calls[f"payload in memory, bare encrypt {size // 1024} KiB"] = partial(alone, payload)
        calls[f"payload in memory, encrypt {size // 1024} KiB"] = partial(cipher.encrypt, payload)
    return calls


BATCH = 64
"""Calls that are measured as one: a call alone would mostly show what starting the event loop costs."""


def _on(
    loop: asyncio.AbstractEventLoop, call: Callable[[], Coroutine[Any, Any, object]]
) -> Callable[[], object]:
    async def batch() -> None:
        for _ in range(BATCH):
            await call()

    return lambda: loop.run_until_complete(batch())


def lines(runs: list[Values]) -> list[Line]:
    """The table's lines."""
    for values in runs:
        for name in values:
            if name.startswith("aio") or name.endswith("each"):
                values[name] = [seconds / BATCH for seconds in values[name]]
    return [_line(runs, name) for name in runs[0]]


def _line(runs: list[Values], name: str) -> Line:
    if name.startswith("payload"):
        base = f"payload in memory, bare encrypt {name.split('encrypt ')[1]}"
        times = None if name == base else ratio(runs, name, base)
        part, short = "Payload in memory, CPU time", name.removeprefix("payload in memory, ")
        return Line(part, short, middle(runs, name) * 1e6, "us", ratio=times)
    if name.startswith("aio"):
        base, part = name.removeprefix("aio "), AIO
    else:
        base, part = next(each for each in runs[0] if each.startswith("AESGCM") and _alike(each, name)), PART
    return Line(
        part,
        name,
        middle(runs, name) * 1e6,
        "us",
        ratio=None if name == base else ratio(runs, name, base),
        limit=LIMITS.get(name),
    )


def _alike(one: str, other: str) -> bool:
    """Whether both encrypt, or both decrypt."""
    return ("encrypt" in one) == ("encrypt" in other)
