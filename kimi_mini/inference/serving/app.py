"""The routes of the endpoint: what arrives becomes jobs of the engine, and what the engine writes becomes answers.

    POST /v1/chat/completions     at once, or as server-sent events
    GET  /v1/models, /health, /metrics

Errors have OpenAI's shape, whatever is wrong. A client that leaves takes its rows with it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from kimi_mini.inference.serving.answer import Answer, usage
from kimi_mini.inference.serving.engine import Engine, Full, Job, Stopped
from kimi_mini.inference.serving.metrics import Metrics
from kimi_mini.inference.serving.requests import Chat, Refused, rows_of
from kimi_mini.inference.writer import Row
from kimi_mini.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Settings:
    """How an endpoint behaves. name: of the model; adapters: names that stand for it with an adapter; key: what a
    client must show, None: nothing; temperature: of requests that name none, 0 as our scoreboard; timeout: seconds a
    request may take, waiting and all; body: bytes that one may have; constrained: calls cannot be malformed; strict:
    thoughts must come back."""

    name: str = "kimi_mini"
    adapters: tuple[str, ...] = ()
    key: str | None = None
    temperature: float = 0.0
    timeout: float = 120.0
    body: int = 2**20
    constrained: bool = True
    strict: bool = False


def create_app(engine: Engine, model, tokenizer: Tokenizer, settings: Settings) -> FastAPI:
    """The endpoint; the engine stays the caller's to close."""
    app = FastAPI(title="kimi_mini", docs_url=None, redoc_url=None, openapi_url=None)
    endpoint = Endpoint(engine, model, tokenizer, settings)
    app.state.endpoint = endpoint

    @app.post("/v1/chat/completions")
    async def completions(request: Request) -> Response:
        endpoint.admit(request)
        return await endpoint.answer(request, Chat.read(await body_of(request, settings.body)))

    @app.get("/v1/models")
    async def models(request: Request) -> dict:
        endpoint.admit(request)
        names = (settings.name, *settings.adapters)
        made = {"object": "model", "created": endpoint.since, "owned_by": "kimi_mini"}
        return {"object": "list", "data": [{"id": name, **made} for name in names]}

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

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        endpoint.metrics.requests.labels(str(error.status)).inc()
        more = {"Retry-After": "1"} if error.status in (429, 503) else {}
        return JSONResponse(error.body(), error.status, more)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        says = f"{request.method} {request.url.path:.80}: {error.detail}"
        return JSONResponse(Refused(says, error.status_code).body(), error.status_code)

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return JSONResponse(Refused(f"{type(error).__name__}: {error!s:.200}", 500).body(), 500)

    return app


async def body_of(request: Request, most: int) -> bytes:
    """The body, read no further than allowed. Raises Refused."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise Refused(f"the body has more than {most:,} bytes", status=413)
    return bytes(body)


class Endpoint:
    """What the routes share."""

    def __init__(self, engine: Engine, model, tokenizer: Tokenizer, settings: Settings):
        self.engine, self.model, self.tokenizer, self.settings = engine, model, tokenizer, settings
        self.metrics, self.since = Metrics(), int(time.time())

    def admit(self, request: Request) -> None:
        """Raises Refused without the key. Compared in the same time whatever is right about it."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        key = self.settings.key
        if key is not None and not secrets.compare_digest(given.encode(), key.encode()):
            raise Refused("this endpoint wants its key: Authorization: Bearer KEY", 401, "invalid_api_key")

    def adapter(self, name: str) -> str | None:
        """Raises Refused for a model that is not served here."""
        if name == self.settings.name:
            return None
        if name in self.settings.adapters:
            return name
        served = ", ".join((self.settings.name, *self.settings.adapters))
        raise Refused(f"no model {name!r:.60}; here are: {served}", 404, "model_not_found", "model")

    async def answer(self, request: Request, asked: Chat) -> Response:
        """The response to a request that has been read."""
        settings, adapter = self.settings, self.adapter(asked.model)
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
        )
        work = Work(self, asked, rows)
        try:
            self.engine.submit(*work.jobs)
        except Full as error:
            raise Refused(str(error), 429, "queue_full") from None
        except Stopped as error:
            raise Refused(str(error), 503) from None
        if asked.stream:
            return StreamingResponse(work.events(), media_type="text/event-stream")
        return await work.whole(request)


