"""Moving from each provider to each other one while the application goes on."""

import itertools
import random
import threading
from collections import Counter
from contextlib import ExitStack

import pytest

from kmsbridge import EnvelopeCipher, inspect, registry
from kmsbridge.testing import counted
from tests.backends.every import HARNESSES, configuration, harness
from tests.support import PATIENCE

THREADS = 4
CONTEXTS = [{"tenant": name} for name in ("acme", "umbrella", "initech")]
MOVES = list(itertools.permutations(HARNESSES, 2))

# The steps of docs/how-to/swap-your-provider.md: which keys each one encrypts to and decrypts with.
STEPS = (
    (("old",), ("old",)),
    (("old",), ("old", "new")),
    (("old", "new"), ("old", "new")),
    (("new",), ("new", "old")),
)
LAST = (("new",), ("new",))


class Application:
    """Four threads that write and read messages, with whatever cipher is the present one."""

    def __init__(self, cipher):
        self.cipher = cipher
        self.rows = []
        self.done = Counter()
        self.failures = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._laps = [0] * THREADS
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(THREADS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number):
        rng = random.Random(number)
        while not self._ended.is_set():
            try:
                self._write(rng)
                self._read(rng)
            except Exception as error:  # noqa: BLE001 - any failure at all is one too many
                self.failures.append(error)
                return
            self._laps[number] += 1

    def _write(self, rng):
        context, payload = rng.choice(CONTEXTS), rng.randbytes(40)
        message = self.cipher.encrypt(payload, context=context)
        with self._lock:
            if len(self.rows) < 200:
                self.rows.append([message, context, payload])
        self.done["written"] += 1

    def _read(self, rng):
        with self._lock:
            message, context, payload = rng.choice(self.rows)
        assert self.cipher.decrypt(message, context=context) == payload
        self.done["read"] += 1

    def go_on(self, cipher=None):
        """Have every thread do some more with this cipher; close the one before."""
        before, self.cipher = self.cipher, cipher or self.cipher
        goal = [lap + 3 for lap in self._laps]
        waited = threading.Event()
        for _ in range(int(PATIENCE * 100)):
            if self.failures or all(lap >= wanted for lap, wanted in zip(self._laps, goal, strict=True)):
                break
            waited.wait(0.01)
        assert not self.failures, self.failures[0]
        assert all(lap >= wanted for lap, wanted in zip(self._laps, goal, strict=True)), "a thread hangs"
        if before is not self.cipher:
            before.close()

    def stored(self):
        with self._lock:
            return list(enumerate(map(tuple, self.rows)))

    def replace(self, number, message):
        with self._lock:
            self.rows[number][0] = message

    def end(self):
        self._ended.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        self.cipher.close()


def body_of(message):
    return message[int.from_bytes(message[6:8], "big") :]


@pytest.mark.parametrize("source, target", MOVES, ids=[f"{a} to {b}" for a, b in MOVES])
def test_messages_move_while_the_application_goes_on(source, target, tmp_path):
    """No operation fails, bodies stay as they are, and the old provider is not asked at the end."""
    with ExitStack() as stack:
        keys = {}
        for name, backend in (("old", source), ("new", target)):
            service = harness(backend)
            stack.callback(service.close)
            keys[name] = service.address("first")
        calls = {
            name: stack.enter_context(counted(registry.driver_class(address.uri.partition(":")[0])))
            for name, address in keys.items()
        }
        path = tmp_path / "kmsbridge.toml"
        path.write_text(
            configuration(
                keys,
                {
                    f"step{n}": {"encrypt_to": list(to), "decrypt_with": list(with_)}
                    for n, (to, with_) in enumerate((*STEPS, LAST))
                },
            )
        )
        application = Application(EnvelopeCipher.from_config(path, profile="step0"))
        stack.callback(application.end)
        for step in range(1, len(STEPS)):
            application.go_on()
            application.go_on(EnvelopeCipher.from_config(path, profile=f"step{step}"))
        rewrap_all(application, path, calls)
        application.go_on(EnvelopeCipher.from_config(path, profile=f"step{len(STEPS)}"))
        for count in calls.values():
            count.clear()
        application.go_on()
        application.end()
        assert not application.failures
        assert not calls["old"]
        with EnvelopeCipher.from_config(path, profile=f"step{len(STEPS)}") as last:
            for _, (message, context, payload) in application.stored():
                assert last.decrypt(message, context=context) == payload
        assert not calls["old"]


def rewrap_all(application, path, calls):
    """Rewrap what is stored; each data key costs the providers one call on either side."""
    with EnvelopeCipher.from_config(path, profile=f"step{len(STEPS) - 1}") as mover:
        rows = application.stored()
        wanting = {number for number, (message, _, _) in rows if mover.needs_rewrap(message)}
        assert wanting
        data_keys = {rows[n][1][0][: inspect(rows[n][1][0]).header_length] for n in wanting}
        for count in calls.values():
            count.clear()
        for number in wanting:
            message, context, _ = rows[number][1]
            again = mover.rewrap(message, context=context)
            assert body_of(again) == body_of(message)
            application.replace(number, again)
        assert sum(calls["new"][each] for each in ("wrap", "rewrap")) <= len(data_keys) + 2 * len(CONTEXTS)
        assert calls["old"]["unwrap"] + calls["new"]["unwrap"] <= 2 * len(data_keys) + 2 * len(CONTEXTS)
        assert not any(mover.needs_rewrap(message) for _, (message, _, _) in application.stored())
