"""Event loops whose executor is small, busy or cold: no operation waits for one that stands behind it."""

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from kmsbridge import EnvelopeCipher, aio
from tests.support import PATIENCE

LARGE = 2**20 + 1
"""Bytes that are sealed on a thread."""


def run(threads, main, *, warm):
    """Run `main()` with an executor of so many threads, started beforehand where it is `warm`."""

    async def guarded():
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(threads)
        loop.set_default_executor(executor)
        if warm:
            await asyncio.gather(*(asyncio.to_thread(int) for _ in range(4 * threads)))
        return await asyncio.wait_for(main(), PATIENCE)

    return asyncio.run(guarded())


WORK = {
    "large encrypts and a small one": lambda cipher, message: [
        *(cipher.encrypt(bytes(LARGE)) for _ in range(40)),
        cipher.encrypt(b"small"),
    ],
    "a small encrypt and large ones": lambda cipher, message: [
        cipher.encrypt(b"small"),
        *(cipher.encrypt(bytes(LARGE)) for _ in range(40)),
    ],
    "decrypt_many and a small decrypt": lambda cipher, message: [
        *(cipher.decrypt_many([message]) for _ in range(40)),
        cipher.decrypt(message),
    ],
    "a small decrypt and decrypt_many": lambda cipher, message: [
        cipher.decrypt(message),
        *(cipher.decrypt_many([message]) for _ in range(40)),
    ],
    "all of it": lambda cipher, message: [
        operation
        for n in range(20)
        for operation in (
            cipher.encrypt(bytes(LARGE), context={"n": str(n % 3)}),
            cipher.encrypt(b"small", context={"n": str(n % 3)}),
            cipher.decrypt(message),
            cipher.decrypt_many([message] * 3),
            cipher.rewrap(message),
        )
    ],
}


@pytest.mark.parametrize("warm", (False, True), ids=("cold", "warm"))
@pytest.mark.parametrize("threads", (1, 2, 6, 32))
@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_nothing_waits_for_what_stands_behind_it(service, encrypt, work, threads, warm):
    """Operations that lead, and those that wait for them, in whatever order the executor gets them."""
    with EnvelopeCipher.from_uri("fake:app") as writer:
        message = encrypt(writer, b"x")

    async def main():
        async with aio.EnvelopeCipher.from_uri("fake:app") as cipher:
            return await asyncio.gather(*work(cipher, message))

    assert run(threads, main, warm=warm)


def test_the_executor_may_be_full_of_something_else(service):
    """A small message's data key is loaded on the library's own threads."""

    async def main():
        go_on = asyncio.Event()
        loop = asyncio.get_running_loop()
        blocked = [
            asyncio.ensure_future(
                asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result())
            )
            for _ in range(2)
        ]
        async with aio.EnvelopeCipher.from_uri("fake:app") as cipher:
            try:
                message = await cipher.encrypt(b"x")
                assert await cipher.decrypt(message) == b"x"
            finally:
                go_on.set()
                await asyncio.gather(*blocked)
            return True

    assert run(2, main, warm=False)


def test_many_tasks_that_want_different_data_keys_all_get_them(service):
    """More loads than there are threads for them."""
    numbers = itertools.count()

    async def main():
        async with aio.EnvelopeCipher.from_uri("fake:app") as cipher:
            return await asyncio.gather(
                *(cipher.encrypt(b"x", context={"n": str(next(numbers))}) for _ in range(300))
            )

    assert len(set(run(2, main, warm=True))) == 300
    assert service.app.calls["wrap"] == 300
