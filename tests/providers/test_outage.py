"""A key service that is gone for a minute, under a steady load of calls."""

import itertools
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from kmsbridge import Encryptor, KmsError, KmsTimeout, KmsUnavailable, registry
from kmsbridge.testing import Fault, counted
from tests.backends.every import configuration, harness

RATE = 200
"""Operations a second; each needs a call, because no data key serves two messages."""
WORKERS = 64
RECOVERED_WITHIN = 15
"""Seconds from the end of the outage."""


class Load:
    """Starts operations at a steady rate, and remembers when each ended and how."""

    def __init__(self, encryptor):
        self.offered = Counter()
        self.ended = []
        self.errors = Counter()
        self._encryptor = encryptor
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run)
        self._begin = time.monotonic()
        self.phase = "before"
        self._thread.start()

    def _run(self):
        with ThreadPoolExecutor(WORKERS) as pool:
            for number in itertools.count():
                self._stop.wait(max(0.0, self._begin + number / RATE - time.monotonic()))
                if self._stop.is_set():
                    return
                self.offered[self.phase] += 1
                pool.submit(self._operation)

    def _operation(self):
        try:
            self._encryptor.encrypt(b"x")
            outcome = True
        except KmsError as error:
            outcome = False
            with self._lock:
                self.errors[type(error)] += 1
        with self._lock:
            self.ended.append((time.monotonic(), outcome))

    def seconds_of_success(self, since):
        """How long after `since` the first second began in which nothing failed."""
        with self._lock:
            failed = [ended for ended, outcome in self.ended if ended >= since and not outcome]
            succeeded = [ended for ended, outcome in self.ended if ended >= since and outcome]
        start = max([since, *failed])
        return start - since if any(ended > start + 1 for ended in succeeded) else None

    def stop(self):
        self._stop.set()
        self._thread.join(60)


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [Fault.REFUSED, Fault.HANG, Fault.UNAVAILABLE], ids=lambda fault: fault.value
)
def test_an_outage_makes_no_storm_and_leaves_nothing_behind(fault, torture, tmp_path, caplog):
    """While it lasts few calls are made; when it ends, no more than are offered; soon all is well."""
    caplog.set_level("CRITICAL", "kmsbridge.audit")  # thousands of failures, each told
    outage = 60 * torture.scale
    before = threading.active_count()
    service = harness("vault")
    try:
        address = service.address("first")
        path = tmp_path / "kmsbridge.toml"
        profile = {
            "encrypt_to": ["app"],
            "data_keys": {"max_messages": 1},
            "calls": {"attempt_timeout": 1, "deadline": 3},
        }
        path.write_text(configuration({"app": address}, {"web": profile}))
        driver = registry.driver_class(address.uri.partition(":")[0])
        with counted(driver) as calls, Encryptor.from_config(path, profile="web") as encryptor:
            encryptor.encrypt(b"x")
            load = Load(encryptor)
            try:
                time.sleep(2)
                service.break_network(fault)
                load.phase = "outage"
                calls.clear()
                time.sleep(outage)
                during = calls["wrap"]
                load.phase = "recovery"
                calls.clear()
                service.heal_network()
                healed = time.monotonic()
                while (
                    load.seconds_of_success(healed) is None
                    and time.monotonic() < healed + 3 * RECOVERED_WITHIN
                ):
                    time.sleep(0.1)
                recovered = load.seconds_of_success(healed)
                recovery = calls["wrap"]
            finally:
                load.stop()
        assert recovered is not None, "it did not recover"
        assert recovered <= RECOVERED_WITHIN
        assert recovery <= 1.1 * load.offered["recovery"] + WORKERS
        # Twenty failures open the breaker, those under way end, and about one in five seconds is a probe.
        assert during <= 20 + 2 * WORKERS + outage
        # A machine that is busy with other tests may let an attempt run out of time.
        assert set(load.errors) <= {KmsUnavailable, KmsTimeout}
    finally:
        service.close()
    # A thread that was told to end may need a moment for it on a busy machine.
    ended_by = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < ended_by:
        time.sleep(0.05)
    assert threading.active_count() <= before, [thread.name for thread in threading.enumerate()]
