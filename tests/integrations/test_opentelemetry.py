"""What OpenTelemetry is told: a span a call, metrics of calls and messages, and how keys and caches do."""

import asyncio
import gc

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from kmsbridge import AuthenticationError, Encryptor, EnvelopeCipher, KmsAccessDenied, KmsThrottled, aio
from kmsbridge.driver import ErrorKind
from kmsbridge.integrations.opentelemetry import OpenTelemetryObserver
from tests.secrets.canaries import PLAINTEXT, assert_clean

ACME = {"tenant": "acme"}
APP = {"kmsbridge.key.id": "fake:app"}


class Telemetry:
    """An observer, and what its providers were told."""

    def __init__(self):
        self.reader, self.exporter = InMemoryMetricReader(), InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader])
        self.observer = OpenTelemetryObserver(meter_provider=self.meters, tracer_provider=self.tracers)

    def metrics(self):
        """Name -> the points, each its attributes and its value, or its sum and count."""
        data = self.reader.get_metrics_data()
        found = {}
        for metric in data.resource_metrics[0].scope_metrics[0].metrics if data else ():
            assert metric.description
            assert metric.unit
            found[metric.name] = [
                (dict(point.attributes), getattr(point, "value", None) if hasattr(point, "value") else point)
                for point in metric.data.data_points
            ]
        return found

    def spans(self, name="kms wrap"):
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def close(self):
        self.meters.shutdown()
        self.tracers.shutdown()


@pytest.fixture
def telemetry():
    telemetry = Telemetry()
    yield telemetry
    telemetry.close()


@pytest.fixture
def watched(service, telemetry):
    with EnvelopeCipher.from_uri("fake:app", observers=[telemetry.observer]) as cipher:
        telemetry.observer.watch(cipher)
        yield cipher


def test_a_call_is_a_span_below_that_of_the_application(watched, telemetry):
    with telemetry.tracers.get_tracer("app").start_as_current_span("request") as parent:
        watched.encrypt(PLAINTEXT.reveal(), context=ACME)
    (span,), (own,) = telemetry.spans(), telemetry.spans("request")
    assert (span.name, span.kind) == ("kms wrap", SpanKind.CLIENT)
    assert span.parent.span_id == parent.get_span_context().span_id
    assert span.instrumentation_scope.name == "kmsbridge"
    assert own.start_time <= span.start_time <= span.end_time <= own.end_time
    assert span.status.status_code is StatusCode.UNSET
    attributes = dict(span.attributes)
    assert attributes.pop("kmsbridge.request_id")
    assert attributes == {
        "kmsbridge.operation": "wrap",
        "kmsbridge.key.id": "fake:app",
        "kmsbridge.key.version": "1",
        "kmsbridge.attempts": 1,
    }


def test_tasks_of_asyncio_have_their_own_parents(service, telemetry):
    """Although the call is made on a thread."""
    tracer = telemetry.tracers.get_tracer("app")

    async def request(cipher, tenant):
        with tracer.start_as_current_span(tenant):
            await cipher.encrypt(b"x", context={"tenant": tenant})

    async def main():
        async with aio.EnvelopeCipher.from_uri("fake:app", observers=[telemetry.observer]) as cipher:
            telemetry.observer.watch(cipher)
            await asyncio.gather(*(request(cipher, tenant) for tenant in "abc"))
            assert telemetry.metrics()["kmsbridge.cache.data_keys"][0][1] == 3

    asyncio.run(main())
    requests = {span.context.span_id for tenant in "abc" for span in telemetry.spans(tenant)}
    parents = [span.parent.span_id for span in telemetry.spans()]
    assert len(parents) == len(requests) == 3
    assert set(parents) == requests


def test_a_refused_call_is_an_error_by_its_class(watched, telemetry, service):
    service.app.fail("wrap", ErrorKind.ACCESS_DENIED)
    with pytest.raises(KmsAccessDenied):
        watched.encrypt(b"x")
    (span,) = telemetry.spans()
    assert span.status.status_code is StatusCode.ERROR
    assert not span.status.description
    assert not span.events
    assert span.attributes["error.type"] == "KmsAccessDenied"
    measured = {**APP, "kmsbridge.operation": "wrap", "error.type": "KmsAccessDenied"}
    points = [
        point
        for attributes, point in telemetry.metrics()["kmsbridge.call.duration"]
        if attributes == measured
    ]
    assert [point.count for point in points] == [1]


