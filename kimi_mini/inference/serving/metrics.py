"""What the endpoint counts, in the text format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from kimi_mini.inference.serving.engine import Job

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """Counters of one endpoint."""

    def __init__(self):
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("kimi_requests", "Requests by how they ended", ["status"], registry=registry)
        self.tokens = Counter(
            "kimi_tokens", "Tokens read, found in a cache, written", ["kind"], registry=registry
        )
        self.rows = Gauge("kimi_rows", "Rows that are written or wait", ["state"], registry=registry)
        self.first = Histogram(
            "kimi_first_token_seconds",
            "From the request to its first token",
            buckets=SECONDS,
            registry=registry,
        )
        self.whole = Histogram(
            "kimi_request_seconds", "From the request to its end", buckets=SECONDS, registry=registry
        )

    def count(self, jobs: Sequence[Job], used: dict) -> None:
        """A request that was answered in full."""
        self.requests.labels("200").inc()
        self.tokens.labels("read").inc(used["prompt_tokens"])
        self.tokens.labels("cached").inc(used["prompt_tokens_details"]["cached_tokens"])
        self.tokens.labels("written").inc(used["completion_tokens"])
        self.first.observe(min(job.began for job in jobs) - jobs[0].asked)
        self.whole.observe(time.monotonic() - jobs[0].asked)

    def text(self, running: int, waiting: int) -> tuple[bytes, int, dict[str, str]]:
        """(body, status, headers) of /metrics."""
        self.rows.labels("running").set(running)
        self.rows.labels("waiting").set(waiting)
        return generate_latest(self.registry), 200, {"Content-Type": CONTENT_TYPE_LATEST}
