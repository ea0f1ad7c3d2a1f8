"""Middlewares of monitoring tools as people deploy them, reporting into this process."""

from __future__ import annotations

from typing import Any

import sentry_sdk
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware
from sentry_sdk.transport import Transport

__all__ = ["with_opentelemetry", "with_sentry"]

tracing = TracerProvider()
tracing.add_span_processor(SimpleSpanProcessor(InMemorySpanExporter()))


class Kept(Transport):
    """Keeps what would be sent."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.envelopes: list[Any] = []

    def capture_envelope(self, envelope: Any) -> None:
        self.envelopes.append(envelope)


sentry_sdk.init(
    dsn="http://public@127.0.0.1/1",
    transport=Kept,
    traces_sample_rate=1.0,
    default_integrations=False,
    auto_enabling_integrations=False,
)


def with_sentry(app: Any) -> Any:
    """Report errors and transactions."""
    return SentryWsgiMiddleware(app)


def with_opentelemetry(app: Any) -> Any:
    """Trace each request."""
    return OpenTelemetryMiddleware(app, tracer_provider=tracing)
