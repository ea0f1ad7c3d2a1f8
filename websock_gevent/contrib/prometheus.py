"""Prometheus: what the signals tell, as metrics of ``prometheus_client``. A leaf: nothing of the library imports it.

Owns the names of the metrics, their labels and buckets. Labels have few values, whatever clients do: no path, no topic,
and of the close codes that a client may choose only the class. ::

    prometheus.install()

The whole example, with several workers, is in ``docs/telemetry.rst``. Frames and bytes are added when a connection
ends: of one that lives for a day, a day late.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from blinker import Signal
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from ..frames import CloseCode
from ..signals import (
    KINDS,
    ConnectionStarted,
    ConnectionStopped,
    DrainFinished,
    Frames,
    PubsubGap,
    Traffic,
    UpgradeRefused,
    connection_started,
    connection_stopped,
    drain_finished,
    pubsub_gap,
    upgrade_refused,
)

__all__ = ["Metrics", "install"]

_LIFETIMES = (1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600)
_TIMES = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10)
_DEPTHS = (0, 1, 10, 100, 1000, 10_000)
#: By name without the prefix ``websocket_``: kind, text, labels, and what else the kind takes.
_METRICS: dict[str, tuple[Callable[..., Any], str, tuple[str, ...], dict[str, Any]]] = {
    "connections": (Gauge, "Connections that are open.", ("handler",), {"multiprocess_mode": "livesum"}),
    "opened": (Counter, "Connections that were opened.", ("handler",), {}),
    "closed": (Counter, "Connections that have ended.", ("handler", "reason", "code"), {}),
    "duration_seconds": (Histogram, "How long connections were open.", ("handler",), {"buckets": _LIFETIMES}),
    "longest_callback_seconds": (Histogram, "Each connection's longest callback.", ("handler",), {"buckets": _TIMES}),
    "deepest_mailbox": (Histogram, "Each connection's mailbox when fullest.", ("handler",), {"buckets": _DEPTHS}),
    "frames": (Counter, "Frames of connections that have ended.", ("direction", "kind"), {}),
    "bytes": (Counter, "Bytes of these frames, with headers.", ("direction", "kind"), {}),
    "compressed_bytes": (Counter, "Payload of compressed messages.", ("direction",), {}),
    "inflated_bytes": (Counter, "The same payload, when not compressed.", ("direction",), {}),
    "callback_seconds": (Histogram, "How long callbacks took.", ("handler", "callback"), {"buckets": _TIMES}),
    "refused": (Counter, "Requests that the library has refused.", ("status",), {}),
    "drain_seconds": (Histogram, "How long it took to end all connections.", (), {"buckets": _LIFETIMES}),
    "drain_cut": (Counter, "Connections that were cut off when their server ended.", (), {}),
    "pubsub_gaps": (Counter, "Times that subscribers were told of a gap.", (), {}),
}


def install(registry: CollectorRegistry = REGISTRY, *, callbacks: bool = False) -> Metrics:
    """Make the metrics, and have them kept up to date from now on. Call it once, before clients come.

    Args:
        registry: Where they are registered.
        callbacks: Also time every callback, as it ends; this costs some microseconds each.

    Raises:
        ValueError: they are registered there already.
    """
    return Metrics(registry, callbacks)


class Metrics:
    """The metrics, kept up to date. Made by `install`."""

    def __init__(self, registry: CollectorRegistry, callbacks: bool) -> None:
        self._metrics = {
            name: kind(f"websocket_{name}", text, labels, registry=registry, **more)
            for name, (kind, text, labels, more) in _METRICS.items()
            if callbacks or name != "callback_seconds"
        }
        for signal, receiver in self._receivers():
            signal.connect(receiver, weak=False)

    def _of(self, name: str, *labels: str) -> Any:
        metric = self._metrics[name]
        return metric.labels(*labels) if labels else metric

    def _receivers(self) -> list[tuple[Signal, Callable[..., None]]]:
        return [
            (connection_started, self._started),
            (connection_stopped, self._stopped),
            (upgrade_refused, self._refused),
            (drain_finished, self._drained),
            (pubsub_gap, self._gap),
        ]

    def stop(self) -> None:
        """Listen no more. The metrics stay as they are."""
        for signal, receiver in self._receivers():
            signal.disconnect(receiver)

    def _started(self, sender: object, event: ConnectionStarted) -> None:
        name = event.handler_name
        self._of("connections", name).inc()
        self._of("opened", name).inc()
        if "callback_seconds" in self._metrics:
            event.wrap_callbacks(lambda callback, call: _timed(self._of("callback_seconds", name, callback), call))

    def _stopped(self, sender: object, event: ConnectionStopped) -> None:
        name = event.handler_name
        self._of("connections", name).dec()
        self._of("closed", name, _reason(event), _code(event.code)).inc()
        self._of("duration_seconds", name).observe(event.duration)
        self._of("longest_callback_seconds", name).observe(event.longest)
        self._of("deepest_mailbox", name).observe(event.deepest)
        for direction, traffic in (("recv", event.recv), ("send", event.send)):
            self._count(direction, traffic)

    def _count(self, direction: str, traffic: Traffic) -> None:
        for kind in KINDS:
            frames: Frames = getattr(traffic, kind)
            if frames.count:
                self._of("frames", direction, kind).inc(frames.count)
                self._of("bytes", direction, kind).inc(frames.wire_bytes)
        if traffic.inflated_bytes:
            self._of("compressed_bytes", direction).inc(traffic.compressed_bytes)
            self._of("inflated_bytes", direction).inc(traffic.inflated_bytes)

    def _refused(self, sender: object, event: UpgradeRefused) -> None:
        self._of("refused", str(event.status)).inc()

    def _drained(self, sender: object, event: DrainFinished) -> None:
        self._of("drain_seconds").observe(event.seconds)
        self._of("drain_cut").inc(event.cut)

    def _gap(self, sender: object, event: PubsubGap) -> None:
        self._of("pubsub_gaps").inc()


def _timed(times: Histogram, call: Callable[[], Any]) -> Any:
    began = perf_counter()
    try:
        return call()
    finally:
        times.observe(perf_counter() - began)


def _reason(event: ConnectionStopped) -> str:
    return event.reason if isinstance(event.reason, str) else "error"


def _code(code: int | None) -> str:
    """A code, as far as it is not a client's to choose: what answers its close frame repeats its code."""
    if code is None:
        return "none"
    return str(code) if code in CloseCode._value2member_map_ else f"{code // 1000}xxx"
