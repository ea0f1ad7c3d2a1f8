"""The bridges, beyond what ``test_docs_telemetry`` shows: what clients cannot blow up, what is traced below what."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry
from support import DEADLINE, Diary, application, until

from websock_gevent import Deflate, WebSock, current
from websock_gevent.contrib import opentelemetry, prometheus
from websock_gevent.drainer import Drainer
from websock_gevent.pubsub import PubSub
from websock_gevent.testing import Client, Refused, connect


@pytest.fixture(params=["greenlet", "parked"])
def idle(request: pytest.FixtureRequest) -> str:
    """Both kinds of connection."""
    kind: str = request.param
    return kind


def opened(handler: Any, **options: Any) -> Client:
    return connect(application(handler, **options), compress=True, timeout=DEADLINE)


# Prometheus.


@pytest.fixture
def registry() -> Iterator[CollectorRegistry]:
    made = CollectorRegistry()
    metrics = prometheus.install(made, callbacks=True)
    yield made
    metrics.stop()


def values(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    """The values of one metric, by the values of its labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == f"websocket_{name}"
    }


def ended(registry: CollectorRegistry, count: int) -> dict[tuple[str, ...], float]:
    """How so many connections have ended."""
    until(lambda: sum(values(registry, "closed_total").values()) == count)
    return values(registry, "closed_total")


def test_a_client_cannot_make_values_of_labels(registry: CollectorRegistry, idle: str) -> None:
    codes = [1000, 1001, 1014, 3000, 3777, 4000, 4999, 1005, 2000]
    for code in codes:
        client = connect(application(Diary, idle=idle), f"/{code}", timeout=DEADLINE)
        client.socket.sendall(b"\x88\x82\0\0\0\0" + code.to_bytes(2, "big"))
        client.wait_closed()
    found = ended(registry, len(codes))
    assert found == {
        ("support.Diary", "remote", code): count
        for code, count in {"1000": 1, "1001": 1, "1014": 1, "3xxx": 2, "4xxx": 2, "1002": 2}.items()
    }
    assert values(registry, "connections") == {("support.Diary",): 0}


def test_errors_and_callbacks(registry: CollectorRegistry, idle: str, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Diary):
        def handle_in(self, message: Any, state: Any) -> Any:
            raise RuntimeError(message)

    client = opened(Failing, idle=idle)
    client.send("something that a client made up")
    client.wait_closed()
    name = f"{__name__}.test_errors_and_callbacks.<locals>.Failing"
    assert ended(registry, 1) == {(name, "error", "1011"): 1}
    assert values(registry, "callback_seconds_count") == {
        (name, "init"): 1,
        (name, "handle_in"): 1,
        (name, "terminate"): 1,
    }


def test_sizes_refusals_drains_and_gaps(registry: CollectorRegistry) -> None:
    pubsub = PubSub(keep=1)

    class Listener(Diary):
        def init(self, state: Any) -> Any:
            first = pubsub.broadcast("lobby", 1)
            pubsub.broadcast("lobby", 2)
            pubsub.broadcast("lobby", 3)
            pubsub.subscribe("lobby", current(), since=first)
            return "push", "a" * 1000, state

    with opened(Listener, compress=Deflate(server_no_context_takeover=True)) as client:
        assert client.receive() == "a" * 1000
        client.send("b" * 2000)
        assert client.receive() == "b" * 2000
    ended(registry, 1)
    assert values(registry, "inflated_bytes_total") == {("recv",): 2000, ("send",): 3000}
    assert values(registry, "compressed_bytes_total")[("send",)] < 100
    with pytest.raises(Refused):
        connect(application(Diary), headers={"Origin": "http://else.where"}, timeout=DEADLINE)
    assert values(registry, "refused_total") == {("403",): 1}
    assert values(registry, "pubsub_gaps_total") == {(): 1}
    Drainer().drain(0.1)
    assert values(registry, "drain_seconds_count") == {(): 1} and values(registry, "drain_cut_total") == {(): 0}
    pubsub.close()