class Work:
    """One request while it is answered: its jobs, and what has been said of each choice."""

    def __init__(self, endpoint: Endpoint, asked: Chat, rows: Sequence[Row]):
        self.endpoint, self.asked = endpoint, asked
        self.loop, self.queue = asyncio.get_running_loop(), asyncio.Queue()
        self.head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": asked.model,
        }
        deadline = time.monotonic() + endpoint.settings.timeout
        alternatives = (asked.top_logprobs or 0) if asked.logprobs else None
        self.answers, self.jobs = [], []
        for index, row in enumerate(rows):
            answer = Answer(
                endpoint.tokenizer, asked.thinks, row.allowed is not None, asked.stops, alternatives
            )
            if asked.logprobs:
                row.looks = answer.look
            self.answers.append(answer)
            self.jobs.append(Job(row, self._hears(index, answer), deadline))

    def _hears(self, index: int, answer: Answer):
        """What the engine calls, on its own thread."""

        def heard(row: Row, over: bool) -> bool:
            deltas = answer.heard(row, over)
            if deltas or over:
                likely = answer.new_logprobs()
                try:
                    self.loop.call_soon_threadsafe(self.queue.put_nowait, (index, deltas, likely, over))
                except RuntimeError:  # the loop has been closed, and with it whoever asked
                    return True
            return answer.stopped

        return heard

    async def said(self) -> AsyncIterator[tuple[int, list[dict], dict | None, bool]]:
        """(choice, deltas, log-probabilities, is it over?) until all choices are. Raises Refused for a request that
        was not finished."""
        left = len(self.jobs)
        while left:
            entry = await self.queue.get()
            if entry[-1]:
                left -= 1
                self._check(self.jobs[entry[0]])
            yield entry

    def _check(self, job: Job) -> None:
        if job.ended == "late":
            raise Refused(f"not finished within {self.endpoint.settings.timeout:g} seconds", 504)
        if job.ended not in ("stop", "length"):
            raise Refused("the engine broke down; the log of the server says why", 503)

    async def whole(self, request: Request) -> Response:
        """The answer at once, unless the client has left before."""
        reading = asyncio.ensure_future(self._drain())
        try:
            while not reading.done():
                await asyncio.wait({reading}, timeout=0.2)
                if not reading.done() and await request.is_disconnected():
                    self.endpoint.metrics.requests.labels("left").inc()
                    return Response(status_code=499)
            reading.result()
        finally:
            reading.cancel()
            self.endpoint.engine.cancel(self.jobs)
        choices = []
        for index, answer in enumerate(self.answers):
            likely = {"content": answer.likely} if self.asked.logprobs else None
            choices.append(
                {
                    "index": index,
                    "message": answer.message(),
                    "finish_reason": answer.finish,
                    "logprobs": likely,
                }
            )
        self._count()
        return JSONResponse(
            {**self.head, "object": "chat.completion", "choices": choices, "usage": self.usage()}
        )

    async def _drain(self) -> None:
        async for _ in self.said():
            pass

    async def events(self) -> AsyncIterator[str]:
        """The answer as server-sent events, [DONE] at the end."""
        head = {**self.head, "object": "chat.completion.chunk"}
        usage_asked = bool(self.asked.stream_options and self.asked.stream_options.include_usage)
        more = {"usage": None} if usage_asked else {}

        def event(index: int, delta: dict, finish: str | None = None, likely: dict | None = None) -> str:
            choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": likely}
            return _event({**head, "choices": [choice], **more})

        try:
            for index in range(len(self.jobs)):
                yield event(index, {"role": "assistant", "content": ""})
            async for index, deltas, likely, over in self.said():
                for place, delta in enumerate(deltas):
                    yield event(index, delta, likely=likely if place == len(deltas) - 1 else None)
                if over:
                    yield event(index, {}, self.answers[index].finish, None if deltas else likely)
            if usage_asked:
                yield _event({**head, "choices": [], "usage": self.usage()})
            yield "data: [DONE]\n\n"
            self._count()
        except Refused as error:
            self.endpoint.metrics.requests.labels(str(error.status)).inc()
            yield _event(error.body())
        finally:
            self.endpoint.engine.cancel(self.jobs)

    def usage(self) -> dict[str, Any]:
        """Of all choices; the prompt is counted once."""
        return usage([job.row for job in self.jobs], self.jobs[0].cached)

    def _count(self) -> None:
        self.endpoint.metrics.count(self.jobs, self.usage())


def _event(body: dict) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
