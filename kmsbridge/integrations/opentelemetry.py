"""Metrics and traces by OpenTelemetry: calls to key services, retries, messages, and how keys and caches do.

    telemetry = OpenTelemetryObserver()
    cipher = EnvelopeCipher.from_config(observers=[telemetry])
    telemetry.watch(cipher)

Needs the extra `opentelemetry`. What is exported, and where to, the application says by the SDK of OpenTelemetry.
"""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, cast

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider

from kmsbridge import Decryptor, Encryptor, EnvelopeCipher, Health, KmsBridgeError, __version__, aio
from kmsbridge.observer import Call, CallResult, Event, Observer

Cipher = Encryptor | Decryptor | EnvelopeCipher | aio.Encryptor | aio.Decryptor | aio.EnvelopeCipher
Attributes = dict[str, str | int]
Reading = tuple[float, Attributes]

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
"""Seconds, of the histogram of calls."""
BREAKER_STATES: Final = {"closed": 0, "half-open": 1, "open": 2}
"""The values of the gauge of breakers."""


class OpenTelemetryObserver(Observer):
    """Records each call to a key service as a span and in metrics. Several ciphers may share one.

    The providers are those of the process where none is given. No plaintext, aad or context is recorded: a context
    can name people.
    """

    def __init__(
        self, *, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        self._tracer = trace.get_tracer("kmsbridge", __version__, tracer_provider)
        meter = metrics.get_meter("kmsbridge", __version__, meter_provider)
        self._duration = meter.create_histogram(
            "kmsbridge.call.duration",
            unit="s",
            description="Calls to key services, with all their attempts.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._retries = meter.create_counter(
            "kmsbridge.call.retries", unit="{retry}", description="Attempts after the first."
        )
        self._messages = meter.create_counter(
            "kmsbridge.messages", unit="{message}", description="Messages that data keys have served."
        )
        self._hits = meter.create_counter(
            "kmsbridge.cache.hits", unit="{message}", description="Messages that needed no call of their own."
        )
        self._refusals = meter.create_counter(
            "kmsbridge.refusals", unit="{message}", description="Messages that were refused."
        )
        self._ciphers: weakref.WeakSet[Cipher] = weakref.WeakSet()
        for name, unit, description, read in _GAUGES:
            meter.create_observable_gauge(name, [self._readings(read)], unit=unit, description=description)

    def watch(self, cipher: Cipher) -> None:
        """Report how the keys and caches of `cipher` do, whenever metrics are collected, until it is closed.

        No call is made for that. The cipher is not kept alive.
        """
        self._ciphers.add(cipher)

    def call_finished(self, call: Call, result: CallResult) -> None:
        """Record the call as a span that has ended, below the span that the application is in, and in metrics."""
        measured: Attributes = {"kmsbridge.operation": call.operation, "kmsbridge.key.id": call.key_id}
        if result.outcome != "ok":
            measured["error.type"] = result.outcome
        self._duration.record(result.seconds, measured)
        if result.attempts > 1:
            self._retries.add(result.attempts - 1, measured)
        end = time.time_ns()
        span = self._tracer.start_span(
            f"kms {call.operation}",
            kind=SpanKind.CLIENT,
            attributes={**measured, **_details(call, result)},
            start_time=end - round(result.seconds * 1e9),
        )
        if result.outcome != "ok":
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def event(self, event: Event) -> None:
        """Count messages and refusals."""
        if event.operation == "refusal":
            self._refusals.add(1, {"error.type": event.outcome})
        else:
            served: Attributes = {"kmsbridge.operation": event.operation, "kmsbridge.key.id": event.key_id}
            self._messages.add(event.messages, served)
            self._hits.add(event.messages - 1, served)  # the call was for the first

    def _readings(
        self, read: Callable[[Health], Iterator[Reading]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            for cipher in list(self._ciphers):
                with contextlib.suppress(KmsBridgeError):  # it is closed
                    for value, attributes in read(_health(cipher)):
                        yield Observation(value, attributes)

        return observe


def _details(call: Call, result: CallResult) -> Attributes:
    """Return the attributes that a span has besides those of the metrics."""
    found: Attributes = {
        "kmsbridge.attempts": result.attempts,
        "kmsbridge.key.version": result.key_version,
        "kmsbridge.request_id": result.request_id,
        "kmsbridge.purpose": call.purpose,
        "kmsbridge.batch.size": call.batch,
    }
    return {name: value for name, value in found.items() if value or name == "kmsbridge.attempts"}


def _health(cipher: Cipher) -> Health:
    found = cipher.check()
    if isinstance(found, Health):
        return found
    try:
        # Without a probe it waits for nothing, so it ends at its first step.
        found.send(None)
    except StopIteration as ended:
        return cast("Health", ended.value)
    raise AssertionError("check() waits")


def _keys(read: Callable[[Any], float]) -> Callable[[Health], Iterator[Reading]]:
    def of_health(health: Health) -> Iterator[Reading]:
        for key in health.keys:
            yield read(key), {"kmsbridge.profile": health.profile, "kmsbridge.key.name": key.name}

    return of_health


def _caches(read: Callable[[Any], float]) -> Callable[[Health], Iterator[Reading]]:
    def of_health(health: Health) -> Iterator[Reading]:
        caches = {"encrypt": health.encryption_cache, "decrypt": health.decryption_cache}
        for name, cache in caches.items():
            if cache is not None:
                yield read(cache), {"kmsbridge.profile": health.profile, "kmsbridge.cache": name}

    return of_health


_GAUGES: Final = (
    (
        "kmsbridge.key.breaker.state",
        "{state}",
        "0 where calls are made (closed), 1 where the next one is a trial (half-open), 2 where none is (open).",
        _keys(lambda key: BREAKER_STATES[key.breaker]),
    ),
    (
        "kmsbridge.key.failing.duration",
        "s",
        "Time since the first failure that no success has followed.",
        _keys(lambda key: float(key.failing_for)),
    ),
    (
        "kmsbridge.key.throttled",
        "{state}",
        "1 where the service has just refused calls because of their rate, else 0.",
        _keys(lambda key: int(key.throttled)),
    ),
    (
        "kmsbridge.cache.data_keys",
        "{key}",
        "Data keys in memory.",
        _caches(lambda cache: int(cache.data_keys)),
    ),
    (
        "kmsbridge.cache.oldest",
        "s",
        "Age of the oldest data key in memory.",
        _caches(lambda cache: float(cache.oldest)),
    ),
)
