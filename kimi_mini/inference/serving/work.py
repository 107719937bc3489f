"""One request while it is answered: at once, or as server-sent events. Who leaves takes the rows along."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from kimi_mini.inference.serving.answer import Answer, usage
from kimi_mini.inference.serving.engine import Engine, Job
from kimi_mini.inference.serving.metrics import Metrics
from kimi_mini.inference.serving.requests import Chat, Refused
from kimi_mini.inference.writer import Row
from kimi_mini.text.tokenizer import Tokenizer

LOOKS = 0.2  # seconds between two looks whether a client that waits for a whole answer is still there


class Work:
    """A request's jobs, and what has been said of each choice. seconds: that it may take, waiting and all."""

    def __init__(
        self,
        asked: Chat,
        rows: Sequence[Row],
        tokenizer: Tokenizer,
        engine: Engine,
        metrics: Metrics,
        seconds: float,
    ):
        self.asked, self.engine, self.metrics, self.seconds = asked, engine, metrics, seconds
        self.loop, self.queue = asyncio.get_running_loop(), asyncio.Queue()
        name = f"chatcmpl-{secrets.token_hex(12)}"
        self.head = {"id": name, "created": int(time.time()), "model": asked.model}
        self.over = False  # said to the end
        deadline = time.monotonic() + seconds
        alternatives = (asked.top_logprobs or 0) if asked.logprobs else None
        self.answers, self.jobs = [], []
        for index, row in enumerate(rows):
            held = row.allowed is not None
            answer = Answer(tokenizer, asked.thinks, held, asked.stops, alternatives, asked.stream)
            if asked.logprobs:
                row.looks = answer.look
            self.answers.append(answer)
            self.jobs.append(Job(row, self._hears(index, answer), deadline))

    def _hears(self, index: int, answer: Answer) -> Callable[[Row, bool], bool]:
        """What the engine calls, on its own thread."""

        def heard(row: Row, over: bool) -> bool:
            failed = self.jobs[index].ended == "failed"
            deltas = [] if failed else answer.heard(row, over)
            if deltas or over:
                likely = answer.new_logprobs()
                try:
                    self.loop.call_soon_threadsafe(self.queue.put_nowait, (index, deltas, likely, over))
                except RuntimeError:  # the loop has been closed, and with it whoever asked
                    return True
            return answer.stopped

        return heard

    async def respond(self, request: Request) -> Response:
        """The response, of either kind. Raises Refused."""
        if self.asked.stream:
            return _Stream(self)
        return await self._whole(request)

    def leave(self) -> None:
        """Nobody listens any more: rows that are still written leave their places."""
        if not self.over:
            self.over = True
            self.metrics.requests.labels("left").inc()
        self.engine.cancel(self.jobs)

    async def _said(self) -> AsyncIterator[tuple[int, list[dict], dict | None, bool]]:
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
        if job.ended in ("stop", "length", "loops"):
            return
        self.over = True
        if job.ended == "late":
            raise Refused(f"not finished within {self.seconds:g} seconds", 504)
        if job.error is not None:
            raise Refused("the answer could not be finished; the server's log says why", 500)
        raise Refused("the server stops, or its engine broke down", 503)

    async def _whole(self, request: Request) -> Response:
        reading = asyncio.ensure_future(self._drain())
        try:
            while not reading.done():
                await asyncio.wait({reading}, timeout=LOOKS)
                if not reading.done() and await request.is_disconnected():
                    return Response(status_code=499)
            reading.result()
            self._count()
        finally:
            reading.cancel()
            self.leave()
        choices = []
        for index, answer in enumerate(self.answers):
            likely = {"content": answer.likely} if self.asked.logprobs else None
            choice = {"index": index, "message": answer.message(), "finish_reason": answer.finish}
            choices.append({**choice, "logprobs": likely})
        whole = {**self.head, "object": "chat.completion", "choices": choices, "usage": self.usage()}
        return JSONResponse(whole)

    async def _drain(self) -> None:
        async for _ in self._said():
            pass

    async def events(self) -> AsyncIterator[str]:
        """The answer as server-sent events, [DONE] at the end."""
        head = {**self.head, "object": "chat.completion.chunk"}
        usage_asked = self.asked.stream_options is not None and self.asked.stream_options.include_usage
        more = {"usage": None} if usage_asked else {}

        def event(index: int, delta: dict, finish: str | None = None, likely: dict | None = None) -> str:
            choice = {"index": index, "delta": delta, "finish_reason": finish, "logprobs": likely}
            return _event({**head, "choices": [choice], **more})

        try:
            for index in range(len(self.jobs)):
                yield event(index, {"role": "assistant", "content": ""})
            async for index, deltas, likely, over in self._said():
                for place, delta in enumerate(deltas):
                    yield event(index, delta, likely=likely if place == len(deltas) - 1 else None)
                if over:
                    yield event(index, {}, self.answers[index].finish, None if deltas else likely)
            self._count()
            if usage_asked:
                yield _event({**head, "choices": [], "usage": self.usage()})
            yield "data: [DONE]\n\n"
        except Refused as error:
            self.metrics.requests.labels(str(error.status)).inc()
            yield _event(error.body())

    def usage(self) -> dict[str, Any]:
        """Of all choices; the prompt is counted once."""
        return usage([job.row for job in self.jobs], self.jobs[0].cached)

    def _count(self) -> None:
        self.over = True
        self.metrics.count(self.jobs, self.usage())


class _Stream(StreamingResponse):
    """Events to a client. However that ends, even before the first of them, the rows are given up."""

    def __init__(self, work: Work):
        super().__init__(work.events(), media_type="text/event-stream")
        self.work = work

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.work.leave()


def _event(body: dict) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"