def test_retries_are_counted(watched, telemetry, service):
    service.app.fail("wrap", ErrorKind.UNAVAILABLE, times=2)
    watched.encrypt(b"x")
    metrics = telemetry.metrics()
    assert metrics["kmsbridge.call.retries"] == [({**APP, "kmsbridge.operation": "wrap"}, 2)]
    assert {point.count for _, point in metrics["kmsbridge.call.duration"]} == {1}
    assert telemetry.spans()[0].attributes["kmsbridge.attempts"] == 3


def test_messages_and_hits_are_told_when_a_data_key_goes(service, telemetry):
    with EnvelopeCipher.from_uri("fake:app", observers=[telemetry.observer]) as cipher:
        for _ in range(10):
            cipher.decrypt(cipher.encrypt(b"x"))
    metrics = telemetry.metrics()
    for name, value in (("kmsbridge.messages", 10), ("kmsbridge.cache.hits", 9)):
        points = sorted(metrics[name], key=str)
        assert points == [({**APP, "kmsbridge.operation": each}, value) for each in ("decrypt", "encrypt")]


def test_a_message_that_was_refused_is_counted(watched, telemetry):
    message = watched.encrypt(b"x", context=ACME)
    with pytest.raises(AuthenticationError):
        watched.decrypt(message, context=ACME, aad=b"other")
    assert telemetry.metrics()["kmsbridge.refusals"] == [({"error.type": "AuthenticationError"}, 1)]


def test_breaker_limiter_and_caches_are_read_when_metrics_are_collected(watched, telemetry, service):
    key = {"kmsbridge.profile": "default", "kmsbridge.key.name": "uri"}
    before = telemetry.metrics()
    assert before["kmsbridge.key.breaker.state"] == [(key, 0)]
    assert before["kmsbridge.key.throttled"] == [(key, 0)]
    assert before["kmsbridge.key.failing.duration"] == [(key, 0.0)]
    watched.encrypt(b"x")
    service.app.fail("wrap", ErrorKind.UNAVAILABLE)
    for n in range(30):
        with pytest.raises(Exception, match="fake:app"):
            watched.encrypt(b"x", context={"n": str(n)})
    calls = service.app.calls.total()
    after = telemetry.metrics()
    assert after["kmsbridge.key.breaker.state"] == [(key, 2)]
    assert after["kmsbridge.key.failing.duration"][0][1] > 0
    caches = {point[0]["kmsbridge.cache"]: point[1] for point in after["kmsbridge.cache.data_keys"]}
    assert caches == {"encrypt": 1, "decrypt": 0}
    assert after["kmsbridge.cache.oldest"][0][1] > 0
    assert service.app.calls.total() == calls


def test_a_service_that_throttles_is_seen(service, telemetry):
    with Encryptor.from_uri("fake:app", observers=[telemetry.observer]) as cipher:
        cipher._session.encrypt_to[0]._calls._sleep = lambda _seconds: None
        telemetry.observer.watch(cipher)
        service.app.fail("wrap", ErrorKind.THROTTLED)
        with pytest.raises(KmsThrottled):
            cipher.encrypt(b"x")
        metrics = telemetry.metrics()
        assert metrics["kmsbridge.key.throttled"][0][1] == 1
        (cache,) = metrics["kmsbridge.cache.data_keys"]
        assert cache[0]["kmsbridge.cache"] == "encrypt"


def test_a_cipher_that_is_closed_or_gone_is_no_longer_told_of(service, telemetry):
    first, second = (EnvelopeCipher.from_uri("fake:app") for _ in "ab")
    telemetry.observer.watch(first)
    telemetry.observer.watch(second)
    assert len(telemetry.metrics()["kmsbridge.cache.data_keys"]) >= 2
    first.close()
    second.close()
    assert telemetry.metrics().get("kmsbridge.cache.data_keys", []) == []
    del second
    gc.collect()
    assert list(telemetry.observer._ciphers) == [first]


def test_nothing_that_is_told_holds_a_payload_or_a_context(watched, telemetry):
    message = watched.encrypt(
        PLAINTEXT.reveal(), context={"tenant": PLAINTEXT.text()}, aad=PLAINTEXT.reveal()
    )
    watched.decrypt(message, context={"tenant": PLAINTEXT.text()}, aad=PLAINTEXT.reveal())
    watched.close()
    told = "".join(span.to_json() for span in telemetry.exporter.get_finished_spans()) + repr(
        telemetry.metrics()
    )
    assert_clean(told, "telemetry")
    assert "tenant" not in told


def test_without_an_sdk_it_costs_little_and_does_nothing(service):
    observer = OpenTelemetryObserver()
    with EnvelopeCipher.from_uri("fake:app", observers=[observer]) as cipher:
        observer.watch(cipher)
        assert cipher.decrypt(cipher.encrypt(b"x")) == b"x"
