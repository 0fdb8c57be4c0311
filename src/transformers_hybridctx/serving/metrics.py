# SPDX-License-Identifier: Apache-2.0
"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.responses import Response


class Metrics:
    """Counters of one application, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._responses = Counter(
            "hybridctx_responses", "Responses by endpoint and status", ["endpoint", "status"], registry=self._registry
        )
        self._tokens = Counter(
            "hybridctx_tokens", "Tokens of prompts and answers, by kind", ["kind"], registry=self._registry
        )
        self._readings = Counter(
            "hybridctx_readings", "Where a document's reading was found", ["found"], registry=self._registry
        )
        self._seconds = Histogram(
            "hybridctx_answer_seconds",
            "From a request's turn to its answer, by stage",
            ["stage"],
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
            registry=self._registry,
        )

    def watch(self, **numbers: Callable[[], float]) -> None:
        """Numbers that are looked up when they are asked for."""
        for name, number in numbers.items():
            Gauge(f"hybridctx_{name}", name, registry=self._registry).set_function(number)

    def responded(self, endpoint: str, status: int) -> None:
        self._responses.labels(endpoint, str(status)).inc()

    def answered(self, answer: dict[str, Any]) -> None:
        used, added = answer["usage"], answer["hybridctx"]
        for kind in ("prompt_tokens", "cached_tokens", "new_tokens", "visual_tokens", "document_tokens"):
            if kind in used:
                self._tokens.labels(kind.removesuffix("_tokens")).inc(used[kind])
        if "reading" in added:
            self._readings.labels(added["reading"]).inc()
        for stage, seconds in added["seconds"].items():
            self._seconds.labels(stage).observe(seconds)

    def response(self) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


class CountedResponses:
    """ASGI middleware that counts responses by the endpoint's own path, without what clients write into it."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def counted(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._metrics.responded(getattr(scope.get("route"), "path", "none"), message["status"])
            await send(message)

        await self._app(scope, receive, counted)


__all__ = ["CountedResponses", "Metrics"]