def test_metrics_are_made_once(registry: CollectorRegistry) -> None:
    with pytest.raises(ValueError, match="Duplicated"):
        prometheus.install(registry)


# OpenTelemetry.


class Spans:
    """What was traced."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def finished(self, connections: int = 1) -> list[ReadableSpan]:
        """All spans, once so many connections have ended."""

        def spans() -> list[ReadableSpan]:
            return list(self.exporter.get_finished_spans())

        until(lambda: sum(span.name.startswith("WebSocket ") for span in spans()) == connections)
        return spans()


def parent_of(span: ReadableSpan, spans: list[ReadableSpan]) -> ReadableSpan:
    """The span that one is below of."""
    assert span.parent is not None and span.context is not None
    [found] = [one for one in spans if one.context is not None and one.context.span_id == span.parent.span_id]
    return found


class Working(WebSock[Any]):
    """Does something that is traced, and blocks meanwhile."""

    def handle_in(self, message: Any, state: Any) -> Any:
        with trace.get_tracer("application", tracer_provider=state.provider).start_as_current_span(message):
            gevent.sleep(0.01)
            if message == "raise":
                raise RuntimeError("as told")
        return "push", message, state


def test_what_a_callback_does_is_traced_below_it(idle: str) -> None:
    spans = Spans()
    tracing = opentelemetry.install(spans.provider)
    app = application(Working, spans, idle=idle)
    clients = [connect(app, timeout=DEADLINE) for _ in range(3)]
    for number, client in enumerate(clients):
        client.send(str(number))  # all three at a time
    for client in clients:
        client.receive()
    for client in clients:
        client.close()
    found = spans.finished(3)
    tracing.stop()
    connections = set()
    for number in range(3):
        [work] = [span for span in found if span.name == str(number)]
        callback = parent_of(work, found)
        connection = parent_of(callback, found)
        assert callback.name == "handle_in" and callback.attributes is not None
        assert callback.attributes["code.function.name"] == "test_contrib.Working.handle_in"
        assert connection.name == "WebSocket test_contrib.Working" and connection.parent is None
        connections.add(connection)
    assert len(connections) == 3


def test_an_exception_is_the_callbacks_and_the_connections(idle: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    spans = Spans()
    tracing = opentelemetry.install(spans.provider)
    client = connect(application(Working, spans, idle=idle, subprotocols=["v1"]), subprotocols=["v1"], timeout=DEADLINE)
    client.send("raise")
    client.wait_closed()
    found = {span.name: span for span in spans.finished()}
    tracing.stop()
    assert found["init"].status.status_code is StatusCode.UNSET
    assert found["handle_in"].status.status_code is StatusCode.ERROR
    assert [event.name for event in found["handle_in"].events] == ["exception"]
    connection = found["WebSocket test_contrib.Working"]
    assert connection.status.status_code is StatusCode.ERROR and connection.attributes is not None
    assert connection.attributes["error.type"] == "RuntimeError"
    assert (connection.attributes["websocket.reason"], connection.attributes["websocket.close.code"]) == ("error", 1011)
    assert connection.attributes["websocket.subprotocol"] == "v1"


def test_callbacks_need_not_be_traced() -> None:
    spans = Spans()
    tracing = opentelemetry.install(spans.provider, callbacks=False)
    with connect(application(Diary), timeout=DEADLINE) as client:
        client.send("hello")
        client.receive()
    assert [span.name for span in spans.finished()] == ["WebSocket support.Diary"]
    tracing.stop()


def test_a_connection_that_was_open_before_is_not_traced(caplog: pytest.LogCaptureFixture) -> None:
    spans, earlier = Spans(), Spans()
    before = opentelemetry.install(earlier.provider)
    with connect(application(Diary), timeout=DEADLINE) as client:
        client.ping()
        tracing = opentelemetry.install(spans.provider)
    earlier.finished()
    tracing.stop()
    before.stop()
    assert spans.exporter.get_finished_spans() == () and caplog.records == []
