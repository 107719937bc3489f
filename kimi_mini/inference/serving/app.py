"""The routes of the endpoint: what arrives becomes jobs of the engine, and what the engine writes becomes answers.

    POST /v1/chat/completions     at once, or as server-sent events
    GET  /v1/models, /v1/models/NAME, /health, /metrics

Errors have OpenAI's shape, whatever is wrong. A client that leaves takes its rows with it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from kimi_mini.inference.serving.engine import Engine, Full, Stopped
from kimi_mini.inference.serving.metrics import Metrics
from kimi_mini.inference.serving.requests import Chat, Refused, rows_of
from kimi_mini.inference.serving.work import Work
from kimi_mini.text.habits import Habits
from kimi_mini.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Settings:
    """How an endpoint behaves. name: of the model; adapters: names that stand for it with an adapter; key: what a
    client must show, None: nothing; temperature: of requests that name none, 0 as our scoreboard; tokens: of an answer
    where a request names no max_tokens (the longest turns that our agents are trained on have 200 to 300); loops: an
    answer that writes the same so many times in a row ends there, as one that was cut off, 0: it goes on; timeout:
    seconds a request may take, waiting and all; body: bytes that one may have; constrained: calls cannot be malformed;
    strict: thoughts must come back; habits: of the agent."""

    name: str = "kimi_mini"
    adapters: tuple[str, ...] = ()
    key: str | None = None
    temperature: float = 0.0
    tokens: int = 1024
    loops: int = 8
    timeout: float = 120.0
    body: int = 2**20
    constrained: bool = True
    strict: bool = False
    habits: Habits = field(default_factory=Habits)


def create_app(engine: Engine, model, tokenizer: Tokenizer, settings: Settings) -> FastAPI:
    """The endpoint; the engine stays the caller's to close."""
    app = FastAPI(title="kimi_mini", docs_url=None, redoc_url=None, openapi_url=None)
    endpoint = Endpoint(engine, model, tokenizer, settings)
    app.state.endpoint = endpoint

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        endpoint.admit(request)
        return await endpoint.answer(request, Chat.read(await endpoint.body_of(request)))

    @app.get("/v1/models")
    async def models(request: Request) -> dict:
        endpoint.admit(request)
        return {"object": "list", "data": [endpoint.card(name) for name in endpoint.names]}

    @app.get("/v1/models/{name:path}")
    async def model_of(request: Request, name: str) -> dict:
        endpoint.admit(request)
        endpoint.adapter(name)
        return endpoint.card(name)

    @app.get("/health")
    async def health() -> Response:
        says = {
            "status": "ok" if engine.alive else "broken",
            "running": len(engine.live),
            "waiting": len(engine.waiting),
        }
        return JSONResponse(says, 200 if engine.alive else 503)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        endpoint.admit(request)
        return Response(*endpoint.metrics.text(len(engine.live), len(engine.waiting)))

    _answer_errors(app, endpoint)
    return app


def _answer_errors(app: FastAPI, endpoint: Endpoint) -> None:
    """In OpenAI's shape."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        endpoint.metrics.requests.labels(str(error.status)).inc()
        more = {"Retry-After": "1"} if error.status in (429, 503) else {}
        return JSONResponse(error.body(), error.status, more)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        says = f"{request.method} {request.url.path:.80}: {error.detail}"
        return JSONResponse(Refused(says, error.status_code).body(), error.status_code)

    @app.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        endpoint.metrics.requests.labels("left").inc()
        return Response(status_code=499)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return JSONResponse(Refused(f"{type(error).__name__}: {error!s:.200}", 500).body(), 500)


class Endpoint:
    """What the routes share."""

    def __init__(self, engine: Engine, model, tokenizer: Tokenizer, settings: Settings):
        self.engine, self.model, self.tokenizer, self.settings = engine, model, tokenizer, settings
        self.metrics, self.since = Metrics(), int(time.time())

    def admit(self, request: Request) -> None:
        """Raises Refused without the key. Compared in the same time whatever is right about it."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        key = self.settings.key
        if key is None or (
            secrets.compare_digest(given.encode("latin-1"), key.encode()) and scheme.lower() == "bearer"
        ):
            return
        raise Refused("this endpoint wants its key: Authorization: Bearer KEY", 401, "invalid_api_key")

    async def body_of(self, request: Request) -> bytes:
        """The body, read no further and no longer than allowed. Raises Refused."""
        body, most, seconds = bytearray(), self.settings.body, self.settings.timeout
        try:
            async with asyncio.timeout(seconds):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise Refused(f"the body has more than {most:,} bytes", status=413)
        except TimeoutError:
            raise Refused(f"the body did not come within {seconds:g} seconds", 408) from None
        return bytes(body)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all models that are served here."""
        return self.settings.name, *self.settings.adapters

    def card(self, name: str) -> dict:
        """What is told of a model."""
        return {"id": name, "object": "model", "created": self.since, "owned_by": "kimi_mini"}

    def adapter(self, name: str) -> str | None:
        """Raises Refused for a model that is not served here."""
        if name == self.settings.name:
            return None
        if name in self.settings.adapters:
            return name
        served = ", ".join(self.names)
        raise Refused(f"no model {name!r:.60}; here are: {served}", 404, "model_not_found", "model")

    async def answer(self, request: Request, asked: Chat) -> Response:
        """The response to a request that has been read."""
        settings, adapter = self.settings, self.adapter(asked.model)
        if asked.n > (most := self.engine.places + self.engine.queue):
            raise Refused(f"n: {asked.n} answers at a time; this endpoint takes at most {most}", param="n")
        rows = await asyncio.to_thread(
            rows_of,
            asked,
            self.tokenizer,
            self.model,
            self.engine.max_length,
            settings.temperature,
            settings.constrained,
            settings.strict,
            adapter,
            settings.tokens,
            settings.loops,
            settings.habits,
        )
        work = Work(asked, rows, self.tokenizer, self.engine, self.metrics, settings.timeout)
        try:
            self.engine.submit(*work.jobs)
        except Full as error:
            raise Refused(str(error), 429, "queue_full") from None
        except Stopped as error:
            raise Refused(str(error), 503) from None
        return await work.respond(request)
